"""A trained detector as a SavedModel: raw images in, cells out, with TensorFlow alone."""

import os
from pathlib import Path

import tensorflow as tf

from mrcnn.config import Config
from mrcnn.detection import with_detections
from mrcnn.files.saved_model import DESCRIPTION_NAME, IMAGES, Outputs, Signatures, write_saved_model
from mrcnn.model import MaskRCNN
from mrcnn.network.assembly import NUCLEUS, DetectionNetwork, DetectorParts, FeatureNetwork
from mrcnn.network.in_graph import mold, paste_masks, unmold
from mrcnn.training.folder import CONFIG_NAME


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
        folder: the SavedModel to write; returned as a path.
        overwrite: replace an older SavedModel there.
        detector: names the detector in the description, such as its `detector_hash`.
        max_detections: maximum of cells of an image, with proposals enough for them; None leaves both as they are.

    Raises:
        InputError: if `folder` holds something that may not be replaced, or `max_detections` is below 1.
    """
    config = model.config if max_detections is None else with_detections(model.config, max_detections)
    files = {CONFIG_NAME: config.to_dict(), DESCRIPTION_NAME: {"detector": detector}}
    functions = signatures(model.parts, config)
    return write_saved_model(folder, functions, model.parts.variables, files, overwrite=overwrite)


def signatures(parts: DetectorParts, config: Config) -> Signatures:
    """What the SavedModel computes, by name.

    Each takes "images", uint8 `(batch, height, width, 1, 3 or 4)`, RGB and of any size, and returns tensors of one row
    for each detection, best first, padded with zeros to DETECTION_MAX_INSTANCES. "boxes" gives

    - "boxes" float32 `(batch, max_detections, 4)`: `(y1, x1, y2, x2)` in pixels of the images, not rounded, y2 and x2
      exclusive,
    - "scores" float32 and "class_ids" int32 `(batch, max_detections)`,
    - "num_detections" int32 `(batch,)`: rows that are no padding.

    "features" adds "features" float32 `(batch, max_detections, 14, 14, channels)`; "serving_default" these and "masks"
    float32 `(batch, max_detections, h, w)`, probabilities over the box, of which the size is MASK_SHAPE; "full_masks"
    has instead of both "masks" uint8 `(batch, max_detections, height, width)`, 1 inside. A detector of nuclei gives
    "nucleus_masks" beside "masks".
    """
    detection_network = DetectionNetwork(parts, config)
    networks = {with_masks: FeatureNetwork(parts, config, with_masks) for with_masks in (False, True)}

    def boxes(images: tf.Tensor) -> Outputs:
        molded = mold(images, config)
        if NUCLEUS in config.MASK_PARTS:  # the score asks for it
            rows = networks[False](molded.images, windows=molded.windows)["detections"]
        else:
            rows, _ = detection_network(molded.images, windows=molded.windows)
        return unmold(rows, molded, {})

    def with_features(images: tf.Tensor, with_masks: bool) -> Outputs:
        molded = mold(images, config)
        found = dict(networks[with_masks](molded.images, windows=molded.windows))
        return unmold(found.pop("detections"), molded, found)

    def full_masks(images: tf.Tensor) -> Outputs:
        found = with_features(images, True)
        del found["features"]
        shape = tf.shape(images)[1:3]
        small = {name for name in found if name.endswith("masks")}
        return found | {name: paste_masks(found["boxes"], found[name], shape) for name in small}

    functions = {
        "serving_default": lambda images: with_features(images, True),
        "full_masks": full_masks,
        "features": lambda images: with_features(images, False),
        "boxes": boxes,
    }
    return {n: tf.function(f, input_signature=[IMAGES], autograph=False) for n, f in functions.items()}
