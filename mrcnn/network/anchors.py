"""The pyramid of anchors that the region proposal network scores."""

import math
from collections.abc import Sequence

import numpy as np


def feature_map_shapes(image_shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Heights and widths of the pyramid's levels for an image of `image_shape` (height, width, ...)."""
    return [(math.ceil(image_shape[0] / s), math.ceil(image_shape[1] / s)) for s in strides]


def anchor_sizes(scale: float, ratios: Sequence[float]) -> np.ndarray:
    """(height, width) of the anchors of one level, float64 of shape (len(ratios), 2): all have area `scale` squared."""
    root = np.sqrt(np.asarray(ratios, np.float64))
    return np.stack([scale / root, scale * root], axis=-1)


def level_anchors(
    scale: float, ratios: Sequence[float], shape: tuple[int, int], feature_stride: int, anchor_stride: int = 1
) -> np.ndarray:
    """Anchors of one pyramid level.

    Args:
        scale: side in pixels of the square anchor; all anchors of the level have its area.
        ratios: width / height of each anchor.
        shape: (height, width) of the level's feature map.
        feature_stride: pixels between neighbouring cells of the feature map.
        anchor_stride: place anchors on every `anchor_stride`-th cell.

    Returns:
        float32 array of shape (num_cells * len(ratios), 4) in pixels, rows of cells first, ratios innermost; num_cells
        is height * width where `anchor_stride` is 1.

    Reference:
        Lin et al. 2017 (FPN), section 4.1: one scale for each level.
    """
    sizes = anchor_sizes(scale, ratios)
    ys = np.arange(0, shape[0], anchor_stride) * feature_stride
    xs = np.arange(0, shape[1], anchor_stride) * feature_stride
    centres = np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    boxes = np.concatenate([centres - 0.5 * sizes, centres + 0.5 * sizes], axis=-1)
    return boxes.reshape(-1, 4).astype(np.float32)


def pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    shapes: Sequence[tuple[int, int]],
    feature_strides: Sequence[int],
    anchor_stride: int = 1,
) -> np.ndarray:
    """Anchors of all levels, P2 first, as `level_anchors` orders them.

    Returns:
        float32 array of shape (num_anchors, 4) in pixels.

    Raises:
        ValueError: if the numbers of scales, shapes and strides differ.
    """
    if not len(scales) == len(shapes) == len(feature_strides):
        raise ValueError(
            "pyramid_anchors needs one scale and one stride for each level; got "
            f"{len(scales)} scales, {len(feature_strides)} strides for {len(shapes)} levels"
        )
    levels = zip(scales, shapes, feature_strides, strict=True)
    return np.concatenate([level_anchors(s, ratios, shape, stride, anchor_stride) for s, shape, stride in levels])
