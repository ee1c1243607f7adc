"""Naming the cells of new files with a trained classifier."""

import csv
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.classifier.folder import TrainedClassifier
from experiments.classifier.inputs import CentreCells, Source, prepare_vectors
from experiments.evaluation.comparison import score_predictions
from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError

log = logging.getLogger(__name__)

COLUMNS = ("centre", "key", "predicted", "probability", "second", "second_probability", "truth")
_BLOCK = 65536  # cells asked about at a time
CAUTION = "not for diagnosis: types are guesses of a research tool, and are to be looked at by someone who knows them"


@dataclass(frozen=True)
class Calls:
    """What a classifier named the cells of one centre.

    Attributes:
        keys: of the cells' images, of shape (n,).
        truth: cell types as the file has them, "" where unknown, of shape (n,).
        named: most probable type, of shape (n,).
        probability: of that type, 0 to 1, of shape (n,).
        second: next probable type, of shape (n,).
        second_probability: of that, of shape (n,).
    """

    keys: np.ndarray
    truth: np.ndarray
    named: np.ndarray
    probability: np.ndarray
    second: np.ndarray
    second_probability: np.ndarray

    def balanced_accuracy(self) -> float | None:
        """Mean recall over the types that the truth has, those that the classifier does not know too; None if none."""
        known = self.truth != ""
        if not known.any():
            return None
        classes = sorted({*self.truth[known].tolist(), *self.named[known].tolist()})
        return float(score_predictions(self.truth[known], self.named[known], classes)["balanced_accuracy"])


def classify_cells(classifier: TrainedClassifier, source: Source, cells: Mapping[str, CentreCells]) -> dict[str, Calls]:
    """Name cells.

    Args:
        classifier: as from `classifier_folder.read_classifier`.
        source: what the vectors are.
        cells: by centre, as from `classifier_inputs.read_cells`.

    Returns:
        By centre, what the cells are named.

    Raises:
        InputError: if the vectors are not those that the classifier takes, there are too few cells to standardise, or
            the numbers are so large that nothing can be computed of them.
    """
    if difference := source.difference(classifier.source):
        path = next(iter(cells.values())).path
        raise InputError(f"{path}: unlike the training cells of {classifier.folder}, {difference}")
    if source.kind == "vectors":
        log.warning("nothing says that these vectors are from the network that %s learned from", classifier.folder)
    return {
        centre: _name_cells(classifier, own, prepare_vectors(own, centre, classifier.record["standardise"]))
        for centre, own in cells.items()
    }


def write_calls(calls: Mapping[str, Calls], path: str | os.PathLike) -> None:
    """Write a row for each cell, in the order of the files; the columns are `COLUMNS`."""
    with atomic_path(path) as temporary:
        # Names that are not UTF-8 are written with escapes rather than ending the run.
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(COLUMNS)
            for centre, own in calls.items():
                first, second = ([f"{p:.4f}" for p in values] for values in (own.probability, own.second_probability))
                columns = (own.keys, own.named, first, own.second, second, own.truth)
                writer.writerows([centre, *row] for row in zip(*columns, strict=True))


def describe_calls(classifier: TrainedClassifier, calls: Mapping[str, Calls]) -> str:
    """Counts by type and, where the truth is known, scores, as lines of text."""
    lines = []
    for centre, own in calls.items():
        counts = [f"{name} {np.sum(own.named == name)}" for name in classifier.classes]
        lines.append(f"{_shown(centre)}: {len(own.named)} cells: {', '.join(counts)}")
        score = own.balanced_accuracy()
        if score is None:
            continue
        known = own.truth[own.truth != ""]
        lines.append(f"  balanced accuracy {score:.3f} on {len(known)} cells of {len(set(known.tolist()))} known types")
        unheard = sorted(set(known.tolist()) - set(classifier.classes))
        if unheard:
            shown = ", ".join(map(_shown, unheard))
            lines.append(f"  the classifier does not know {shown}; these cells are counted as named wrongly")
        if centre in classifier.record["centres"]:
            lines.append(
                f"  it learned from cells of {centre}, maybe these very ones, so that this says nothing of new cells"
            )
    return "\n".join([*lines, CAUTION])


def _shown(text: str) -> str:
    """A name of a file's, for the terminal, which may take some signs for orders."""
    return text if text.isprintable() else repr(text)


def _name_cells(classifier: TrainedClassifier, cells: CentreCells, vectors: np.ndarray) -> Calls:
    blocks = range(0, len(vectors), _BLOCK)
    with np.errstate(all="ignore"):  # what comes of absurd numbers is looked at below
        shares = np.concatenate([classifier.model.predict_proba(vectors[i : i + _BLOCK]) for i in blocks])
    bad = np.flatnonzero(~np.isfinite(shares).all(axis=1))
    if len(bad):
        raise InputError(
            f"{cells.path}: the numbers of cell {cells.keys[bad[0]]} and {len(bad) - 1} more are too large to compute "
            "with; check what made them"
        )
    # Of equal shares the first in alphabetical order, as scikit-learn itself decides.
    order = np.argsort(-shares, axis=1, kind="stable")[:, :2]
    names, rows = np.array(classifier.classes), np.arange(len(shares))
    return Calls(
        keys=cells.keys,
        truth=cells.types,
        named=names[order[:, 0]],
        probability=shares[rows, order[:, 0]],
        second=names[order[:, 1]],
        second_probability=shares[rows, order[:, 1]],
    )


def check_calls_file(path: str | os.PathLike, overwrite: bool) -> None:
    """Refuse to write over a file that is there, which may be somebody's labels.

    Raises:
        InputError: if there is one and `overwrite` is False.
    """
    if Path(path).exists() and not overwrite:
        raise InputError(f"-o {path}: already there; name another file, or give --overwrite")
