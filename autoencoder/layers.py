"""GroupNorm as the reference implementation has it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

EPSILON = 1e-5


@keras.saving.register_keras_serializable("autoencoder")
class FlattenedGroupNormalization(keras.layers.Layer):
    """Normalise runs of a sample's memory, one channel after another, then scale and shift each channel.

    The values of a sample are laid in a row, channels first, and cut into `groups` runs of equal length, so that a run
    may end within a channel. Each is brought to mean 0 and, by its unbiased variance, to deviation 1. Where `groups`
    divides the channels this is GroupNorm but for that variance.

    Args:
        groups: number of runs; it divides height x width x channels.
        epsilon: added to the variance.

    Raises:
        ValueError: when built, if the runs cannot be of equal length, or would hold one value each.

    Reference:
        Wu and He 2018, "Group normalization"; the flattening is the reference implementation's.
    """

    def __init__(self, groups: int, epsilon: float = EPSILON, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups = int(groups)
        self.epsilon = float(epsilon)

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
        normal = self._normalize(ops.reshape(rows, (-1, self.groups, height * width * channels // self.groups)))
        normal = ops.transpose(ops.reshape(normal, (-1, channels, height, width)), (0, 2, 3, 1))
        outputs = normal * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(outputs, self.compute_dtype)

    def _normalize(self, runs: tf.Tensor) -> tf.Tensor:
        centred = runs - ops.mean(runs, axis=-1, keepdims=True)
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (runs.shape[-1] - 1)
        return centred * ops.rsqrt(variance + self.epsilon)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="aecfe")
class GroupNormalization(keras.layers.GroupNormalization):
    """GroupNorm of `(batch, height, width, channels)`.

    Arguments, weights and results are those of `keras.layers.GroupNormalization`; results differ by rounding. On a GPU,
    in half precision and for other inputs the layer is Keras' own. The class has Keras' name, since weight files find
    layers by it: those of the one load into the other.

    Reference:
        Wu and He 2018, "Group normalization".
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise, scale and shift."""
        if self.uses_plain_form(inputs):
            return super().call(inputs)
        _, height, width, channels = inputs.shape
        rows = tf.reshape(inputs, (-1, height * width, channels))
        mean = self._mean_of_groups(rows)
        variance = self._mean_of_groups(tf.math.squared_difference(rows, mean))
        factor = tf.math.rsqrt(variance + self.epsilon) * tf.convert_to_tensor(self.gamma)
        outputs = rows * factor + (tf.convert_to_tensor(self.beta) - mean * factor)
        return tf.reshape(outputs, tf.shape(inputs))

    def uses_plain_form(self, inputs: tf.Tensor) -> bool:
        """Whether Keras' own form is taken for these inputs."""
        return not (
            self.compute_dtype == "float32"
            and len(inputs.shape) == 4
            and None not in inputs.shape[1:]
            and self.axis in (-1, 3)
            and self.center
            and self.scale
            and not tf.config.list_logical_devices("GPU")
        )

    def _mean_of_groups(self, rows: tf.Tensor) -> tf.Tensor:
        """Mean of each group of `(batch, pixels, channels)`, repeated for its channels: `(batch, 1, channels)`."""
        _, pixels, channels = rows.shape
        in_group = channels // self.groups
        sums = tf.matmul(tf.ones((tf.shape(rows)[0], 1, pixels)), rows)
        means = tf.reduce_sum(tf.reshape(sums, (-1, self.groups, in_group)), axis=-1) / (pixels * in_group)
        return tf.repeat(means, in_group, axis=1)[:, tf.newaxis]


# The padded convolution also multiplies the zeros at the rim; above this growth of the work it does not pay.
MAX_PADDED_WORK = 1.1
# Pixels of the input from which gathering patches is faster than the convolution's own gradient.
LEAST_PIXELS_FOR_PATCHES = 2000
# Samples whose patches exist at a time, 0.26 GB for the last large layer. By eights, the parts of a batch begin at
# multiples of 64 bytes, and TensorFlow takes such parts where they lie instead of copying them.
PATCH_SAMPLES = 8


@keras.saving.register_keras_serializable(package="aecfe")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Transposed convolution `(batch, height, width, channels)` -> `(batch, height', width', filters)`.

    Arguments, weights and results are those of `keras.layers.Conv2DTranspose`; results differ by rounding. See the head
    of this module for what is computed in another way, and `uses_plain_form` for when. The class has Keras' name, since
    weight files find layers by it: those of the one load into the other.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolve, add the bias and apply the activation."""
        if self.uses_plain_form(inputs):
            return super().call(inputs)
        use_relu = self.activation is keras.activations.relu
        outputs = _convolve(inputs, self.kernel, self.bias, self.strides[0], use_relu)
        return outputs if use_relu else self.activation(outputs)

    def uses_plain_form(self, inputs: tf.Tensor) -> bool:
        """Whether Keras' own form is taken for these inputs, by the module's rule.

        Args:
            inputs: tensor `(batch, height, width, channels)`.
        """
        _, height, width, _ = inputs.shape
        return not (
            self.compute_dtype in ("float32", "float16")
            and height is not None
            and height == width
            and self.kernel_size[0] == self.kernel_size[1] >= self.strides[0] == self.strides[1]
            and self.padding == "valid"
            and self.output_padding is None
            and self.dilation_rate == (1, 1)
            and self.data_format == "channels_last"
            and self.use_bias
            and not tf.config.list_logical_devices("GPU")
        )


def _convolve(
    inputs: tf.Tensor, kernel: keras.Variable, bias: keras.Variable, stride: int, use_relu: bool
) -> tf.Tensor:
    """Transposed convolution of square maps without padding, bias and, if asked for, ReLU.

    Args:
        inputs: float tensor `(batch, side, side, channels)`.
        kernel: variable `(size, size, filters, channels)`.
        bias: variable `(filters,)`.
        stride: along both axes.
        use_relu: whether to apply ReLU.
    """
    size, _, filters, _ = kernel.shape
    side = inputs.shape[1]
    output_side = (side - 1) * stride + size
    as_padded = stride == 1 and output_side**2 <= MAX_PADDED_WORK * side**2

    @tf.custom_gradient
    def convolve(inputs, kernel, bias):
        if as_padded:
            rim = [size - 1, size - 1]
            turned = tf.transpose(tf.reverse(kernel, [0, 1]), (0, 1, 3, 2))
            outputs = tf.nn.conv2d(inputs, turned, 1, [[0, 0], rim, rim, [0, 0]])
        else:
            shape = tf.stack([tf.shape(inputs)[0], output_side, output_side, filters])
            outputs = tf.nn.conv2d_transpose(inputs, kernel, shape, stride, "VALID")
        outputs = tf.nn.bias_add(outputs, bias)
        if use_relu:
            outputs = tf.nn.relu(outputs)

        def gradient(upstream):
            if use_relu:
                upstream = tf.raw_ops.ReluGrad(gradients=upstream, features=outputs)
            return (
                tf.nn.conv2d(upstream, kernel, stride, "VALID"),
                _kernel_gradient(inputs, upstream, size, stride),
                _sum_over_pixels(upstream),
            )

        return outputs, gradient

    return convolve(inputs, tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias))


def _sum_over_pixels(values: tf.Tensor) -> tf.Tensor:
    """Sum `(batch, side, side, channels)` over all axes but the last."""
    rows = tf.cast(tf.reshape(values, (-1, values.shape[-1])), tf.float32)
    return tf.cast(tf.linalg.matvec(rows, tf.ones(tf.shape(rows)[:1]), transpose_a=True), values.dtype)


def _kernel_gradient(inputs: tf.Tensor, upstream: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Gradient `(size, size, filters, channels)` of the kernel.

    Args:
        inputs: float tensor `(batch, side, side, channels)`.
        upstream: gradient of the output, `(batch, output_side, output_side, filters)`.
        size: side of the kernel.
        stride: of the transposed convolution.
    """
    if inputs.dtype == tf.float16:
        gradient = _kernel_gradient(tf.cast(inputs, tf.float32), tf.cast(upstream, tf.float32), size, stride)
        return tf.cast(gradient, tf.float16)
    if size == 1 or inputs.shape[1] ** 2 < LEAST_PIXELS_FOR_PATCHES:
        return tf.raw_ops.Conv2DBackpropFilter(
            input=upstream,
            filter_sizes=[size, size, upstream.shape[-1], inputs.shape[-1]],
            out_backprop=inputs,
            strides=[1, stride, stride, 1],
            padding="VALID",
        )
    side, channels = inputs.shape[1], inputs.shape[-1]
    output_side, filters = upstream.shape[1], upstream.shape[-1]
    pixels = tf.constant(_patch_pixels(side, output_side, size, stride))
    patch = size * size * filters

    def product(inputs, upstream):
        maps = tf.reshape(upstream, (-1, output_side**2, filters))
        patches = tf.reshape(tf.gather(maps, pixels, axis=1), (-1, side * side, patch))
        rows = tf.reshape(inputs, (-1, side * side, channels))
        return tf.reduce_sum(tf.matmul(rows, patches, transpose_a=True), axis=0)

    num_parts = tf.shape(inputs)[0] // PATCH_SAMPLES
    whole = num_parts * PATCH_SAMPLES
    parts = [tf.reshape(x[:whole], (num_parts, PATCH_SAMPLES, *x.shape[1:])) for x in (inputs, upstream)]
    _, total = tf.while_loop(
        lambda part, _: part < num_parts,
        lambda part, total: (part + 1, total + product(*(x[part] for x in parts))),
        (tf.constant(0), product(inputs[whole:], upstream[whole:])),
        parallel_iterations=1,
    )
    return tf.transpose(tf.reshape(total, (channels, size, size, filters)), (1, 2, 3, 0))


def _patch_pixels(side: int, output_side: int, size: int, stride: int) -> np.ndarray:
    """For each input pixel, the output pixels that it adds to: int32 `(side**2 * size**2,)`, indices of flat maps."""
    starts = stride * np.arange(side)
    rows = starts[:, np.newaxis, np.newaxis, np.newaxis] + np.arange(size)[:, np.newaxis]
    columns = starts[:, np.newaxis, np.newaxis] + np.arange(size)
    return (rows * output_side + columns).astype(np.int32).reshape(-1)
