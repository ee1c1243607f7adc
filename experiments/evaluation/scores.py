"""Scores of predictions, with intervals for the number of cells, and comparisons of two methods on the same cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")
LEVEL = 0.95
_ROUNDING = 1e-9  # differences below it are those of sums in another order


@dataclass(frozen=True)
class PairScores:
    """What one classifier on one representation scores on the tested cells of one pair of centres.

    Attributes:
        values: by measure, the score of each run, 0 to 1.
        recall: by class number present among the tested cells, (mean over runs, low, high) with a 95 % interval.
        accuracy_interval: 95 % interval of the mean accuracy (Wilson 1927).
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
        """Whether the interval leaves 0 out.

        One of no width does not count: the cells are too few, or too much alike, for resampling to know any doubt.
        """
        has_width = self.high - self.low > _ROUNDING
        return has_width and (self.low > _ROUNDING or self.high < -_ROUNDING)


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
    truth: np.ndarray, predictions: np.ndarray, num_classes: int, *, bootstrap: int = 1000, seed: int = 0
) -> PairScores:
    """Score all runs on one pair of centres.

    Intervals say how sure a score is for so many cells, and not how much training by chance matters, which the
    deviation over runs says. That of the accuracy is Wilson's, those of recalls are from resampled cells.

    Args:
        truth: class numbers of shape (n,).
        predictions: class numbers of shape (runs, n).
        num_classes: number of classes.
        bootstrap: number of resamples behind the intervals of recalls.
        seed: of the resampling.
    """
    runs = [measure_run(truth, named, num_classes) for named in predictions]
    right = _rightness(truth, predictions)
    return PairScores(
        values={name: np.array([run[name] for run in runs]) for name in MEASURES},
        recall=_recall(truth, right, bootstrap, seed),
        accuracy_interval=wilson_interval(float(right.mean()), len(truth)),
        confusion=sum(count_confusion(truth, named, num_classes) for named in predictions),
        num_test=len(truth),
        majority_rate=float(np.bincount(truth).max() / len(truth)),
    )


def wilson_interval(rate: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate seen in `count` independent trials (Wilson 1927)."""
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    # The interval holds the rate, also where rounding would put it a hair outside.
    return max(0.0, min(rate, float(centre - half))), min(1.0, max(rate, float(centre + half)))


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
    rights = [_rightness(truth, named) for truth, named in zip(truths, predictions, strict=True)]
    means = [_mean_of(truth, right, measure) for truth, right in zip(truths, rights, strict=True)]
    return (float(np.mean(means)), *_interval(_bootstrap_means(truths, rights, groups, measure, bootstrap, seed)))


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
        return Difference(mean, low, high, int(np.sum(by_run[0] > by_run[1] + _ROUNDING)), len(by_run[0]))
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

    Pairs that test the same cells are resampled alike, for which their values are added up before. For balanced
    accuracy cells are resampled within their class, so that no class vanishes.
    """
    if measure not in ("accuracy", "balanced_accuracy"):
        raise ValueError(f"measure must be 'accuracy' or 'balanced_accuracy', got {measure!r}")
    total = np.zeros(bootstrap)
    for group, (truth, cells) in _add_up(truths, values, groups).items():
        rng = np.random.default_rng([seed, *group[0].encode(), group[1]])
        if measure == "accuracy":
            total += _resampled_means(cells, bootstrap, rng)
        else:
            numbers = np.unique(truth)
            total += sum(_resampled_means(cells[truth == number], bootstrap, rng) for number in numbers) / len(numbers)
    return total / len(truths)


def _add_up(
    truths: Sequence[np.ndarray], values: Sequence[np.ndarray], groups: Sequence[str]
) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """Truth and sum of the values of the pairs that test the same cells, by the centre tested and their number.

    The test part of a centre and the whole of it, its own row and those of others with "all", differ in number.
    """
    sums: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    for truth, cells, name in zip(truths, values, groups, strict=True):
        group = (name, len(truth))
        known, added = sums.get(group, (truth, np.zeros(len(truth))))
        if not np.array_equal(known, truth):
            raise ValueError(f"pairs that test {name} have other cells of the same number")
        sums[group] = (truth, added + cells)
    return sums


def _resampled_means(values: np.ndarray, bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `bootstrap` samples of as many values, drawn with replacement: array of shape (bootstrap,).

    Cells of the same value are as good as each other, and few values differ: how often each of them is drawn is
    multinomial, and takes no longer for a hundred thousand cells than for a hundred.
    """
    levels, first, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.argsort(first)  # and not by value, so that a difference seen from the other side is the same
    return rng.multinomial(len(values), counts[order] / len(values), bootstrap) @ levels[order] / len(values)


def _interval(samples: np.ndarray) -> tuple[float, float]:
    """Percentiles of the resamples (Efron and Tibshirani 1993, chapter 13)."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def _recall(truth: np.ndarray, right: np.ndarray, bootstrap: int, seed: int) -> dict[int, tuple[float, float, float]]:
    """Recall of each class among some cells, with its interval from resampled cells.

    Where all cells of a class fare alike, resampling would tell of no doubt at all, though there be two of them; the
    interval is Wilson's there.

    Args:
        truth: class numbers of shape (n,).
        right: share of the runs that name each cell rightly, of shape (n,).
        bootstrap: number of resamples.
        seed: of the resampling.
    """
    recall = {}
    for number in np.unique(truth).tolist():
        own = right[truth == number]
        mean = float(own.mean())
        if np.ptp(own) <= _ROUNDING:
            interval = wilson_interval(mean, len(own))
        else:
            interval = _interval(_resampled_means(own, bootstrap, np.random.default_rng([seed, number])))
        recall[number] = (mean, *interval)
    return recall


def pooled_recall(
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    groups: Sequence[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Mapping[int, tuple[float, float, float]]:
    """Recall of each class over the cells of several pairs of centres together, with its 95 % interval.

    A cell that several pairs test is one cell, whose value is the mean over them: counted as many times, it would make
    intervals too narrow.

    Args:
        truths: class numbers of shape (n,), for each pair.
        predictions: class numbers of shape (runs, n), for each pair.
        groups: as in `mean_scores`.
        bootstrap: number of resamples.
        seed: of the resampling.

    Returns:
        By class number, (recall, low, high).
    """
    rights = [_rightness(truth, named) for truth, named in zip(truths, predictions, strict=True)]
    pairs = _add_up(truths, [np.ones(len(truth)) for truth in truths], groups)
    sums = _add_up(truths, rights, groups)
    truth = np.concatenate([truth for truth, _ in sums.values()])
    right = np.concatenate([added / pairs[group][1] for group, (_, added) in sums.items()])
    return _recall(truth, right, bootstrap, seed)
