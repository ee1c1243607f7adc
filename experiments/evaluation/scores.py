"""Scores of predictions, with intervals for the number of cells, and comparisons of two methods on the same cells.

Class numbers are int arrays; a prediction of -1 stands for a type outside the classes, which is always wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, recall_score

MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")
_Z = 1.96  # of a normal distribution, for intervals of 95 %
_ROUNDING = 1e-9  # differences below it are those of sums in another order

Interval = tuple[float, float, float]  # value, low, high


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
    truth: np.ndarray, predictions: np.ndarray, classes: Sequence[str], bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Score all runs on one pair of centres, by class numbers of shape (n,) and (runs, n), as JSON values.

    Returns:
        For each of the `MEASURES` its mean, standard deviation (ddof 0) and runs; the Wilson interval of the mean
        accuracy; recall and its interval, see `Resampling.recall`, by class; and the confusion matrix summed over runs,
        of shape (classes, classes), rows true, columns predicted.
    """
    runs = [measure_run(truth, predicted) for predicted in predictions]
    values = {name: np.array([run[name] for run in runs]) for name in MEASURES}
    recall = Resampling([truth], [""], bootstrap, seed).recall([predictions])
    confusion = sum(confusion_matrix(truth, named, labels=range(len(classes))) for named in predictions)
    return {
        **{name: {"mean": float(v.mean()), "std": float(v.std()), "runs": v.tolist()} for name, v in values.items()},
        "accuracy_interval": list(wilson_interval(float(_share_correct(truth, predictions).mean()), len(truth))),
        "recall": {classes[number]: value for number, (value, _, _) in recall.items()},
        "recall_interval": {classes[number]: [low, high] for number, (_, low, high) in recall.items()},
        "confusion": confusion.tolist(),
    }


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """95 % interval of a rate seen in `count` independent trials (Wilson 1927)."""
    # Not scipy's, which takes whole numbers of successes: the mean over runs is none.
    centre = (rate + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * np.sqrt(rate * (1 - rate) / count + _Z**2 / (4 * count**2))
    # The interval holds the rate, also where rounding would put it a hair outside.
    return max(0.0, min(rate, float(centre - half))), min(1.0, max(rate, float(centre + half)))


@dataclass(frozen=True)
class Resampling:
    """Means over pairs of centres, with 95 % intervals over resampled cells: how sure a score is with so many.

    Intervals are percentiles (Efron and Tibshirani 1993, chapter 13). Predictions are given for each pair, as class
    numbers of shape (runs, n); a measure is "accuracy", the mean over cells, or "balanced_accuracy", the mean over
    classes of the class means.

    Attributes:
        truths: class numbers of shape (n,), for each pair.
        tested_on: for each pair, the name of the centre tested: pairs that test the same cells are resampled alike.
        bootstrap, seed: number of resamples, and what decides them.
    """

    truths: Sequence[np.ndarray]
    tested_on: Sequence[str]
    bootstrap: int = 1000
    seed: int = 0

    def mean(self, predictions: Sequence[np.ndarray], measure: str) -> Interval:
        """Mean, low and high of the score of all runs."""
        return self._interval(list(map(_share_correct, self.truths, predictions)), measure)

    def difference(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray], measure: str) -> Difference:
        """Compare two representations, first minus second.

        The same cells are drawn for both, so that cells which are hard for both do not blur the difference.
        """
        shares = (map(_share_correct, self.truths, each) for each in (first, second))
        found = self._interval([a - b for a, b in zip(*shares, strict=True)], measure)
        one, other = (
            np.mean([[_mean(t, run == t, measure) for run in runs] for t, runs in pairs], axis=0)
            for pairs in (zip(self.truths, first, strict=True), zip(self.truths, second, strict=True))
        )
        if len(one) != len(other):
            return Difference(*found, -1, 0)
        return Difference(*found, int(np.sum(one > other + _ROUNDING)), len(one))

    def recall(self, predictions: Sequence[np.ndarray]) -> dict[int, Interval]:
        """Recall of each class over the cells of all pairs together.

        A cell that several pairs test is one cell, whose value is the mean over them: counted as many times, it would
        make intervals too narrow. Where all cells of a class fare alike the interval is Wilson's: resampling would know
        of no doubt, though there be two of them.
        """
        pairs = Counter(zip(self.tested_on, map(len, self.truths), strict=True))
        sums = self._add_up(list(map(_share_correct, self.truths, predictions)))
        truth = np.concatenate([truth for truth, _ in sums.values()])
        correct = np.concatenate([total / pairs[cells] for cells, (_, total) in sums.items()])
        found = {}
        for number in np.unique(truth).tolist():
            own = correct[truth == number]
            interval = wilson_interval(float(own.mean()), len(own))
            if np.ptp(own) > _ROUNDING:
                interval = _percentiles(self._resampled_means(own, np.random.default_rng([self.seed, number])))
            found[number] = (float(own.mean()), *interval)
        return found

    def _interval(self, values: Sequence[np.ndarray], measure: str) -> Interval:
        """Mean of the cells' values, of shape (n,) for each pair."""
        total = np.zeros(self.bootstrap)
        for (centre, count), (truth, cells) in self._add_up(values).items():
            rng = np.random.default_rng([self.seed, *centre.encode(), count])
            strata = _strata(truth, cells, measure)
            total += sum(self._resampled_means(stratum, rng) for stratum in strata) / len(strata)
        means = [_mean(truth, own, measure) for truth, own in zip(self.truths, values, strict=True)]
        return (float(np.mean(means)), *_percentiles(total / len(self.truths)))

    def _add_up(self, values: Sequence[np.ndarray]) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
        """Truth and sum of the values of the pairs that test the same cells, by the centre tested and their number.

        The test part of a centre and the whole of it, its own row and those of others with "all", differ in number.
        """
        sums: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        for truth, cells, centre in zip(self.truths, values, self.tested_on, strict=True):
            key = centre, len(truth)
            sums[key] = (truth, sums[key][1] + cells if key in sums else cells)
        return sums

    def _resampled_means(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Means of samples of as many values, taken with replacement: array of shape (bootstrap,).

        Few values differ, and how often each is taken is multinomial: a hundred thousand cells take no longer than a
        hundred.
        """
        levels, first, counts = np.unique(values, return_index=True, return_counts=True)
        order = np.argsort(first)  # and not by value, so that a difference seen from the other side is the same
        return rng.multinomial(len(values), counts[order] / len(values), self.bootstrap) @ levels[order] / len(values)


def _share_correct(truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Proportion of the runs that predict each cell right, of shape (n,)."""
    return (predictions == truth).mean(axis=0)


def _strata(truth: np.ndarray, values: np.ndarray, measure: str) -> list[np.ndarray]:
    """Values of all cells, or of each class, within which cells are resampled so that no class vanishes."""
    return [values] if measure == "accuracy" else [values[truth == number] for number in np.unique(truth)]


def _mean(truth: np.ndarray, values: np.ndarray, measure: str) -> float:
    return float(np.mean([stratum.mean() for stratum in _strata(truth, values, measure)]))


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)
