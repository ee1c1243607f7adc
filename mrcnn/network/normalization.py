"""Normalisation of the detector's activations: BatchNorm, frozen BatchNorm and GroupNorm."""

from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import NORMALIZATIONS, NUM_GROUPS

# Wu & He 2018.
GROUP_NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable("mrcnn")
class FrozenBatchNormalization(keras.layers.BatchNormalization):
    """BatchNorm by its stored mean and variance, whatever mode the model is in.

    Calling an ordinary BatchNorm with `training=False` while a functional model is built does not do: the model
    passes its own mode on to every layer. Scale and offset learn as in Matterport's, unless `trainable` is False.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise `(batch, height, width, channels)`; `training` changes nothing."""
        return super().call(inputs, training=False, mask=mask)


@keras.saving.register_keras_serializable("mrcnn")
class GroupNorm(keras.layers.GroupNormalization):
    """GroupNorm over channel groups of an image, with Keras' weights and results, and less time.

    Keras' own layer reduces a tensor of rank 5 along three scattered axes. Here a product with a row of ones sums over
    the image for each channel, and only those sums are grouped: on a CPU a ResNet-50 with it takes about 1.3 times
    what one with frozen BatchNorm takes, and twice with Keras' (`benchmarks/bench.py` prints both).

    Reference:
        Wu & He 2018, eq. 1 to 6.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise `(batch, height, width, channels)`; statistics are float32 whatever the input is."""
        x = tf.cast(inputs, tf.float32)
        x = x - self._over_group(self._group_mean(x))
        variance = self._over_group(self._group_mean(tf.square(x)))
        x = x * (tf.cast(self.gamma, tf.float32) * tf.math.rsqrt(variance + self.epsilon))
        return tf.cast(x + tf.cast(self.beta, tf.float32), inputs.dtype)

    def _group_mean(self, x: tf.Tensor) -> tf.Tensor:
        """Means `(batch, groups, 1)`."""
        shape, channels = tf.shape(x), x.shape[-1]
        num_pixels = shape[1] * shape[2]
        weights = tf.fill((shape[0], 1, num_pixels), 1.0 / tf.cast(num_pixels, tf.float32))
        channel_means = tf.matmul(weights, tf.reshape(x, (shape[0], num_pixels, channels)))
        grouped = tf.reshape(channel_means, (shape[0], self.groups, channels // self.groups))
        return tf.reduce_mean(grouped, axis=-1, keepdims=True)

    def _over_group(self, values: tf.Tensor) -> tf.Tensor:
        """Repeat `(batch, groups, 1)` over the channels of each group: `(batch, 1, 1, channels)`."""
        batch, channels = tf.shape(values)[0], self.gamma.shape[0]
        repeated = tf.tile(values, (1, 1, channels // self.groups))
        return tf.reshape(repeated, (batch, 1, 1, channels))


def normalization(kind: str, name: str) -> keras.layers.Layer:
    """Make a layer that normalises a tensor `(batch, height, width, channels)`.

    Args:
        kind: "frozen_batch" uses the stored mean and variance also in training, which suits pretrained weights and
            small batches; "batch" is ordinary BatchNorm; "group" is GroupNorm, for training from scratch.
        name: of the layer.
    """
    if kind == "group":
        return GroupNorm(NUM_GROUPS, epsilon=GROUP_NORM_EPSILON, name=name)
    if kind == "batch":
        return keras.layers.BatchNormalization(name=name)
    if kind == "frozen_batch":
        return FrozenBatchNormalization(name=name)
    raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}; got {kind!r}")
