"""Site and type information in latents: that of the centre should be absent, that of the type present."""

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from experiments.evaluation.classifiers import make_forest
from experiments.evaluation.mixing import FOLDS, centre_accuracy

__all__ = ["FOLDS", "LEAST_CELLS", "centre_accuracy", "common_types", "type_accuracies"]

LEAST_CELLS = FOLDS  # of a type in a centre, so that every fold has one


def common_types(centres: np.ndarray, cell_types: np.ndarray) -> dict[tuple[str, str], list[str]]:
    """Cell types that two centres have in common, with at least `LEAST_CELLS` cells in each.

    Args:
        centres: str array of shape (n,).
        cell_types: str array of shape (n,); "" for none.

    Returns:
        By pair of centres, each with itself too, the types in alphabetical order; pairs with fewer than two are left
        out.
    """
    enough = {}
    for centre in dict.fromkeys(centres.tolist()):
        names, numbers = np.unique(cell_types[(centres == centre) & (cell_types != "")], return_counts=True)
        enough[centre] = set(names[numbers >= LEAST_CELLS].tolist())
    pairs = {(first, second): sorted(enough[first] & enough[second]) for first in enough for second in enough}
    return {pair: names for pair, names in pairs.items() if len(names) >= 2}


def type_accuracies(
    vectors: np.ndarray, centres: np.ndarray, cell_types: np.ndarray, seed: int
) -> tuple[float | None, float | None]:
    """How well a random forest names the type of a cell, in its own centre and in others.

    Args:
        vectors: float array of shape (n, d).
        centres: str array of shape (n,).
        cell_types: str array of shape (n,); "" for none.
        seed: of the forests and folds.

    Returns:
        Balanced accuracy in stratified 5-fold cross-validation within a centre, the mean over centres; and of forests
        that learned from all cells of one centre and are tested on all of another, the mean over ordered pairs. Each is
        over the types of `common_types`, and None where there is no pair.
    """
    scores: dict[bool, list[float]] = {True: [], False: []}
    for (first, second), names in common_types(centres, cell_types).items():
        known = np.isin(cell_types, names)
        train, test = known & (centres == first), known & (centres == second)
        if first == second:
            folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
            named = cross_val_predict(make_forest(seed), vectors[train], cell_types[train], cv=folds)
        else:
            named = make_forest(seed).fit(vectors[train], cell_types[train]).predict(vectors[test])
        scores[first == second].append(float(balanced_accuracy_score(cell_types[test], named)))
    within, across = (float(np.mean(found)) if found else None for found in (scores[True], scores[False]))
    return within, across
