"""Oracles of Table 3.3 of the thesis: one ResNeXt per centre, trained on its images to predict the type of its cells.

An oracle sees images, not features, and is trained for the one task. It says how well the cells of its own centre can
be told apart, and how little of that holds in another.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.settings import OracleConfig
from experiments.thesis.resnext import build_resnext
from mrcnn.files.atomic import write_json, write_text
from mrcnn.files.errors import InputError, first_line
from mrcnn.files.hdf5 import check_weights_file, save_weights
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import versions
from mrcnn.files.run_folder import RunFolder

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, LOG = "config.json", "weights.weights.h5", "log.csv"
LOG_COLUMNS = ("step", "loss", "accuracy", "learning_rate", "seconds")
LOG_EVERY = 20  # steps
BRIGHTNESS = 0.1  # of the range of pixels, added at most
CONTRAST = 0.2  # of 1, added to the factor at most


class OracleFolder(RunFolder):
    """Where an oracle lies; `inputs_hash` is that of the cells that it is trained on."""

    def __init__(self, path: str | os.PathLike, config: OracleConfig | None = None, inputs_hash: str = ""):
        identity = {} if config is None else {"config": config.to_dict(), "inputs": inputs_hash}
        super().__init__(path, "oracle", identity)

    @property
    def record(self) -> dict[str, Any] | None:
        """As in `RunFolder`; records of earlier versions get the identity that they lack."""
        record = super().record
        if record is not None and "identity" not in record:
            config = OracleConfig.load(self.path / CONFIG).to_dict()
            record["identity"] = {"config": config, "inputs": record.get("inputs_hash")}
        return record


@dataclass(frozen=True)
class Oracle:
    """A trained oracle, as `load_oracle` gives it.

    Attributes:
        config: what it was trained with.
        classes: names, in the order of the logits.
        model: from images `(batch, image_size, image_size, 3)` in [0, 255] to logits.
    """

    config: OracleConfig
    classes: tuple[str, ...]
    model: keras.Model

    def predict(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Predict the type of each cell.

        Args:
            images: uint8 array of shape (n, height, width, 3).
            batch_size: images at a time.

        Returns:
            str array of shape (n,), each one of `classes`.
        """
        predicted = np.zeros(len(images), np.int64)
        for start in range(0, len(images), batch_size):
            predicted[start : start + batch_size] = self._predict(images[start : start + batch_size]).numpy()
        return np.array(self.classes)[predicted]

    @cached_property
    def _predict(self) -> Callable[[np.ndarray], tf.Tensor]:
        """From images of any size to the indices of their classes."""

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        def predict(images):
            return tf.argmax(self.model(_resize(images, self.config.image_size), training=False), axis=-1)

        return predict


def train_oracle(
    config: OracleConfig, images: np.ndarray, labels: np.ndarray, output: str | os.PathLike, *, inputs_hash: str
) -> Oracle:
    """Train an oracle and leave it in a folder, or load it from there if it was trained before.

    Args:
        config: the settings.
        images: uint8 array of shape (n, height, width, 3).
        labels: names of shape (n,), none of them "".
        output: the folder; it gets `config.json`, `run.json`, `weights.weights.h5` and `log.csv`. A training that was
            broken off is begun anew.
        inputs_hash: of what was trained on; it tells a finished oracle from one of other cells.

    Raises:
        InputError: if there are fewer than two classes, `output` holds another oracle or is being written, or the loss
            is no longer finite.
    """
    classes, class_ids, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"{output}: an oracle needs cells of two classes or more, got {', '.join(classes) or 'none'}")
    folder = OracleFolder(output, config, inputs_hash)
    with folder.writing() as is_wanted:
        if not is_wanted:
            log.info("%s: reused", output)
            return load_oracle(output)
        values = {
            "classes": classes.tolist(),
            "cells": dict(zip(classes.tolist(), counts.tolist(), strict=True)),
            "versions": versions(),
        }
        folder.write(False, values)
        write_json(folder.path / CONFIG, config.to_dict())
        model = _build(config, len(classes))
        last = _run_steps(config, model, images, class_ids, folder.path)
        save_weights(model, folder.path / WEIGHTS)
        done = {"seconds": last["seconds"], "loss": last["loss"], "parameters": model.count_params()}
        folder.write(True, {**values, **done})
    return load_oracle(output)


def load_oracle(folder: str | os.PathLike) -> Oracle:
    """Load what `train_oracle` left in a folder.

    Raises:
        InputError: if a file is missing or damaged, or the training has not come to its end.
    """
    folder = Path(folder)
    config = OracleConfig.load(folder / CONFIG, missing="is this the folder of a trained oracle?")
    record = OracleFolder(folder).record
    if record is None or not record["complete"]:
        raise InputError(f"{folder}: the training of this oracle is not finished; train it again")
    weights = folder / WEIGHTS
    check_weights_file(weights, advice="train the oracle again")
    try:
        classes = tuple(record["classes"])
        model = _build(config, len(classes))
        model.load_weights(weights)
    except Exception as error:  # Keras and h5py raise many types
        raise InputError(
            f"{weights}: damaged, or of another network ({first_line(error)}); train the oracle again"
        ) from None
    return Oracle(config, classes, model)


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


def _resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Images as float32 `(batch, size, size, 3)`, smoothed where they shrink."""
    return tf.image.resize(images, (size, size), antialias=True)


def _build(config: OracleConfig, num_classes: int) -> keras.Model:
    names = ("blocks", "cardinality", "width_per_group", "normalization", "base_filters", "seed")
    return build_resnext(config.image_size, num_classes, **{name: getattr(config, name) for name in names})


def _run_steps(
    config: OracleConfig, model: keras.Model, images: np.ndarray, class_ids: np.ndarray, output: Path
) -> dict[str, float]:
    """Train the model and write the log; returns its last row."""
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps)
    train_step = _make_train_step(config, model, schedule)
    batches = row_batches(class_ids, config, np.random.default_rng(config.seed))
    lines = [",".join(LOG_COLUMNS)]
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
            values = (step, loss, accuracy, float(schedule(step - 1)), round(time.monotonic() - started, 1))
            lines.append(",".join(f"{value:.7g}" for value in values))
            write_text(output / LOG, "\n".join(lines) + "\n")
            sums, count = tf.zeros(2), 0
    return dict(zip(LOG_COLUMNS, values, strict=True))


def _make_train_step(
    config: OracleConfig, model: keras.Model, schedule: keras.optimizers.schedules.LearningRateSchedule
) -> Callable[[np.ndarray, np.ndarray, tf.Tensor], tf.Tensor]:
    """From images, their classes and the number of steps done to loss and accuracy, of shape (2,)."""
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def train_step(images, class_ids, step):
        inputs = _resize(images, config.image_size)
        if config.augment:
            inputs = augment(inputs, tf.stack([tf.constant(config.seed, tf.int64), step]))
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        is_right = tf.argmax(logits, axis=-1) == class_ids
        return tf.stack([loss, tf.reduce_mean(tf.cast(is_right, tf.float32))])

    return train_step
