"""Oracles of Table 3.3 of the thesis: one ResNeXt per centre, trained on its images to predict the type of its cells.

An oracle sees images, not features, and is trained for the one task. It says how well the cells of its own centre can
be told apart, and how little of that holds in another.
"""

import logging
import math
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from experiments.settings import OracleConfig
from experiments.thesis.image_classifier import ImageClassifier
from experiments.thesis.resnext import build_resnext
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import EndAt, ReplicaBatches, ReplicaSteps, StepBar, StepLog, StopAtFault, fit, last_row
from mrcnn.files.hdf5 import load_weights, save_weights
from mrcnn.files.interruption import held_back
from mrcnn.files.provenance import versions
from mrcnn.files.run_folder import RunFolder

log = logging.getLogger(__name__)

WEIGHTS, LOG = "weights.weights.h5", "log.csv"
LOG_EVERY = 20  # steps, an epoch of Keras
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
    network = build_resnext(config.image_size, len(classes), **{name: getattr(config, name) for name in names})
    model = Oracle(network.inputs, network.outputs[0], name=network.name)
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


@keras.saving.register_keras_serializable(package="aecfe")
class Oracle(ReplicaSteps, keras.Model):
    """A functional classifier of images, which `fit` trains on batches as of `OracleBatches` once it has a `config`."""

    config: OracleConfig

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Take a step; returned are loss and accuracy before it, and its learning rate."""
        config, step = self.config, self.optimizer.iterations.value
        inputs = tf.image.resize(batch["images"], (config.image_size, config.image_size), antialias=True)
        if config.augment:
            inputs = augment(inputs, tf.stack([tf.constant(config.seed, tf.int64), tf.cast(step, tf.int64)]))
        rate, class_ids = tf.identity(self.optimizer.learning_rate), batch["class_ids"]
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        is_right = tf.argmax(logits, axis=-1) == class_ids
        return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(is_right, tf.float32)), "learning_rate": rate}


class OracleBatches(keras.utils.PyDataset):
    """The batches of a training: `images` uint8 `(batch, height, width, 3)` and `class_ids` int64 `(batch,)`."""

    def __init__(self, config: OracleConfig, images: np.ndarray, class_ids: np.ndarray):
        super().__init__(workers=1, max_queue_size=2)
        batches = row_batches(class_ids, config, np.random.default_rng(config.seed))
        self.images, self.class_ids, self.rows = images, class_ids, list(islice(batches, config.steps))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """Batch `number`, counted from 0."""
        return {"images": self.images[self.rows[number]], "class_ids": self.class_ids[self.rows[number]]}


def _run_steps(
    config: OracleConfig, model: Oracle, images: np.ndarray, class_ids: np.ndarray, log_path: Path
) -> dict[str, float]:
    """Train the model and write the log; returns the loss at the end, and the seconds."""
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps)
    model.config = config
    model.compile(optimizer=keras.optimizers.Adam(schedule), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    log_path.unlink(missing_ok=True)
    with held_back() as interruption:
        watchers = [
            StopAtFault(("loss",), "lower learning_rate and train again"),
            EndAt(config.steps, interruption),
            StepBar(total=config.steps, desc="oracle"),
            StepLog(log_path, 0),
        ]
        batches = ReplicaBatches(OracleBatches(config, images, class_ids), model.distribute_strategy)
        epochs = math.ceil(config.steps / LOG_EVERY)
        fit(model, batches, callbacks=watchers, steps_per_epoch=LOG_EVERY, initial_epoch=0, epochs=epochs)
    last = last_row(log_path) or {}
    return {name: last.get(name) for name in ("seconds", "loss")}
