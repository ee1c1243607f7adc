"""Trains a classifier on labelled cells, and measures what can be expected of it."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from experiments.cells.models import FEW_CELLS
from experiments.classifier.folder import check_name, write_classifier
from experiments.classifier.inputs import CentreCells, Source, prepare_vectors
from experiments.evaluation.classifiers import FOREST, LOGISTIC, MAX_DEPTH, VectorClassifier
from experiments.evaluation.scores import balanced_accuracy
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import versions

log = logging.getLogger(__name__)

NUM_FOLDS = 5


def train_classifier(
    source: Source,
    cells: Mapping[str, CentreCells],
    output: str | os.PathLike,
    *,
    train_on: Sequence[str] = (),
    kind: str = "forest",
    standardise: str = "none",
    seed: int = 0,
    overwrite: bool = False,
    n_jobs: int = 2,
) -> dict[str, Any]:
    """Train a classifier on the labelled cells of some centres, write its folder, and return its classifier.json.

    Args:
        source, cells: as from `inputs.read_cells`.
        output: the folder; an older classifier in it is replaced with `overwrite`.
        train_on: centres; all that have labelled cells if empty.
        kind: "forest", the random forest of thesis section 3.4 with its `seed`, or "logistic".
        standardise: "none" or "centre", see `inputs.prepare_vectors`.
        n_jobs: cores.

    Raises:
        InputError: if a centre is unknown or has no labelled cell, there are fewer than two types, a type's name cannot
            be used, there are too few cells to standardise, or `output` holds something else.
    """
    centres = _choose_centres(cells, train_on)
    labelled = {centre: np.flatnonzero(cells[centre].types != "") for centre in centres}
    types = {centre: cells[centre].types[labelled[centre]] for centre in centres}
    classes = _class_names(types)
    # Statistics are those of all cells of a centre, as they will be of a centre that has no labels.
    vectors = {c: prepare_vectors(cells[c], c, standardise)[labelled[c]] for c in centres}
    x, y = (np.concatenate([each[c] for c in centres]) for each in (vectors, types))
    make = partial((FOREST if kind == "forest" else LOGISTIC).make, seed, n_jobs)
    stored, scores = _train_forest(make(), x, y) if kind == "forest" else _train_logistic(make(), x, y, seed)
    if left_out := _left_out_centres(make, vectors, types):
        scores["left_out_centre_balanced_accuracy"] = left_out
    record = {
        "classifier": kind,
        "vectors": asdict(source),
        "standardise": standardise,
        "classes": classes,
        "centres": centres,
        "counts": {c: {name: int(np.sum(types[c] == name)) for name in classes} for c in centres},
        "scores": scores,
        "settings": {"trees": len(stored), "max_depth": MAX_DEPTH, "seed": seed} if kind == "forest" else {},
        "versions": versions("skops", "aecfe"),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
    }
    return write_classifier(stored, record, output, overwrite)


def _choose_centres(cells: Mapping[str, CentreCells], train_on: Sequence[str]) -> list[str]:
    labelled = [centre for centre, own in cells.items() if np.any(own.types != "")]
    if not labelled:
        files = ", ".join(dict.fromkeys(str(own.path) for own in cells.values()))
        raise InputError(f"{files}: no cell has a cell_type, and there is nothing to learn; give files with labels")
    for centre in train_on:
        if centre not in labelled:
            fault = "has no labelled cell" if centre in cells else "is in none of the files"
            raise InputError(f"--train-on {centre}: {fault}; choose from {', '.join(labelled)}")
    if not train_on and len(labelled) < len(cells):
        log.info("without labels, and not trained on: %s", ", ".join(c for c in cells if c not in labelled))
    return [centre for centre in labelled if not train_on or centre in train_on]


def _class_names(types: Mapping[str, np.ndarray]) -> list[str]:
    names, counts = np.unique(np.concatenate(list(types.values())), return_counts=True)
    if len(names) < 2:
        raise InputError(f"all labelled cells are of type {names[0]}; a classifier needs two types or more")
    classes = [check_name(name) for name in names.tolist()]
    if few := [f"{name} {count}" for name, count in zip(classes, counts, strict=True) if count < FEW_CELLS]:
        log.warning("types with fewer than %d cells, of which little is learned: %s", FEW_CELLS, ", ".join(few))
    return classes


def _train_forest(forest: RandomForestClassifier, x: np.ndarray, y: np.ndarray) -> tuple[ClassifierMixin, dict]:
    """The random forest, and its balanced accuracy out of bag: by the trees that did not learn from a cell."""
    forest.set_params(oob_score=True).fit(x, y)
    votes = forest.oob_decision_function_
    voted = np.isfinite(votes).all(axis=1) & (votes.sum(axis=1) > 0)  # of few cells one may be in every tree
    predicted = forest.classes_[votes[voted].argmax(axis=1)]
    scores = {"out_of_bag_balanced_accuracy": _score(y[voted], predicted)} if voted.any() else {}
    del forest.oob_decision_function_  # it tells of single training cells
    return forest.set_params(oob_score=False, n_jobs=None), scores


def _train_logistic(probe: VectorClassifier, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[dict, dict]:
    """Scaling and logistic regression, and their balanced accuracy in cross-validation."""
    scores = {}
    if np.unique(y, return_counts=True)[1].min() >= NUM_FOLDS:
        folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
        scores = {"cross_validated_balanced_accuracy": _score(y, cross_val_predict(probe, x, y, cv=folds))}
    probe.fit(x, y)
    for name in ("coef_", "intercept_"):
        setattr(probe.model_, name, getattr(probe.model_, name).astype(np.float64))
    return {"scaler": probe.scaler_, "logistic": probe.model_}, scores


def _left_out_centres(
    make: Callable[[], ClassifierMixin], vectors: Mapping[str, np.ndarray], types: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Leave-one-centre-out: balanced accuracy on each centre of a classifier trained on the others alone.

    It is the one number that says something of a laboratory to come. Types that the others lack count as wrong.
    """
    scores = {}
    for centre in vectors if len(vectors) > 1 else ():
        others = [other for other in vectors if other != centre]
        x, y = (np.concatenate([each[other] for other in others]) for each in (vectors, types))
        if len(np.unique(y)) > 1:
            scores[centre] = _score(types[centre], make().fit(x, y).predict(vectors[centre]))
    return scores


def _score(truth: np.ndarray, predicted: np.ndarray) -> float:
    return round(balanced_accuracy(truth, predicted), 4)
