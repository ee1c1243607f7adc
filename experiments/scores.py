"""Scores of predictions, with intervals from resampled cells, and comparisons of two methods on the same cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")
LEVEL = 0.95


@dataclass(frozen=True)
class PairScores:
    """What one classifier on one representation scores on the tested cells of one pair of centres.

    Attributes:
        values: by measure, the score of each run, 0 to 1.
        recall: by class number present among the tested cells, (mean over runs, low, high) with a 95 % interval.
        accuracy_interval: 95 % interval of the mean accuracy.
        confusion: int64 array of shape (classes, classes), rows true, columns named, summed over runs.
        num_test: tested cells.
        majority_rate: share of the largest class among them.
    """

    values: dict[str, np.ndarray]
    recall: dict[int, tuple[float, float, float]]
    accuracy_interval: tuple[float, float]
    confusion: np.ndarray
    num_test: int
    majority_rate: float

    def mean(self, measure: str) -> float:
        """Mean over the runs."""
        return float(np.mean(self.values[measure]))

    def deviation(self, measure: str) -> float:
        """Standard deviation over the runs (of the population, ddof 0)."""
        return float(np.std(self.values[measure]))


@dataclass(frozen=True)
class Difference:
    """How much better one representation is than another on the same cells.

    Attributes:
        mean: difference of the mean scores, positive where the first is better.
        low, high: 95 % interval over resampled test cells.
        runs_better: runs in which the first is better, out of `runs`; -1 where their runs cannot be paired.
        runs: number of paired runs.
    """

    mean: float
    low: float
    high: float
    runs_better: int
    runs: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def count_confusion(truth: np.ndarray, named: np.ndarray, num_classes: int) -> np.ndarray:
    """Count (true class, named class): int64 array of shape (classes, classes); names of -1 count nowhere."""
    is_class = named >= 0
    flat = truth[is_class].astype(np.int64) * num_classes + named[is_class]
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def measure_run(truth: np.ndarray, named: np.ndarray, num_classes: int) -> dict[str, float]:
    """Score one run.

    Example: of two cells of class 0 both are named rightly, of two cells of class 1 one is named 0. Accuracy is 3/4;
    recall is 1 and 1/2, so that balanced accuracy is 3/4; F1 is 4/5 and 2/3, so that both means of it are 11/15.

    Args:
        truth: class numbers of shape (n,), n of 1 or more.
        named: class numbers of shape (n,); -1 for a name outside the classes, which is always wrong.
        num_classes: number of classes.

    Returns:
        `accuracy`; `balanced_accuracy`, the mean recall, and `macro_f1`, the mean F1, over the classes present in
        `truth`; `weighted_f1`, the mean F1 weighted by the cells of each class.
    """
    confusion = count_confusion(truth, named, num_classes)
    right = np.diag(confusion)
    num_true = np.bincount(truth, minlength=num_classes)
    num_named = confusion.sum(axis=0)
    present = num_true > 0
    # F1 = 2 right / (true + named), which is defined for every class that is present.
    f1 = 2 * right[present] / (num_true + num_named)[present]
    return {
        "accuracy": float(right.sum() / len(truth)),
        "balanced_accuracy": float((right[present] / num_true[present]).mean()),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(np.average(f1, weights=num_true[present])),
    }


def score_pair(
    truth: np.ndarray, predictions: np.ndarray, num_classes: int, *, bootstrap: int, seed: int
) -> PairScores:
    """Score all runs on one pair of centres.

    Intervals are percentiles over resampled cells (Efron and Tibshirani 1993, chapter 13): they say how sure a score is
    given so many cells, and not how much training by chance matters, which the deviation over runs says.

    Args:
        truth: class numbers of shape (n,).
        predictions: class numbers of shape (runs, n).
        num_classes: number of classes.
        bootstrap: number of resamples.
        seed: of the resampling.
    """
    runs = [measure_run(truth, named, num_classes) for named in predictions]
    right = (predictions == truth).mean(axis=0)
    rng = np.random.default_rng(seed)
    recall = {}
    for number in np.unique(truth).tolist():
        own = right[truth == number]
        recall[number] = (float(own.mean()), *_interval(_resampled_means(own, bootstrap, rng)))
    num_true = np.bincount(truth)
    return PairScores(
        values={name: np.array([run[name] for run in runs]) for name in MEASURES},
        recall=recall,
        accuracy_interval=_interval(_resampled_means(right, bootstrap, rng)),
        confusion=sum(count_confusion(truth, named, num_classes) for named in predictions),
        num_test=len(truth),
        majority_rate=float(num_true.max() / len(truth)),
    )


def mean_scores(
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    groups: Sequence[str],
    *,
    measure: str,
    bootstrap: int,
    seed: int,
) -> tuple[float, float, float]:
    """Mean of a measure over several pairs of centres, with its 95 % interval.

    Args:
        truths: class numbers of shape (n,), for each pair.
        predictions: class numbers of shape (runs, n), for each pair.
        groups: for each pair, the name of the centre tested: pairs that test the same cells are resampled alike.
        measure: "accuracy" or "balanced_accuracy".
        bootstrap: number of resamples.
        seed: of the resampling.

    Returns:
        Mean, low, high.
    """
    samples = _bootstrap_means(truths, [_rightness(t, p) for t, p in zip(truths, predictions, strict=True)], groups,
                               measure, bootstrap, seed)  # fmt: skip
    means = [
        _mean_of(truth, _rightness(truth, named), measure) for truth, named in zip(truths, predictions, strict=True)
    ]
    return (float(np.mean(means)), *_interval(samples))


def compare(
    truths: Sequence[np.ndarray],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    groups: Sequence[str],
    *,
    measure: str,
    bootstrap: int,
    seed: int,
) -> Difference:
    """Compare two representations on the same cells of several pairs of centres.

    Cells are resampled, the same ones for both, so that cells which are hard for both do not blur the difference.

    Args:
        truths: class numbers of shape (n,), for each pair of centres.
        first: class numbers of shape (runs, n), for each pair.
        second: the same of the other representation.
        groups: as in `mean_scores`.
        measure: "accuracy" or "balanced_accuracy".
        bootstrap: number of resamples.
        seed: of the resampling.

    Returns:
        The difference of the means over the pairs, first minus second.
    """
    gains = [
        _rightness(truth, one) - _rightness(truth, other)
        for truth, one, other in zip(truths, first, second, strict=True)
    ]
    mean = float(np.mean([_mean_of(truth, gain, measure) for truth, gain in zip(truths, gains, strict=True)]))
    low, high = _interval(_bootstrap_means(truths, gains, groups, measure, bootstrap, seed))
    by_run = [_by_run(truths, named, measure) for named in (first, second)]
    if len(by_run[0]) == len(by_run[1]):
        return Difference(mean, low, high, int(np.sum(by_run[0] > by_run[1])), len(by_run[0]))
    return Difference(mean, low, high, -1, 0)


def _by_run(truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray], measure: str) -> np.ndarray:
    """Mean over the pairs of each run: float array of shape (runs,)."""
    return np.mean(
        [
            [_mean_of(truth, (run == truth).astype(float), measure) for run in named]
            for truth, named in zip(truths, predictions, strict=True)
        ],
        axis=0,
    )


def _rightness(truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Share of the runs that name each cell rightly, of shape (n,)."""
    return (predictions == truth).mean(axis=0)


def _mean_of(truth: np.ndarray, values: np.ndarray, measure: str) -> float:
    """Mean of the cells' values, or with "balanced_accuracy" the mean over classes of the class means."""
    if measure == "accuracy":
        return float(values.mean())
    return float(np.mean([values[truth == number].mean() for number in np.unique(truth)]))


def _bootstrap_means(
    truths: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    groups: Sequence[str],
    measure: str,
    bootstrap: int,
    seed: int,
) -> np.ndarray:
    """Means over the pairs for each resample, of shape (bootstrap,).

    For balanced accuracy cells are resampled within their class, so that no class vanishes.
    """
    if measure not in ("accuracy", "balanced_accuracy"):
        raise ValueError(f"measure must be 'accuracy' or 'balanced_accuracy', got {measure!r}")
    total = np.zeros(bootstrap)
    for truth, cells, group in zip(truths, values, groups, strict=True):
        # The same centre's cells get the same weights in every pair; "all" and "test" differ in length and so in cells.
        rng = np.random.default_rng([seed, *group.encode(), len(truth)])
        if measure == "accuracy":
            total += _resampled_means(cells, bootstrap, rng)
        else:
            numbers = np.unique(truth)
            total += sum(_resampled_means(cells[truth == number], bootstrap, rng) for number in numbers) / len(numbers)
    return total / len(truths)


def _resampled_means(values: np.ndarray, bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `bootstrap` samples drawn with replacement, of shape (bootstrap,)."""
    means = np.empty(bootstrap)
    step = max(1, 2_000_000 // max(len(values), 1))  # 16 MB of indices
    for start in range(0, bootstrap, step):
        stop = min(start + step, bootstrap)
        means[start:stop] = values[rng.integers(0, len(values), (stop - start, len(values)))].mean(axis=1)
    return means


def _interval(samples: np.ndarray) -> tuple[float, float]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def pooled_recall(
    truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray], *, bootstrap: int, seed: int
) -> Mapping[int, tuple[float, float, float]]:
    """Recall of each class over the cells of several pairs of centres together, with its 95 % interval.

    Args:
        truths: class numbers of shape (n,), for each pair.
        predictions: class numbers of shape (runs, n), for each pair.
        bootstrap: number of resamples.
        seed: of the resampling.

    Returns:
        By class number, (recall, low, high).
    """
    truth = np.concatenate(list(truths))
    right = np.concatenate([_rightness(t, p) for t, p in zip(truths, predictions, strict=True)])
    rng = np.random.default_rng(seed)
    recall = {}
    for number in np.unique(truth).tolist():
        own = right[truth == number]
        recall[number] = (float(own.mean()), *_interval(_resampled_means(own, bootstrap, rng)))
    return recall
