"""Representations of the same cells, compared by classifiers that are trained on one centre and tested on each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from experiments.cache import Cache
from experiments.evaluation.classifiers import FOREST, PROTOCOLS, Probe
from experiments.evaluation.mixing import mixing_scores
from experiments.evaluation.scores import (
    Difference,
    Interval,
    PairScores,
    bootstrap_mean,
    compare,
    pooled_recall,
    score_pair,
    share_correct,
)
from experiments.evaluation.transfer import Cells, Pair, Vectors, predict_pairs
from experiments.evaluation.vectors import standardise
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import hash_arrays

MAIN_PROBE = FOREST.name
NETWORK = "network"
STANDARDISED = " (std)"
_PAIR_NAME = "{}\n{}"


@dataclass(frozen=True)
class Column:
    """One representation of the cells: the vectors by centre of each training, and a sentence on it or none."""

    name: str
    trainings: tuple[Vectors, ...]
    note: str = ""

    def standardised(self) -> "Column":
        """The same with every feature standardised within its centre."""
        trainings = tuple({c: standardise(x) for c, x in vectors.items()} for vectors in self.trainings)
        return Column(self.name + STANDARDISED, trainings, self.note)


@dataclass(frozen=True)
class Protocol:
    """How representations are compared.

    Attributes:
        name: of the set of classifiers, see `classifiers.PROTOCOLS`.
        runs: random forests for each row, with seeds `seed`, `seed + 1` and so on; `seed` decides resampling too.
        test_on: cells of other centres that are tested, see `transfer.predict_pairs`.
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
    """All predictions, and the scores that follow from them.

    Attributes:
        columns: names of the representations, in order.
        notes: by column, what a reader should know, if anything.
        probes: names of the classifiers, in order; the first is the random forest.
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
        """The classifier of the main tables: the random forest, or the network where the column is a classifier."""
        return MAIN_PROBE if (column, MAIN_PROBE) in self.predictions else NETWORK

    def pairs(self, across: bool) -> list[Pair]:
        """Pairs of different centres, or each centre with itself."""
        return [pair for pair in self.cells.pairs if (pair[0] != pair[1]) == across]

    def has(self, column: str, probe: str, across: bool) -> bool:
        """Whether a column was tested by a classifier on every pair of `pairs`, and there is one."""
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
            (column, probe, pair): score_pair(self.truths[pair], runs, len(self.cells.classes), **self._resampling)
            for (column, probe), by_pair in self.predictions.items()
            for pair, runs in by_pair.items()
        }

    def mean(self, column: str, probe: str, measure: str, across: bool) -> Interval:
        """Mean over pairs of different centres, or of each centre with itself, with its 95 % interval."""
        truths, (runs,), groups = self._of_pairs(across, (column, probe))
        correct = [share_correct(*each) for each in zip(truths, runs, strict=True)]
        return bootstrap_mean(truths, correct, groups, measure=measure, **self._resampling)

    def difference(self, first: str, second: str, measure: str, across: bool) -> Difference:
        """How much better the first column is than the second by their main classifiers, on the same cells."""
        both = [(name, self.main_probe(name)) for name in (first, second)]
        truths, runs, groups = self._of_pairs(across, *both)
        return compare(truths, *runs, groups, measure=measure, **self._resampling)

    def recall(self, column: str, probe: str, across: bool) -> dict[str, Interval]:
        """Recall of each class over all pairs of different centres, or of each with itself, with 95 % intervals."""
        truths, (runs,), groups = self._of_pairs(across, (column, probe))
        found = pooled_recall(truths, runs, groups, **self._resampling)
        return {self.cells.classes[number]: value for number, value in found.items()}

    def confusion(self, column: str, probe: str, across: bool) -> np.ndarray:
        """Confusion matrix summed over runs and pairs; predictions outside the classes stand in no column."""
        return sum(self.pair_scores[column, probe, pair].confusion for pair in self.pairs(across))

    def outside_classes(self, column: str, probe: str, across: bool) -> np.ndarray:
        """How often a network predicted a type outside the classes, by true class, int64 of shape (classes,)."""
        counts = np.zeros(len(self.cells.classes), np.int64)
        for pair in self.pairs(across):
            np.add.at(counts, self.truths[pair], np.sum(self.predictions[column, probe][pair] < 0, axis=0))
        return counts

    def chance(self, across: bool) -> dict[str, float]:
        """Mean scores of the majority-class baseline, by measure."""
        counts = [np.unique(self.truths[pair], return_counts=True)[1] for pair in self.pairs(across)]
        return {
            "accuracy": float(np.mean([each.max() / each.sum() for each in counts])),
            "balanced_accuracy": float(np.mean([1 / len(each) for each in counts])),
        }

    def _of_pairs(self, across: bool, *keys: tuple[str, str]):
        """Truths of the pairs, predictions of each key on them, and names of the tested centres."""
        pairs = self.pairs(across)
        runs = [[self.predictions[key][pair] for pair in pairs] for key in keys]
        return [self.truths[pair] for pair in pairs], runs, [tested_on for _, tested_on in pairs]

    @property
    def _resampling(self) -> dict[str, Any]:
        return {"bootstrap": self.protocol.bootstrap, "seed": self.protocol.seed}


def compare_columns(columns: Sequence[Column], cells: Cells, protocol: Protocol, cache: Cache) -> Comparison:
    """Train every classifier of the protocol on each centre with each representation, and test it on all.

    What was computed before for the same vectors, labels and split is read from the cache.

    Raises:
        InputError: if two columns have one name, or a column lacks a centre.
    """
    names = [column.name for column in columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two columns are called {twice[0]}; give one of them another name")
    probes = PROTOCOLS[protocol.name]
    inputs = {column.name: _describe(column, cells) for column in columns}
    predictions: dict[tuple[str, str], dict[Pair, np.ndarray]] = {}
    # The random forests come first, since the other classifiers can take long.
    order = [(column, probe) for probe in probes for column in columns]
    runs = [protocol.runs if probe.is_random else min(protocol.runs, len(column.trainings)) for column, probe in order]
    done = np.cumsum(np.multiply(runs, len(cells.centres))).tolist()
    with Bar(total=done[-1] if done else 0, desc="classifiers", disable=None) as bar:
        for (column, probe), count in zip(order, done, strict=True):
            key = column.name, probe.name
            predictions[key] = _predict(column, cells, probe, protocol, cache, inputs[column.name], bar.update)
            bar.update(count - bar.n)  # those that were there already
    return Comparison(
        columns=tuple(names),
        notes={column.name: column.note for column in columns if column.note},
        probes=tuple(probe.name for probe in probes),
        cells=cells,
        protocol=protocol,
        predictions={(name, probe.name): predictions[name, probe.name] for name in names for probe in probes},
        mixing={each.name: _mixing(each, cells, protocol.seed, cache, inputs[each.name]) for each in columns},
    )


def _predict(
    column: Column,
    cells: Cells,
    probe: Probe,
    protocol: Protocol,
    cache: Cache,
    inputs: Mapping[str, Any],
    advance: Callable[[], object],
) -> dict[Pair, np.ndarray]:
    """Predictions of one classifier, from the cache where they were computed before."""
    options = {"runs": protocol.runs, "seed": protocol.seed, "test_on": protocol.test_on}

    def predict() -> dict[str, np.ndarray]:
        try:
            found = predict_pairs(column.trainings, cells, probe, n_jobs=protocol.jobs, advance=advance, **options)
        except InputError as error:
            raise InputError(f"column {column.name}: {error}") from None
        return {_PAIR_NAME.format(*pair): values for pair, values in found.items()}

    found = cache.arrays("predictions", {**inputs, "protocol": protocol.name, "probe": probe.name, **options}, predict)
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
    labels = [array for centre in cells.types for array in (cells.types[centre], cells.parts[centre])]
    # A missing centre is reported by name when the vectors are used.
    described = [[c for c in cells.types if c in vectors] for vectors in column.trainings]
    return {
        "vectors": [
            hash_arrays(np.array(centres, str), *(np.asarray(vectors[c]) for c in centres))
            for centres, vectors in zip(described, column.trainings, strict=True)
        ],
        "cells": hash_arrays(np.array(list(cells.types)), np.array(cells.classes), *labels),
    }
