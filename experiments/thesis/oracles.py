"""The oracles of Table 3.3 of the thesis: one ResNeXt per centre, trained on its images to name its cells.

An oracle sees images, not features, and is trained for the one task. It says how well the cells of its own centre can
be named, and how little of that holds in another.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from autoencoder.config import check_names
from experiments.thesis.resnext import BASE_FILTERS, BLOCKS, CARDINALITY, NORMALIZATIONS, WIDTH_PER_GROUP, build_resnext
from mrcnn.files.atomic import check_folder_is_free, write_json, write_text
from mrcnn.files.errors import InputError, first_line
from mrcnn.files.hdf5 import check_weights_file, save_weights
from mrcnn.files.json_io import read_json_file
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import versions

_LEAST = {
    "image_size": 32,
    "base_filters": 1,
    "width_per_group": 1,
    "cardinality": 1,
    "steps": 1,
    "batch_size": 2,
    "seed": 0,
}
# Far beyond what anybody trains; they keep a mistake from filling the memory.
_MOST = {"image_size": 2048, "base_filters": 1024, "width_per_group": 1024, "cardinality": 256, "batch_size": 10**6}
_MOST_STAGES, _MOST_BLOCKS = 6, 300


@dataclass(frozen=True)
class OracleConfig:
    """What decides how an oracle is built and trained.

    Attributes:
        image_size: side in pixels to which images are brought.
        blocks: number of blocks in each stage; (3, 4, 6, 3) is ResNeXt-50.
        base_filters: channels of the first convolution.
        width_per_group: channels of a group in the first stage.
        cardinality: groups of the 3x3 convolutions.
        normalization: "batch" or "group".
        steps: number of steps. The thesis' 150 epochs in batches of 1,500 come to about 6,600 (section 3.4).
        batch_size: images in a step.
        learning_rate: Adam's at the first step (thesis section 3.4); it falls to 0 along a half cosine.
        augment: whether to flip and turn images, and to change their brightness and contrast a little.
        balance_classes: whether every class is equally frequent in a batch, however rare its images are.
        seed: of the initial weights, the order of the images and the augmentation.

    Raises:
        InputError: if a value has the wrong type or lies outside its range.
    """

    image_size: int = 64
    blocks: tuple[int, ...] = BLOCKS
    base_filters: int = BASE_FILTERS
    width_per_group: int = WIDTH_PER_GROUP
    cardinality: int = CARDINALITY
    normalization: str = "batch"
    steps: int = 6600
    batch_size: int = 32
    learning_rate: float = 1e-3
    augment: bool = True
    balance_classes: bool = True
    seed: int = 0

    def __post_init__(self):
        for name, least in _LEAST.items():
            if not _is_whole(getattr(self, name), least):
                raise InputError(f"{name} must be a whole number of at least {least}, got {getattr(self, name)!r}")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise InputError(f"{name} must be at most {most}, got {getattr(self, name)!r}")
        if (
            not isinstance(self.blocks, list | tuple)
            or not self.blocks
            or not all(_is_whole(n, 1) for n in self.blocks)
            or len(self.blocks) > _MOST_STAGES
            or sum(self.blocks) > _MOST_BLOCKS
        ):
            raise InputError(
                f"blocks must be a list of up to {_MOST_STAGES} whole numbers from 1 on, got {self.blocks!r}"
            )
        object.__setattr__(self, "blocks", tuple(self.blocks))  # JSON has lists alone
        if self.normalization not in NORMALIZATIONS:
            raise InputError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {self.normalization!r}")
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            raise InputError(f"learning_rate must be a number above 0, got {rate!r}")
        for name in ("augment", "balance_classes"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "blocks": list(self.blocks)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "oracle config") -> "OracleConfig":
        """Make a config of some settings; those not given keep their defaults.

        Args:
            values: settings by name.
            where: what to call the place they come from in an error, such as a file.

        Raises:
            InputError: if a name is not a setting, or a value is not allowed.
        """
        check_names(values, cls, where)
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


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
) -> Oracle:
    """Train an oracle and leave it in a folder, or load it from there if it was trained before.

    Args:
        config: the settings.
        images: uint8 array of shape (n, height, width, 3).
        labels: names of shape (n,), none of them "".
        output: the folder; it gets `config.json`, `run.json`, `weights.weights.h5` and `log.csv`. A training that was
            broken off is begun anew.
        inputs_hash: of what was trained on; it tells a finished oracle from one of other cells.

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
    last = _run_steps(config, model, images, class_ids, batches, output)
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
) -> dict[str, float]:
    """Train the model and write the log; returns its last row."""
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps)
    train_step = _make_train_step(config, model, schedule)
    rows: list[dict[str, float]] = []
    sums, count, started = tf.zeros(2), 0, time.monotonic()
    with Bar(total=config.steps, desc="oracle", unit="step") as bar:
        for step in range(config.steps):
            chosen = next(batches)
            sums += train_step(images[chosen], class_ids[chosen], tf.constant(step, tf.int64))
            count += 1
            bar.update(1)
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
