"""The pyramid of anchors that the region proposal network scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops

LEVEL_NAMES = Config.RPN_LEVELS


def anchor_grid(config: Config, image_shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Normalised anchors, otherwise as of `pixel_anchors`."""
    return box_ops.normalized_boxes(pixel_anchors(config, image_shape), image_shape)


def pixel_anchors(config: Config, image_shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Anchors of all levels in use, float `(num_anchors, 4)` in pixels, the finest level first.

    `image_shape` is (height, width, ...) of the network's input; numbers, or an int tensor known at run time only.
    """
    image_shape = tf.cast(tf.convert_to_tensor(image_shape), tf.int32)
    # Levels beyond the last scale have no anchors.
    levels = [
        level_anchors(scale, config.RPN_ANCHOR_RATIOS, -(-image_shape // stride), stride, config.RPN_ANCHOR_STRIDE)
        for name, scale, stride in zip(LEVEL_NAMES, config.RPN_ANCHOR_SCALES, config.BACKBONE_STRIDES, strict=False)
        if name in config.RPN_LEVELS
    ]
    return tf.concat(levels, axis=0)


def level_anchors(
    scale: float, ratios: Sequence[float], shape: Any, feature_stride: int, anchor_stride: int
) -> tf.Tensor:
    """Anchors of one pyramid level, float32 `(num_cells * len(ratios), 4)` in pixels, ordered by rows of cells.

    Args:
        scale: side in pixels of the square anchor; all anchors of the level have its area.
        ratios: width / height of each anchor.
        shape: (height, width) of the level's feature map; numbers or an int tensor.
        feature_stride: pixels between neighbouring cells of the feature map.
        anchor_stride: place anchors on every `anchor_stride`-th cell.

    Reference:
        Lin et al. 2017 (FPN), section 4.1: one scale for each level.
    """
    root = np.sqrt(np.asarray(ratios, np.float64))
    half = tf.constant(np.stack([scale / root, scale * root], axis=-1) / 2.0, tf.float32)
    ys, xs = (tf.cast(tf.range(0, side, anchor_stride) * feature_stride, tf.float32) for side in (shape[0], shape[1]))
    centres = tf.reshape(tf.stack(tf.meshgrid(ys, xs, indexing="ij"), axis=-1), (-1, 1, 2))
    return tf.reshape(tf.concat([centres - half, centres + half], axis=-1), (-1, 4))


def pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Sequence[tuple[int, int]],
    feature_strides: Sequence[int],
    anchor_stride: int = 1,
) -> np.ndarray:
    """Anchors of all levels, P2 first, as `level_anchors` orders them: float32 (num_anchors, 4) in pixels.

    Levels beyond the last scale have none.
    """
    levels = zip(scales, feature_shapes[: len(scales)], feature_strides[: len(scales)], strict=True)
    return np.concatenate([level_anchors(s, ratios, shape, stride, anchor_stride) for s, shape, stride in levels])
