"""The three ways the detector normalises its activations."""

from typing import Any

import keras

NORMALIZATIONS = ("frozen_batch", "batch", "group")
# Wu & He 2018 use 32 groups throughout and eps 1e-5.
NUM_GROUPS = 32


@keras.saving.register_keras_serializable("mrcnn")
class FrozenBatchNormalization(keras.layers.BatchNormalization):
    """BatchNorm by its stored mean and variance, whatever mode the model is in.

    Calling an ordinary BatchNorm with `training=False` while a functional model is built does not do: the model
    passes its own mode on to every layer. Scale and offset learn as in Matterport's, unless `trainable` is False.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise `(batch, height, width, channels)`; `training` changes nothing."""
        return super().call(inputs, training=False, mask=mask)


def normalization(kind: str, name: str) -> keras.layers.Layer:
    """Return a layer that normalises a tensor of shape `(batch, height, width, channels)`.

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
        return FrozenBatchNormalization(name=name)
    raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}; got {kind!r}")
