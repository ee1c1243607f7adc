"""Log of a training: a CSV that survives a resume, the same curves for TensorBoard, and warnings of a collapse."""

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from autoencoder.folder import LOG, TENSORBOARD
from autoencoder.step import DISCRIMINATOR, LATENT_DEVIATION
from mrcnn.files.atomic import write_text
from mrcnn.files.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

# Rows of the log in a row that must show the same before anything is said.
PATIENCE = 5
# Latents lie in (-1, 1); an untrained encoder gives about 0.1.
SHRUNKEN_DEVIATION = 0.005
SURE_ACCURACY = 0.99
# Above the accuracy, and below the loss, of a discriminator that knows nothing.
CHANCE_MARGIN = 0.02


class TrainingLog:
    """Write means of what the steps measure to `log.csv` and `tensorboard/` in a folder; nothing if it is None.

    Columns of the table are "step", the names of what is measured, and "seconds"; `every` so many steps make a row.
    Rows of steps after `start_step`, the checkpoint that the training resumes from, are dropped, and the next row is
    the mean of the steps since then.
    """

    def __init__(self, folder: str | os.PathLike | None, names: Sequence[str], *, every: int, start_step: int = 0):
        self.names, self.every = tuple(names), every
        self._summaries = None
        self._seconds_before = 0.0
        if folder is not None:
            self._path, header = Path(folder) / LOG, ",".join(("step", *names, "seconds"))
            rows = _kept_rows(self._path, header, start_step)
            self._seconds_before = float(rows[-1].rpartition(",")[2]) if rows else 0.0
            write_text(self._path, "\n".join([header, *rows, ""]))
            self._summaries = SummaryWriter(Path(folder) / TENSORBOARD)
        self._started = time.monotonic()
        self._waiting: list[np.ndarray] = []

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._summaries is not None:
            self._summaries.close()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training that the log tells of, earlier runs included."""
        return self._seconds_before + time.monotonic() - self._started

    def add(self, step: int, metrics: np.ndarray, *, last: bool = False) -> dict[str, float] | None:
        """Take what a step, counted from 1, has measured; return the means if it ends a row, as the `last` one does."""
        self._waiting.append(metrics)
        if step % self.every and not last:
            return None
        means = dict(zip(self.names, np.mean(self._waiting, axis=0, dtype=np.float64).tolist(), strict=True))
        self._waiting.clear()
        if self._summaries is not None:
            row = [str(step), *(f"{value:.7g}" for value in means.values()), f"{self.seconds:.1f}"]
            try:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(",".join(row) + "\n")
            except OSError as error:
                error.filename = str(self._path)  # of a full disk it says nothing
                raise
            self._summaries.write(means, step)
        return means


def _kept_rows(path: Path, header: str, last_step: int) -> list[str]:
    """Rows of an earlier log up to a step; a row that a kill cut short is dropped with what follows it.

    A log that is damaged, or of other columns, is no reason to stop: nothing is computed from it.
    """
    kept: list[str] = []
    first, *rows = path.read_text("utf-8", "replace").splitlines() or [""] if path.exists() else [""]
    with suppress(ValueError):  # of what is no number
        for row in rows if first == header else []:
            step, *values = map(float, row.split(","))
            if len(values) != header.count(",") or step > last_step:
                break
            kept.append(row)
    return kept


class CollapseWatch:
    """Warn, once for each, when the latents or one side of the adversarial training collapse."""

    def __init__(self, num_centres: int):
        self.num_centres = num_centres
        self._rows: dict[str, int] = {}  # of the log, one after the other, by the warning that they call for

    def add(self, step: int, means: Mapping[str, float]) -> None:
        """Take a row of the log, as `TrainingLog.add` returned it."""
        # Without a discriminator both are NaN, and nothing holds of NaN.
        loss, accuracy = (means.get(name, math.nan) for name in DISCRIMINATOR)
        is_lost = accuracy < 1 / self.num_centres + CHANCE_MARGIN and loss > math.log(self.num_centres) - CHANCE_MARGIN
        signs = {
            "step %(step)d: the latents have shrunk to a standard deviation of %(latent_deviation).2g and hardly tell "
            "cells apart; lower beta, or give adaptation_warmup_steps": means[LATENT_DEVIATION] < SHRUNKEN_DEVIATION,
            "step %(step)d: the discriminator knows the centre of nearly every cell (accuracy "
            "%(discriminator_accuracy).2f) and the encoder cannot hide it; raise beta, or lower "
            "discriminator_learning_rate": accuracy > SURE_ACCURACY,
            "step %(step)d: the discriminator only guesses (accuracy %(discriminator_accuracy).2f, loss "
            "%(discriminator_loss).2f) and no longer guides the encoder: the centres are mixed, or it has collapsed; "
            "against that raise discriminator_learning_rate or lower beta": is_lost,
        }
        for message, holds in signs.items():
            rows = self._rows.get(message, 0)
            if rows < PATIENCE:
                self._rows[message] = rows + 1 if holds else 0
                if self._rows[message] == PATIENCE:
                    logger.warning(message, {"step": step, **means})
