"""The random forest protocol of thesis section 3.4: train on one centre, test on all.

The forest is not the point: it measures what a representation of the cells says about their type, and how
much of that holds in a lab whose labels it never saw. The thesis reports accuracy; balanced accuracy, macro
F1, the recall of each class and the rate of the largest class stand beside it here, since the classes are
unbalanced, and a forest that names one class for every cell may look fair by accuracy alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.probes import FOREST, MAX_DEPTH, NUM_TREES
from experiments.scores import count_confusion, measure_run, wilson_interval
from experiments.transfer import Cells, Pair, Vectors, class_numbers, make_cells, predict_pairs
from mrcnn.errors import InputError
from mrcnn.feature_store import StoreReader
from mrcnn.progress_bar import Bar

NUM_RUNS = 5
SEED = 42
_READ_ROWS = 256  # 26 MB of features


@dataclass(frozen=True)
class Scores:
    """One method trained on one centre and tested on one, over several runs.

    Means and standard deviations (of the population, ddof 0) are over the runs, which differ in the forest's
    seed only: they say how much the forest's chance matters. How sure the accuracy is, given `num_test`
    cells, is what `accuracy_interval` says.

    Attributes:
        method: name of the representation.
        trained_on: centre whose training part the forest saw.
        tested_on: centre whose cells it named.
        num_train: training cells.
        num_test: test cells.
        num_unseen: test cells of a class that the training cells lack; they cannot be named rightly.
        majority_rate: share of the test cells' largest class, the accuracy of naming that class always.
        accuracy: (mean, standard deviation), 0 to 1; so are the next two.
        balanced_accuracy: mean recall over the classes present among the test cells.
        macro_f1: mean F1 over the same classes.
        accuracy_interval: 95 % Wilson interval of the mean accuracy for `num_test` independent cells.
        recall: mean recall of each class present among the test cells.
        confusion: int array of shape (classes, classes), rows true, columns named, summed over the runs.
    """

    method: str
    trained_on: str
    tested_on: str
    num_train: int
    num_test: int
    num_unseen: int
    majority_rate: float
    accuracy: tuple[float, float]
    balanced_accuracy: tuple[float, float]
    macro_f1: tuple[float, float]
    accuracy_interval: tuple[float, float]
    recall: dict[str, float]
    confusion: np.ndarray = field(compare=False)


@dataclass(frozen=True)
class Evaluation:
    """All methods on all pairs of centres.

    Attributes:
        methods: names, in the order of the columns.
        centres: names of the centres with labelled cells, in order.
        classes: cell types, in the order of the confusion matrices.
        scores: one entry for each method, training centre and test centre.
        class_counts: labelled cells of each class, by centre.
        unlabelled: cells without a cell type, by centre; they neither train nor test.
        unsplit: labelled cells in neither part of the split, by centre; they do not either.
        settings: runs, seed, test_on, number of trees and their depth.
    """

    methods: tuple[str, ...]
    centres: tuple[str, ...]
    classes: tuple[str, ...]
    scores: list[Scores]
    class_counts: dict[str, dict[str, int]]
    unlabelled: dict[str, int]
    unsplit: dict[str, int]
    settings: dict[str, object]

    def score(self, method: str, trained_on: str, tested_on: str) -> Scores:
        """Return one entry of `scores`.

        Raises:
            KeyError: if there is none.
        """
        for scores in self.scores:
            if (scores.method, scores.trained_on, scores.tested_on) == (method, trained_on, tested_on):
                return scores
        raise KeyError((method, trained_on, tested_on))


def evaluate_methods(
    methods: Mapping[str, Vectors],
    labels: Mapping[str, Sequence[str] | np.ndarray],
    splits: Mapping[str, Sequence[str] | np.ndarray],
    runs: int = NUM_RUNS,
    seed: int = SEED,
    *,
    test_on: str = "test",
    classes: Iterable[str] | None = None,
    n_jobs: int = 2,
    progress: bool = True,
) -> Evaluation:
    """Train a forest on each centre for each method, and test it on every centre.

    The own centre is always tested on its test part, and a forest never sees test cells of any centre.

    Args:
        methods: by method and centre, float array of shape (n, d); rows as in `labels`, d as the method
            likes.
        labels: by centre, cell types of shape (n,); "" for none.
        splits: by centre, "train", "test" or "" for each cell, of shape (n,); as from `Split.parts`.
        runs: forests grown for each row, with seeds `seed`, `seed + 1` and so on.
        seed: 0 or more.
        test_on: which cells of the other centres are tested: "test", their test parts, as in the thesis;
            "all", as in its authors' published code.
        classes: order of the cell types in tables; sorted by default. Types without a cell are dropped.
        n_jobs: cores for a forest.
        progress: whether to show a bar.

    Returns:
        The scores.

    Raises:
        InputError: if a centre has labels but no training or no test cell, or no centre has labels.
        ValueError: if shapes do not fit, a value is not finite, or a setting is out of range.
    """
    types = {centre: np.asarray(values, dtype=str) for centre, values in labels.items()}
    # Which images the cells are from plays no part here, so that their rows stand for keys.
    rows = {centre: np.arange(len(values)).astype(str) for centre, values in types.items()}
    order = None if classes is None else list(classes)
    cells = make_cells(rows, types, {centre: splits[centre] for centre in types}, order)
    predictions = {}
    total = len(methods) * len(cells.centres) * runs
    with Bar(total=total, desc="forests", disable=None if progress else True) as bar:
        for method, features in methods.items():
            vectors = {centre: np.asarray(values) for centre, values in features.items()}
            try:
                predictions[method] = predict_pairs(
                    [vectors], cells, FOREST, runs=runs, seed=seed, test_on=test_on, n_jobs=n_jobs, advance=bar.update
                )
            except InputError as error:
                raise InputError(f"method {method}: {error}") from None
    return score_methods(predictions, cells, runs=runs, seed=seed, test_on=test_on)


def score_methods(
    predictions: Mapping[str, Mapping[Pair, np.ndarray]], cells: Cells, *, runs: int, seed: int, test_on: str
) -> Evaluation:
    """Score what forests named the cells.

    Args:
        predictions: by method and pair of centres, class numbers of shape (runs, n), as from `predict_pairs`.
        cells: what was named.
        runs: number of the forests that named each cell.
        seed: of the first of them.
        test_on: as in `predict_pairs`.

    Returns:
        The scores.
    """
    return Evaluation(
        methods=tuple(predictions),
        centres=cells.centres,
        classes=cells.classes,
        scores=[
            _score(method, pair, cells, predictions[method][pair], test_on)
            for method in predictions
            for pair in cells.pairs
        ],
        class_counts=cells.counts,
        unlabelled={centre: int(np.sum(types == "")) for centre, types in cells.types.items()},
        unsplit={c: int(np.sum((types != "") & (cells.parts[c] == ""))) for c, types in cells.types.items()},
        settings={"runs": runs, "seed": seed, "test_on": test_on, "trees": NUM_TREES, "max_depth": MAX_DEPTH},
    )


def score_predictions(
    truth: Sequence[str] | np.ndarray, predicted: Sequence[str] | np.ndarray, classes: Sequence[str]
) -> dict[str, object]:
    """Score one run.

    Example: of two cells "a" both are named rightly, of two cells "b" one is named "a". Accuracy is 3/4,
    recall is 1 and 1/2, so that balanced accuracy is 3/4; F1 is 4/5 and 2/3.

    Args:
        truth: classes of shape (n,), n of 1 or more.
        predicted: named classes of shape (n,); a name outside the classes is wrong and stands in no column.
        classes: all classes, in the order of the confusion matrix.

    Returns:
        Dict of `accuracy`, `balanced_accuracy`, `macro_f1`, `recall` (dict over the classes present in
        `truth`, over which the two means are too) and `confusion` (rows true, columns named).

    Raises:
        ValueError: if `truth` holds a name outside the classes.
    """
    numbers = class_numbers(truth, classes)
    if np.any(numbers < 0):
        raise ValueError(f"classes lacks {str(np.asarray(truth)[numbers < 0][0])!r}, which truth holds")
    return _score_run(numbers, class_numbers(predicted, classes), classes)


def standardise_by_centre(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring every feature to mean 0 and deviation 1 within each centre, which needs no label.

    It is the simplest alignment of centres, and so the one that any other has to beat.

    Args:
        features: by centre, float array of shape (n, d).

    Returns:
        The same, float32; a feature that is constant in a centre is 0 there.
    """
    return {centre: standardise(values) for centre, values in features.items()}


def standardise(values: np.ndarray) -> np.ndarray:
    """Bring every feature of some cells, of shape (n, d), to mean 0 and deviation 1: float32; a constant one is 0."""
    values = np.asarray(values, dtype=np.float32)
    if not len(values):
        return values
    deviation = values.std(axis=0)
    shifted = values - values.mean(axis=0)
    return np.divide(shifted, deviation, out=np.zeros_like(shifted), where=deviation > 1e-6)


def roi_vectors(store: StoreReader, mode: str = "mean") -> np.ndarray:
    """Read the detector's features as one vector per cell: the R-CNN-RF baseline of thesis section 3.4.

    The thesis flattens the 14x14x256 features of a cell to 50,176 numbers ("flat"). As float16 that is 100 kB
    a cell, 6.6 GB for the thesis' 65,693 cells, and twice that again while scikit-learn holds a float32 copy.
    "mean" averages over the 14x14 grid and keeps 256 numbers.

    Args:
        store: opened.
        mode: "mean" or "flat".

    Returns:
        float32 array of shape (n, 256), or float16 of shape (n, 50176); rows as in the store.

    Raises:
        ValueError: if `mode` is neither.
    """
    if mode not in ("mean", "flat"):
        raise ValueError(f"mode must be 'mean' or 'flat', got {mode!r}")
    size, dtype = (256, np.float32) if mode == "mean" else (14 * 14 * 256, np.float16)
    vectors = np.empty((len(store), size), dtype)
    for start in range(0, len(store), _READ_ROWS):
        stop = min(start + _READ_ROWS, len(store))
        features = store.read("features", start, stop)
        # float16 sums lose digits; the mean is taken in float32.
        block = features.mean(axis=(1, 2), dtype=np.float32) if mode == "mean" else features.reshape(-1, size)
        vectors[start:stop] = block
    return vectors


def _score(method: str, pair: Pair, cells: Cells, predictions: np.ndarray, test_on: str) -> Scores:
    """Gather the runs of one method on one pair of centres; the predictions are of shape (runs, n)."""
    trained_on, tested_on = pair
    trained = cells.types[trained_on][cells.train_rows(trained_on)]
    tested = cells.types[tested_on][cells.test_rows(pair, test_on)]
    truth = cells.truth(pair, test_on)
    runs = [_score_run(truth, named, cells.classes) for named in predictions]
    means = {}
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        values = [run[name] for run in runs]
        means[name] = (float(np.mean(values)), float(np.std(values)))
    return Scores(
        method=method,
        trained_on=trained_on,
        tested_on=tested_on,
        num_train=len(trained),
        num_test=len(tested),
        num_unseen=int(np.sum(~np.isin(tested, trained))),
        majority_rate=float(np.bincount(truth).max() / len(truth)),
        accuracy_interval=wilson_interval(means["accuracy"][0], len(truth)),
        recall={name: float(np.mean([run["recall"][name] for run in runs])) for name in runs[0]["recall"]},
        confusion=np.sum([run["confusion"] for run in runs], axis=0),
        **means,
    )


def _score_run(truth: np.ndarray, named: np.ndarray, classes: Sequence[str]) -> dict[str, object]:
    """Score class numbers of shape (n,), as `score_predictions` says."""
    measured = measure_run(truth, named, len(classes))
    confusion = count_confusion(truth, named, len(classes))
    num_true = np.bincount(truth, minlength=len(classes))
    recall = {str(classes[n]): float(confusion[n, n] / num_true[n]) for n in np.flatnonzero(num_true)}
    means = {name: measured[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")}
    return {**means, "recall": recall, "confusion": confusion}
