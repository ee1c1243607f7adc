"""Scores of predictions, with intervals for the number of cells, and comparisons of two methods on the same cells.

Class numbers are int arrays; a prediction of -1 stands for a type outside the classes, which is always wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_fscore_support, recall_score

MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")
LEVEL = 0.95
_Z = 1.96  # of a normal distribution, for LEVEL
_ROUNDING = 1e-9  # differences below it are those of sums in another order

Interval = tuple[float, float, float]  # value, low, high


@dataclass(frozen=True)
class PairScores:
    """Scores of one classifier on one representation and pair of centres.

    Attributes:
        values: by measure, the score of each run, 0 to 1.
        recall: by class number present among the tested cells, (mean over runs, low, high) with a 95 % interval.
        accuracy_interval: 95 % interval of the mean accuracy (Wilson 1927).
        confusion: int64 array of shape (classes, classes), rows true, columns predicted, summed over runs.
        num_test: tested cells.
        majority_rate: accuracy of the majority-class baseline.
    """

    values: dict[str, np.ndarray]
    recall: dict[int, Interval]
    accuracy_interval: tuple[float, float]
    confusion: np.ndarray
    num_test: int
    majority_rate: float

    @property
    def num_runs(self) -> int:
        """Runs that were scored."""
        return len(self.values["accuracy"])

    def mean(self, measure: str) -> float:
        """Mean over the runs."""
        return float(np.mean(self.values[measure]))

    def deviation(self, measure: str) -> float:
        """Standard deviation over the runs (of the population, ddof 0)."""
        return float(np.std(self.values[measure]))


@dataclass(frozen=True)
class Difference:
    """By how much the mean score of one representation is above another's on the same cells, with its 95 % interval.

    The first is better in `runs_better` of `runs` paired runs; -1 and 0 where their runs cannot be paired.
    """

    mean: float
    low: float
    high: float
    runs_better: int
    runs: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0; one of no width knows no doubt because the cells are too few."""
        has_width = self.high - self.low > _ROUNDING
        return has_width and (self.low > _ROUNDING or self.high < -_ROUNDING)


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes present in `truth`, both numbers or both names, of shape (n,)."""
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro"))


def measure_run(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Score one run, of class numbers of shape (n,), n of 1 or more, by each of the `MEASURES`, 0 to 1.

    `balanced_accuracy` is the mean recall, and `macro_f1` the mean F1, over the classes present in `truth`;
    `weighted_f1` is the mean F1 weighted by the cells of each class.
    """
    _, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth), zero_division=0.0
    )
    return {
        "accuracy": float(np.mean(predicted == truth)),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(np.average(f1, weights=support)),
    }


def score_pair(
    truth: np.ndarray, predictions: np.ndarray, num_classes: int, *, bootstrap: int = 1000, seed: int = 0
) -> PairScores:
    """Score all runs on one pair of centres, by class numbers of shape (n,) and (runs, n).

    Intervals of recalls are from `bootstrap` resamples of the cells: they say how sure a score is for so many.
    """
    runs = [measure_run(truth, predicted) for predicted in predictions]
    correct = share_correct(truth, predictions)
    cells = (truth * num_classes + predictions)[predictions >= 0]  # of the confusion matrix, flattened
    return PairScores(
        values={name: np.array([run[name] for run in runs]) for name in MEASURES},
        recall=_recall(truth, correct, bootstrap, seed),
        accuracy_interval=wilson_interval(float(correct.mean()), len(truth)),
        confusion=np.bincount(cells, minlength=num_classes**2).reshape(num_classes, -1),
        num_test=len(truth),
        majority_rate=float(np.bincount(truth).max() / len(truth)),
    )


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """95 % interval of a rate seen in `count` independent trials (Wilson 1927)."""
    # Not scipy's, which takes whole numbers of successes: the mean over runs is none.
    centre = (rate + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * np.sqrt(rate * (1 - rate) / count + _Z**2 / (4 * count**2))
    # The interval holds the rate, also where rounding would put it a hair outside.
    return max(0.0, min(rate, float(centre - half))), min(1.0, max(rate, float(centre + half)))


def share_correct(truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Proportion of the runs that predict each cell right, of shape (n,)."""
    return (predictions == truth).mean(axis=0)


def bootstrap_mean(
    truths: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    groups: Sequence[str],
    measure: str,
    bootstrap: int,
    seed: int,
) -> Interval:
    """Mean of the cells' values over several pairs of centres, with its 95 % interval over resampled cells.

    Args:
        truths: class numbers of shape (n,), for each pair.
        values: of each cell, of shape (n,), for each pair: as from `share_correct`, or the difference of two.
        groups: for each pair, the name of the centre tested: pairs that test the same cells are resampled alike.
        measure: "accuracy", the mean over cells, or "balanced_accuracy", the mean over classes of the class means.
        bootstrap, seed: number of resamples, and what decides them.

    Returns:
        Mean, low, high (percentiles, Efron and Tibshirani 1993, chapter 13).
    """
    total = np.zeros(bootstrap)
    for group, (truth, cells) in _add_up(truths, values, groups).items():
        rng = np.random.default_rng([seed, *group[0].encode(), group[1]])
        # For balanced accuracy cells are resampled within their class, so that no class vanishes.
        numbers = np.unique(truth) if measure == "balanced_accuracy" else [None]
        strata = [cells if number is None else cells[truth == number] for number in numbers]
        total += sum(_resampled_means(stratum, bootstrap, rng) for stratum in strata) / len(strata)
    means = [_mean_of(truth, own, measure) for truth, own in zip(truths, values, strict=True)]
    return (float(np.mean(means)), *_percentiles(total / len(truths)))


def compare(
    truths: Sequence[np.ndarray],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    groups: Sequence[str],
    measure: str,
    **resampling: int,
) -> Difference:
    """Compare two representations, first minus second, on the same cells of several pairs of centres.

    Cells are resampled, the same ones for both, so that cells which are hard for both do not blur the difference.
    `first` and `second` are predictions, class numbers of shape (runs, n), for each pair; the rest is as in
    `bootstrap_mean`.
    """
    gains = [
        share_correct(t, one) - share_correct(t, other) for t, one, other in zip(truths, first, second, strict=True)
    ]
    found = bootstrap_mean(truths, gains, groups, measure, **resampling)
    one, other = (
        np.mean([[_mean_of(t, run == t, measure) for run in runs] for t, runs in zip(truths, each, strict=True)], 0)
        for each in (first, second)
    )
    if len(one) != len(other):
        return Difference(*found, -1, 0)
    return Difference(*found, int(np.sum(one > other + _ROUNDING)), len(one))


def pooled_recall(
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    groups: Sequence[str],
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[int, Interval]:
    """Recall of each class over the cells of several pairs of centres together, with its 95 % interval.

    A cell that several pairs test is one cell, whose value is the mean over them: counted as many times, it would make
    intervals too narrow. Predictions are class numbers of shape (runs, n), for each pair; the rest is as in
    `bootstrap_mean`.
    """
    correct = [share_correct(truth, runs) for truth, runs in zip(truths, predictions, strict=True)]
    pairs = _add_up(truths, [np.ones(len(truth)) for truth in truths], groups)
    sums = _add_up(truths, correct, groups)
    truth = np.concatenate([truth for truth, _ in sums.values()])
    return _recall(truth, np.concatenate([sums[group][1] / pairs[group][1] for group in sums]), bootstrap, seed)


def _mean_of(truth: np.ndarray, values: np.ndarray, measure: str) -> float:
    if measure == "accuracy":
        return float(values.mean())
    return float(np.mean([values[truth == number].mean() for number in np.unique(truth)]))


def _add_up(
    truths: Sequence[np.ndarray], values: Sequence[np.ndarray], groups: Sequence[str]
) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """Truth and sum of the values of the pairs that test the same cells, by the centre tested and their number.

    The test part of a centre and the whole of it, its own row and those of others with "all", differ in number.
    """
    sums: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    for truth, cells, name in zip(truths, values, groups, strict=True):
        known, added = sums.get((name, len(truth)), (truth, np.zeros(len(truth))))
        if not np.array_equal(known, truth):
            raise ValueError(f"pairs that test {name} have other cells of the same number")
        sums[name, len(truth)] = (truth, added + cells)
    return sums


def _resampled_means(values: np.ndarray, bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `bootstrap` samples of as many values, taken with replacement: array of shape (bootstrap,).

    Few values differ, and how often each is taken is multinomial: a hundred thousand cells take no longer than a
    hundred.
    """
    levels, first, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.argsort(first)  # and not by value, so that a difference seen from the other side is the same
    return rng.multinomial(len(values), counts[order] / len(values), bootstrap) @ levels[order] / len(values)


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def _recall(truth: np.ndarray, correct: np.ndarray, bootstrap: int, seed: int) -> dict[int, Interval]:
    """Recall of each class with its interval from resampled cells, or Wilson's where all cells of a class fare alike.

    Resampling would know of no doubt there, though there be two of them.
    """
    recall = {}
    for number in np.unique(truth).tolist():
        own = correct[truth == number]
        mean = float(own.mean())
        if np.ptp(own) <= _ROUNDING:
            interval = wilson_interval(mean, len(own))
        else:
            interval = _percentiles(_resampled_means(own, bootstrap, np.random.default_rng([seed, number])))
        recall[number] = (mean, *interval)
    return recall
