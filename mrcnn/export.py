"""A trained detector as a SavedModel: raw images in, cells out, with TensorFlow alone."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from mrcnn.config import Config
from mrcnn.detection import with_detections
from mrcnn.files.atomic import atomic_folder, check_folder_is_free, write_json
from mrcnn.files.provenance import versions
from mrcnn.model import MaskRCNN
from mrcnn.network.assembly import DetectionNetwork, DetectorParts, FeatureNetwork
from mrcnn.network.boxes import normalized_boxes
from mrcnn.network.in_graph import MoldedBatch, mold, paste_masks, unmold
from mrcnn.training.folder import CONFIG_NAME

SAVED_MODEL_NAME = "saved_model.pb"
# Where a SavedModel keeps files that TensorFlow neither reads nor minds.
EXTRA_FOLDER = "assets.extra"
DESCRIPTION_NAME = "export.json"

Signature = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def export_detector(
    model: MaskRCNN,
    folder: str | os.PathLike,
    *,
    overwrite: bool = False,
    detector: str | None = None,
    max_detections: int | None = None,
) -> Path:
    """Write a detector as a SavedModel that needs none of our code.

    The model's configuration is built in. The folder appears when it is complete. See `signatures` for what it
    computes; `assets.extra` in it holds the configuration and a description.

    Args:
        model: the detector.
        folder: the SavedModel to write.
        overwrite: replace an older SavedModel there.
        detector: names the detector in the description, such as its `detector_hash`.
        max_detections: maximum of cells of an image, with proposals enough for them; None leaves both as they are.

    Raises:
        InputError: if `folder` holds something that may not be replaced, or `max_detections` is below 1.
    """
    check_folder_is_free(folder, SAVED_MODEL_NAME, overwrite)
    config = model.config if max_detections is None else with_detections(model.config, max_detections)
    functions = {name: _traced(function) for name, function in signatures(model.parts, config).items()}
    module = tf.Module()
    module.weights = [variable.value for variable in model.parts.variables]
    description = {"detector": detector, "versions": versions()}
    with atomic_folder(folder, SAVED_MODEL_NAME, overwrite) as temporary:
        tf.saved_model.save(module, str(temporary), signatures=functions)
        write_json(temporary / EXTRA_FOLDER / CONFIG_NAME, config.to_dict())
        write_json(temporary / EXTRA_FOLDER / DESCRIPTION_NAME, description)
    return Path(folder)


def signatures(parts: DetectorParts, config: Config) -> dict[str, Signature]:
    """What the SavedModel computes, by name.

    Each takes "images", uint8 `(batch, height, width, 1, 3 or 4)`, RGB and of any size, and returns tensors of one row
    for each detection, best first, padded with zeros to DETECTION_MAX_INSTANCES. "boxes" gives

    - "boxes" float32 `(batch, max_detections, 4)`: `(y1, x1, y2, x2)` in pixels of the images, not rounded, y2 and x2
      exclusive,
    - "scores" float32 and "class_ids" int32 `(batch, max_detections)`,
    - "num_detections" int32 `(batch,)`: rows that are no padding.

    "features" adds "features" float32 `(batch, max_detections, 14, 14, channels)`; "serving_default" these and "masks"
    float32 `(batch, max_detections, 28, 28)`, probabilities over the box; "full_masks" has instead of both "masks"
    uint8 `(batch, max_detections, height, width)`, 1 inside.
    """
    detection_network = DetectionNetwork(parts, config)
    networks = {with_masks: FeatureNetwork(parts, config, with_masks) for with_masks in (False, True)}

    def boxes(images: tf.Tensor) -> dict[str, tf.Tensor]:
        molded = mold(images, config)
        found = detection_network(molded.images, windows=_normalized_windows(molded))
        return unmold(found.rows, molded, {})

    def with_features(images: tf.Tensor, with_masks: bool) -> dict[str, tf.Tensor]:
        molded = mold(images, config)
        found = dict(networks[with_masks](molded.images, windows=_normalized_windows(molded)))
        return unmold(found.pop("detections"), molded, found)

    def full_masks(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = with_features(images, True)
        del found["features"]
        return {**found, "masks": paste_masks(found["boxes"], found["masks"], tf.shape(images)[1:3])}

    return {
        "serving_default": lambda images: with_features(images, True),
        "full_masks": full_masks,
        "features": lambda images: with_features(images, False),
        "boxes": boxes,
    }


def _normalized_windows(molded: MoldedBatch) -> tf.Tensor:
    window = normalized_boxes(molded.window, molded.network_shape)
    return tf.tile(window[tf.newaxis], [tf.shape(molded.images)[0], 1])


def _traced(function: Signature) -> Any:
    images = tf.TensorSpec((None, None, None, None), tf.uint8, name="images")
    return tf.function(function, input_signature=[images], autograph=False).get_concrete_function()
