"""The three ways the detector normalises its activations."""

from collections.abc import Callable

import keras

NORMALIZATIONS = ("frozen_batch", "batch", "group")
# Wu & He 2018 use 32 groups throughout and eps 1e-5.
NUM_GROUPS = 32


def normalization(kind: str, name: str) -> Callable:
    """Return a function that normalises a tensor of shape `(batch, height, width, channels)`.

    Args:
        kind: "frozen_batch" uses the stored mean and variance also in training, which suits pretrained weights and
            small batches; "batch" is ordinary BatchNorm; "group" is GroupNorm, for training from scratch.
        name: of the layer.

    Raises:
        ValueError: for another kind.
    """
    if kind == "group":
        return keras.layers.GroupNormalization(NUM_GROUPS, epsilon=1e-5, name=name)
    if kind == "batch":
        return keras.layers.BatchNormalization(name=name)
    if kind == "frozen_batch":
        layer = keras.layers.BatchNormalization(name=name)
        return lambda x: layer(x, training=False)
    raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}; got {kind!r}")
