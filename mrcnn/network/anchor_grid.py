"""The anchors of an image inside the network, for images of any size."""

from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops
from mrcnn.network.anchors import anchor_sizes

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
