"""The pyramid of anchors that the region proposal network scores."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops


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


LEVEL_NAMES = Config.RPN_LEVELS


@keras.saving.register_keras_serializable("mrcnn")
class AnchorGrid(keras.layers.Layer):
    """Lay the anchors of the pyramid's levels over an image, as `anchors.pyramid_anchors` orders them.

    Args:
        scales: side in pixels of the square anchor of each of the five levels.
        ratios: width / height of each anchor.
        strides: pixels between neighbouring cells of each of the five levels.
        anchor_stride: place anchors on every `anchor_stride`-th cell.
        levels: names of the levels that have anchors.
    """

    def __init__(
        self,
        scales: tuple[float, ...],
        ratios: tuple[float, ...],
        strides: tuple[int, ...],
        anchor_stride: int,
        levels: tuple[str, ...],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.scales = tuple(float(v) for v in scales)
        self.ratios = tuple(float(v) for v in ratios)
        self.strides = tuple(int(v) for v in strides)
        self.anchor_stride = int(anchor_stride)
        self.levels = tuple(levels)

    @classmethod
    def from_settings(cls, config: Config, **kwargs: Any) -> "AnchorGrid":
        """The anchors that a configuration describes."""
        return cls(
            config.RPN_ANCHOR_SCALES,
            config.RPN_ANCHOR_RATIOS,
            config.BACKBONE_STRIDES,
            config.RPN_ANCHOR_STRIDE,
            config.RPN_LEVELS,
            **kwargs,
        )

    def call(self, image_shape: tf.Tensor) -> tf.Tensor:
        """Lay them.

        Args:
            image_shape: (height, width) of the network's input in pixels; numbers or an int tensor.

        Returns:
            Float tensor `(num_anchors, 4)`, normalised; the finest level first.
        """
        image_shape = tf.cast(tf.convert_to_tensor(image_shape), tf.int32)
        parts = []
        for name, scale, stride in zip(LEVEL_NAMES, self.scales, self.strides, strict=True):
            if name in self.levels:
                parts.append(self._level(scale, stride, image_shape))
        return box_ops.normalized_boxes(tf.concat(parts, axis=0), image_shape)

    def _level(self, scale: float, stride: int, image_shape: tf.Tensor) -> tf.Tensor:
        cells = (image_shape + stride - 1) // stride
        ys = tf.cast(tf.range(0, cells[0], self.anchor_stride) * stride, tf.float32)
        xs = tf.cast(tf.range(0, cells[1], self.anchor_stride) * stride, tf.float32)
        centres = tf.reshape(tf.stack(tf.meshgrid(ys, xs, indexing="ij"), axis=-1), (-1, 1, 2))
        half = tf.constant(anchor_sizes(scale, self.ratios) / 2.0, tf.float32)
        return tf.reshape(tf.concat([centres - half, centres + half], axis=-1), (-1, 4))

    def compute_output_spec(self, image_shape: Any) -> keras.KerasTensor:
        """Anchors of an image whose size is not known yet."""
        return keras.KerasTensor((None, 4), "float32")

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            **super().get_config(),
            "scales": self.scales,
            "ratios": self.ratios,
            "strides": self.strides,
            "anchor_stride": self.anchor_stride,
            "levels": self.levels,
        }
