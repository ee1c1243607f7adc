"""Predicts the types of cells in new files with a trained classifier."""

import logging
import os
from collections.abc import Mapping

import numpy as np
import pandas as pd

from experiments.classifier.folder import TrainedClassifier
from experiments.classifier.inputs import CentreCells, Source, prepare_vectors
from experiments.evaluation.scores import balanced_accuracy
from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError

log = logging.getLogger(__name__)

COLUMNS = ("centre", "image_id", "predicted", "probability", "second", "second_probability", "truth")
_BLOCK = 65536  # cells at a time
CAUTION = "not for diagnosis: types are guesses of a research tool, and are to be looked at by someone who knows them"


def predict_cells(classifier: TrainedClassifier, source: Source, cells: Mapping[str, CentreCells]) -> pd.DataFrame:
    """Predict the types of cells, with `source` and `cells` as from `inputs.read_cells`: a row of `COLUMNS` for each.

    They are the two most probable types, their probabilities from 0 to 1, and the type that the file has, "" where
    unknown. Refused are vectors that the classifier does not take, too few cells to standardise, and numbers so large
    that nothing can be computed of them.
    """
    if difference := source.difference(classifier.record.vectors):
        path = next(iter(cells.values())).path
        raise InputError(f"{path}: unlike the training cells of {classifier.folder}, {difference}")
    if source.kind == "vectors":
        log.warning("nothing says that these vectors are from the network that %s was trained on", classifier.folder)
    frames = [
        _predict(classifier, own, prepare_vectors(own, centre, classifier.record.standardise)).assign(centre=centre)
        for centre, own in cells.items()
    ]
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def write_predictions(predictions: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a row of CSV for each cell."""
    with atomic_path(path) as temporary:
        # Names that are not UTF-8 are written with escapes rather than ending the run.
        shape = {"index": False, "float_format": "%.4f", "lineterminator": "\n"}
        predictions.to_csv(temporary, encoding="utf-8", errors="backslashreplace", **shape)


def describe_predictions(classifier: TrainedClassifier, predictions: pd.DataFrame) -> str:
    """Counts by type and, where the truth is known, scores, as lines of text."""
    lines, record = [], classifier.record
    for centre, own in predictions.groupby("centre", sort=False):
        counts = own["predicted"].value_counts()
        listed = ", ".join(f"{name} {counts.get(name, 0)}" for name in record.classes)
        lines.append(f"{_shown(centre)}: {len(own)} cells: {listed}")
        known = own[own["truth"] != ""]
        if known.empty:
            continue
        score = balanced_accuracy(known["truth"].to_numpy(str), known["predicted"].to_numpy(str))
        types = sorted(known["truth"].unique())
        lines.append(f"  balanced accuracy {score:.3f} on {len(known)} cells of {len(types)} known types")
        if unheard := [_shown(name) for name in types if name not in record.classes]:
            lines.append(f"  the classifier does not know {', '.join(unheard)}; these cells count as wrong")
        if centre in record.centres:
            lines.append(f"  it was trained on cells of {centre}, maybe these: this says nothing of new cells")
    return "\n".join([*lines, CAUTION])


def _shown(text: str) -> str:
    """A name from a file, for the terminal, which may take some signs for orders."""
    return text if text.isprintable() else repr(text)


def _predict(classifier: TrainedClassifier, cells: CentreCells, vectors: np.ndarray) -> pd.DataFrame:
    blocks = range(0, len(vectors), _BLOCK)
    with np.errstate(all="ignore"):  # what comes of absurd numbers is looked at below
        found = np.concatenate([classifier.model.predict_proba(vectors[i : i + _BLOCK]) for i in blocks])
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise InputError(f"{cells.path}: the numbers of cell {cells.image_ids[bad[0]]} are too large to compute with")
    # Of equal probabilities the first in alphabetical order, as scikit-learn itself decides.
    first, second = np.argsort(-found, axis=1, kind="stable")[:, :2].T
    names, rows = np.array(classifier.record.classes), np.arange(len(found))
    return pd.DataFrame(
        {
            "image_id": cells.image_ids,
            "predicted": names[first],
            "probability": found[rows, first],
            "second": names[second],
            "second_probability": found[rows, second],
            "truth": cells.types,
        }
    )
