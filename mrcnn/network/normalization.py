"""Normalisation of the detector's activations: BatchNorm, frozen BatchNorm and GroupNorm."""

import math
from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import NUM_GROUPS

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

    Keras' own layer reduces a tensor of rank 5 along three scattered axes. Here pooling averages over the image for
    each channel, and only those means are grouped. The gradient is written out: what TensorFlow derives has far
    more operations, and a ResNet-50 has some sixty copies of them to compile.

    Reference:
        Wu & He 2018, eq. 1 to 6.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise `(batch, height, width, channels)`; statistics are float32 whatever the input is."""
        values = [tf.cast(value, tf.float32) for value in (inputs, self.gamma, self.beta)]
        return tf.cast(self._normalize(*values), inputs.dtype)

    @tf.custom_gradient
    def _normalize(self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor):
        centred = x - self._group_mean(_image_mean(x))
        scale = tf.math.rsqrt(self._group_mean(_image_mean(tf.square(centred))) + self.epsilon)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            shift, slope = _image_mean(upstream), _image_mean(upstream * centred) * scale
            # What flows back through the mean and through the variance of a group.
            by_mean, by_variance = self._group_mean(gamma * shift), self._group_mean(gamma * slope)
            to_x = upstream * (scale * gamma) - centred * (tf.square(scale) * by_variance) - scale * by_mean
            num_pixels = tf.cast(_num_pixels(x), tf.float32)
            to_gamma, to_beta = (num_pixels * tf.reduce_sum(each, axis=(0, 1, 2)) for each in (slope, shift))
            return to_x, to_gamma, to_beta

        return centred * (scale * gamma) + beta, gradient

    def _group_mean(self, means: tf.Tensor) -> tf.Tensor:
        """Average `(batch, 1, 1, channels)` over each group of channels, repeated for each channel of it."""
        channels = means.shape[-1]
        size = channels // self.groups
        grouped = tf.reduce_mean(tf.reshape(means, (-1, self.groups, size)), axis=-1, keepdims=True)
        return tf.reshape(tf.tile(grouped, (1, 1, size)), (-1, 1, 1, channels))


def _num_pixels(x: tf.Tensor) -> int | tf.Tensor:
    _, height, width, _ = x.shape
    return tf.shape(x)[1] * tf.shape(x)[2] if None in (height, width) else height * width


def _image_mean(x: tf.Tensor) -> tf.Tensor:
    """Mean over the image: `(batch, height, width, channels)` to `(batch, 1, 1, channels)`."""
    _, height, width, _ = x.shape
    if height is None or width is None:
        return tf.reduce_mean(x, axis=(1, 2), keepdims=True)
    return tf.nn.avg_pool2d(x, (height, width), strides=1, padding="VALID")


def normalization(kind: str, name: str, channels: int = NUM_GROUPS) -> keras.layers.Layer:
    """Make a layer that normalises a tensor `(batch, height, width, channels)`.

    Args:
        kind: "frozen_batch" uses the stored mean and variance also in training, which suits pretrained weights and
            small batches; "batch" is ordinary BatchNorm; "group" is GroupNorm, for training from scratch.
        name: of the layer.
        channels: of the tensor, where they may not be a multiple of 32: there are then fewer groups.
    """
    if kind == "group":
        return GroupNorm(math.gcd(NUM_GROUPS, channels), epsilon=GROUP_NORM_EPSILON, name=name)
    return (keras.layers.BatchNormalization if kind == "batch" else FrozenBatchNormalization)(name=name)
