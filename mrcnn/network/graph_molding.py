"""From raw images to what the network takes, inside the graph: `mrcnn.data.molding` for images of one size."""

from typing import NamedTuple

import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network.graph_resizing import resize

# OpenCV's weights of red, green and blue in grey, in units of 1/32768.
GREY_WEIGHTS, GREY_BITS = (9798, 19235, 3735), 15


class MoldedBatch(NamedTuple):
    """Images as the network takes them, save for the mean colour.

    Attributes:
        images: uint8 `(batch, network height, network width, channels)`.
        window: float32 `(4,)`, `(y1, x1, y2, x2)` pixels of them that show the image.
        image_shape: int32 `(2,)`, height and width of the raw images.
    """

    images: tf.Tensor
    window: tf.Tensor
    image_shape: tf.Tensor

    @property
    def network_shape(self) -> tf.Tensor:
        """Height and width of the network's input, int32 `(2,)`."""
        return tf.shape(self.images)[1:3]


def mold(images: tf.Tensor, config: Config) -> MoldedBatch:
    """Resize and pad images for detection, as `mrcnn.data.molding.mold_for_detection` does each.

    Args:
        images: uint8 `(batch, height, width, 1, 3 or 4)`, RGB.
        config: its IMAGE settings apply.

    Returns:
        The molded batch; with mode "square" its shape is known when the graph is built.
    """
    channels = config.IMAGE_CHANNEL_COUNT
    image_shape = tf.shape(images)[1:3]
    # Most of this is int32 and float64, for which there are few GPU kernels.
    with tf.device("/CPU:0"):
        images = fit_channels(images, channels)
        if config.IMAGE_RESIZE_MODE == "none":
            _check_sides(image_shape)
            return MoldedBatch(images, tf.cast(tf.concat([[0, 0], image_shape], axis=0), tf.float32), image_shape)
        resized_shape = scaled_shape(image_shape, config)
        if config.IMAGE_RESIZE_MODE == "square":
            padded_shape = tf.constant([config.IMAGE_MAX_DIM] * 2)
        else:
            padded_shape = (resized_shape + 63) // 64 * 64
        start = (padded_shape - resized_shape) // 2
        end = start + resized_shape
        padding = tf.stack([start, padded_shape - end], axis=1)
        molded = tf.pad(resize(images, resized_shape), tf.pad(padding, [[1, 1], [0, 0]]))
    side = config.IMAGE_MAX_DIM if config.IMAGE_RESIZE_MODE == "square" else None
    molded.set_shape((None, side, side, channels))
    return MoldedBatch(molded, tf.cast(tf.concat([start, end], axis=0), tf.float32), image_shape)


def scaled_shape(image_shape: tf.Tensor, config: Config) -> tf.Tensor:
    """Height and width, int32 `(2,)`, that an image of `image_shape` is resized to; see `Config.IMAGE_RESIZE_MODE`."""
    sides = tf.cast(image_shape, tf.float64)
    shorter, longer = tf.reduce_min(sides), tf.reduce_max(sides)
    scale = tf.constant(1.0, tf.float64)
    if config.IMAGE_MIN_DIM:
        scale = tf.maximum(scale, config.IMAGE_MIN_DIM / shorter)
    if config.IMAGE_MIN_SCALE:
        scale = tf.maximum(scale, tf.constant(config.IMAGE_MIN_SCALE, tf.float64))
    if config.IMAGE_RESIZE_MODE == "square":
        most = config.IMAGE_MAX_DIM
        scale = tf.where(tf.round(longer * scale) > most, most / longer, scale)
    return tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)


def fit_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Bring images `(batch, height, width, 1, 3 or 4)` to 1 or 3 channels, as `mrcnn.data.molding.fit_channels`."""
    given = tf.shape(images)[3]
    known = tf.reduce_any(given == [1, 3, 4])
    tf.debugging.Assert(known, ["an image must have 1, 3 or 4 channels; got", given])

    def convert() -> tf.Tensor:
        if channels == 3:
            return tf.cond(given == 1, lambda: tf.repeat(images, 3, axis=3), lambda: images[..., :3])
        weighted = tf.cast(images[..., :3], tf.int32) * tf.constant(GREY_WEIGHTS)
        total = tf.reduce_sum(weighted, axis=3, keepdims=True) + (1 << (GREY_BITS - 1))
        return tf.cast(tf.bitwise.right_shift(total, GREY_BITS), tf.uint8)

    fitted = tf.cond(given == channels, lambda: images, convert)
    fitted.set_shape((None, None, None, channels))
    return fitted


def _check_sides(image_shape: tf.Tensor) -> None:
    fits = tf.reduce_all(image_shape % 64 == 0)
    message = "this detector (IMAGE_RESIZE_MODE 'none') takes images whose sides are multiples of 64; got"
    tf.debugging.Assert(fits, [message, image_shape])
