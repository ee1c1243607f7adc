"""The log of a training: a CSV that survives a resume, and the same curves for TensorBoard."""

import csv
import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from autoencoder.folder import LOG, TENSORBOARD
from autoencoder.step import DISCRIMINATOR, LATENT_DEVIATION
from mrcnn.files.atomic import write_text
from mrcnn.files.tensorboard import SummaryWriter

_STEP = re.compile(r"[0-9]{1,12}")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[-+][0-9]{1,4})?|nan|-?inf")


class TrainingLog:
    """Write means of what the steps measure, every few steps.

    Args:
        folder: where `log.csv` and `tensorboard/` go; None writes nothing.
        names: what is measured; between "step" and "seconds" the columns of the table.
        every: steps that make a row.
        start_step: number of steps done before; rows of later steps, written after the checkpoint that the
            training resumes from, are dropped, so that the log never tells of a step twice. The first row
            after a resume is the mean of the steps since then.
    """

    def __init__(self, folder: str | os.PathLike | None, names: Sequence[str], *, every: int, start_step: int = 0):
        self.names = tuple(names)
        self.columns = ("step", *self.names, "seconds")
        self.every = every
        self._file = self._summaries = None
        self._seconds_before = 0.0
        if folder is not None:
            path = Path(folder) / LOG
            rows = _kept_rows(path, self.columns, start_step)
            self._seconds_before = _finite(rows[-1][-1]) if rows else 0.0
            write_text(path, "".join(",".join(row) + "\n" for row in [self.columns, *rows]))
            self._file = open(path, "a", encoding="utf-8", newline="")
            self._summaries = SummaryWriter(Path(folder) / TENSORBOARD)
        self._started = time.monotonic()
        self._sum = np.zeros(len(self.names))
        self._count = 0

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._file is not None:
            with suppress(OSError):  # every row was flushed; what a full disk did not take was told then
                self._file.close()
            self._summaries.close()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training that the log tells of, earlier runs included."""
        return self._seconds_before + time.monotonic() - self._started

    def add(self, step: int, metrics: np.ndarray, *, last: bool = False) -> dict[str, float] | None:
        """Take what a step has measured.

        Args:
            step: number of steps done, this one included.
            metrics: float array of shape (len(names),), in the order of `names`.
            last: whether the training ends here, so that the row is written though it is not full.

        Returns:
            The means by name, where this step ends a row.
        """
        self._sum += metrics
        self._count += 1
        if step % self.every and not last:
            return None
        means = dict(zip(self.names, (self._sum / self._count).tolist(), strict=True))
        self._sum[:] = 0.0
        self._count = 0
        if self._file is not None:
            row = [str(step), *(f"{value:.7g}" for value in means.values()), f"{self.seconds:.1f}"]
            self._write_row(row)
            self._summaries.write(means, step)
        return means

    def _write_row(self, row: Sequence[str]) -> None:
        try:
            self._file.write(",".join(row) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = self._file.name
            raise


def _kept_rows(path: Path, columns: tuple[str, ...], last_step: int) -> list[list[str]]:
    """Rows of an earlier log up to a step; a row that a kill cut short is dropped with what follows it."""
    if not last_step or not path.exists():
        return []
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            header, *rows = list(csv.reader(handle)) or [[]]
    except (UnicodeDecodeError, csv.Error):
        return []  # damaged; the log tells a person what happened, and nothing is computed from it
    if tuple(header) != columns:
        return []  # of a version that measured other things
    kept: list[list[str]] = []
    for row in rows:
        if len(row) != len(columns) or not _STEP.fullmatch(row[0]) or int(row[0]) > last_step:
            break
        if not all(_NUMBER.fullmatch(value) for value in row):
            break
        kept.append(row)
    return kept


def _finite(text: str) -> float:
    value = float(text)
    return value if np.isfinite(value) else 0.0


logger = logging.getLogger(__name__)

# Rows of the log in a row that must show the same before anything is said.
PATIENCE = 5
# Latents lie in (-1, 1); an untrained encoder gives about 0.1.
SHRUNKEN_DEVIATION = 0.005
SURE_ACCURACY = 0.99
# Above the accuracy, and below the loss, of a discriminator that knows nothing.
CHANCE_MARGIN = 0.02


class CollapseWatch:
    """Warn, once for each, when the latents or one side of the adversarial training collapse.

    Args:
        num_centres: centres that a discriminator tells apart.
    """

    def __init__(self, num_centres: int):
        self.num_centres = num_centres
        self._rows: dict[str, int] = {}  # of the log, one after the other, by what they show
        self._told: set[str] = set()

    def add(self, step: int, means: Mapping[str, float]) -> None:
        """Take a row of the log.

        Args:
            step: number of steps done.
            means: what `TrainingLog.add` returned.
        """
        deviation = means[LATENT_DEVIATION]
        self._count(
            deviation < SHRUNKEN_DEVIATION,
            "step %d: the latents have shrunk to a deviation of %.2g and hardly tell cells apart; lower beta, or give "
            "adaptation_warmup_steps",
            step,
            deviation,
        )
        if DISCRIMINATOR[0] not in means:
            return
        loss, accuracy = (means[name] for name in DISCRIMINATOR)
        self._count(
            accuracy > SURE_ACCURACY,
            "step %d: the discriminator knows the centre of nearly every cell (accuracy %.2f) and the encoder cannot "
            "hide it; raise beta, or lower discriminator_learning_rate",
            step,
            accuracy,
        )
        helpless = accuracy < 1 / self.num_centres + CHANCE_MARGIN and loss > math.log(self.num_centres) - CHANCE_MARGIN
        self._count(
            helpless,
            "step %d: the discriminator only guesses (accuracy %.2f, loss %.2f) and no longer guides the encoder: the "
            "centres are mixed, or it has collapsed; against that raise discriminator_learning_rate or lower beta",
            step,
            accuracy,
            loss,
        )

    def _count(self, holds: bool, message: str, *values: float) -> None:
        self._rows[message] = self._rows.get(message, 0) + 1 if holds else 0
        if self._rows[message] == PATIENCE and message not in self._told:
            self._told.add(message)
            logger.warning(message, *values)
