"""ResNeXt (Xie et al. 2017), the network of the oracles in Table 3.3 of the thesis, and its grouped convolution."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

EXPANSION = 4  # channels that leave a block of the first stage, in base filters
MAX_NORM_GROUPS = 32
# Keras' own 0.99 would keep 37 % of the untrained statistics after a hundred steps.
BATCH_MOMENTUM = 0.9
EPSILON = 1e-5  # as in the authors' code


@keras.saving.register_keras_serializable(package="aecfe")
class GroupedConv2D(keras.layers.Conv2D):
    """Convolution in groups, `(batch, height, width, channels)` -> `(batch, height', width', filters)`.

    Arguments, weights and results are those of `keras.layers.Conv2D` with the same `groups`; results differ by
    rounding. On a CPU, Keras compiles every such convolution by XLA on its own, whose gradient takes hundreds of times
    as long as it should, and TensorFlow has a gradient with oneDNN alone. There this layer computes a plain convolution
    for each group; on a GPU it hands all groups to TensorFlow at once.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: keras.Variable) -> tf.Tensor:
        """Convolve each group of channels with its own filters."""
        if self.groups == 1 or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        kernel = tf.convert_to_tensor(kernel)
        if _has_gpu():
            return self._convolve(inputs, kernel)
        parts = zip(tf.split(inputs, self.groups, axis=-1), tf.split(kernel, self.groups, axis=-1), strict=True)
        return tf.concat([self._convolve(*part) for part in parts], axis=-1)

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.convolution(inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate)


def build_resnext(
    image_size: int,
    num_classes: int,
    *,
    blocks: Sequence[int] = (3, 4, 6, 3),
    cardinality: int = 32,
    width_per_group: int = 4,
    normalization: str = "batch",
    base_filters: int = 64,
    seed: int = 0,
) -> keras.Model:
    """Build a ResNeXt that takes images as they are; the defaults are those of ResNeXt-50 (32x4d).

    A block is a 1x1 convolution to `cardinality * width_per_group` channels, a 3x3 convolution of these in groups, and
    a 1x1 convolution to `4 * base_filters` channels, each with normalisation; the input is added before the last ReLU.
    Both numbers of channels double from stage to stage.

    Args:
        image_size: side of the images in pixels.
        num_classes: number of logits.
        blocks: number of blocks in each stage; a stage halves the side of its maps, but for the first.
        cardinality: groups of the 3x3 convolutions.
        width_per_group: channels of a group in the first stage.
        normalization: "batch" for BatchNorm, "group" for GroupNorm of 32 groups, or the largest smaller number that
            divides the channels.
        base_filters: channels of the first convolution.
        seed: of the initial weights.

    Returns:
        Model from images `(batch, image_size, image_size, 3)` in [0, 255], of any type, to float32 logits
        `(batch, num_classes)`.

    Reference:
        Xie et al. 2017, "Aggregated residual transformations for deep neural networks", table 1 and figure 3c.
    """
    sequence = np.random.SeedSequence(seed)

    def initializer() -> keras.initializers.Initializer:
        """Each layer has a seed of its own, so that no global one is needed."""
        return keras.initializers.HeNormal(seed=int(sequence.spawn(1)[0].generate_state(1)[0]))

    def convolve(x, filters: int, size: int, name: str, strides: int = 1, groups: int = 1):
        options = {"strides": strides, "padding": "same", "groups": groups, "use_bias": False}
        x = GroupedConv2D(filters, size, kernel_initializer=initializer(), name=f"{name}_conv", **options)(x)
        return make_normalization(normalization, filters, f"{name}_norm")(x)

    def relu(x, name: str):
        return keras.layers.ReLU(name=name)(x)

    images = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(images)
    x = relu(convolve(x, base_filters, 7, "stem", strides=2), "stem_relu")
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage, num_blocks in enumerate(blocks):
        filters = EXPANSION * base_filters * 2**stage
        width = cardinality * width_per_group * 2**stage
        for block in range(num_blocks):
            strides, name = 2 if stage > 0 and block == 0 else 1, f"stage{stage + 1}_block{block + 1}"
            shortcut = x
            if strides > 1 or x.shape[-1] != filters:  # the shape changes
                shortcut = convolve(x, filters, 1, f"{name}_shortcut", strides=strides)
            y = relu(convolve(x, width, 1, f"{name}_1"), f"{name}_relu1")
            y = relu(convolve(y, width, 3, f"{name}_2", strides=strides, groups=cardinality), f"{name}_relu2")
            y = convolve(y, filters, 1, f"{name}_3")
            x = relu(keras.layers.Add(name=f"{name}_add")([shortcut, y]), f"{name}_out")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(num_classes, kernel_initializer=initializer(), name="logits", dtype="float32")(x)
    return keras.Model(images, logits, name="resnext")


def make_normalization(kind: str, channels: int, name: str) -> keras.layers.Layer:
    """Make the layer that follows a convolution of so many channels; `kind` is "batch" or "group"."""
    if kind == "batch":
        return keras.layers.BatchNormalization(momentum=BATCH_MOMENTUM, epsilon=EPSILON, name=name)
    groups = max(number for number in range(1, MAX_NORM_GROUPS + 1) if channels % number == 0)
    return keras.layers.GroupNormalization(groups, epsilon=EPSILON, name=name)


def _has_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))
