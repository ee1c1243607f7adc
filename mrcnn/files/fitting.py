"""What Keras' `fit` lacks here: batches read without tf.data, steps that several replicas share, logs and checkpoints
that a kill does not spoil."""

import csv
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import count
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter  # `fit` takes others' adapters as they are

from mrcnn.files.atomic import write_text
from mrcnn.files.devices import local_replicas
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.hdf5 import load_weights, save_weights
from mrcnn.files.interruption import HeldBack
from mrcnn.files.progress import Bar
from mrcnn.files.read_ahead import read_ahead

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"(\d{8})\.weights\.h5")


class ReplicaSteps:
    """Of a `keras.Model`: every replica takes its part of a batch, and returns the numbers of the whole batch.

    `train_step` and `test_step` of the class that this is mixed into get a part, reduce over the replicas themselves,
    and return floats that are alike on all of them. Logs of a step are its own; those of an epoch are the means.
    """

    @property
    def steps_done(self) -> int:
        """How many steps were taken, those of earlier runs included."""
        return int(keras.ops.convert_to_numpy(self.optimizer.iterations))  # there may be one on each device

    def make_train_function(self, force: bool = False) -> None:
        """As of `keras.Model`, for iterators of any kind; the compiled step is kept until `compile` is called."""
        if force or self.train_function is None:
            self.train_function = self._on_batches(self.train_step)

    def make_test_function(self, force: bool = False) -> None:
        """As `make_train_function`."""
        if force or self.test_function is None:
            self.test_function = self._on_batches(self.test_step)

    def reset_metrics(self) -> None:
        """Begin the means anew."""
        super().reset_metrics()
        self._means = _Means()

    def get_metrics_result(self) -> dict[str, float]:
        """Means over the batches since `reset_metrics`, by name."""
        return self._means.result()

    def _on_batches(self, step: Callable[[Any], dict[str, tf.Tensor]]) -> Callable[[Iterator[Any]], dict[str, float]]:
        strategy = self.distribute_strategy

        def on_batch(batch: Any) -> dict[str, tf.Tensor]:
            outputs = strategy.run(step, args=(batch,))
            return {name: strategy.experimental_local_results(value)[0] for name, value in outputs.items()}

        compiled = on_batch if self.run_eagerly else tf.function(on_batch, reduce_retracing=True)

        def on_next(iterator: Iterator[Any]) -> dict[str, float]:
            logs = {name: float(value) for name, value in compiled(next(iterator)).items()}
            self._means.add(logs)
            return logs

        return on_next

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing is left to build; Keras would read a batch and average it over the replicas, masks and all."""


class _Means:
    """Means of what some batches measured; a plain object, which Keras takes for no part of the model."""

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, logs: Mapping[str, float]) -> None:
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in logs.items()}
        self.count += 1

    def result(self) -> dict[str, float]:
        return {name: value / self.count for name, value in self.sums.items()}


class ReplicaBatches(DataAdapter, tf.distribute.DistributedDataset):
    """A `keras.utils.PyDataset` for `fit`, read ahead by Python threads, each replica given its equal part.

    It stands for tf.data, whose iterators wait for their threads when they end: the garbage collector may bring that
    about in one of these threads, or in a thread with HDF5's lock, which they need too. Close it after use.

    Args:
        data: gives the batches as dicts of arrays; `workers` threads read up to `max_queue_size` of them ahead.
        strategy: whose replicas share them.
        start: number of the first batch.
        is_own: whether `data` gives only this process's part of each batch.
    """

    def __init__(
        self, data: keras.utils.PyDataset, strategy: tf.distribute.Strategy, start: int = 0, *, is_own: bool = False
    ):
        self.data, self.strategy, self.start = data, strategy, start
        own = local_replicas(strategy)
        self.first, self.num_parts = (own.start, len(own)) if is_own else (0, strategy.num_replicas_in_sync)
        self._open = ExitStack()

    def __iter__(self) -> Iterator[Any]:
        """Batches from the first one on, of which each replica has its part."""
        numbers = count(self.start) if self.data.num_batches is None else range(self.start, self.data.num_batches)
        ahead = {"num_ahead": self.data.max_queue_size, "num_threads": self.data.workers}
        return map(self._divide, self._open.enter_context(closing(read_ahead(self.data.__getitem__, numbers, **ahead))))

    def _divide(self, batch: Mapping[str, Any]) -> Any:
        size = len(next(iter(batch.values()))) // self.num_parts

        def part(context: tf.distribute.experimental.ValueContext) -> dict[str, tf.Tensor]:
            start = size * (context.replica_id_in_sync_group - self.first)
            return {name: tf.convert_to_tensor(value[start : start + size]) for name, value in batch.items()}

        return self.strategy.experimental_distribute_values_from_function(part)

    def close(self) -> None:
        """Stop reading."""
        self._open.close()

    def get_tf_dataset(self) -> "ReplicaBatches":
        """Itself, which Keras iterates over."""
        return self

    @property
    def num_batches(self) -> int | None:
        """Number of batches, or None where they never end."""
        return self.data.num_batches

    element_spec = batch_size = None


class StepLog(keras.callbacks.CSVLogger):
    """Keras' log of the epochs, with the number of the last step and the seconds of the training so far.

    Both are in the logs of every callback after this one. Of a log that is there, the rows before `first_epoch` stay.
    """

    def __init__(self, path: Path, first_epoch: int):
        super().__init__(str(path), append=True)
        rows = [row for row in read_log(path) if row["epoch"] < first_epoch]
        names = list(rows[0]) if rows else []
        lines = [",".join(map(str, line)) + "\n" for line in (names, *(row.values() for row in rows)) if line]
        write_text(path, "".join(lines))
        self.names, self.started = names[1:], time.monotonic() - (rows[-1]["seconds"] if rows else 0.0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add step and seconds to the logs, and write the row."""
        logs |= {"step": self.model.steps_done, "seconds": round(time.monotonic() - self.started, 1)}
        # Keras' own would add columns of a validation that there is not.
        self.keys = self.names = self.names or list(logs)
        short = {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in logs.items()}
        try:
            super().on_epoch_end(epoch, short)
        except OSError as error:
            error.filename = self.filename  # of a full disk it says nothing
            raise


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a log of `StepLog` as numbers, up to the first that is damaged: nothing is computed from them."""
    rows: list[dict[str, Any]] = []
    with suppress(OSError, ValueError, TypeError, csv.Error):
        for row in csv.DictReader(path.read_text("utf-8").splitlines()):
            if not {"epoch", "step", "seconds"} <= row.keys():
                break
            rows.append({name: int(text) if name in ("epoch", "step") else float(text) for name, text in row.items()})
    return rows


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a log, or None without one."""
    return next(reversed(read_log(path)), None)


class StopAtFault(keras.callbacks.Callback):
    """End a training by an `InputError` at the first step with a loss that is not finite, which it names.

    Args:
        names: of the losses, the terms before their sum, which is never finite when a term is not.
        advice: what to do.
    """

    def __init__(self, names: Sequence[str], advice: str):
        super().__init__()
        self.names, self.advice = names, advice

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the losses of a step."""
        for name in self.names:
            if not math.isfinite(logs[name]):
                raise InputError(f"{name} is {logs[name]} at step {self.model.steps_done}: {self.advice}")


class EndAt(keras.callbacks.Callback):
    """End a training after a step, or after the one at hand where an interruption waits."""

    def __init__(self, last_step: int, interruption: HeldBack):
        super().__init__()
        self.last_step, self.interruption = last_step, interruption

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop the model where it is due; the epoch ends there, and its row is written."""
        if self.model.steps_done >= self.last_step or self.interruption.is_due:
            self.model.stop_training = True


class Checkpoints(keras.callbacks.Callback):
    """At the end of an epoch, keep weights and optimisers, if `every` steps have passed or the training ends there."""

    def __init__(self, folder: Path, every: int):
        super().__init__()
        self.folder, self.every, self.last = folder, every, 0

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """The steps of earlier runs have their checkpoint."""
        self.last = self.model.steps_done

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the checkpoint; the one before it stays too."""
        step = self.model.steps_done
        if step - self.last >= self.every or self.model.stop_training:
            save_checkpoint(self.model, self.folder, step, kept=2)
            self.last = step


def save_checkpoint(model: keras.Model, folder: Path, number: int, kept: int = 1) -> None:
    """Write weights and optimisers as checkpoint `number`, whole or not at all; then remove all but the newest."""
    save_weights(model, folder / f"{number:08d}.weights.h5")
    remove_checkpoints(folder, kept)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of the checkpoints in a folder, newest first; none if there is no such folder."""
    found = ((_CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("*.weights.h5"))
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def remove_checkpoints(folder: Path, kept: int = 0) -> None:
    """Remove all but the newest checkpoints: optimisers are twice the weights."""
    for _, path in list_checkpoints(folder)[kept:]:
        path.unlink()


def load_newest_checkpoint(model: keras.Model, folder: Path) -> int:
    """Load the newest checkpoint that is whole; returns its number, or 0 if there is none.

    An `InputError` says that all are damaged or of another network.
    """
    found = list_checkpoints(folder)
    for number, path in found:
        try:
            load_weights(model, path, advice="it is passed over")
            return number
        except InputError as error:
            logger.warning("%s", one_line(error))
    if found:
        raise InputError(f"{folder}: no checkpoint there is whole and of this network; train again with --overwrite")
    return 0


def fit(
    model: keras.Model,
    batches: ReplicaBatches,
    validation: ReplicaBatches | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback],
    steps_per_epoch: int,
    initial_epoch: int,
    epochs: int,
) -> None:
    """Let Keras train a compiled model; batches are closed, and callbacks ended, also where it is broken off."""
    params = {"epochs": epochs, "steps": steps_per_epoch, "verbose": 0}
    listed = keras.callbacks.CallbackList(list(callbacks), add_history=True, model=model, **params)
    with closing(batches), closing(validation or ExitStack()), ExitStack() as broken_off:
        broken_off.callback(listed.on_train_end)
        model.fit(
            batches,
            validation_data=validation,
            callbacks=listed,
            steps_per_epoch=steps_per_epoch,
            initial_epoch=initial_epoch,
            epochs=epochs,
            verbose=0,
        )
        broken_off.pop_all()


class StepBar(keras.callbacks.Callback):
    """tqdm's bar of the steps, with the loss."""

    def __init__(self, **options: Any):
        super().__init__()
        self.bar = Bar(unit="step", smoothing=0.05, **options)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Show a step."""
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
        self.bar.update()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Close the bar."""
        self.bar.close()
