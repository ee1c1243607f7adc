"""How well a classifier does on cells that it did not learn from, as far as its training files can tell."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold

from experiments.classify import score_predictions

NUM_FOLDS = 5


def out_of_bag(forest: RandomForestClassifier, types: np.ndarray) -> dict[str, float]:
    """Balanced accuracy where each cell is named by those trees alone that did not learn from it (Breiman 2001).

    Args:
        forest: trained with `oob_score`.
        types: of its training cells, of shape (n,).
    """
    votes = forest.oob_decision_function_
    voted = np.isfinite(votes).all(axis=1) & (votes.sum(axis=1) > 0)  # of few cells one may be in every tree
    if not voted.any():
        return {}
    named = forest.classes_[votes[voted].argmax(axis=1)]
    return {"out_of_bag_balanced_accuracy": _balanced(types[voted], named)}


def cross_validated(classifier: ClassifierMixin, x: np.ndarray, types: np.ndarray, seed: int) -> dict[str, float]:
    """Balanced accuracy where each cell is named by a classifier that learned from four fifths of the others.

    Args:
        classifier: its settings are used.
        x: vectors of shape (n, d).
        types: of shape (n,).
        seed: of the shares.

    Returns:
        The score; nothing where a type has fewer cells than there are shares.
    """
    if np.unique(types, return_counts=True)[1].min() < NUM_FOLDS:
        return {}
    named = np.empty_like(types)
    for train, test in StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(x, types):
        named[test] = clone(classifier).fit(x[train], types[train]).predict(x[test])
    return {"cross_validated_balanced_accuracy": _balanced(types, named)}


def left_out_centres(
    make: Callable[[], Any], vectors: Mapping[str, np.ndarray], types: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Balanced accuracy on each centre of a classifier that learned from the other centres alone.

    It is the one number that says something of a laboratory to come. Types that the others lack count as named wrongly.

    Args:
        make: makes an untrained classifier.
        vectors: by centre, of shape (n, d).
        types: by centre, of shape (n,).

    Returns:
        The scores by centre; nothing where there is a single centre.
    """
    scores = {}
    for centre in vectors:
        others = [other for other in vectors if other != centre]
        if not others:
            return {}
        learned = np.concatenate([types[other] for other in others])
        if len(np.unique(learned)) > 1:
            classifier = make().fit(np.concatenate([vectors[other] for other in others]), learned)
            scores[centre] = _balanced(types[centre], classifier.predict(vectors[centre]))
    return {"left_out_centre_balanced_accuracy": scores} if scores else {}


def _balanced(truth: np.ndarray, named: np.ndarray) -> float:
    classes = sorted({*truth.tolist(), *named.tolist()})
    return round(float(score_predictions(truth, named, classes)["balanced_accuracy"]), 4)
