"""Representations of the same cells, compared by classifiers that are trained on one centre and tested on each."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from experiments.cache import Cache
from experiments.evaluation.classifiers import FOREST, PROTOCOLS, Probe
from experiments.evaluation.mixing import mixing_scores
from experiments.evaluation.scores import Difference, Interval, Resampling, score_pair
from experiments.evaluation.transfer import Cells, Pair, Vectors, predict_pairs
from experiments.evaluation.vectors import align_vectors, read_vectors, standardise
from experiments.settings import MORPHOLOGY, RCNN
from mrcnn.feature_store import StorePath, open_store
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import hash_arrays

logger = logging.getLogger(__name__)

MAIN_PROBE = FOREST.name
NETWORK = "network"
STANDARDISED = " (std)"


@dataclass(frozen=True)
class Column:
    """One representation of the cells: the vectors by centre of each training, and a sentence on it or none."""

    name: str
    trainings: tuple[Vectors, ...]
    note: str = ""


def choose_standardised(columns: Sequence[Column], how: Sequence[str]) -> list[Column]:
    """The columns as they are ("none"), with every feature standardised within its centre ("centre"), or both."""
    chosen = []
    for column in columns:
        chosen += [column] if "none" in how else []
        if "centre" in how:
            trainings = tuple({c: standardise(x) for c, x in vectors.items()} for vectors in column.trainings)
            chosen.append(Column(column.name + STANDARDISED, trainings, column.note))
    return chosen


def foreign_columns(features: Mapping[str, Path], cells: Cells) -> list[Column]:
    """Columns of vectors made elsewhere, brought to the order of the cells; centres not compared are logged.

    Raises:
        InputError: if a file cannot be read, or lacks a labelled centre or a cell.
    """
    columns = []
    for name, path in features.items():
        table = read_vectors(path)
        if missing := [centre for centre in cells.centres if centre not in table]:
            raise InputError(f"{path}: has no cells of centre {missing[0]}; it must describe every centre")
        if others := [centre for centre in table if centre not in cells.image_ids]:
            logger.info("%s: centres that are not compared are left out: %s", path, ", ".join(others))
        vectors = {
            centre: align_vectors(x, texts["image_id"], cells.image_ids[centre], f"{path}, centre {centre}")
            for centre, (x, texts) in table.items()
            if centre in cells.image_ids
        }
        columns.append(Column(name, (vectors,), f"{name}: vectors of {Path(path).name}."))
    return columns


def raw_column(stores: Mapping[str, StorePath], mode: str) -> Column:
    """R-CNN-RF: the detector's features of every cell, by the "mean" or "flat" mode of `roi_vectors`."""
    vectors = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            vectors[centre] = roi_vectors(store, mode)
    note = "averaged over their 14 x 14 spatial positions" if mode == "mean" else "flattened"
    return Column(RCNN, (vectors,), f"{RCNN}: the detector's RoI features, {note}.")


def morphology_column(stores: Mapping[str, StorePath]) -> Column:
    """Morphology: what is measured on cell and nucleus; an InputError names a store without."""
    vectors = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            vectors[centre] = store.read("morphology", 0, len(store))
    return Column(MORPHOLOGY, (vectors,), f"{MORPHOLOGY}: size, shape, lobes, colour and texture of cell and nucleus.")


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
    jobs: int = 2


@dataclass(frozen=True)
class Comparison:
    """All predictions, and the scores that follow from them.

    `across` says whether scores are of pairs of different centres, or of each centre with itself. A classifier that is
    not named is the main one: the random forest, or the network where the column is a classifier itself.

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

    @property
    def sides(self) -> list[bool]:
        """Values of `across` for which there are pairs."""
        return [True, False] if len(self.cells.centres) > 1 else [False]

    def main_probe(self, column: str) -> str:
        """The classifier of the main tables."""
        return MAIN_PROBE if (column, MAIN_PROBE) in self.predictions else NETWORK

    def pairs(self, across: bool) -> list[Pair]:
        """Pairs of different centres, or each centre with itself."""
        return [pair for pair in self.cells.pairs if (pair[0] != pair[1]) == across]

    def predicted(self, column: str, across: bool, probe: str = "") -> list[np.ndarray]:
        """Predictions on each pair; none where the column was not tested on all."""
        by_pair = self.predictions.get((column, probe or self.main_probe(column)), {})
        pairs = self.pairs(across)
        return [by_pair[pair] for pair in pairs] if set(pairs) <= set(by_pair) else []

    @cached_property
    def truths(self) -> dict[Pair, np.ndarray]:
        """Class numbers of the tested cells of each pair."""
        return {pair: self.cells.truth(pair, self.protocol.test_on) for pair in self.cells.pairs}

    @cached_property
    def pair_scores(self) -> dict[tuple[str, str, Pair], dict[str, Any]]:
        """By column, probe and pair of centres, what `score_pair` gives and the numbers of cells, as JSON values.

        Unseen cells are of a class that the training cells lack; the majority rate is the accuracy of the baseline.
        """
        cells, found = self.cells, {}
        for (column, probe), by_pair in self.predictions.items():
            for pair, runs in by_pair.items():
                truth, learned = self.truths[pair], cells.types[pair[0]][cells.train_rows(pair[0])]
                unseen = ~np.isin(truth, cells.class_numbers(learned))
                found[column, probe, pair] = {
                    **{"method": column, "classifier": probe, "trained_on": pair[0], "tested_on": pair[1]},
                    **{"num_train": len(learned), "num_test": len(truth), "num_unseen": int(unseen.sum())},
                    "majority_rate": self.chance(pair)["accuracy"],
                    **score_pair(truth, runs, cells.classes, self.protocol.bootstrap, self.protocol.seed),
                }
        return found

    def main_scores(self, column: str, pair: Pair) -> dict[str, Any] | None:
        """Scores of the main classifier, if it was tested on a pair."""
        return self.pair_scores.get((column, self.main_probe(column), pair))

    def mean(self, column: str, measure: str, across: bool, probe: str = "") -> Interval | None:
        """Mean over the pairs, with its 95 % interval; None where the column was not tested on all."""
        predicted = self.predicted(column, across, probe)
        return self._resampling(across).mean(predicted, measure) if predicted else None

    def difference(self, first: str, second: str, measure: str, across: bool) -> Difference | None:
        """How much better the first column is than the second, on the same cells; None where one lacks pairs."""
        one, other = (self.predicted(name, across) for name in (first, second))
        return self._resampling(across).difference(one, other, measure) if one and other else None

    def recall(self, column: str, across: bool) -> dict[str, Interval]:
        """Recall of each class over all pairs with 95 % intervals; none where the column was not tested on all."""
        predicted = self.predicted(column, across)
        found = self._resampling(across).recall(predicted) if predicted else {}
        return {self.cells.classes[number]: value for number, value in found.items()}

    def confusion(self, column: str, across: bool) -> np.ndarray:
        """Confusion matrix over all runs and pairs, int64, rows true, columns predicted; the last is of no class."""
        labels = [*range(len(self.cells.classes)), -1]
        runs = zip(self.pairs(across), self.predicted(column, across), strict=True)
        return sum(confusion_matrix(np.tile(self.truths[p], len(n)), n.ravel(), labels=labels) for p, n in runs)

    def chance(self, *pairs: Pair) -> dict[str, float]:
        """Mean scores of the majority-class baseline over some pairs, by measure."""
        counts = [np.unique(self.truths[pair], return_counts=True)[1] for pair in pairs]
        return {
            "accuracy": float(np.mean([each.max() / each.sum() for each in counts])),
            "balanced_accuracy": float(np.mean([1 / len(each) for each in counts])),
        }

    def _resampling(self, across: bool) -> Resampling:
        pairs, protocol = self.pairs(across), self.protocol
        tested_on = [tested_on for _, tested_on in pairs]
        return Resampling([self.truths[pair] for pair in pairs], tested_on, protocol.bootstrap, protocol.seed)


def compare_columns(columns: Sequence[Column], cells: Cells, protocol: Protocol, cache: Cache) -> Comparison:
    """Train every classifier of the protocol on each centre with each representation, and test it on all.

    What was computed before for the same vectors, labels and split is read from the cache.

    Raises:
        InputError: if two columns have one name.
    """
    names = [column.name for column in columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two columns are called {twice[0]}; give one of them another name")
    probes = PROTOCOLS[protocol.name]
    inputs = {column.name: _describe(column, cells) for column in columns}
    predictions = {(column.name, probe.name): {} for column in columns for probe in probes}
    # The random forests come first, since the other classifiers can take long.
    for probe, column in Bar(list(product(probes, columns)), desc="classifiers", disable=None):
        predictions[column.name, probe.name] = _predict(column, cells, probe, protocol, cache, inputs[column.name])
    return Comparison(
        columns=tuple(names),
        notes={column.name: column.note for column in columns if column.note},
        probes=tuple(probe.name for probe in probes),
        cells=cells,
        protocol=protocol,
        predictions=predictions,
        mixing={each.name: _mixing(each, cells, protocol.seed, cache, inputs[each.name]) for each in columns},
    )


def _predict(
    column: Column, cells: Cells, probe: Probe, protocol: Protocol, cache: Cache, inputs: Mapping[str, Any]
) -> dict[Pair, np.ndarray]:
    """Predictions of one classifier, from the cache where they were computed before."""
    options = {"runs": protocol.runs, "seed": protocol.seed, "test_on": protocol.test_on}

    def predict() -> dict[str, np.ndarray]:
        found = predict_pairs(column.trainings, cells, probe, n_jobs=protocol.jobs, **options)
        return {"\n".join(pair): values for pair, values in found.items()}

    found = cache.arrays("predictions", {**inputs, "protocol": protocol.name, "probe": probe.name, **options}, predict)
    return {pair: found["\n".join(pair)] for pair in cells.pairs}


def _mixing(
    column: Column, cells: Cells, seed: int, cache: Cache, inputs: Mapping[str, Any]
) -> dict[str, float | None]:
    """Mixing scores of a column's first training, over the centres that it describes."""
    vectors = column.trainings[0]
    centres = [centre for centre in cells.types if centre in vectors]

    def measure() -> dict[str, np.ndarray]:
        x = np.concatenate([np.asarray(vectors[centre], np.float32) for centre in centres])
        names = np.repeat(centres, [len(cells.types[centre]) for centre in centres])
        scores = mixing_scores(x, names, np.concatenate([cells.types[centre] for centre in centres]), seed)
        return {name: np.array(np.nan if value is None else value) for name, value in scores.items()}

    found = cache.arrays("mixing", {**inputs, "seed": seed}, measure)
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def _describe(column: Column, cells: Cells) -> dict[str, Any]:
    """What results of a column depend on, for the cache."""
    hashes = []
    for vectors in column.trainings:
        centres = [centre for centre in cells.types if centre in vectors]
        hashes.append(hash_arrays(np.array(centres, str), *(np.asarray(vectors[centre]) for centre in centres)))
    labels = [array for centre in cells.types for array in (cells.types[centre], cells.parts[centre])]
    return {
        "vectors": hashes,
        "cells": hash_arrays(np.array(list(cells.types)), np.array(cells.classes), *labels),
    }
