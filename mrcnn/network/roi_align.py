"""RoIAlign over the feature pyramid."""

from typing import Any

import keras
import tensorflow as tf

from mrcnn.network import boxes as box_ops

FINEST_LEVEL, COARSEST_LEVEL = 2, 5
# An RoI of 224 x 224 px, ImageNet's image size, belongs to P4 (Lin et al. 2017, eq. 1).
CANONICAL_SIZE, CANONICAL_LEVEL = 224.0, 4


def assign_levels(rois: tf.Tensor) -> tf.Tensor:
    """Pyramid level of each RoI.

    Args:
        rois: float tensor `(..., 4)` in pixels.

    Returns:
        int32 tensor `(...)` from 2 to 5: level 4 for a square of 224 px, one less for half the side; empty boxes get 2.

    Reference:
        Lin et al. 2017 (FPN), eq. 1, rounded to the nearest level as in Matterport's Mask R-CNN.
    """
    side = tf.sqrt(tf.maximum(box_ops.areas(rois), 1e-12))
    level = CANONICAL_LEVEL + tf.round(tf.math.log(side / CANONICAL_SIZE) / tf.math.log(2.0))
    return tf.cast(tf.clip_by_value(level, FINEST_LEVEL, COARSEST_LEVEL), tf.int32)


def crop_bins(feature_map: tf.Tensor, boxes: tf.Tensor, batch_index: tf.Tensor, size: int) -> tf.Tensor:
    """Sample a feature map bilinearly at the centres of a grid of bins in each box.

    Args:
        feature_map: float tensor `(batch, height, width, channels)`.
        boxes: float tensor `(n, 4)` in cells of the feature map; cell i reaches from i to i + 1. They lie within the
            map.
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
    """Crop each RoI from its pyramid level and resample it bilinearly, one sample at the centre of each bin.

    Args:
        pool_size: bins along each side.
        image_shape: (height, width) of the network's input in pixels.

    Reference:
        He et al. 2017, section 3; they found the number of samples in a bin to matter little.
    """

    def __init__(self, pool_size: int, image_shape: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.pool_size = int(pool_size)
        self.image_shape = (int(image_shape[0]), int(image_shape[1]))

    def call(self, rois: tf.Tensor, batch_index: tf.Tensor, feature_maps: list) -> tf.Tensor:
        """Crop.

        Args:
            rois: float tensor `(num_rois, 4)`, normalised.
            batch_index: int32 tensor `(num_rois,)`, the image of each.
            feature_maps: [P2, P3, P4, P5], each `(batch, height / stride, width / stride, channels)`.

        Returns:
            Float tensor `(num_rois, pool_size, pool_size, channels)`, in the order of `rois`.
        """
        pixels = box_ops.pixel_boxes(tf.stop_gradient(rois), self.image_shape)
        levels = assign_levels(pixels)
        pieces, rows = [], []
        for level, feature_map in enumerate(feature_maps, FINEST_LEVEL):
            row = tf.where(levels == level)[:, 0]
            stride = 2.0**level
            crops = crop_bins(feature_map, tf.gather(pixels, row) / stride, tf.gather(batch_index, row), self.pool_size)
            pieces.append(crops)
            rows.append(row)
        order = tf.argsort(tf.concat(rows, axis=0), stable=True)
        return tf.gather(tf.concat(pieces, axis=0), order)

    def compute_output_shape(self, rois_shape: tuple, batch_index_shape: tuple, feature_maps_shape: list) -> tuple:
        """Shape of the crops for the shapes of `call`'s arguments."""
        return (rois_shape[0], self.pool_size, self.pool_size, feature_maps_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "pool_size": self.pool_size, "image_shape": self.image_shape}
