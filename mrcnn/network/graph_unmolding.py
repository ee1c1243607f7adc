"""From what the network finds to the pixels of the raw images, inside the graph, padded to fixed numbers of rows.

It is `mrcnn.data.unmolding` and `mrcnn.data.masks.unmold_mask` for images of one size.
"""

import tensorflow as tf

from mrcnn.network.graph_molding import MoldedBatch
from mrcnn.network.graph_resizing import linear_positions


def unmold(detections: tf.Tensor, molded: MoldedBatch, per_detection: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Bring detections to the pixels of the raw images; those without a whole pixel are dropped.

    Args:
        detections: float32 `(batch, max_detections, 6)`, normalised box, class id, score; zero rows are padding.
        molded: the images that they were found on.
        per_detection: name -> tensor `(n, ...)` with a row for each of the n real detections, image by image.

    Returns:
        Rows of each image best first, then zero rows: "boxes" float32 `(batch, max_detections, 4)` in pixels, not
        rounded; "scores" float32 and "class_ids" int32 `(batch, max_detections)`; "num_detections" int32 `(batch,)`;
        and each of `per_detection` as `(batch, max_detections, ...)`.
    """
    real = tf.where(detections[..., 5] > 0.0)
    rows = tf.gather_nd(detections, real)
    boxes = _image_boxes(rows[:, :4], molded)
    whole = tf.round(boxes)
    keep = tf.reduce_all(whole[:, 2:] > whole[:, :2], axis=1)
    shape = tf.shape(detections, tf.int64)[:2]
    kept = tf.scatter_nd(real, tf.cast(keep, tf.int32), shape)
    places = tf.gather_nd(tf.cumsum(kept, axis=1, exclusive=True), real)
    places = tf.boolean_mask(tf.stack([real[:, 0], tf.cast(places, tf.int64)], axis=1), keep)

    def pad(values: tf.Tensor) -> tf.Tensor:
        padded_shape = tf.concat([shape, tf.shape(values, tf.int64)[1:]], axis=0)
        padded = tf.scatter_nd(places, tf.boolean_mask(values, keep), padded_shape)
        padded.set_shape([None, detections.shape[1], *values.shape[1:]])
        return padded

    return {
        "boxes": pad(tf.cast(boxes, tf.float32)),
        "scores": pad(rows[:, 5]),
        "class_ids": pad(tf.cast(rows[:, 4], tf.int32)),
        "num_detections": tf.reduce_sum(kept, axis=1),
        **{name: pad(values) for name, values in per_detection.items()},
    }


def _image_boxes(boxes: tf.Tensor, molded: MoldedBatch) -> tf.Tensor:
    """Normalised boxes `(n, 4)` as pixels of the raw images, clipped to them, float64."""
    size = tf.cast(tf.tile(molded.network_shape, [2]), tf.float32) - 1.0
    pixels = tf.cast(boxes * size, tf.float64) + tf.constant([0.0, 0.0, 1.0, 1.0], tf.float64)
    limits = tf.tile(molded.image_shape, [2])
    scale = tf.tile(molded.window[2:] - molded.window[:2], [2]) / tf.cast(limits, tf.float32)
    moved = pixels - tf.cast(tf.tile(molded.window[:2], [2]), tf.float64)
    return tf.clip_by_value(moved / tf.cast(scale, tf.float64), 0.0, tf.cast(limits, tf.float64))


def paste_masks(boxes: tf.Tensor, masks: tf.Tensor, image_shape: tf.Tensor) -> tf.Tensor:
    """Turn small masks into masks of the whole image, as `mrcnn.data.masks.unmold_mask` does each.

    Args:
        boxes: float32 `(batch, max_detections, 4)`, pixels, within the image; they are rounded here.
        masks: float32 `(batch, max_detections, 28, 28)`, probabilities over the box.
        image_shape: int32 (height, width).

    Returns:
        uint8 `(batch, max_detections, height, width)`, 1 inside; zeros where a box is empty.
    """
    whole = tf.reshape(tf.cast(tf.round(boxes), tf.int32), (-1, 4))
    small = tf.reshape(masks, tf.concat([[-1], tf.shape(masks)[2:]], axis=0))

    def paste(box_and_mask: tuple) -> tf.Tensor:
        box, mask = box_and_mask
        probabilities = _interpolate(_interpolate(mask, 1, box[3] - box[1]), 0, box[2] - box[0])
        inside = tf.cast(probabilities >= 0.5, tf.uint8)
        return tf.pad(inside, tf.stack([box[:2], image_shape - box[2:]], axis=1))

    full = tf.map_fn(paste, (whole, small), fn_output_signature=tf.TensorSpec((None, None), tf.uint8))
    full = tf.reshape(full, tf.concat([tf.shape(boxes)[:2], image_shape], axis=0))
    full.set_shape((None, boxes.shape[1], None, None))
    return full


def _interpolate(values: tf.Tensor, axis: int, new_length: tf.Tensor) -> tf.Tensor:
    """Resize a matrix along an axis, linearly between the centres of its cells; the border is repeated."""
    length = tf.shape(values)[axis]
    before, share = linear_positions(length, new_length)
    share = tf.expand_dims(share, 1 - axis)
    first = tf.gather(values, tf.clip_by_value(before, 0, length - 1), axis=axis)
    second = tf.gather(values, tf.clip_by_value(before + 1, 0, length - 1), axis=axis)
    return first * (1.0 - share) + second * share
