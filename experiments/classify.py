"""The random forest protocol of thesis section 3.4: train on one centre, test on all.

The forest is not the point: it measures what a representation of the cells says about their type, and how
much of that holds in a lab whose labels it never saw. The thesis reports accuracy; balanced accuracy, macro
F1, the recall of each class and the rate of the largest class stand beside it here, since the classes are
unbalanced, and a forest that names one class for every cell may look fair by accuracy alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import confusion_matrix
from tqdm import tqdm

from experiments.probes import MAX_DEPTH, NUM_TREES, make_forest
from mrcnn.errors import InputError
from mrcnn.feature_store import StoreReader

NUM_RUNS = 5
SEED = 42
TEST_ON = ("test", "all")
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
    methods: Mapping[str, Mapping[str, np.ndarray]],
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
    if runs < 1 or test_on not in TEST_ON:
        raise ValueError(f"runs must be 1 or more and test_on one of {TEST_ON}, got {runs} and {test_on!r}")
    types = {centre: np.asarray(values, dtype=str) for centre, values in labels.items()}
    parts = {centre: np.asarray(splits[centre], dtype=str) for centre in types}
    centres = tuple(centre for centre, values in types.items() if np.any(values != ""))
    if not centres:
        raise InputError("no centre has a labelled cell; check the labels and the class map")
    for centre in centres:
        _check_parts(centre, types[centre], parts[centre])
    found = {str(name) for centre in centres for name in np.unique(types[centre])} - {""}
    order = sorted(found) if classes is None else [name for name in classes if name in found]
    if set(order) != found:
        raise ValueError(f"classes lacks {', '.join(sorted(found - set(order)))}")
    tests = {
        centre: {c: _is_tested(types[c], parts[c], c == centre or test_on == "test") for c in centres}
        for centre in centres
    }
    scores = []
    bar = tqdm(total=len(methods) * len(centres) * runs, desc="forests", disable=None if progress else True)
    with bar:
        for method, features in methods.items():
            matrices = {centre: _check_matrix(method, centre, features, types[centre]) for centre in centres}
            for trained_on in centres:
                is_train = (types[trained_on] != "") & (parts[trained_on] == "train")
                x, y = matrices[trained_on][is_train], types[trained_on][is_train]
                predictions: dict[str, list[np.ndarray]] = {centre: [] for centre in centres}
                for run in range(runs):
                    forest = make_forest(seed + run, n_jobs).fit(x, y)
                    for centre, is_test in tests[trained_on].items():
                        predictions[centre].append(forest.predict(matrices[centre][is_test]))
                    bar.update()
                for centre, is_test in tests[trained_on].items():
                    truth = types[centre][is_test]
                    scores.append(_score(method, trained_on, centre, y, truth, predictions[centre], classes=order))
    return Evaluation(
        methods=tuple(methods),
        centres=centres,
        classes=tuple(order),
        scores=scores,
        class_counts={c: {name: int(np.sum(types[c] == name)) for name in order} for c in types},
        unlabelled={c: int(np.sum(types[c] == "")) for c in types},
        unsplit={c: int(np.sum((types[c] != "") & (parts[c] == ""))) for c in types},
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
        predicted: named classes of shape (n,).
        classes: all classes, in the order of the confusion matrix.

    Returns:
        Dict of `accuracy`, `balanced_accuracy`, `macro_f1`, `recall` (dict over the classes present in
        `truth`, over which the two means are too) and `confusion` (rows true, columns named).
    """
    confusion = confusion_matrix(truth, predicted, labels=list(classes))
    right = np.diag(confusion)
    num_true, num_named = confusion.sum(axis=1), confusion.sum(axis=0)
    present = num_true > 0
    recall = right[present] / num_true[present]
    # F1 = 2 right / (true + named), which is defined for every class that is present.
    f1 = 2 * right[present] / (num_true + num_named)[present]
    names = np.asarray(classes)[present]
    return {
        "accuracy": float(right.sum() / confusion.sum()),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "recall": {str(name): float(value) for name, value in zip(names, recall, strict=True)},
        "confusion": confusion,
    }


def wilson_interval(rate: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate seen in `count` independent trials (Wilson 1927)."""
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def standardise_by_centre(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring every feature to mean 0 and deviation 1 within each centre, which needs no label.

    It is the simplest alignment of centres, and so the one that any other has to beat.

    Args:
        features: by centre, float array of shape (n, d).

    Returns:
        The same, float32; a feature that is constant in a centre is 0 there.
    """
    standardised = {}
    for centre, values in features.items():
        values = np.asarray(values, dtype=np.float32)
        deviation = values.std(axis=0)
        shifted = values - values.mean(axis=0)
        standardised[centre] = np.divide(shifted, deviation, out=np.zeros_like(shifted), where=deviation > 1e-6)
    return standardised


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


def _check_parts(centre: str, types: np.ndarray, parts: np.ndarray) -> None:
    if types.shape != parts.shape:
        raise ValueError(f"{centre}: {len(types)} labels but {len(parts)} parts of the split")
    unknown = set(np.unique(parts).tolist()) - {"train", "test", ""}
    if unknown:
        raise ValueError(f"{centre}: parts must be 'train', 'test' or '', got {sorted(unknown)}")
    for part in ("train", "test"):
        if not np.any((types != "") & (parts == part)):
            raise InputError(f"centre {centre}: no labelled cell in its {part} part; check its split and labels")


def _check_matrix(method: str, centre: str, features: Mapping[str, np.ndarray], types: np.ndarray) -> np.ndarray:
    if centre not in features:
        raise InputError(f"method {method}: no features of centre {centre}; compute them for every centre")
    matrix = np.asarray(features[centre])
    if matrix.ndim != 2 or len(matrix) != len(types):
        raise ValueError(f"{method}, {centre}: shape {matrix.shape} for {len(types)} cells")
    # Block by block: flattened features of a whole centre fill gigabytes, and so would a mask of them.
    blocks = (matrix[start : start + _READ_ROWS] for start in range(0, len(matrix), _READ_ROWS))
    if not all(np.isfinite(block).all() for block in blocks):
        raise ValueError(f"{method}, {centre}: features hold NaN or infinite values")
    return matrix


def _is_tested(types: np.ndarray, parts: np.ndarray, only_test_part: bool) -> np.ndarray:
    return (types != "") & ((parts == "test") if only_test_part else (parts != ""))


def _score(
    method: str,
    trained_on: str,
    tested_on: str,
    trained: np.ndarray,
    truth: np.ndarray,
    predictions: list[np.ndarray],
    classes: list[str],
) -> Scores:
    """Gather the runs of one method on one pair of centres."""
    runs = [score_predictions(truth, predicted, classes) for predicted in predictions]
    means = {}
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        values = [run[name] for run in runs]
        means[name] = (float(np.mean(values)), float(np.std(values)))
    _, counts = np.unique(truth, return_counts=True)
    return Scores(
        method=method,
        trained_on=trained_on,
        tested_on=tested_on,
        num_train=len(trained),
        num_test=len(truth),
        num_unseen=int(np.sum(~np.isin(truth, trained))),
        majority_rate=float(counts.max() / len(truth)),
        accuracy_interval=wilson_interval(means["accuracy"][0], len(truth)),
        recall={name: float(np.mean([run["recall"][name] for run in runs])) for name in runs[0]["recall"]},
        confusion=np.sum([run["confusion"] for run in runs], axis=0),
        **means,
    )
