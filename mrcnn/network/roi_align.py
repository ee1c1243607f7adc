"""RoIAlign over the feature pyramid."""

from typing import Any

import keras
import tensorflow as tf

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


def sample_bins(maps: tf.Tensor, boxes: tf.Tensor, batch_index: tf.Tensor, size: int, margin: float = 0.0) -> tf.Tensor:
    """Sample maps bilinearly at the centres of a grid of bins in each box, as the paper does.

    Args:
        maps: float tensor `(batch, height, width, channels)`.
        boxes: float tensor `(n, 4)` in cells of the map, within it; cell i reaches from i to i + 1.
        batch_index: int tensor `(n,)`, the map each box lies in.
        size: bins along each side.
        margin: cells that `maps` has around what the boxes count from.

    Returns:
        Float tensor `(n, size, size, channels)`.
    """
    last = tf.cast(tf.shape(maps)[1:3], tf.float32) - 1.0
    bin_size = (boxes[:, 2:] - boxes[:, :2]) / size
    # The centre of cell i has index i: half a bin and half a cell take the centres.
    first = boxes[:, :2] + 0.5 * bin_size - 0.5 + margin
    final = boxes[:, 2:] - 0.5 * bin_size - 0.5 + margin
    return tf.image.crop_and_resize(maps, tf.concat([first / last, final / last], axis=-1), batch_index, [size] * 2)


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
        self.pool_size, self.rule = pool_size, rule

    def call(self, rois: tf.Tensor, batch_index: tf.Tensor, feature_maps: list, image_shape: tf.Tensor) -> tf.Tensor:
        """Crop RoIs.

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
                # One repeated cell around the map stands for clamping, which the resampling op does not offer.
                padded = tf.pad(feature_map, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
                crops = sample_bins(padded, tf.gather(pixels, row) / 2.0**level, images, self.pool_size, margin=1.0)
            else:
                crops = tf.image.crop_and_resize(feature_map, tf.gather(rois, row), images, [self.pool_size] * 2)
            pieces.append(crops)
            rows.append(row)
        order = tf.argsort(tf.concat(rows, axis=0), stable=True)
        return tf.gather(tf.concat(pieces, axis=0), order)
