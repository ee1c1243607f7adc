"""Scores of how well the centres mix in a space of features (batch effect), and how well the types of cells separate.

Each score sees another part: a classifier sees what can be told at all, silhouettes how far apart the groups lie, LISI
whom a cell has about it. Centres that hold other types, or the same in other proportions, can rightly be told apart, so
that no score of mixing need be perfect.

References:
    Ganin et al. 2016, section 5.1 (proxy A-distance). Rousseeuw 1987 (silhouettes). Korsunsky et al. 2019, "Fast,
    sensitive and accurate integration of single-cell data with Harmony" (LISI).
"""

import logging
from itertools import combinations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

logger = logging.getLogger(__name__)

SCORES = {  # as tables call them
    "centre_accuracy": "domain classification accuracy",
    "proxy_a_distance": "proxy A-distance",
    "silhouette_centre": "silhouette by centre",
    "silhouette_type": "silhouette by type",
    "lisi_centre": "LISI by centre",
    "lisi_type": "LISI by type",
}
FOLDS = 5
PERPLEXITY = 30.0  # Korsunsky et al. 2019, as are three times as many neighbours
MAX_CELLS = 2000


def centre_accuracy(vectors: np.ndarray, centres: np.ndarray, seed: int) -> float:
    """Domain (site) classification accuracy: balanced, of a logistic regression in stratified 5-fold cross-validation.

    Centres weigh alike in the regression as they do in the score, however many cells they have. Vectors (n, d) are
    standardised over the training part of each fold; each of the centres (n,) has at least 5. The seed is of the folds.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    # Several threads wait for each other on products as small as these, the more the busier the machine is.
    with threadpool_limits(1, user_api="blas"):
        predicted = cross_val_predict(model, vectors, centres, cv=folds)
    return float(balanced_accuracy_score(centres, predicted))


def proxy_a_distance(vectors: np.ndarray, centres: np.ndarray, seed: int) -> float:
    """Mean over pairs of centres of 2 (1 - 2 error), error as in `centre_accuracy`: 0 (alike) to 2 (apart)."""
    distances = []
    for pair in combinations(np.unique(centres), 2):
        rows = np.isin(centres, pair)
        error = 1 - centre_accuracy(vectors[rows], centres[rows], seed)
        distances.append(max(0.0, 2 * (1 - 2 * error)))  # an error above one half is chance as well
    return float(np.mean(distances))


def lisi(vectors: np.ndarray, labels: np.ndarray, perplexity: float = PERPLEXITY) -> np.ndarray:
    """Local inverse Simpson's index of each cell: how many labels there are among its neighbours, in effect.

    The neighbours have Gaussian weights, as wide as makes the exponential of their entropy the perplexity; 1 / sum of
    squared proportions of the labels follows. The authors' code has the distance itself in the exponent where the
    Gaussian, and t-SNE, from which the weights stem, have its square; the difference is small.

    Args:
        vectors: float array of shape (n, d), n of 2 or more; distances are Euclidean.
        labels: array of shape (n,).
        perplexity: a third of the number of neighbours; with too few cells all others are neighbours.

    Returns:
        float64 array of shape (n,): from 1 where all neighbours have one label, to the number of labels.
    """
    num_neighbours = min(max(1, round(3 * perplexity)), len(vectors) - 1)
    # Without an argument each cell's neighbours are asked for, which leave out the cell itself but not its duplicates.
    distances, neighbours = NearestNeighbors(n_neighbors=num_neighbours).fit(vectors).kneighbors()
    weights = _weigh(distances.astype(np.float64) ** 2, max(1.0, min(perplexity, num_neighbours / 3)))
    proportions = [np.sum(weights * (labels == label)[neighbours], axis=1) for label in np.unique(labels)]
    return 1 / np.sum(np.square(proportions), axis=0)


def mixing_scores(
    vectors: np.ndarray, centres: np.ndarray, cell_types: np.ndarray, seed: int
) -> dict[str, float | None]:
    """All scores of one representation, each None where there are too few centres, types or labelled cells for it.

    Every feature is standardised over all cells first, so that none outweighs others by its unit. Then at most
    `MAX_CELLS` are chosen at random, whatever their centre and type, which keeps the proportions that LISI depends on.
    Centres with fewer than 5 of them are left out of the scores of centres, and logged.

    Args:
        vectors: float array of shape (n, d), finite.
        centres, cell_types: str arrays of shape (n,); cells of type "" are left out of the scores of types.
        seed: of the choice of cells and of the folds.

    Returns:
        `centre_accuracy`, from 1 / number of centres (chance: good) to 1; `proxy_a_distance`, mean over pairs, 0 (good)
        to 2; `silhouette_centre`, at most 1, good at 0 and below, and `silhouette_type`, good at 1; `lisi_centre` and
        `lisi_type`, from 1, which is bad for centres and good for types, to their number.
    """
    rows = np.arange(len(vectors))
    if len(rows) > MAX_CELLS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), MAX_CELLS, replace=False))
    vectors, centres, cell_types = _standardise(vectors, rows), centres[rows], cell_types[rows]
    names, counts = np.unique(centres, return_counts=True)
    small = names[counts < FOLDS]
    if len(small):
        logger.info("centres with fewer than %d cells are not compared: %s", FOLDS, ", ".join(small.tolist()))
    scores: dict[str, float | None] = dict.fromkeys(SCORES)
    groups = (("centre", centres, ~np.isin(centres, small)), ("type", cell_types, cell_types != ""))
    for kind, labels, is_used in groups:
        x, names = vectors[is_used], labels[is_used]
        if not 2 <= len(np.unique(names)) < len(names):
            continue
        scores[f"silhouette_{kind}"] = float(silhouette_score(x, names))
        scores[f"lisi_{kind}"] = float(lisi(x, names).mean())
        if kind == "centre":
            scores["centre_accuracy"] = centre_accuracy(x, names, seed)
            scores["proxy_a_distance"] = proxy_a_distance(x, names, seed)
    return scores


def _weigh(squared: np.ndarray, perplexity: float) -> np.ndarray:
    """Gaussian weights of neighbours, of shape (n, k) like the squared distances, each row of sum 1."""
    # Weights depend on differences of squared distances only; in units of a row's mean its precision is near 1.
    excess = squared - squared.min(axis=1, keepdims=True)
    mean = excess.mean(axis=1, keepdims=True)
    excess = np.divide(excess, mean, out=np.zeros_like(excess), where=mean > 0)
    low, high = np.full((len(squared), 1), -20.0), np.full((len(squared), 1), 40.0)  # logarithms of the precision
    for _ in range(50):  # bisections: the entropy falls as the precision grows
        middle = (low + high) / 2
        precision = np.exp(middle)
        weights = np.exp(-precision * excess)
        total = weights.sum(axis=1, keepdims=True)
        weights /= total
        entropy = np.log(total) + precision * np.sum(weights * excess, axis=1, keepdims=True)
        is_wide = entropy > np.log(perplexity)
        low, high = np.where(is_wide, middle, low), np.where(is_wide, high, middle)
    return weights


def _standardise(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of the vectors standardised over all of them: float32 array of shape (len(rows), d)."""
    # Block by block: in float64 the whole would be several times as large as what is given.
    mean = vectors.mean(axis=0, dtype=np.float64)
    blocks = (vectors[start : start + 256] for start in range(0, len(vectors), 256))
    deviation = np.sqrt(sum(np.sum((block - mean) ** 2, axis=0) for block in blocks) / len(vectors))
    shifted = vectors[rows] - mean
    # Below a millionth of the value itself, differences are those of rounding in float32.
    varies = deviation > 1e-6 * np.abs(mean)
    return np.divide(shifted, deviation, out=np.zeros_like(shifted), where=varies).astype(np.float32)
