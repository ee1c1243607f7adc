"""Records of a running training: bar, log, curves and checkpoints; and the stop at a loss that is not finite."""

import csv
import math
from pathlib import Path
from typing import Any

import keras

from mrcnn.files.atomic import write_text
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.hdf5 import save_weights
from mrcnn.files.progress import Bar
from mrcnn.files.tensorboard import SummaryWriter
from mrcnn.training.folder import CHECKPOINTS, LOG, TENSORBOARD, remove_checkpoints
from mrcnn.training.step import LOSS_NAMES


class ProgressBar(keras.callbacks.Callback):
    """A bar over all steps of the run, with the time left and the loss."""

    def __init__(self, total_steps: int, first_step: int):
        super().__init__()
        self.total_steps, self.first_step = total_steps, first_step
        self.bar: Bar | None = None
        self.validated = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Open the bar."""
        self.bar = Bar(total=self.total_steps, initial=self.first_step, desc="detector", unit="step", smoothing=0.05)
        self.bar.set_postfix_str("compiling the training step")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Advance."""
        self.bar.update()
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Say why nothing moves before the first validation."""
        if not self.validated:
            self.bar.set_postfix_str("compiling the validation step")
        self.validated = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the bar."""
        self.bar.close()


class StopOnNonFinite(keras.callbacks.Callback):
    """Stop at the first loss term that is not finite, and say which, with an InputError."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Check the terms before their sum."""
        bad = [name for name in (*LOSS_NAMES, "loss") if not math.isfinite(logs[name])]
        if bad:
            raise InputError(
                f"the detector's {bad[0]} is not finite at step {_step(self.model)}: lower LEARNING_RATE, or check the "
                "masks; the last epoch's checkpoint is kept"
            )


class EpochLog(keras.callbacks.Callback):
    """After each epoch, write its losses to `log.csv` and for TensorBoard, then weights and optimiser state.

    Args:
        folder: takes them; None, for a worker that is not the chief, only gathers the rows.
        rows: of the epochs before; new ones are appended.
    """

    def __init__(self, folder: Path | None, rows: list[dict[str, Any]]):
        super().__init__()
        self.folder, self.rows = folder, rows
        self.curves = SummaryWriter(folder / TENSORBOARD) if folder is not None else None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write each file whole or not at all, the checkpoint last; resuming cuts a row without its checkpoint."""
        logs = logs or {}
        row = {"epoch": epoch + 1, "step": _step(self.model)}
        self.rows.append(row | {name: f"{float(value):.6g}" for name, value in sorted(logs.items())})
        if self.folder is None:
            return
        write_rows(self.folder / LOG, self.rows)
        self.curves.write(logs, epoch + 1)
        save_weights(self.model, self.folder / CHECKPOINTS / f"epoch-{epoch + 1:04d}.weights.h5")
        remove_checkpoints(self.folder, keep=epoch + 1)


def _step(model: keras.Model) -> int:
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write dictionaries as CSV, atomically; columns are those of the first row, then new ones."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(str(row.get(name, "")) for name in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_rows(path: Path, last_epoch: int) -> list[dict[str, Any]]:
    """Rows of a log up to an epoch: epoch and step as numbers, losses as text; InputError if it is no such log."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = [row | {name: int(row[name]) for name in ("epoch", "step")} for row in csv.DictReader(handle)]
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("rows of more or fewer values than columns")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: not the log of a training ({one_line(error)}); remove it to go on without it"
        ) from None
    return [row for row in rows if row["epoch"] <= last_epoch]
