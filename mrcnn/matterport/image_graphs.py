"""Matterport's small functions of tensors: boxes and what is known of images."""

from collections.abc import Sequence

import tensorflow as tf

from mrcnn.data.molding import META_FIELDS
from mrcnn.network.boxes import normalized_boxes, pixel_boxes


def norm_boxes_graph(boxes: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Pixel boxes `(..., 4)` of an image of `shape` (height, width) as normalised ones (Matterport's name)."""
    return normalized_boxes(boxes, shape)


def denorm_boxes_graph(boxes: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Normalised boxes `(..., 4)` as int32 pixel boxes (Matterport's name)."""
    return tf.cast(tf.round(pixel_boxes(boxes, shape)), tf.int32)


def parse_image_meta_graph(meta: tf.Tensor) -> dict[str, tf.Tensor]:
    """`parse_image_meta` of a tensor `(batch, 12 + num_classes)`, the values in its type (Matterport's name)."""
    ends = {"image_id": 1, "original_image_shape": 4, "image_shape": 7, "window": 11, "scale": 12}
    starts = [0, *ends.values()]
    parts = {name: meta[:, start:end] for start, (name, end) in zip(starts, ends.items(), strict=False)}
    parts |= {name: parts[name][:, 0] for name in ("image_id", "scale")}
    return {**parts, "active_class_ids": meta[:, META_FIELDS:]}


def trim_zeros_graph(boxes: tf.Tensor, name: str = "trim_zeros") -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes `(n, 4)` without rows of zeros, and bool `(n,)`, which rows stay (Matterport's name)."""
    kept = tf.reduce_any(tf.not_equal(boxes, 0), axis=1)
    return tf.boolean_mask(boxes, kept, name=name), kept
