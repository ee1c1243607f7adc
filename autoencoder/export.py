"""Export of a trained autoencoder as a SavedModel: stored features in, latents and images out, TensorFlow alone."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from autoencoder.folder import CONFIG, TrainedAutoencoder
from autoencoder.network import FEATURE_SHAPE, build_autoencoder
from autoencoder.scaling import FeatureScaling
from mrcnn.files.saved_model import DESCRIPTION_NAME, Outputs, Signatures, write_saved_model


def export_autoencoder(trained: TrainedAutoencoder, folder: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Write an autoencoder as a SavedModel that needs none of our code.

    The scaling of the features, with its statistics, is part of it; `assets.extra` in it holds the configuration and a
    description. See `signatures` for what it computes. An older SavedModel is replaced with `overwrite`.

    Raises:
        InputError: if `folder` holds something that may not be replaced.
    """
    model = float32_model(trained)
    functions = signatures(model, trained.scaling)
    functions["serving_default"] = functions["encode"]
    files = {CONFIG: trained.config.to_dict(), DESCRIPTION_NAME: describe(trained)}
    return write_saved_model(folder, functions, model.variables, files, overwrite=overwrite)


def signatures(model: keras.Model, scaling: FeatureScaling) -> Signatures:
    """The functions of the SavedModel, by name.

    Both take "features" float32 `(batch, 14, 14, 256)`, RoI features as they are in a feature store, not scaled.
    With statistics per centre they also take "centre", strings `(batch,)` or `(1,)`: see `centre_rows`.

    - "encode" gives "latents" float32 `(batch, latent_size)` in (-1, 1);
    - "reconstruct" gives these, "features" float32 `(batch, 14, 14, 256)`, scaled as the network sees them, and
      "images" float32 `(batch, image_size, image_size, 3)` in [0, 1].

    The model takes scaled features and computes in float32.
    """
    encoder = model.get_layer("encoder")
    functions = {
        "encode": lambda scaled: {"latents": encoder(scaled, training=False)},
        "reconstruct": lambda scaled: dict(model(scaled, training=False)),
    }
    return {name: _of_stored(function, scaling) for name, function in functions.items()}


def _of_stored(compute: Callable[[tf.Tensor], Outputs], scaling: FeatureScaling) -> Any:
    """A function of scaled features as a graph for features as they are stored."""
    specs = [tf.TensorSpec((None, *FEATURE_SHAPE), tf.float32, name="features")]
    if scaling.kind == "centre":
        specs.append(tf.TensorSpec((None,), tf.string, name="centre"))

    @tf.function(input_signature=specs, autograph=False)
    def of_stored(features: tf.Tensor, centre: tf.Tensor | None = None) -> Outputs:
        count = tf.shape(features)[0]
        # A row for each: of one row for all TensorFlow would make a constant, and multiply by its inverse, which is not
        # what embedding computes to the last bit.
        rows = tf.zeros((count,), tf.int32) if centre is None else centre_rows(scaling, centre, count)
        return compute(scaling.apply_tensor(features, rows))

    return of_stored


def centre_rows(scaling: FeatureScaling, names: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Look centres up by their names `(count,)`, or `(1,)` for all alike: int32 `(count,)`, indices of the scaling.

    The graph stops with a message if a centre has no statistics, or there are neither one nor `count` names.
    """
    with tf.device("/CPU:0"):  # there is nothing for strings on a GPU
        given = tf.shape(names)[0]
        message = ["centre must name one centre for all, or one for each of", count, "; number of names:", given]
        tf.debugging.Assert(tf.logical_or(given == 1, given == count), message)
        same = names[:, tf.newaxis] == tf.constant(scaling.centres)[tf.newaxis]
        message = [f"centre has no feature statistics (known: {', '.join(scaling.centres)}); got", names]
        tf.debugging.Assert(tf.reduce_all(tf.reduce_any(same, axis=1)), message)
        rows = tf.argmax(tf.cast(same, tf.int32), axis=1, output_type=tf.int32)
        return tf.broadcast_to(rows, [count])


def float32_model(trained: TrainedAutoencoder) -> keras.Model:
    """The autoencoder with every layer computing in float32, whatever precision it was trained in."""
    if trained.config.precision == "float32":
        return trained.model
    model = build_autoencoder(trained.config.replace(precision="float32"))
    model.set_weights(trained.model.get_weights())
    return model


def describe(trained: TrainedAutoencoder) -> dict[str, Any]:
    """What an autoencoder is, for `export.json`: JSON values."""
    return {
        "autoencoder": trained.run["weights_sha256"],
        "detector": trained.detector_hash,
        "feature_scaling": trained.scaling.kind,
        "centres": list(trained.scaling.centres),
    }
