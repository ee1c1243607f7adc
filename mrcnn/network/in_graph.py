"""From raw images to what the network takes, and from its detections back to them, inside the graph.

It is `mrcnn.data.molding` for images of one size with TensorFlow alone. Where a resized grey level lies half-way
between two whole ones, OpenCV outside the graph may round it to the other one.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network.boxes import normalized_boxes

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as in OpenCV


class MoldedBatch(NamedTuple):
    """Images as the network takes them, save for the mean colour."""

    images: tf.Tensor  # uint8 (batch, network height, network width, channels)
    window: tf.Tensor  # float32 (4,), (y1, x1, y2, x2) pixels of them that show the image
    image_shape: tf.Tensor  # int32 (2,), height and width of the raw images

    @property
    def windows(self) -> tf.Tensor:
        """The window of each image, float32 `(batch, 4)`, normalised."""
        window = normalized_boxes(self.window, tf.shape(self.images)[1:3])
        return tf.tile(window[tf.newaxis], [tf.shape(self.images)[0], 1])


def mold(images: tf.Tensor, config: Config) -> MoldedBatch:
    """Resize and pad images, uint8 `(batch, height, width, 1, 3 or 4)`, RGB, as `mold_for_detection` does each.

    With mode "square" the shape of the result is known when the graph is built.
    """
    image_shape, mode = tf.shape(images)[1:3], config.IMAGE_RESIZE_MODE
    with tf.device("/CPU:0"):  # area averages have no GPU kernel
        images = _fit_channels(images, config.IMAGE_CHANNEL_COUNT)
        if mode == "none":
            message = "this detector (IMAGE_RESIZE_MODE 'none') takes images whose sides are multiples of 64; got"
            tf.debugging.Assert(tf.reduce_all(image_shape % 64 == 0), [message, image_shape])
            return MoldedBatch(images, tf.cast(tf.concat([[0, 0], image_shape], axis=0), tf.float32), image_shape)
        resized_shape = _scaled_shape(image_shape, config)
        padded_shape = tf.constant([config.IMAGE_MAX_DIM] * 2) if mode == "square" else -(-resized_shape // 64) * 64
        start = (padded_shape - resized_shape) // 2
        end = start + resized_shape
        padding = tf.stack([start, padded_shape - end], axis=1)
        molded = tf.pad(_resize(images, resized_shape), tf.pad(padding, [[1, 1], [0, 0]]))
        side = config.IMAGE_MAX_DIM if mode == "square" else None
        molded = tf.ensure_shape(molded, (None, side, side, config.IMAGE_CHANNEL_COUNT))
    return MoldedBatch(molded, tf.cast(tf.concat([start, end], axis=0), tf.float32), image_shape)


def _scaled_shape(image_shape: tf.Tensor, config: Config) -> tf.Tensor:
    """Height and width, int32 `(2,)`, that an image of `image_shape` is resized to; see `Config.IMAGE_RESIZE_MODE`."""
    sides = tf.cast(image_shape, tf.float64)
    shorter, longer = tf.reduce_min(sides), tf.reduce_max(sides)
    scale = tf.constant(max(1.0, config.IMAGE_MIN_SCALE or 0.0), tf.float64)
    if config.IMAGE_MIN_DIM:
        scale = tf.maximum(scale, config.IMAGE_MIN_DIM / shorter)
    if config.IMAGE_RESIZE_MODE == "square":
        most = config.IMAGE_MAX_DIM
        scale = tf.where(tf.round(longer * scale) > most, most / longer, scale)
    return tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)


def _resize(images: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Resize as `mrcnn.data.resizing.resize` does: area averages where images shrink, else bilinear."""
    shrinks = tf.reduce_any(shape < tf.shape(images)[1:3])
    methods = [lambda m=method: tf.image.resize(images, shape, m) for method in ("area", "bilinear")]
    return tf.cast(tf.round(tf.cond(shrinks, *methods)), tf.uint8)


def _fit_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Bring images `(batch, height, width, 1, 3 or 4)` to 1 or 3 channels, as `mrcnn.data.molding.fit_channels`."""
    given = tf.shape(images)[3]
    tf.debugging.Assert(tf.reduce_any(given == [1, 3, 4]), ["an image must have 1, 3 or 4 channels; got", given])

    def to_grey() -> tf.Tensor:
        weighted = tf.cast(images[..., :3], tf.float32) * tf.constant(GREY_WEIGHTS)
        return tf.cast(tf.round(tf.reduce_sum(weighted, axis=3, keepdims=True)), tf.uint8)

    if channels == 3:
        fitted = tf.cond(given == 1, lambda: tf.repeat(images, 3, axis=3), lambda: images[..., :3])
    else:
        fitted = tf.cond(given == 1, lambda: images, to_grey)
    return tf.ensure_shape(fitted, (None, None, None, channels))


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
    keep = tf.reduce_all(tf.round(boxes)[:, 2:] > tf.round(boxes)[:, :2], axis=1)
    shape = tf.shape(detections, tf.int64)[:2]
    kept = tf.scatter_nd(real, tf.cast(keep, tf.int32), shape)
    rank = tf.gather_nd(tf.cumsum(kept, axis=1, exclusive=True), real)
    index = tf.boolean_mask(tf.stack([real[:, 0], tf.cast(rank, tf.int64)], axis=1), keep)

    def pad(values: tf.Tensor) -> tf.Tensor:
        padded_shape = tf.concat([shape, tf.shape(values, tf.int64)[1:]], axis=0)
        padded = tf.scatter_nd(index, tf.boolean_mask(values, keep), padded_shape)
        return tf.ensure_shape(padded, [None, detections.shape[1], *values.shape[1:]])

    return {
        "boxes": pad(tf.cast(boxes, tf.float32)),
        "scores": pad(rows[:, 5]),
        "class_ids": pad(tf.cast(rows[:, 4], tf.int32)),
        "num_detections": tf.reduce_sum(kept, axis=1),
        **{name: pad(values) for name, values in per_detection.items()},
    }


def _image_boxes(boxes: tf.Tensor, molded: MoldedBatch) -> tf.Tensor:
    """Normalised boxes `(n, 4)` as pixels of the raw images, clipped to them, float64."""
    size = tf.cast(tf.tile(tf.shape(molded.images)[1:3], [2]), tf.float32) - 1.0
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
        size = box[2:] - box[:2]
        # An empty box is padding: one pixel, of which nothing is kept.
        probabilities = tf.image.resize(mask[..., tf.newaxis], tf.maximum(size, 1))[: size[0], : size[1], 0]
        return tf.pad(tf.cast(probabilities >= 0.5, tf.uint8), tf.stack([box[:2], image_shape - box[2:]], axis=1))

    full = tf.map_fn(paste, (whole, small), fn_output_signature=tf.TensorSpec((None, None), tf.uint8))
    full = tf.reshape(full, tf.concat([tf.shape(boxes)[:2], image_shape], axis=0))
    return tf.ensure_shape(full, (None, boxes.shape[1], None, None))
