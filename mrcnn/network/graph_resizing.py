"""Resizing inside the graph, to the grey levels that OpenCV gives outside it.

Outside the graph OpenCV resizes, and a grey level more or less in a pixel changes features. So the arithmetic here is
OpenCV's for uint8 images, with its number types and its order: on the x86 builds of both, results are equal. Where a
compiler fuses products and sums, an area average that lies between two grey levels may round the other way.

Reference:
    OpenCV 4, modules/imgproc/src/resize.cpp.
"""

import numpy as np
import tensorflow as tf

# OpenCV's bilinear weights of uint8 images are whole numbers of 1/2048.
LINEAR_BITS = 11
# Parts of a pixel below this share are left out of area averages.
LEAST_SHARE = 1e-3


def resize(images: tf.Tensor, output_shape: tf.Tensor) -> tf.Tensor:
    """Resize images: area averages where they shrink, else bilinear, as `mrcnn.data.resizing.resize` does.

    Args:
        images: uint8 tensor `(batch, height, width, channels)` with 1 or 3 channels.
        output_shape: int32 (height, width) wanted; neither may grow where the other one shrinks.

    Returns:
        uint8 tensor of the wanted height and width; the input itself where it has them already.
    """
    shape = tf.shape(images)[1:3]

    def change() -> tf.Tensor:
        shrinks = tf.reduce_any(output_shape < shape)
        return tf.cond(shrinks, lambda: shrink(images, output_shape), lambda: enlarge(images, output_shape))

    return tf.cond(tf.reduce_all(output_shape == shape), lambda: images, change)


def enlarge(images: tf.Tensor, output_shape: tf.Tensor) -> tf.Tensor:
    """Interpolate bilinearly between the centres of pixels (OpenCV's INTER_LINEAR for uint8); see `resize`."""
    rows = _linear_weights(tf.shape(images)[1], output_shape[0])
    columns = _linear_weights(tf.shape(images)[2], output_shape[1])
    # First along rows, exactly; the sums have 19 bits, of which 15 go into the second product.
    mixed = tf.add_n(
        [tf.cast(tf.gather(images, index, axis=2), tf.int32) * weights[:, tf.newaxis] for index, weights in columns]
    )
    mixed = tf.bitwise.right_shift(mixed, 4)
    mixed = tf.add_n(
        [
            tf.bitwise.right_shift(tf.gather(mixed, index, axis=1) * weights[:, tf.newaxis, tf.newaxis], 16)
            for index, weights in rows
        ]
    )
    return tf.saturate_cast(tf.bitwise.right_shift(mixed + 2, 2), tf.uint8)


def linear_positions(length: tf.Tensor, new_length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the centres of `new_length` pixels lie between those of `length` pixels.

    Returns:
        int32 `(new_length,)` the pixel before, from -1 to `length` - 1; float32 `(new_length,)` the share of the next.
    """
    new_pixels = tf.cast(tf.range(new_length), tf.float64)
    positions = tf.cast((new_pixels + 0.5) * _scale(length, new_length) - 0.5, tf.float32)
    before = tf.floor(positions)
    return tf.cast(before, tf.int32), positions - before


def _linear_weights(length: tf.Tensor, new_length: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Index and weight, int32 `(new_length,)`, of the two pixels that make each new one; the border is repeated."""
    before, share = linear_positions(length, new_length)
    unit = 2.0**LINEAR_BITS
    return [
        (tf.clip_by_value(before, 0, length - 1), tf.cast(tf.round((1.0 - share) * unit), tf.int32)),
        (tf.clip_by_value(before + 1, 0, length - 1), tf.cast(tf.round(share * unit), tf.int32)),
    ]


def shrink(images: tf.Tensor, output_shape: tf.Tensor) -> tf.Tensor:
    """Average the area that each new pixel covers (OpenCV's INTER_AREA for uint8); see `resize`."""
    shape = tf.shape(images)[1:3]
    scales = [_scale(shape[axis], output_shape[axis]) for axis in (0, 1)]
    blocks = [tf.round(scale) for scale in scales]
    # Blocks of whole pixels are summed exactly and divided at the end, 2 x 2 with halves rounded up.
    whole = tf.reduce_all(tf.abs(tf.stack(scales) - tf.stack(blocks)) < np.finfo(np.float64).eps)
    values = images
    for axis in (1, 0):
        arguments = (shape[axis], output_shape[axis])
        taps = tf.cond(
            whole,
            lambda block=blocks[axis], arguments=arguments: _block_taps(block, *arguments),
            lambda arguments=arguments: _area_taps(*arguments),
        )
        values = _weighted_sum(values, axis + 1, *taps)
    area = blocks[0] * blocks[1]
    two_by_two = tf.reduce_all(tf.stack(blocks) == 2.0)
    divided = tf.cond(
        two_by_two,
        lambda: tf.floor((values + 2.0) * 0.25),
        lambda: tf.round(values * tf.cast(1.0 / area, tf.float32)),
    )
    return tf.saturate_cast(tf.cond(whole, lambda: divided, lambda: tf.round(values)), tf.uint8)


def _scale(length: tf.Tensor, new_length: tf.Tensor) -> tf.Tensor:
    """Pixels under a new pixel, rounded as OpenCV does: the reciprocal of the factor."""
    return 1.0 / (tf.cast(new_length, tf.float64) / tf.cast(length, tf.float64))


def _block_taps(block: tf.Tensor, length: tf.Tensor, new_length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As `_area_taps`, for `block` whole pixels under each new one, with weights of 1."""
    block = tf.cast(block, tf.int32)
    index = tf.range(block)[:, tf.newaxis] + tf.range(new_length) * block
    return tf.minimum(index, length - 1), tf.ones(tf.shape(index))


def _area_taps(length: tf.Tensor, new_length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels under each new pixel, the first of them first, and their share of it.

    Returns:
        int32 and float32 `(taps, new_length)`; a share of 0 where a new pixel has fewer.
    """
    scale = _scale(length, new_length)
    start = tf.cast(tf.range(new_length), tf.float64) * scale
    end = start + scale
    covered = tf.minimum(scale, tf.cast(length, tf.float64) - start)
    last = tf.minimum(tf.cast(tf.floor(end), tf.int32), length - 1)
    first = tf.minimum(tf.cast(tf.math.ceil(start), tf.int32), last)
    before = tf.cast(first, tf.float64) - start
    after = end - tf.cast(last, tf.float64)
    first_share = tf.where(before > LEAST_SHARE, before / covered, 0.0)
    last_share = tf.where(after > LEAST_SHARE, tf.minimum(tf.minimum(after, 1.0), covered) / covered, 0.0)

    index = first - 1 + tf.range(tf.reduce_max(last - first) + 2)[:, tf.newaxis]
    share = tf.where(index < last, 1.0 / covered, tf.where(index == last, last_share, 0.0))
    share = tf.where(index == first - 1, first_share, share)
    return tf.clip_by_value(index, 0, length - 1), tf.cast(share, tf.float32)


def _weighted_sum(values: tf.Tensor, axis: int, index: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum of weights * values at `index` `(taps, new_length)` along an axis, float32, one tap after the other.

    The order matters: it decides how sums near a half are rounded. It also needs no more memory than the result.
    """
    broadcast = [-1 if a == axis else 1 for a in range(4)]

    def add(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        taken = tf.cast(tf.gather(values, index[tap], axis=axis), tf.float32)
        return tap + 1, total + taken * tf.reshape(weights[tap], broadcast)

    sizes = [tf.shape(index)[1] if a == axis else tf.shape(values)[a] for a in range(4)]
    start = (tf.constant(0), tf.zeros(tf.stack(sizes)))
    unknown = tf.TensorShape([None] * 4)
    return tf.while_loop(
        lambda tap, _: tap < tf.shape(index)[0], add, start, shape_invariants=(tf.TensorShape([]), unknown)
    )[1]
