"""The log of a training: a CSV that survives a resume, and the same curves for TensorBoard."""

import csv
import os
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from autoencoder.folder import LOG, TENSORBOARD
from mrcnn.atomic import write_text

LOSSES = ("loss", "feature_loss", "image_loss", "adaptation_loss")
COLUMNS = ("step", *LOSSES, "seconds")


class TrainingLog:
    """Write means of the losses every few steps.

    Args:
        folder: where `log.csv` and `tensorboard/` go.
        every: steps that make a row.
        start_step: number of steps done before; rows of later steps, written after the checkpoint that the
            training resumes from, are dropped, so that the log never tells of a step twice. The first row
            after a resume is the mean of the steps since then.
    """

    def __init__(self, folder: str | os.PathLike, *, every: int, start_step: int = 0):
        folder = Path(folder)
        self.every = every
        rows = _kept_rows(folder / LOG, start_step)
        write_text(folder / LOG, "".join(",".join(row) + "\n" for row in [COLUMNS, *rows]))
        self._file = open(folder / LOG, "a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._summaries = tf.summary.create_file_writer(str(folder / TENSORBOARD))
        self._seconds_before = float(rows[-1][-1]) if rows else 0.0
        self._started = time.monotonic()
        self._sum = np.zeros(len(LOSSES))
        self._count = 0

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._file.close()
        self._summaries.close()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training that the log tells of, earlier runs included."""
        return self._seconds_before + time.monotonic() - self._started

    def add(self, step: int, losses: np.ndarray, *, last: bool = False) -> None:
        """Take the losses of a step.

        Args:
            step: number of steps done, this one included.
            losses: float array of shape (4,), in the order of `LOSSES`.
            last: whether the training ends here, so that the row is written though it is not full.
        """
        self._sum += losses
        self._count += 1
        if step % self.every and not last:
            return
        means = self._sum / self._count
        self._writer.writerow([step, *(f"{value:.7g}" for value in means), f"{self.seconds:.1f}"])
        self._file.flush()
        with self._summaries.as_default():
            for name, value in zip(LOSSES, means, strict=True):
                tf.summary.scalar(name, value, step=step)
        self._summaries.flush()
        self._sum[:] = 0.0
        self._count = 0


def _kept_rows(path: Path, last_step: int) -> list[list[str]]:
    """Rows of an earlier log up to a step; a row that a kill cut short is dropped with what follows it."""
    if not last_step or not path.exists():
        return []
    kept: list[list[str]] = []
    with open(path, encoding="utf-8", newline="") as handle:
        for row in list(csv.reader(handle))[1:]:
            if len(row) != len(COLUMNS) or not row[0].isdigit() or int(row[0]) > last_step:
                break
            kept.append(row)
    return kept
