"""Detector and autoencoder as one SavedModel: raw images in, cells with their latents out, by TensorFlow alone."""

import os
from pathlib import Path

import keras
import tensorflow as tf

from autoencoder.export import centre_rows, describe, float32_model
from autoencoder.folder import TrainedAutoencoder, load_autoencoder
from autoencoder.scaling import FeatureScaling
from mrcnn.config import Config
from mrcnn.files.atomic import check_folder_is_free
from mrcnn.files.errors import InputError
from mrcnn.files.saved_model import DESCRIPTION_NAME, IMAGES, SAVED_MODEL_NAME, Outputs, Signatures, write_saved_model
from mrcnn.model import detector_hash, load_detector
from mrcnn.network.assembly import NUCLEUS, DetectorParts, FeatureNetwork
from mrcnn.network.in_graph import mold, unmold
from mrcnn.training.folder import read_settings

DETECTOR_CONFIG, AUTOENCODER_CONFIG = "detector.json", "autoencoder.json"


def export_pipeline(
    detector_folder: str | os.PathLike,
    autoencoder_folder: str | os.PathLike,
    out: str | os.PathLike,
    *,
    overwrite: bool = False,
    min_score: float | None = None,
    max_detections: int | None = None,
    centre: str | None = None,
) -> Path:
    """Write a detector and the autoencoder that was trained on its features as one SavedModel.

    It needs none of our code and gives the latents that extraction and embedding give; `signatures` tells what it
    computes. `assets.extra` in it holds both configurations and a description.

    Args:
        detector_folder, autoencoder_folder: of a trained detector, and of an autoencoder trained on its features.
        out: the SavedModel to write, which is returned as a path.
        overwrite: replace an older SavedModel there.
        min_score: minimum score of a cell, 0 to 1; None leaves the detector's own.
        max_detections: maximum cells per image, with proposals enough for them; None leaves both as they are.
        centre: where features are scaled per centre, the centre whose statistics are built in; None makes the name of
            the centre an input.

    Raises:
        InputError: if `out` holds something that may not be replaced, a folder holds no finished model, the two do not
            belong together, or `centre` has no statistics or would make no difference.
    """
    check_folder_is_free(out, SAVED_MODEL_NAME, overwrite)
    trained = load_autoencoder(autoencoder_folder)
    if centre is not None and trained.scaling.kind != "centre":
        raise InputError(
            f"--centre {centre}: {trained.folder} scales the features of all centres alike "
            f"({trained.scaling.kind}); leave it out"
        )
    check_detector(trained, detector_folder)
    overrides = {} if min_score is None else {"DETECTION_MIN_CONFIDENCE": min_score}
    detector = load_detector(detector_folder, overrides, max_detections)
    config = detector.config
    autoencoder = float32_model(trained)
    functions = signatures(detector.parts, config, autoencoder.get_layer("encoder"), trained.scaling, centre)
    files = {
        DETECTOR_CONFIG: config.to_dict(),
        AUTOENCODER_CONFIG: trained.config.to_dict(),
        DESCRIPTION_NAME: {**describe(trained), "centre": centre},
    }
    # Nothing here runs the mask head, unless to see the nucleus.
    unused = set() if NUCLEUS in config.MASK_PARTS else set(map(id, detector.parts.mask_head.variables))
    variables = [variable for variable in detector.parts.variables if id(variable) not in unused]
    variables += autoencoder.get_layer("encoder").variables
    functions["serving_default"] = functions["latents"]
    return write_saved_model(out, functions, variables, files, overwrite=overwrite)


def signatures(
    parts: DetectorParts,
    config: Config,
    encoder: keras.Model,
    scaling: FeatureScaling,
    centre: str | None = None,
) -> Signatures:
    """What the SavedModel computes, by name.

    Each takes "images", uint8 `(batch, height, width, 1, 3 or 4)`, RGB and of any size, and returns tensors of one row
    for each detection, best first, padded with zeros. "latents" gives

    - "boxes" float32 `(batch, max_detections, 4)`: `(y1, x1, y2, x2)` in pixels of the images, not rounded, y2 and x2
      exclusive,
    - "scores" float32 and "class_ids" int32 `(batch, max_detections)`,
    - "num_detections" int32 `(batch,)`: rows that are no padding,
    - "latents" float32 `(batch, max_detections, latent_size)`.

    "features" adds "features" float32 `(batch, max_detections, 14, 14, 256)`, as a feature store holds them.
    "single_cell" gives what "latents" gives, with one row for each image: the cell that `mrcnn.features.choose_cell`
    takes for the one that the image shows.

    Where features are scaled per centre and `centre` is None, each also takes "centre", strings `(batch,)` or `(1,)`.
    """
    network = FeatureNetwork(parts, config, with_masks=False)

    # A function of its own, so that the large graph of the detector is made and kept once for all signatures.
    @tf.function(input_signature=[IMAGES], autograph=False)
    def find(images: tf.Tensor) -> tuple[Outputs, tf.Tensor]:
        """The detections with, as "rows", where the features of each lie in those of all, which come second."""
        molded = mold(images, config)
        found = network(molded.images, windows=molded.windows)
        # With the precision of a feature store, so that latents are the same with and without one.
        features = tf.cast(tf.saturate_cast(found["features"], tf.float16), tf.float32)
        return unmold(found["detections"], molded, {"rows": tf.range(tf.shape(features)[0])}), features

    takes_centre = scaling.kind == "centre" and centre is None
    row = 0 if centre is None else scaling.centre_id(centre)
    specs = [IMAGES, tf.TensorSpec((None,), tf.string, name="centre")] if takes_centre else [IMAGES]

    def signature(name: str) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(input_signature=specs, autograph=False)
        def of_images(images: tf.Tensor, centre: tf.Tensor | None = None) -> Outputs:
            found, features = find(images)
            if name == "single_cell":
                found = choose_cells(found, tf.shape(images)[1:3])
            count = tf.shape(images)[0]
            rows = centre_rows(scaling, centre, count) if takes_centre else tf.fill([count], row)
            return _encoded(found, features, rows, encoder, scaling, with_features=name == "features")

        return of_images

    return {name: signature(name) for name in ("latents", "features", "single_cell")}


def choose_cells(found: Outputs, image_shape: tf.Tensor) -> Outputs:
    """Keep of each image the cell that `mrcnn.features.choose_cell` takes, a row of padding where there is none.

    `found` has "num_detections" `(batch,)`, and "boxes" in pixels, "scores" and others `(batch, max_detections, ...)`;
    `image_shape` is int32 `(2,)`, height and width.
    """
    boxes = tf.round(found["boxes"])  # whole pixels, as extraction has them when it chooses
    middle = tf.cast(image_shape, tf.float32) / 2.0
    covers = tf.reduce_all((boxes[..., :2] <= middle) & (middle < boxes[..., 2:]), axis=-1)
    real = tf.sequence_mask(found["num_detections"], tf.shape(boxes)[1])
    rank = tf.where(real, found["scores"] + tf.cast(covers, tf.float32), -1.0)
    best = tf.argmax(rank, axis=1)[:, tf.newaxis]
    chosen = {name: tf.gather(v, best, batch_dims=1) for name, v in found.items() if name != "num_detections"}
    return {**chosen, "num_detections": tf.minimum(found["num_detections"], 1)}


def _encoded(
    found: Outputs,
    features: tf.Tensor,
    rows_of_images: tf.Tensor,
    encoder: keras.Model,
    scaling: FeatureScaling,
    *,
    with_features: bool,
) -> Outputs:
    """Put latents in place of "rows", int32 `(batch, max_detections)`, which point into `features`.

    `rows_of_images`, int32 `(batch,)`, are rows of the scaling's statistics. Padding never reaches the encoder.
    """
    found = dict(found)
    rows = found.pop("rows")
    real = tf.where(tf.sequence_mask(found["num_detections"], tf.shape(rows)[1]))
    features = tf.gather(features, tf.gather_nd(rows, real))
    # A row of zeros more, since convolutions of no rows at all fail on some devices.
    padded = tf.pad(features, [[0, 1], [0, 0], [0, 0], [0, 0]])
    padded = tf.ensure_shape(padded, (None, *encoder.input_shape[1:]))
    centre_of_rows = tf.pad(tf.gather(rows_of_images, real[:, 0]), [[0, 1]])
    latents = encoder(scaling.apply_tensor(padded, centre_of_rows), training=False)[:-1]

    def pad(values: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([tf.shape(rows, tf.int64), tf.shape(values, tf.int64)[1:]], axis=0)
        spread = tf.scatter_nd(real, values, shape)
        spread.set_shape([None, rows.shape[1], *values.shape[1:]])
        return spread

    found["latents"] = pad(latents)
    return {**found, "features": pad(features)} if with_features else found


def check_detector(trained: TrainedAutoencoder, folder: str | os.PathLike) -> None:
    """Refuse an autoencoder that was not trained on the features of the detector in `folder`."""
    read_settings(Path(folder))
    name = detector_hash(folder)
    if name != trained.detector_hash:
        raise InputError(
            f"{folder}: is detector {name[:12]}, but {trained.folder} was trained on features of "
            f"{trained.detector_hash[:12]}; name the detector that its feature stores were extracted with"
        )
