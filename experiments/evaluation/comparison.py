"""Many representations of the same cells, compared by several classifiers across centres (thesis Table 3.2)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from experiments.cache import Cache
from experiments.evaluation.classifiers import FOREST, MAX_DEPTH, NUM_TREES, PROTOCOLS, Probe
from experiments.evaluation.mixing import mixing_scores
from experiments.evaluation.scores import (
    Difference,
    PairScores,
    compare,
    count_confusion,
    mean_scores,
    measure_run,
    pooled_recall,
    score_pair,
    wilson_interval,
)
from experiments.evaluation.transfer import Cells, Pair, Vectors, class_numbers, make_cells, predict_pairs
from experiments.evaluation.vectors import standardise_by_centre
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import hash_arrays

NUM_RUNS = 5
SEED = 42


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
    with Bar(total=total, desc="forests", disable=None) as bar:
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


MAIN_PROBE = FOREST.name
NETWORK = "network"
STANDARDISED = " (std)"
_PAIR_NAME = "{}\n{}"


@dataclass(frozen=True)
class Column:
    """One representation of the cells.

    Attributes:
        name: heading of its column.
        trainings: the vectors by centre, of each training; most representations have one.
        note: what a reader should know of it, one sentence or none.
    """

    name: str
    trainings: tuple[Vectors, ...]
    note: str = ""

    def standardised(self) -> "Column":
        """The same with every feature standardised within its centre, which takes no labels."""
        trainings = tuple(standardise_by_centre(vectors) for vectors in self.trainings)
        return Column(self.name + STANDARDISED, trainings, self.note)


@dataclass(frozen=True)
class Protocol:
    """How representations are compared.

    Attributes:
        name: "thesis" or "dinobloom", the set of classifiers.
        runs: classifiers for each row.
        seed: of the classifiers and of resampling.
        test_on: "test" or "all", see `transfer.predict_pairs`.
        bootstrap: resamples behind each interval of a mean or a difference.
        jobs: cores.
    """

    name: str = "thesis"
    runs: int = 5
    seed: int = 42
    test_on: str = "test"
    bootstrap: int = 1000
    jobs: int = field(default=2, compare=False)

    def __post_init__(self):
        if self.name not in PROTOCOLS:
            raise InputError(f"--protocol must be one of {', '.join(PROTOCOLS)}; got {self.name!r}")


@dataclass(frozen=True)
class Comparison:
    """All that was named, and the scores that follow from it.

    Attributes:
        columns: names of the representations, in order.
        notes: by column, what a reader should know, if anything.
        probes: names of the classifiers, in order; the first is the forest.
        cells: what was named.
        protocol: how.
        predictions: by column and probe, class numbers of shape (runs, n) for each pair of centres; a network that is a
            classifier itself has the only probe "network", and may lack pairs.
        mixing: by column, see `mixing.mixing_scores`; networks that are classifiers have none.
    """

    columns: tuple[str, ...]
    notes: dict[str, str]
    probes: tuple[str, ...]
    cells: Cells
    protocol: Protocol
    predictions: dict[tuple[str, str], dict[Pair, np.ndarray]]
    mixing: dict[str, dict[str, float | None]]

    def main_probe(self, column: str) -> str:
        """The classifier of the main tables: the forest, or the network itself where the column is a classifier."""
        return MAIN_PROBE if (column, MAIN_PROBE) in self.predictions else NETWORK

    def has(self, column: str, probe: str, across: bool) -> bool:
        """Whether a column was tested by a classifier on every pair of different centres, or of each with itself.

        Of a single centre there are no pairs of different ones, and nothing was tested on them.
        """
        pairs = self.pairs(across)
        return bool(pairs) and set(pairs) <= set(self.predictions.get((column, probe), {}))

    @cached_property
    def truths(self) -> dict[Pair, np.ndarray]:
        """Class numbers of the tested cells of each pair."""
        return {pair: self.cells.truth(pair, self.protocol.test_on) for pair in self.cells.pairs}

    @cached_property
    def pair_scores(self) -> dict[tuple[str, str, Pair], PairScores]:
        """Scores by column, probe and pair of centres."""
        return {
            (column, probe, pair): score_pair(
                self.truths[pair],
                named,
                len(self.cells.classes),
                bootstrap=self.protocol.bootstrap,
                seed=self.protocol.seed,
            )
            for (column, probe), by_pair in self.predictions.items()
            for pair, named in by_pair.items()
        }

    def pairs(self, across: bool) -> list[Pair]:
        """Pairs of different centres, or each centre with itself."""
        return [pair for pair in self.cells.pairs if (pair[0] != pair[1]) == across]

    def mean(self, column: str, probe: str, measure: str, across: bool) -> tuple[float, float, float]:
        """Mean over pairs of different centres, or of each centre with itself, with its 95 % interval."""
        return mean_scores(**self._of_pairs(across, (column, probe)), **self._resampling(measure))

    def difference(self, first: str, second: str, measure: str, across: bool) -> Difference:
        """How much better the first column is than the second by their main classifiers, on the same cells."""
        pairs = self.pairs(across)
        return compare(
            [self.truths[pair] for pair in pairs],
            [self.predictions[first, self.main_probe(first)][pair] for pair in pairs],
            [self.predictions[second, self.main_probe(second)][pair] for pair in pairs],
            [tested_on for _, tested_on in pairs],
            **self._resampling(measure),
        )

    def recall(self, column: str, probe: str, across: bool) -> dict[str, tuple[float, float, float]]:
        """Recall of each class over all pairs of different centres, or of each with itself, with 95 % intervals."""
        found = pooled_recall(
            **self._of_pairs(across, (column, probe)), bootstrap=self.protocol.bootstrap, seed=self.protocol.seed
        )
        return {self.cells.classes[number]: value for number, value in found.items()}

    def confusion(self, column: str, probe: str, across: bool) -> np.ndarray:
        """Confusion matrix summed over runs and pairs of different centres, or of each centre with itself.

        Names outside the classes, which only a network can give, stand in no column.
        """
        return sum(self.pair_scores[column, probe, pair].confusion for pair in self.pairs(across))

    def named_otherwise(self, column: str, probe: str, across: bool) -> np.ndarray:
        """How often cells of each class got a name outside the classes, int64 of shape (classes,)."""
        counts = np.zeros(len(self.cells.classes), np.int64)
        for pair in self.pairs(across):
            outside = np.sum(self.predictions[column, probe][pair] < 0, axis=0)
            np.add.at(counts, self.truths[pair], outside)
        return counts

    def chance(self, across: bool) -> dict[str, float]:
        """What naming one class for every cell would give on average, by measure."""
        pairs = self.pairs(across)
        largest = [np.bincount(self.truths[pair]).max() / len(self.truths[pair]) for pair in pairs]
        balanced = [1 / len(np.unique(self.truths[pair])) for pair in pairs]
        return {"accuracy": float(np.mean(largest)), "balanced_accuracy": float(np.mean(balanced))}

    def _of_pairs(self, across: bool, key: tuple[str, str]) -> dict[str, Any]:
        pairs = self.pairs(across)
        return {
            "truths": [self.truths[pair] for pair in pairs],
            "predictions": [self.predictions[key][pair] for pair in pairs],
            "groups": [tested_on for _, tested_on in pairs],
        }

    def _resampling(self, measure: str) -> dict[str, Any]:
        return {"measure": measure, "bootstrap": self.protocol.bootstrap, "seed": self.protocol.seed}


def compare_columns(columns: Sequence[Column], cells: Cells, protocol: Protocol, cache: Cache) -> Comparison:
    """Let every classifier of the protocol learn on each centre from each representation, and test it on all.

    What was computed before for the same vectors, labels and split is read from the cache.

    Args:
        columns: the representations, names all different.
        cells: rows as in their vectors.
        protocol: classifiers, runs, seed and tested cells.
        cache: where predictions and mixing scores are kept.

    Raises:
        InputError: if two columns have one name, or a column lacks a centre.
    """
    names = [column.name for column in columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two columns are called {twice[0]}; give one of them another name")
    probes = PROTOCOLS[protocol.name]
    predictions, mixing = {}, {}
    with Bar(total=len(columns) * len(probes), desc="classifiers", disable=None) as bar:
        for column in columns:
            inputs = _describe(column, cells)
            for probe in probes:
                predictions[column.name, probe.name] = _predict(column, cells, probe, protocol, cache, inputs)
                bar.update()
            mixing[column.name] = _mixing(column, cells, protocol.seed, cache, inputs)
    return Comparison(
        columns=tuple(names),
        notes={column.name: column.note for column in columns if column.note},
        probes=tuple(probe.name for probe in probes),
        cells=cells,
        protocol=protocol,
        predictions=predictions,
        mixing=mixing,
    )


def forest_predictions(
    column: Column, cells: Cells, protocol: Protocol, cache: Cache, *, advance: Callable[[], object] | None = None
) -> dict[Pair, np.ndarray]:
    """What the random forest names the cells: as in `compare_columns`, and kept in the same place.

    Args:
        column: the representation.
        cells: rows as in its vectors.
        protocol: runs, seed and tested cells.
        cache: where predictions are kept.
        advance: called after each forest that is grown, for a bar.

    Returns:
        Class numbers of shape (runs, n) by pair of centres.

    Raises:
        InputError: if the column lacks a centre.
    """
    return _predict(column, cells, FOREST, protocol, cache, _describe(column, cells), advance)


def _predict(
    column: Column,
    cells: Cells,
    probe: Probe,
    protocol: Protocol,
    cache: Cache,
    inputs: Mapping[str, Any],
    advance: Callable[[], object] | None = None,
) -> dict[Pair, np.ndarray]:
    """What a classifier names the cells, from the cache where it was computed before."""

    def predict() -> dict[str, np.ndarray]:
        try:
            named = predict_pairs(
                column.trainings,
                cells,
                probe,
                runs=protocol.runs,
                seed=protocol.seed,
                test_on=protocol.test_on,
                n_jobs=protocol.jobs,
                advance=advance,
            )
        except InputError as error:
            raise InputError(f"column {column.name}: {error}") from None
        return {_PAIR_NAME.format(*pair): values for pair, values in named.items()}

    described = {
        **inputs,
        "protocol": protocol.name,
        "probe": probe.name,
        "runs": protocol.runs,
        "seed": protocol.seed,
        "test_on": protocol.test_on,
    }
    found = cache.arrays("predictions", described, predict)
    return {pair: found[_PAIR_NAME.format(*pair)] for pair in cells.pairs}


def _mixing(
    column: Column, cells: Cells, seed: int, cache: Cache, inputs: Mapping[str, Any]
) -> dict[str, float | None]:
    """Mixing scores of a column's first training, over the centres that it describes."""
    centres = [centre for centre in cells.types if centre in column.trainings[0]]

    def measure() -> dict[str, np.ndarray]:
        vectors = np.concatenate([np.asarray(column.trainings[0][c], np.float32) for c in centres])
        names = np.concatenate([np.full(len(cells.types[c]), c) for c in centres])
        scores = mixing_scores(vectors, names, np.concatenate([cells.types[c] for c in centres]), seed)
        return {name: np.array(np.nan if value is None else value) for name, value in scores.items()}

    found = cache.arrays("mixing", {**inputs, "seed": seed}, measure)
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def _describe(column: Column, cells: Cells) -> dict[str, Any]:
    """What results of a column depend on, for the cache."""
    return {"vectors": [_hash_vectors(v, cells) for v in column.trainings], "cells": _hash_cells(cells)}


def _hash_vectors(vectors: Vectors, cells: Cells) -> str:
    # A missing centre is told of by name when the vectors are used.
    described = [centre for centre in cells.types if centre in vectors]
    return hash_arrays(np.array(described, str), *(np.asarray(vectors[centre]) for centre in described))


def _hash_cells(cells: Cells) -> str:
    columns = [array for centre in cells.types for array in (cells.types[centre], cells.parts[centre])]
    return hash_arrays(np.array(list(cells.types)), np.array(cells.classes), *columns)
