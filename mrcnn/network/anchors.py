"""The pyramid of anchors that the region proposal network scores."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops

LEVEL_NAMES = Config.RPN_LEVELS


def feature_map_shapes(image_shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Heights and widths of the pyramid's levels for an image of `image_shape` (height, width, ...)."""
    return [(math.ceil(image_shape[0] / s), math.ceil(image_shape[1] / s)) for s in strides]


def anchor_grid(config: Config, image_shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Anchors, float `(num_anchors, 4)`, normalised, the finest level first.

    `image_shape` is (height, width) of the network's input in pixels; numbers, or an int tensor known at run time only.
    """
    image_shape = tf.cast(tf.convert_to_tensor(image_shape), tf.int32)
    levels = [
        _lay(scale, config.RPN_ANCHOR_RATIOS, (image_shape + stride - 1) // stride, stride, config.RPN_ANCHOR_STRIDE)
        for name, scale, stride in zip(LEVEL_NAMES, config.RPN_ANCHOR_SCALES, config.BACKBONE_STRIDES, strict=True)
        if name in config.RPN_LEVELS
    ]
    return box_ops.normalized_boxes(tf.concat(levels, axis=0), image_shape)


def level_anchors(
    scale: float, ratios: Sequence[float], shape: tuple[int, int], feature_stride: int, anchor_stride: int = 1
) -> np.ndarray:
    """Anchors of one pyramid level, float32 (num_cells * len(ratios), 4) in pixels, by rows of cells, ratios innermost.

    Args:
        scale: side in pixels of the square anchor; all anchors of the level have its area.
        ratios: width / height of each anchor.
        shape: (height, width) of the level's feature map.
        feature_stride: pixels between neighbouring cells of the feature map.
        anchor_stride: place anchors on every `anchor_stride`-th cell.

    Reference:
        Lin et al. 2017 (FPN), section 4.1: one scale for each level.
    """
    return _lay(scale, ratios, shape, feature_stride, anchor_stride).numpy()


def pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Sequence[tuple[int, int]],
    feature_strides: Sequence[int],
    anchor_stride: int = 1,
) -> np.ndarray:
    """Anchors of all levels, P2 first, as `level_anchors` orders them: float32 (num_anchors, 4) in pixels."""
    levels = zip(scales, feature_shapes, feature_strides, strict=True)
    return np.concatenate([level_anchors(s, ratios, shape, stride, anchor_stride) for s, shape, stride in levels])


def _lay(scale: float, ratios: Sequence[float], shape: Any, feature_stride: int, anchor_stride: int) -> tf.Tensor:
    root = np.sqrt(np.asarray(ratios, np.float64))
    half = tf.constant(np.stack([scale / root, scale * root], axis=-1) / 2.0, tf.float32)
    ys, xs = (tf.cast(tf.range(0, side, anchor_stride) * feature_stride, tf.float32) for side in (shape[0], shape[1]))
    centres = tf.reshape(tf.stack(tf.meshgrid(ys, xs, indexing="ij"), axis=-1), (-1, 1, 2))
    return tf.reshape(tf.concat([centres - half, centres + half], axis=-1), (-1, 4))
