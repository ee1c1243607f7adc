"""Scores of a comparison as records: a line of CSV for each pair of centres, and JSON of all that was measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from autoencoder.label_shift import shift_warnings
from experiments.evaluation.classifiers import MAX_DEPTH, NUM_TREES
from experiments.evaluation.comparison import Comparison
from experiments.evaluation.scores import MEASURES, Difference
from experiments.evaluation.thesis_numbers import Value, ablation_number
from experiments.evaluation.transfer import Pair

SIDES = {True: "across centres", False: "within centre"}
MAIN_MEASURES = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Heading:
    """What stands around the tables.

    Attributes:
        name: of the files and the table, as "table-3.2".
        provenance: lines such as the command and the machine, by name.
        thesis: which centres are the thesis' data sets, as from `thesis_numbers.thesis_centres`.
        reference: column that the others are compared with; there is no such table where it is none of them.
        remarks: further sentences.
    """

    name: str
    title: str
    provenance: Mapping[str, str] = field(default_factory=dict)
    thesis: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    remarks: Sequence[str] = ()


def to_csv(comparison: Comparison, heading: Heading) -> str:
    """A line for each column, classifier and pair of centres; what is not defined is empty."""
    rows = []
    for (column, probe, pair), scores in comparison.pair_scores.items():
        row: dict[str, Any] = {"trained_on": pair[0], "tested_on": pair[1], "method": column, "classifier": probe}
        row["runs"] = scores.num_runs
        for name in MEASURES:
            row |= {f"{name}_mean": scores.mean(name), f"{name}_std": scores.deviation(name)}
        row["accuracy_low"], row["accuracy_high"] = scores.accuracy_interval
        row |= _numbers(comparison, pair) | {"majority_rate": scores.majority_rate}
        if heading.thesis:
            is_main = probe == comparison.main_probe(column)
            reported = (thesis_value(heading, column, pair) if is_main else None) or (None, None)
            values = [None if value is None else value / 100 for value in reported]
            row |= dict(zip(("thesis_accuracy", "thesis_std"), values, strict=True))
        for number, name in enumerate(comparison.cells.classes):
            names = (f"recall_{name}{end}" for end in ("", "_low", "_high"))
            row |= dict(zip(names, scores.recall.get(number, (None,) * 3), strict=True))
        rows.append(row)
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.4f", lineterminator="\n")


def _numbers(comparison: Comparison, pair: Pair) -> dict[str, int]:
    """Cells behind the scores of a pair; unseen ones are of a class that the training cells lack."""
    cells, test_on = comparison.cells, comparison.protocol.test_on
    trained = cells.types[pair[0]][cells.train_rows(pair[0])]
    tested = cells.types[pair[1]][cells.test_rows(pair, test_on)]
    return {"num_train": len(trained), "num_test": len(tested), "num_unseen": int(np.sum(~np.isin(tested, trained)))}


def to_json(comparison: Comparison, heading: Heading) -> dict[str, Any]:
    """Everything that was measured, as JSON values."""
    cells, classes, protocol = comparison.cells, comparison.cells.classes, comparison.protocol
    scores = []
    for (column, probe, pair), entry in comparison.pair_scores.items():
        measures = {
            name: {"mean": entry.mean(name), "std": entry.deviation(name), "runs": entry.values[name].tolist()}
            for name in MEASURES
        }
        scores.append(
            {"method": column, "classifier": probe, "trained_on": pair[0], "tested_on": pair[1]}
            | _numbers(comparison, pair)
            | {"majority_rate": entry.majority_rate, **measures, "accuracy_interval": list(entry.accuracy_interval)}
            | {
                "recall": {classes[number]: value[0] for number, value in entry.recall.items()},
                "recall_interval": {classes[number]: list(value[1:]) for number, value in entry.recall.items()},
                "confusion": entry.confusion.tolist(),
            }
        )
    means = [
        {"method": column, "classifier": probe, "tested": SIDES[across]}
        | {name: list(comparison.mean(column, probe, name, across)) for name in MAIN_MEASURES}
        for column, probe in comparison.predictions
        for across in sides(comparison)
        if comparison.has(column, probe, across)
    ]
    return {
        "title": heading.title,
        "provenance": dict(heading.provenance),
        "settings": {
            **{name: value for name, value in dataclasses.asdict(protocol).items() if name not in ("name", "jobs")},
            "protocol": protocol.name,
            "trees": NUM_TREES,
            "max_depth": MAX_DEPTH,
        },
        "methods": list(comparison.columns),
        "notes": comparison.notes,
        "classifiers": list(comparison.probes),
        "centres": list(cells.centres),
        "classes": list(classes),
        "class_counts": cells.counts,
        "unlabelled": unlabelled(comparison),
        "unsplit": {c: int(np.sum((types != "") & (cells.parts[c] == ""))) for c, types in cells.types.items()},
        "label_shift": label_shifts(comparison),
        "means": means,
        "reference": heading.reference,
        "differences": [
            {"column": column, "tested": SIDES[across], "measure": measure, **dataclasses.asdict(difference)}
            for (column, across, measure), difference in differences(comparison, heading.reference).items()
        ],
        "scores": scores,
        "mixing": comparison.mixing,
    }


def sides(comparison: Comparison) -> list[bool]:
    """Whether there are pairs of different centres, and of each with itself."""
    return [True, False] if len(comparison.cells.centres) > 1 else [False]


def differences(comparison: Comparison, reference: str) -> dict[tuple[str, bool, str], Difference]:
    """By column, side and measure, each column against the reference, where both were tested on all pairs."""
    return {
        (column, across, measure): comparison.difference(column, reference, measure, across)
        for column in comparison.columns
        for across in sides(comparison)
        for measure in MAIN_MEASURES
        if column != reference and reference in comparison.columns
        if all(comparison.has(name, comparison.main_probe(name), across) for name in (column, reference))
    }


def label_shifts(comparison: Comparison) -> list[str]:
    """Pairs of centres that hold the types in other proportions, as warnings."""
    counts, centres = comparison.cells.counts, comparison.cells.centres
    return [
        text.split(": ")[0]
        for i, first in enumerate(centres)
        for text in shift_warnings({name: counts[name] for name in centres[i:]}, first)
    ]


def unlabelled(comparison: Comparison) -> dict[str, int]:
    """Cells without a type, by centre."""
    return {centre: int(np.sum(types == "")) for centre, types in comparison.cells.types.items()}


def thesis_value(heading: Heading, column: str, pair: Pair) -> Value | None:
    """What the thesis reports of a column and a pair of centres, in percent, or None."""
    return ablation_number(column, *(heading.thesis.get(centre) for centre in pair))
