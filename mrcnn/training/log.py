"""Records of a running training: a log, curves and checkpoints; and the stop at a loss that is not finite."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from mrcnn.files.atomic import write_text
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.hdf5 import save_weights
from mrcnn.files.tensorboard import SummaryWriter
from mrcnn.training.folder import CHECKPOINTS, LOG, TENSORBOARD, remove_checkpoints
from mrcnn.training.step import LOSS_NAMES


def check_finite(model: keras.Model, losses: Mapping[str, float]) -> None:
    """Raise an InputError if a loss of the model's last step is not finite; it names the term before their sum."""
    bad = [name for name in (*LOSS_NAMES, "loss") if not math.isfinite(losses[name])]
    if bad:
        raise InputError(
            f"the detector's {bad[0]} is not finite at step {_num_steps(model)}: lower LEARNING_RATE, or check the "
            "masks; the last epoch's checkpoint is kept"
        )


def _num_steps(model: keras.Model) -> int:
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))  # which may be there for each of several devices


class EpochLog:
    """After each epoch, write its losses to `log.csv` and for TensorBoard, then weights and optimiser state.

    Args:
        folder: takes them; None, for a worker that is not the chief, only gathers the rows.
        rows: of the epochs before; new ones are appended.
    """

    def __init__(self, folder: Path | None, rows: list[dict[str, Any]]):
        self.folder, self.rows = folder, rows
        self.curves = SummaryWriter(folder / TENSORBOARD) if folder is not None else None

    def add(self, model: keras.Model, epoch: int, losses: Mapping[str, float]) -> None:
        """Write each file whole or not at all, the checkpoint last; resuming cuts a row without its checkpoint."""
        row = {"epoch": epoch, "step": _num_steps(model)}
        self.rows.append(row | {name: f"{value:.6g}" for name, value in sorted(losses.items())})
        if self.folder is None:
            return
        write_rows(self.folder / LOG, self.rows)
        self.curves.write(losses, epoch)
        save_weights(model, self.folder / CHECKPOINTS / f"epoch-{epoch:04d}.weights.h5")
        remove_checkpoints(self.folder, keep=epoch)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write dictionaries as CSV, atomically; columns are those of the first row, then new ones."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([str(row.get(name, "")) for name in columns] for row in rows)]
    write_text(path, "".join(",".join(line) + "\n" for line in lines))


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
        raise InputError(f"{path}: no log of a training ({one_line(error)}); remove it to go on without it") from None
    return [row for row in rows if row["epoch"] <= last_epoch]
