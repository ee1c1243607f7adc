"""RoIAlign over the feature pyramid."""

from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import ROI_ALIGNS
from mrcnn.network import boxes as box_ops

FINEST_LEVEL, COARSEST_LEVEL = 2, 5
# An RoI of 224 x 224 px, ImageNet's image size, belongs to P4 (Lin et al. 2017, eq. 1).
CANONICAL_SIZE, CANONICAL_LEVEL = 224.0, 4


def assign_levels(rois: tf.Tensor, rule: str = "paper") -> tf.Tensor:
    """Pyramid level, int32 `(...)` from 2 to 5, of each RoI `(..., 4)` in pixels.

    It is 4 for a square of 224 px, one less for half the side; "paper" rounds down, "matterport" to the nearest level.

    Reference:
        Lin et al. 2017 (FPN), eq. 1.
    """
    side = tf.sqrt(tf.maximum(box_ops.areas(rois), 1e-12))
    steps = tf.math.log(side / CANONICAL_SIZE) / tf.math.log(2.0)
    # The small number keeps a side of exactly 224 px on its level, whatever the logarithm rounds to.
    steps = tf.floor(steps + 1e-5) if rule == "paper" else tf.round(steps)
    return tf.cast(tf.clip_by_value(CANONICAL_LEVEL + steps, FINEST_LEVEL, COARSEST_LEVEL), tf.int32)


def crop_bins(feature_map: tf.Tensor, boxes: tf.Tensor, batch_index: tf.Tensor, size: int) -> tf.Tensor:
    """Sample a feature map bilinearly at the centres of a grid of bins in each box, as the paper does.

    Args:
        feature_map: float tensor `(batch, height, width, channels)`.
        boxes: float tensor `(n, 4)` in cells of the feature map, within it; cell i reaches from i to i + 1.
        batch_index: int tensor `(n,)`, the image each box lies in.
        size: bins along each side.

    Returns:
        Float tensor `(n, size, size, channels)`. Between the last cell's centre and the border its value is repeated.
    """
    # One repeated cell around the map stands for clamping, which the resampling op does not offer.
    padded = tf.pad(feature_map, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    shape = tf.shape(padded)
    last = tf.cast(tf.stack([shape[1], shape[2]]), tf.float32) - 1.0
    bin_size = (boxes[:, 2:] - boxes[:, :2]) / size
    # Centre of cell i has index i; the padding adds 1, the half bin and the half cell take the centres.
    first = boxes[:, :2] + 0.5 * bin_size - 0.5 + 1.0
    final = boxes[:, 2:] - 0.5 * bin_size - 0.5 + 1.0
    corners = tf.concat([first / last, final / last], axis=-1)
    return tf.image.crop_and_resize(padded, corners, batch_index, [size, size])


@keras.saving.register_keras_serializable("mrcnn")
class PyramidROIAlign(keras.layers.Layer):
    """Crop each RoI from its pyramid level and resample it bilinearly, one sample in each bin.

    Args:
        pool_size: bins along each side.
        rule: "paper" samples the centres of bins; "matterport" a grid whose outer points lie on the box, and takes
            cells of the feature map for points that span the image from its first to its last pixel.

    Reference:
        He et al. 2017, section 3; they found the number of samples in a bin to matter little.
    """

    def __init__(self, pool_size: int, rule: str = "paper", **kwargs: Any):
        super().__init__(**kwargs)
        if rule not in ROI_ALIGNS:
            raise ValueError(f"rule must be one of {', '.join(ROI_ALIGNS)}; got {rule!r}")
        self.pool_size = int(pool_size)
        self.rule = rule

    def call(self, rois: tf.Tensor, batch_index: tf.Tensor, feature_maps: list, image_shape: tf.Tensor) -> tf.Tensor:
        """Crop.

        Args:
            rois: float tensor `(num_rois, 4)`, normalised.
            batch_index: int32 tensor `(num_rois,)`, the image of each.
            feature_maps: [P2, P3, P4, P5], each `(batch, height / stride, width / stride, channels)`.
            image_shape: (height, width) of the network's input in pixels; numbers or an int tensor.

        Returns:
            Float tensor `(num_rois, pool_size, pool_size, channels)`, in the order of `rois`.
        """
        rois = tf.stop_gradient(rois)
        pixels = box_ops.pixel_boxes(rois, image_shape)
        # Matterport's measures boxes by their normalised size, which is a pixel or so smaller.
        scale = tf.cast(tf.stack([image_shape[0], image_shape[1]] * 2), tf.float32)
        levels = assign_levels(pixels if self.rule == "paper" else rois * scale, self.rule)
        pieces, rows = [], []
        for level, feature_map in enumerate(feature_maps, FINEST_LEVEL):
            row = tf.where(levels == level)[:, 0]
            images = tf.gather(batch_index, row)
            if self.rule == "paper":
                crops = crop_bins(feature_map, tf.gather(pixels, row) / 2.0**level, images, self.pool_size)
            else:
                crops = tf.image.crop_and_resize(feature_map, tf.gather(rois, row), images, [self.pool_size] * 2)
            pieces.append(crops)
            rows.append(row)
        order = tf.argsort(tf.concat(rows, axis=0), stable=True)
        return tf.gather(tf.concat(pieces, axis=0), order)

    def compute_output_spec(
        self, rois: Any, batch_index: Any, feature_maps: list, image_shape: Any
    ) -> keras.KerasTensor:
        """Shape of the crops for `call`'s arguments."""
        return keras.KerasTensor((rois.shape[0], self.pool_size, self.pool_size, feature_maps[0].shape[-1]), "float32")

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "pool_size": self.pool_size, "rule": self.rule}
