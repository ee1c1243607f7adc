"""What an oracle learns from: which images stand in a batch, and how they are changed at random."""

from collections.abc import Iterator
from itertools import cycle

import numpy as np
import tensorflow as tf

from experiments.oracle_config import OracleConfig

BRIGHTNESS = 0.1  # of the range of pixels, added at most
CONTRAST = 0.2  # of 1, added to the factor at most


def row_batches(class_ids: np.ndarray, config: OracleConfig, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Give the rows of each batch, without end; a row comes again when all of its kind have come.

    With `balance_classes` the classes take turns, so that in any batch each is as frequent as another, or once more.

    Args:
        class_ids: int array of shape (n,), every class from 0 on at least once.
        config: says how many rows a batch has, and whether classes are balanced.
        random: chooses the order.

    Yields:
        int64 array of shape (batch size,).
    """
    if config.balance_classes:
        num_classes = int(class_ids.max()) + 1
        streams = [_shuffled(np.flatnonzero(class_ids == number), random) for number in range(num_classes)]
        rows = (next(streams[number]) for number in cycle(range(num_classes)))
    else:
        rows = _shuffled(np.arange(len(class_ids)), random)
    while True:
        yield np.fromiter(rows, np.int64, config.batch_size)


def resize_images(images: tf.Tensor, size: int) -> tf.Tensor:
    """Images `(batch, height, width, 3)` as float32 `(batch, size, size, 3)`, smoothed where they shrink."""
    return tf.image.resize(images, (size, size), antialias=True)


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flip, turn, brighten and stretch each image at random.

    Two flips and the swap of the axes, each in half of the cases, make all flips and quarter turns equally frequent.

    Args:
        images: float tensor `(batch, side, side, 3)` in [0, 255].
        seed: int tensor `(2,)`; the same one gives the same images.

    Returns:
        Tensor of the same shape and range.
    """
    shape = (tf.shape(images)[0], 1, 1, 1)
    chances = tf.random.stateless_uniform((5, *shape), seed)
    images = tf.where(chances[0] < 0.5, tf.reverse(images, [1]), images)
    images = tf.where(chances[1] < 0.5, tf.reverse(images, [2]), images)
    images = tf.where(chances[2] < 0.5, tf.transpose(images, (0, 2, 1, 3)), images)
    shift = 255 * BRIGHTNESS * (2 * chances[3] - 1)
    factor = 1 + CONTRAST * (2 * chances[4] - 1)
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    return tf.clip_by_value((images - mean) * factor + mean + shift, 0, 255)


def _shuffled(values: np.ndarray, random: np.random.Generator) -> Iterator[int]:
    """All values in random order, again and again."""
    while True:
        yield from random.permutation(values).tolist()
