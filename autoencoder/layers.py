"""GroupNorm as the reference implementation has it; all other layers of the autoencoder are Keras' own."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

EPSILON = 1e-5


@keras.saving.register_keras_serializable("autoencoder")
class FlattenedGroupNormalization(keras.layers.Layer):
    """Normalise runs of a sample's memory, one channel after another, then scale and shift each channel.

    The values of a sample are laid in a row, channels first, and cut into `groups` runs of equal length, which need not
    divide the channels. Each run gets mean 0 and, by its unbiased variance plus `epsilon`, standard deviation 1.

    Raises:
        ValueError: when built, if the runs cannot be of equal length, or would hold one value each.

    Reference:
        Wu and He 2018, "Group normalization"; the flattening is the reference implementation's.
    """

    def __init__(self, groups: int, epsilon: float = EPSILON, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: tuple) -> None:
        """Make the scale and the shift, `(channels,)` each."""
        size = input_shape[1] * input_shape[2] * input_shape[3]
        if size % self.groups or size == self.groups:
            raise ValueError(f"{self.groups} groups cannot share {size} values evenly, with two or more each")
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="beta")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise `(batch, height, width, channels)`; computed in float32."""
        height, width, channels = inputs.shape[1:]
        rows = ops.transpose(ops.cast(inputs, "float32"), (0, 3, 1, 2))
        runs = ops.reshape(rows, (-1, self.groups, height * width * channels // self.groups))
        centred = runs - ops.mean(runs, axis=-1, keepdims=True)
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (runs.shape[-1] - 1)
        normal = ops.reshape(centred * ops.rsqrt(variance + self.epsilon), (-1, channels, height, width))
        outputs = ops.transpose(normal, (0, 2, 3, 1)) * ops.cast(self.gamma, "float32")
        return ops.cast(outputs + ops.cast(self.beta, "float32"), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}
