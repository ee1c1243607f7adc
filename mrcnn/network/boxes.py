"""The box convention, and the arithmetic of boxes.

A box is `(y1, x1, y2, x2)`, float32. In pixels, `y2` and `x2` lie one past the last row and column. A normalised
box divides by `height - 1` and `width - 1` after moving `y2, x2` back by one pixel, as in Matterport's Mask R-CNN,
so that (0, 0, 1, 1) is the whole image; only the network uses it, and functions that take or give one say so.
A row of zeros is padding.
"""

import numpy as np
import tensorflow as tf

# exp(4.135) * 16 px = 1000 px: larger size deltas come from a network that has not learned yet and would overflow.
MAX_LOG_SIZE_RATIO = float(np.log(1000.0 / 16.0))


def normalized_boxes(boxes: tf.Tensor, image_shape: tuple) -> tf.Tensor:
    """Turn pixel boxes `(..., 4)` of an image of `image_shape` (height, width) into normalised ones."""
    scale, shift = _scale_and_shift(image_shape)
    return (boxes - shift) / scale


def pixel_boxes(boxes: tf.Tensor, image_shape: tuple) -> tf.Tensor:
    """Turn normalised boxes `(..., 4)` into pixel boxes, not rounded."""
    scale, shift = _scale_and_shift(image_shape)
    return boxes * scale + shift


def _scale_and_shift(image_shape: tuple) -> tuple[tf.Tensor, tf.Tensor]:
    height, width = tf.cast(image_shape[0], tf.float32), tf.cast(image_shape[1], tf.float32)
    return tf.stack([height, width, height, width]) - 1.0, tf.constant([0.0, 0.0, 1.0, 1.0])


def areas(boxes: tf.Tensor) -> tf.Tensor:
    """Areas `(...)` of boxes `(..., 4)`; never negative."""
    size = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def pairwise_iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Intersection over union of boxes `(..., n, 4)` and `(..., m, 4)`: `(..., n, m)`; 0 where either is empty."""
    top_left = tf.maximum(boxes[..., :, tf.newaxis, :2], others[..., tf.newaxis, :, :2])
    bottom_right = tf.minimum(boxes[..., :, tf.newaxis, 2:], others[..., tf.newaxis, :, 2:])
    overlap = tf.maximum(bottom_right - top_left, 0.0)
    intersection = overlap[..., 0] * overlap[..., 1]
    union = areas(boxes)[..., :, tf.newaxis] + areas(others)[..., tf.newaxis, :] - intersection
    return tf.math.divide_no_nan(intersection, union)


def encode(boxes: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Deltas (dy, dx, log dh, log dw) `(..., 4)` that move `boxes` `(..., 4)` onto `targets` `(..., 4)`.

    Rows in which either box is empty (padding) give finite, meaningless values.

    Reference:
        Girshick et al. 2014, appendix C.
    """
    centre, size = _centre_and_size(boxes)
    target_centre, target_size = _centre_and_size(targets)
    return tf.concat([(target_centre - centre) / size, tf.math.log(target_size / size)], axis=-1)


def decode(boxes: tf.Tensor, deltas: tf.Tensor) -> tf.Tensor:
    """Move `boxes` `(..., 4)` by `deltas` `(..., 4)`: the inverse of `encode`."""
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size + deltas[..., :2] * size
    size = size * tf.exp(tf.minimum(deltas[..., 2:], MAX_LOG_SIZE_RATIO))
    return tf.concat([centre - 0.5 * size, centre + 0.5 * size], axis=-1)


def _centre_and_size(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    size = tf.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
    return boxes[..., :2] + 0.5 * size, size


def clip(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Clip boxes `(..., n, 4)` to a window `(..., 4)`; those wholly outside have no area."""
    low, high = window[..., tf.newaxis, :2], window[..., tf.newaxis, 2:]
    return tf.concat([tf.clip_by_value(corner, low, high) for corner in tf.split(boxes, 2, axis=-1)], axis=-1)
