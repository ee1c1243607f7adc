"""Oracles of Table 3.3 of the thesis: one ResNeXt per centre, trained on its images to predict the type of its cells.

An oracle sees images, not features, and is trained for the one task. It says how well the cells of its own centre can
be told apart, and how little of that holds in another.
"""

import logging
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from experiments.settings import OracleConfig
from experiments.thesis.image_classifier import ImageClassifier
from experiments.thesis.resnext import build_resnext
from mrcnn.files.atomic import write_text
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import load_weights, save_weights
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import versions
from mrcnn.files.run_folder import RunFolder

log = logging.getLogger(__name__)

WEIGHTS, LOG = "weights.weights.h5", "log.csv"
LOG_EVERY = 20  # steps
BRIGHTNESS = 0.1  # of the range of pixels, added at most
CONTRAST = 0.2  # of 1, added to the factor at most


def train_oracle(config: OracleConfig, images: np.ndarray, labels: np.ndarray, folder: RunFolder) -> ImageClassifier:
    """Train an oracle and leave it in a folder, or load it from there if it was trained before.

    Args:
        config: the settings.
        images: uint8 array of shape (n, height, width, 3).
        labels: names of shape (n,), of two classes or more.
        folder: gets `run.json`, `weights.weights.h5` and `log.csv`; a training that was broken off is begun anew. Its
            identity tells of `config` and of what is trained on.
    """
    classes, class_ids, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"{folder.path}: an oracle needs cells of two classes or more, got {', '.join(classes)}")
    weights = folder.path / WEIGHTS
    names = ("blocks", "cardinality", "width_per_group", "normalization", "base_filters", "seed")
    model = build_resnext(config.image_size, len(classes), **{name: getattr(config, name) for name in names})
    with folder.writing() as is_wanted:
        if is_wanted:
            cells = dict(zip(classes.tolist(), counts.tolist(), strict=True))
            record = {"classes": classes.tolist(), "cells": cells, "versions": versions()}
            folder.write(False, record)
            last = _run_steps(config, model, images, class_ids, folder.path / LOG)
            save_weights(model, weights)
            folder.write(True, {**record, **last, "parameters": model.count_params()})
        else:
            log.info("%s: reused", folder.path)
            load_weights(model, weights, advice="remove its folder and train the oracle again")
    side = config.image_size
    return ImageClassifier(folder.path, model, tuple(classes.tolist()), (side, side), "0..255")


def row_batches(class_ids: np.ndarray, config: OracleConfig, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Give the rows of each batch, without end; a row comes again when all of its class have come.

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


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flip, turn, brighten and stretch each image at random.

    Two flips and the swap of the axes, each in half of the cases, make all flips and quarter turns equally frequent.

    Args:
        images: float tensor `(batch, side, side, 3)` in [0, 255].
        seed: int tensor `(2,)`; the same one gives the same images.

    Returns:
        Tensor of the same shape and range.
    """
    chances = tf.random.stateless_uniform((5, tf.shape(images)[0], 1, 1, 1), seed)
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


def _run_steps(
    config: OracleConfig, model: keras.Model, images: np.ndarray, class_ids: np.ndarray, log_path: Path
) -> dict[str, float]:
    """Train the model and write the log; returns the loss at the end, and the seconds."""
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def train_step(images, class_ids, step):
        inputs = tf.image.resize(images, (config.image_size, config.image_size), antialias=True)
        if config.augment:
            inputs = augment(inputs, tf.stack([tf.constant(config.seed, tf.int64), step]))
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        is_right = tf.argmax(logits, axis=-1) == class_ids
        return tf.stack([loss, tf.reduce_mean(tf.cast(is_right, tf.float32))])

    batches = row_batches(class_ids, config, np.random.default_rng(config.seed))
    rows = ["step,loss,accuracy,learning_rate,seconds"]
    sums, count, started = tf.zeros(2), 0, time.monotonic()
    with Bar(total=config.steps, desc="oracle", unit="step") as bar:
        for step, chosen in zip(range(1, config.steps + 1), batches, strict=False):
            sums += train_step(images[chosen], class_ids[chosen], tf.constant(step - 1, tf.int64))
            count += 1
            bar.update(1)
            if step % LOG_EVERY and step < config.steps:
                continue
            loss, accuracy = (sums / count).numpy().tolist()  # waits for the device, hence not every step
            if not np.isfinite(loss):
                raise InputError(f"the oracle's loss is {loss} at step {step}; lower learning_rate and train again")
            seconds = round(time.monotonic() - started, 1)
            values = (step, loss, accuracy, float(schedule(step - 1)), seconds)
            rows.append(",".join(f"{value:.7g}" for value in values))
            write_text(log_path, "\n".join(rows) + "\n")
            sums, count = tf.zeros(2), 0
    return {"seconds": seconds, "loss": loss}
