"""Heads that look at one RoI: its class, its box and its mask."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mrcnn.network.normalization import normalization


@keras.saving.register_keras_serializable("mrcnn")
class WindowConv2D(keras.layers.Conv2D):
    """A convolution whose kernel covers its whole input, computed as the matrix product that it is.

    The box head's first layer is one. For a hundred RoIs the product takes half the time of the convolution on a CPU.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Map `(n, kernel height, kernel width, channels)` to `(n, 1, 1, filters)`."""
        size = self.kernel.shape[0] * self.kernel.shape[1] * self.kernel.shape[2]
        kernel = tf.reshape(tf.cast(self.kernel, inputs.dtype), (size, self.filters))
        outputs = tf.matmul(tf.reshape(inputs, (-1, size)), kernel) + tf.cast(self.bias, inputs.dtype)
        return tf.reshape(outputs, (-1, 1, 1, self.filters))


def box_head(pool_size: int, channels: int, num_classes: int, fc_size: int, norm: str) -> keras.Model:
    """Build the classifier and box regressor, with two hidden layers of width `fc_size`.

    Returns:
        Model from RoI features `(num_rois, pool_size, pool_size, channels)` to class logits `(num_rois, num_classes)`,
        background included, and deltas `(num_rois, num_classes, 4)` in units of `BBOX_STD_DEV`.

    Reference:
        He et al. 2017, figure 4; the fully connected layers are convolutions, as in Matterport's weights.
    """
    roi_features = keras.Input((pool_size, pool_size, channels), name="roi_features")
    x = WindowConv2D(fc_size, pool_size, name="mrcnn_class_conv1")(roi_features)
    x = keras.layers.ReLU(name="mrcnn_class_relu1")(normalization(norm, "mrcnn_class_bn1")(x))
    x = WindowConv2D(fc_size, 1, name="mrcnn_class_conv2")(x)
    x = keras.layers.ReLU(name="mrcnn_class_relu2")(normalization(norm, "mrcnn_class_bn2")(x))
    shared = keras.layers.Reshape((fc_size,), name="pool_squeeze")(x)
    logits = keras.layers.Dense(num_classes, name="mrcnn_class_logits", dtype="float32")(shared)
    deltas = keras.layers.Dense(num_classes * 4, name="mrcnn_bbox_fc", dtype="float32")(shared)
    deltas = keras.layers.Reshape((num_classes, 4), name="mrcnn_bbox")(deltas)
    return keras.Model(roi_features, [logits, deltas], name="box_head")


def mask_head(
    pool_size: int,
    channels: int,
    num_masks: int,
    norm: str,
    hidden: Sequence[int] | None = None,
    factor: int = 2,
) -> keras.Model:
    """Build the mask branch.

    Args:
        pool_size: height and width of the RoI features.
        channels: of the RoI features.
        num_masks: masks of an RoI, one for each part of each class, the parts of a class in a row.
        norm: see `normalization`.
        hidden: channels of its convolutions; None: four of `channels`.
        factor: how many times finer than the RoI features a mask is, 2 or 4.

    Returns:
        Model from RoI features `(num_rois, pool_size, pool_size, channels)` to mask probabilities
        `(num_rois, factor * pool_size, factor * pool_size, num_masks)` in (0, 1).

    Reference:
        He et al. 2017, figure 4, right.
    """
    x = roi_features = keras.Input((pool_size, pool_size, channels), name="roi_features")
    hidden = hidden or (channels,) * 4

    def conv_norm(y, width, place):
        name, initializer = f"mrcnn_mask_conv{place}", "he_normal"
        y = keras.layers.Conv2D(width, 3, padding="same", kernel_initializer=initializer, name=name)(y)
        return keras.layers.ReLU(name=f"mrcnn_mask_relu{place}")(normalization(norm, f"mrcnn_mask_bn{place}", width)(y))

    for i, width in enumerate(hidden, 1):
        x = conv_norm(x, width, i)
    x = keras.layers.Conv2DTranspose(hidden[-1], 2, strides=2, activation="relu", name="mrcnn_mask_deconv")(x)
    last = {"activation": "sigmoid", "name": "mrcnn_mask", "dtype": "float32"}
    if factor == 4:
        x = conv_norm(x, hidden[-1] // 2, len(hidden) + 1)
        masks = keras.layers.Conv2DTranspose(num_masks, 2, strides=2, **last)(x)
    else:
        masks = keras.layers.Conv2D(num_masks, 1, **last)(x)
    return keras.Model(roi_features, masks, name="mask_head")
