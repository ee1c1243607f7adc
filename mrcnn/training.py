"""Training the detector: the step, the schedule, what is logged, and going on after an interruption."""

import csv
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from mrcnn.atomic import atomic_path, write_text
from mrcnn.config import Config
from mrcnn.data.augmentation import Augmentation
from mrcnn.data.batches import training_batches
from mrcnn.data.dataset import Dataset
from mrcnn.errors import InputError
from mrcnn.network.assembly import DetectorParts, TrainingNetwork

log = logging.getLogger(__name__)

LOSS_NAMES = tuple(Config.LOSS_WEIGHTS)
CHECKPOINT_NAME = re.compile(r"^epoch-(\d+)\.weights\.h5$")


@keras.saving.register_keras_serializable("mrcnn")
class WarmupDrop(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0, stays, and drops once.

    Args:
        peak: the rate after the warm-up.
        warmup_steps: length of the rise.
        drop_step: step at which the rate is multiplied by `drop_factor`.
        drop_factor: see there.
    """

    def __init__(self, peak: float, warmup_steps: int, drop_step: int, drop_factor: float):
        self.peak, self.warmup_steps = float(peak), int(warmup_steps)
        self.drop_step, self.drop_factor = int(drop_step), float(drop_factor)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate at `step`, counted from 0."""
        step = tf.cast(step, tf.float32)
        rise = tf.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0)
        return self.peak * rise * tf.where(step >= self.drop_step, self.drop_factor, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "drop_step": self.drop_step,
            "drop_factor": self.drop_factor,
        }


def make_optimizer(config: Config, learning_rate: float, total_steps: int) -> keras.optimizers.Optimizer:
    """The optimiser that `config` names.

    SGD clips the gradient of each variable by its norm, as Matterport's does; Adam clips the joint norm of all.
    """
    drop_step = int(round(total_steps * config.LEARNING_RATE_DROP_AFTER))
    rate = WarmupDrop(
        learning_rate,
        config.LEARNING_RATE_WARMUP_STEPS,
        drop_step if config.LEARNING_RATE_DROP_AFTER < 1.0 else 2**31 - 1,
        config.LEARNING_RATE_DROP_FACTOR,
    )
    if config.OPTIMIZER == "adam":
        return keras.optimizers.Adam(rate, global_clipnorm=config.GRADIENT_CLIP_NORM)
    return keras.optimizers.SGD(rate, momentum=config.LEARNING_MOMENTUM, clipnorm=config.GRADIENT_CLIP_NORM)


class DetectorTrainer(keras.Model):
    """One training step of the detector, for `fit`.

    Args:
        parts: the weights.
        config: settings, of the loss too.
    """

    def __init__(self, parts: DetectorParts, config: Config):
        super().__init__(name="detector_trainer")
        self.parts, self.config = parts, config
        self.training_network = TrainingNetwork(parts, config)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", *LOSS_NAMES)}
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over the epoch of the weighted sum and of each term."""
        return list(self.trackers.values())

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """The unweighted losses of a batch, always with the same sampling."""
        return self.training_network(batch, seed=tf.constant([self.config.SEED, 0]), training=training)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Take one step; the sampling depends on the seed and the step's number alone."""
        seed = tf.stack([tf.constant(self.config.SEED), tf.cast(self.optimizer.iterations, tf.int32) * 8 + 1])
        with tf.GradientTape() as tape:
            losses = self.training_network(batch, seed=seed, training=True)
            total = self._total(losses)
            # Gradients are summed over replicas, each of which has its own mean.
            scaled = (total + self._weight_decay()) / self.distribute_strategy.num_replicas_in_sync
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return self._track(total, losses)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Losses of a validation batch."""
        losses = self(batch, training=False)
        return self._track(self._total(losses), losses)

    def _total(self, losses):
        return tf.add_n([self.config.LOSS_WEIGHTS[name] * losses[name] for name in LOSS_NAMES])

    def _weight_decay(self) -> tf.Tensor:
        """L2 penalty, divided by each kernel's size as in Matterport's; normalisation and biases are left out."""
        kernels = [v for v in self.trainable_variables if v.path.endswith("kernel")]
        if not self.config.WEIGHT_DECAY or not kernels:
            return tf.constant(0.0)
        return self.config.WEIGHT_DECAY * tf.add_n([tf.reduce_mean(tf.square(v)) for v in kernels])

    def _track(self, total, losses):
        for name, value in {"loss": total, **losses}.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()}


class ProgressBar(keras.callbacks.Callback):
    """A bar over all steps of the run, with the time left and the mean losses of the epoch."""

    def __init__(self, total_steps: int, first_step: int):
        super().__init__()
        self.total_steps, self.first_step = total_steps, first_step
        self.bar: tqdm | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Open the bar."""
        self.bar = tqdm(total=self.total_steps, initial=self.first_step, desc="detector", unit="step", smoothing=0.05)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Advance."""
        self.bar.update()
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the bar."""
        self.bar.close()


class StopOnNonFinite(keras.callbacks.Callback):
    """Stop at the first loss term that is not finite, and say which."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Check the terms before their sum.

        Raises:
            InputError: naming the term and the step.
        """
        bad = [name for name in (*LOSS_NAMES, "loss") if not tf.math.is_finite(logs[name])]
        if bad:
            step = int(self.model.optimizer.iterations)
            raise InputError(
                f"the detector's {bad[0]} is not finite at step {step}: lower LEARNING_RATE, or check the masks; "
                "the last epoch's checkpoint is kept"
            )


class EpochLog(keras.callbacks.Callback):
    """After each epoch, append its losses to `log.csv` and save weights and optimiser state."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]]):
        super().__init__()
        self.folder, self.rows = folder, rows

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the log, then the checkpoint, each whole or not at all; resuming cuts a row without its checkpoint."""
        row = {"epoch": epoch + 1, "step": int(self.model.optimizer.iterations)}
        self.rows.append(row | {name: f"{float(value):.6g}" for name, value in sorted((logs or {}).items())})
        write_rows(self.folder / "log.csv", self.rows)
        with atomic_path(self.folder / "checkpoint" / f"epoch-{epoch + 1:04d}.weights.h5") as temporary:
            self.model.save_weights(temporary)
        for other, path in checkpoints(self.folder):
            if other != epoch + 1:
                path.unlink()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write dictionaries as CSV, atomically; columns are those of the first row, then new ones."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(str(row.get(name, "")) for name in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Epochs and paths of the checkpoints in a run's folder, oldest first."""
    found = []
    for path in (folder / "checkpoint").glob("epoch-*.weights.h5"):
        match = CHECKPOINT_NAME.match(path.name)
        if match:
            found.append((int(match.group(1)), path))
    return sorted(found)


def _read_rows(path: Path, last_epoch: int) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        rows = [row | {name: int(row[name]) for name in ("epoch", "step")} for row in csv.DictReader(handle)]
    return [row for row in rows if row["epoch"] <= last_epoch]


def _learnable_variables(parts: DetectorParts) -> list[keras.Variable]:
    """Every variable that can learn, those of frozen layers included.

    The optimiser is built on all of them, so that a run that began with `layers="heads"` can go on with "all".
    """
    frozen = [layer for layer in parts.named_layers() if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    variables = list(parts.trainable_variables)
    for layer in frozen:
        layer.trainable = False
    return variables


def _load_checkpoint(trainer: DetectorTrainer, path: Path) -> None:
    try:
        trainer.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{path}: the training cannot go on from this checkpoint, made with other settings or damaged "
            f"({str(error).splitlines()[0]}); give another model_dir, or remove it"
        ) from error


def fit_detector(
    parts: DetectorParts,
    config: Config,
    train: Sequence[Dataset],
    validation: Sequence[Dataset],
    *,
    epochs: int,
    learning_rate: float,
    folder: Path,
    augmentation: Augmentation | None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train, going on from the last finished epoch that `folder` holds.

    Args:
        parts: the weights; changed in place.
        config: settings.
        train: datasets to learn from.
        validation: datasets for the validation losses; none are computed if it is empty or VALIDATION_STEPS is 0.
        epochs: in all, those of an interrupted run included.
        learning_rate: peak of the schedule.
        folder: takes `log.csv` and `checkpoint/`.
        augmentation: of training samples, or None.
        callbacks: further Keras callbacks.
        progress: show a bar.

    Returns:
        The rows of `log.csv`, one for each epoch.

    Raises:
        InputError: if there are no images, a loss is not finite, or the checkpoint in `folder` does not fit.
    """
    if not sum(dataset.num_images for dataset in train):
        raise InputError("the detector has no image to train on: give a centre with masks")
    total_steps = epochs * config.STEPS_PER_EPOCH
    trainer = DetectorTrainer(parts, config)
    trainer.compile(optimizer=make_optimizer(config, learning_rate, total_steps), jit_compile=False)
    trainer.optimizer.build(_learnable_variables(parts))
    done = checkpoints(folder)
    first_epoch = 0
    if done:
        first_epoch, path = done[-1]
        _load_checkpoint(trainer, path)
        log.info("detector: going on after epoch %d of %d", first_epoch, epochs)
    rows = _read_rows(folder / "log.csv", first_epoch)
    if first_epoch >= epochs:
        return rows
    first_step = first_epoch * config.STEPS_PER_EPOCH
    batches = training_batches(train, config, config.BATCH_SIZE, augmentation, first_step)
    validation_batches = None
    if config.VALIDATION_STEPS and sum(d.num_images for d in validation):
        # A stated length makes Keras begin anew after each epoch, so that epochs are compared on the same images.
        validation_batches = (
            training_batches(validation, config, config.BATCH_SIZE, shuffle=False)
            .take(config.VALIDATION_STEPS)
            .apply(tf.data.experimental.assert_cardinality(config.VALIDATION_STEPS))
        )
    bar = [ProgressBar(total_steps, first_step)] if progress else []
    trainer.fit(
        batches,
        epochs=epochs,
        initial_epoch=first_epoch,
        steps_per_epoch=config.STEPS_PER_EPOCH,
        validation_data=validation_batches,
        callbacks=[StopOnNonFinite(), EpochLog(folder, rows), *bar, *callbacks],
        shuffle=False,
        verbose=0,
    )
    return rows
