"""The oracles of Table 3.3 of the thesis: one ResNeXt per centre, trained on its images to name its cells.

An oracle sees images, not features, and is trained for the one task. It says how well the cells of its own centre can
be named, and how little of that holds in another.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.oracle_batches import augment, resize_images, row_batches
from experiments.oracle_config import OracleConfig
from experiments.resnext import build_resnext
from experiments.versions import versions
from mrcnn.atomic import check_folder_is_free, write_json, write_text
from mrcnn.errors import InputError, first_line
from mrcnn.hdf5_files import save_weights
from mrcnn.json_values import read_json_file
from mrcnn.plain_hdf5 import check_weights_file
from mrcnn.progress import Progress

logger = logging.getLogger(__name__)

CONFIG = "config.json"
RUN = "run.json"
WEIGHTS = "weights.weights.h5"
LOG = "log.csv"
KIND = "oracle"  # what run.json calls itself, since other trained things have one too
LOG_COLUMNS = ("step", "loss", "accuracy", "learning_rate", "seconds")
LOG_EVERY = 20  # steps


@dataclass(frozen=True)
class Oracle:
    """A trained oracle, as `load_oracle` gives it.

    Attributes:
        folder: where it lies.
        config: what it was trained with.
        run: content of `run.json`.
        model: from images `(batch, image_size, image_size, 3)` in [0, 255] to logits.
    """

    folder: Path
    config: OracleConfig
    run: dict[str, Any]
    model: keras.Model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the logits."""
        return tuple(self.run["classes"])

    def predict(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Name the cells.

        Args:
            images: uint8 array of shape (n, height, width, 3).
            batch_size: images at a time.

        Returns:
            str array of shape (n,), each one of `classes`.

        Raises:
            ValueError: if the images are not such an array.
        """
        _check_images(images)
        named = np.zeros(len(images), np.int64)
        for start in range(0, len(images), batch_size):
            named[start : start + batch_size] = self._name(images[start : start + batch_size]).numpy()
        return np.array(self.classes)[named]

    @cached_property
    def _name(self) -> Callable[[np.ndarray], tf.Tensor]:
        """From images of any size to the indices of their classes."""
        size = self.config.image_size

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        def name(images):
            return tf.argmax(self.model(resize_images(images, size), training=False), axis=-1)

        return name


def train_oracle(
    config: OracleConfig,
    images: np.ndarray,
    labels: np.ndarray,
    output: str | os.PathLike,
    *,
    inputs_hash: str,
    progress: bool = True,
) -> Oracle:
    """Train an oracle and leave it in a folder, or load it from there if it was trained before.

    Args:
        config: the settings.
        images: uint8 array of shape (n, height, width, 3).
        labels: names of shape (n,), none of them "".
        output: the folder; it gets `config.json`, `run.json`, `weights.weights.h5` and `log.csv`. A training that was
            broken off is begun anew.
        inputs_hash: of what was trained on; it tells a finished oracle from one of other cells.
        progress: whether to tell how far the training is.

    Returns:
        The oracle, loaded from `output`.

    Raises:
        InputError: if there are fewer than two classes, `output` holds something else or another oracle, or the loss
            is no longer finite.
        ValueError: if images and labels are not such arrays.
    """
    output = Path(output)
    labels = np.asarray(labels, dtype=str)
    _check_images(images)
    if labels.shape != images.shape[:1] or np.any(labels == ""):
        raise ValueError(f"labels must be {len(images)} names, got shape {labels.shape}")
    classes, class_ids, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"{output}: an oracle needs cells of two classes or more, got {', '.join(classes) or 'none'}")
    if _is_trained(output, config, inputs_hash):
        logger.info("%s: trained already", output)
        return load_oracle(output)
    record = {
        "complete": False,
        "kind": KIND,
        "inputs_hash": inputs_hash,
        "classes": classes.tolist(),
        "cells": dict(zip(classes.tolist(), counts.tolist(), strict=True)),
        "versions": versions(),
    }
    write_json(output / RUN, record)  # first, since a folder without it is left alone
    write_json(output / CONFIG, config.to_dict())
    for name in (WEIGHTS, LOG):
        (output / name).unlink(missing_ok=True)
    model = _build(config, len(classes))
    batches = row_batches(class_ids, config, np.random.default_rng(config.seed))
    last = _run_steps(config, model, images, class_ids, batches, output, progress)
    save_weights(model, output / WEIGHTS)
    record.update(complete=True, seconds=last["seconds"], loss=last["loss"], parameters=model.count_params())
    write_json(output / RUN, record)
    return load_oracle(output)


def load_oracle(folder: str | os.PathLike) -> Oracle:
    """Load a trained oracle.

    Args:
        folder: what `train_oracle` wrote to.

    Raises:
        InputError: if a file is missing or damaged, or the training has not come to its end.
    """
    folder = Path(folder)
    run = _read_run(folder)
    if not run["complete"]:
        raise InputError(f"{folder}: the training of this oracle is not finished; train it again")
    config = OracleConfig.from_dict(_read_json(folder / CONFIG), where=str(folder / CONFIG))
    weights = folder / WEIGHTS
    check_weights_file(weights, advice="train the oracle again")
    model = _build(config, len(run["classes"]))
    try:
        model.load_weights(weights)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{weights}: damaged, or of another network ({first_line(error)}); train the oracle again"
        ) from None
    return Oracle(folder, config, run, model)


def _build(config: OracleConfig, num_classes: int) -> keras.Model:
    return build_resnext(
        config.image_size,
        num_classes,
        blocks=config.blocks,
        cardinality=config.cardinality,
        width_per_group=config.width_per_group,
        normalization=config.normalization,
        base_filters=config.base_filters,
        seed=config.seed,
    )


def _run_steps(
    config: OracleConfig,
    model: keras.Model,
    images: np.ndarray,
    class_ids: np.ndarray,
    batches: Iterator[np.ndarray],
    output: Path,
    progress: bool,
) -> dict[str, float]:
    """Train the model and write the log; returns its last row."""
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps)
    train_step = _make_train_step(config, model, schedule)
    rows: list[dict[str, float]] = []
    sums, count, started = tf.zeros(2), 0, time.monotonic()
    with Progress("oracle", "steps", config.steps, show=progress) as bar:
        for step in range(config.steps):
            chosen = next(batches)
            sums += train_step(images[chosen], class_ids[chosen], tf.constant(step, tf.int64))
            count += 1
            bar.advance(1)
            if (step + 1) % LOG_EVERY and step + 1 < config.steps:
                continue
            loss, accuracy = (sums / count).numpy().tolist()  # waits for the device, hence not every step
            if not np.isfinite(loss):
                raise InputError(f"the oracle's loss is {loss} at step {step + 1}; lower learning_rate and train again")
            seconds = round(time.monotonic() - started, 1)
            values = (step + 1, loss, accuracy, float(schedule(step)), seconds)
            rows.append(dict(zip(LOG_COLUMNS, values, strict=True)))
            lines = [",".join(LOG_COLUMNS), *(",".join(f"{row[name]:.7g}" for name in LOG_COLUMNS) for row in rows)]
            write_text(output / LOG, "\n".join(lines) + "\n")
            sums, count = tf.zeros(2), 0
    return rows[-1]


def _make_train_step(
    config: OracleConfig, model: keras.Model, schedule: keras.optimizers.schedules.LearningRateSchedule
) -> Callable[[np.ndarray, np.ndarray, tf.Tensor], tf.Tensor]:
    """From images, their classes and the number of steps done to loss and accuracy, of shape (2,)."""
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def train_step(images, class_ids, step):
        inputs = resize_images(images, config.image_size)
        if config.augment:
            inputs = augment(inputs, tf.stack([tf.constant(config.seed, tf.int64), step]))
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        is_right = tf.argmax(logits, axis=-1) == class_ids
        return tf.stack([loss, tf.reduce_mean(tf.cast(is_right, tf.float32))])

    return train_step


def _is_trained(output: Path, config: OracleConfig, inputs_hash: str) -> bool:
    """Whether the folder holds this very oracle; a finished other one is refused, an unfinished one is not."""
    check_folder_is_free(output, RUN, overwrite=True)
    if not (output / RUN).exists():
        return False
    run = _read_run(output)
    if not run["complete"]:
        return False
    there = OracleConfig.from_dict(_read_json(output / CONFIG), where=str(output / CONFIG)).to_dict()
    here = config.to_dict()
    differences = [f"{name} is {there[name]!r} there" for name in here if here[name] != there[name]]
    if run.get("inputs_hash") != inputs_hash:
        differences.append("its cells are others")
    if differences:
        raise InputError(f"{output}: holds another oracle ({'; '.join(differences)}); give another folder")
    return True


def _read_run(folder: Path) -> dict[str, Any]:
    run = _read_json(folder / RUN)
    classes = run.get("classes")
    whole = isinstance(classes, list) and len(classes) > 1 and all(isinstance(name, str) for name in classes)
    if run.get("kind") != KIND or not whole or not isinstance(run.get("complete"), bool):
        raise InputError(f"{folder / RUN}: not the record of an oracle; give another folder")
    return run


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json_file(
        path, missing="is this the folder of a trained oracle?", advice="train the oracle again", allow_nan=True
    )
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON object is expected; train the oracle again")
    return content


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be uint8 of shape (n, height, width, 3), got {images.dtype} {images.shape}")
