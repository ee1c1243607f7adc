"""The tables of a comparison of representations: their header, rows and notes, whatever they are written as."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoencoder.label_shift import shift_warnings
from experiments.evaluation.classifiers import MAX_DEPTH, NUM_TREES
from experiments.evaluation.comparison import NETWORK, STANDARDISED, Comparison
from experiments.evaluation.scores import MEASURES, Difference, PairScores
from experiments.evaluation.tables import csv_table, markdown_table, to_latex
from experiments.evaluation.thesis_numbers import Value, ablation_number
from mrcnn.files.atomic import write_json, write_text

ACROSS = {True: "other centres", False: "own centre"}
_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
}
_MIXING = {
    "centre_accuracy": "centre told",
    "proxy_a_distance": "proxy A-distance",
    "silhouette_centre": "silhouette by centre",
    "silhouette_type": "silhouette by type",
    "lisi_centre": "LISI by centre",
    "lisi_type": "LISI by type",
}
_MIXING_NOTE = (
    "How well the centres mix, and how well the types stand apart, over all cells that a column describes or a sample "
    "of them, of the first training of each. Centre told: balanced accuracy of a linear classifier of the centre; "
    "proxy A-distance: 0 where centres cannot be told apart, 2 where they always can; LISI by centre: how many centres "
    "there are around a cell. Mixing means a high LISI by centre, and low values of the other three; by type, the "
    "opposite is good."
)


@dataclass(frozen=True)
class Heading:
    """What stands around the tables.

    Attributes:
        name: of the files and the table, as "table-3.2".
        title: one line.
        provenance: lines such as the command, the configuration's hash and the machine, by name.
        thesis: which centres are the thesis' data sets, as from `thesis_numbers.thesis_centres`.
        reference: column that the others are compared with; there is no such table where it is none of them.
        remarks: further sentences.
    """

    name: str
    title: str
    provenance: Mapping[str, str]
    thesis: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """One table of the page."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    columns: Sequence[str] = ()  # whose notes must stand beside the table where it stands alone


def page_parts(comparison: Comparison, heading: Heading) -> list[Part]:
    """The tables of the page, in order."""
    plain = plain_columns(comparison)
    standardised = [name for name in comparison.columns if name not in plain]
    parts = []
    for names, what in ((plain, ""), (standardised, ", every feature standardised within its centre")):
        for measure in ("accuracy", "balanced_accuracy") if names else ():
            parts.append(_pair_table(comparison, heading, names, measure, what))
    parts.append(_mean_table(comparison))
    if len(comparison.probes) > 1:
        parts += [_probe_table(comparison, across) for across in sides(comparison)]
    if differences(comparison, heading.reference):
        parts.append(_difference_table(comparison, heading.reference))
    if comparison.mixing:
        parts.append(_mixing_table(comparison))
    parts += [_recall_table(comparison, across) for across in sides(comparison)]
    parts.append(_count_table(comparison))
    return parts


def plain_columns(comparison: Comparison) -> list[str]:
    """Columns whose features are as they are."""
    return [name for name in comparison.columns if not name.endswith(STANDARDISED)]


def differences(comparison: Comparison, reference: str) -> list[dict[str, Any]]:
    """Each column against the reference on the same cells, where both were tested on all pairs."""
    if reference not in comparison.columns:
        return []
    return [
        {"column": column, "tested_on": ACROSS[across], "measure": measure}
        | dataclasses.asdict(comparison.difference(column, reference, measure, across))
        for column in comparison.columns
        for across in sides(comparison)
        for measure in ("accuracy", "balanced_accuracy")
        if column != reference
        and all(comparison.has(name, comparison.main_probe(name), across) for name in (column, reference))
    ]


def label_shifts(comparison: Comparison) -> list[str]:
    """Pairs of centres that hold the types in other shares, as warnings."""
    counts, centres = comparison.cells.counts, comparison.cells.centres
    labelled = {name: counts[name] for name in centres}
    warnings = []
    for i, first in enumerate(centres):
        later = {name: labelled[name] for name in centres[i:]}
        warnings += [text.split(": ")[0] for text in shift_warnings(later, first)]
    return warnings


def sides(comparison: Comparison) -> list[bool]:
    """Whether there are pairs of different centres, and of each with itself."""
    return [True, False] if len(comparison.cells.centres) > 1 else [False]


def thesis_value(heading: Heading, column: str, pair: tuple[str, str]) -> Value | None:
    """What the thesis reports of a column and a pair of centres, in percent, or None."""
    return ablation_number(column, *(heading.thesis.get(centre) for centre in pair))


def _pair_table(comparison: Comparison, heading: Heading, names: Sequence[str], measure: str, what: str) -> Part:
    """The thesis' Table 3.2: a row for each pair of centres, a column for each representation."""
    header = ["Trained on", "Tested on", *names, "Largest class", "Cells"]
    if measure == "balanced_accuracy":
        header[-2] = "One class"
    rows = []
    with_thesis = False
    for pair in comparison.cells.pairs:
        scores = {name: comparison.pair_scores.get((name, comparison.main_probe(name), pair)) for name in names}
        best = max((round(entry.mean(measure), 3) for entry in scores.values() if entry), default=0)
        cells = []
        for name, entry in scores.items():
            if entry is None:
                cells.append("–")
                continue
            text = _with_deviation(entry, measure)
            text = f"**{text}**" if len(names) > 1 and round(entry.mean(measure), 3) == best else text
            thesis = thesis_value(heading, name, pair) if measure == "accuracy" else None
            with_thesis |= thesis is not None
            cells.append(text + ("" if thesis is None else f" [{_show_thesis(thesis)}]"))
        counts = np.unique(comparison.truths[pair], return_counts=True)[1]
        chance = counts.max() / counts.sum() if measure == "accuracy" else 1 / len(counts)
        rows.append([*pair, *cells, f"{100 * chance:.1f}", str(counts.sum())])
    for across in sides(comparison):
        means = {name: _mean(comparison, name, measure, across) for name in names}
        best = max((round(mean[0], 3) for mean in means.values() if mean), default=0)
        cells = []
        for mean in means.values():
            text = "–" if mean is None else f"{100 * mean[0]:.1f}"
            cells.append(f"**{text}**" if mean and len(names) > 1 and round(mean[0], 3) == best else text)
        rows.append(["mean", ACROSS[across], *cells, f"{100 * comparison.chance(across)[measure]:.1f}", ""])
    note = (
        "In percent, mean ± standard deviation over the runs where there are several; the best of a row is bold. "
        f"“{header[-2]}”: what naming one class for every cell would score."
    )
    note += " In brackets: what the thesis reports of this data set." if with_thesis else ""
    return Part(f"{_TITLES[measure]} of {_by_whom(comparison, names)}{what}", header, rows, note, names)


def _mean_table(comparison: Comparison) -> Part:
    """Means over pairs with intervals, by the classifier of the main tables."""
    header = ["Column"]
    for across in sides(comparison):
        header += [f"{_TITLES[name]}, {ACROSS[across]}" for name in MEASURES]
    rows = []
    for column in comparison.columns:
        cells, probe = [], comparison.main_probe(column)
        for across in sides(comparison):
            for measure in MEASURES:
                if not comparison.has(column, probe, across):
                    cells.append("–")
                elif measure in ("accuracy", "balanced_accuracy"):
                    cells.append(_with_interval(comparison.mean(column, probe, measure, across)))
                else:
                    pairs = comparison.pairs(across)
                    values = [comparison.pair_scores[column, probe, pair].mean(measure) for pair in pairs]
                    cells.append(f"{100 * sum(values) / len(values):.1f}")
        rows.append([column, *cells])
    note = (
        "In percent, mean over the pairs of centres, with 95 % intervals over "
        f"{comparison.protocol.bootstrap:,} resamples of the test cells. They say how sure a mean is with so many "
        "cells, and nothing of other trainings; where a class has few cells they are too narrow."
    )
    if len(plain_columns(comparison)) < len(comparison.columns):
        note += (
            f" “{STANDARDISED.strip()}”: every feature standardised within its centre, over all its cells and without "
            "labels."
        )
    return Part(f"Means over pairs of centres, by {_by_whom(comparison, comparison.columns)}", header, rows, note)


def _probe_table(comparison: Comparison, across: bool) -> Part:
    """Balanced accuracy by column and classifier."""
    columns = [c for c in comparison.columns if all(comparison.has(c, probe, across) for probe in comparison.probes)]
    means = {
        (column, probe): comparison.mean(column, probe, "balanced_accuracy", across)
        for column in columns
        for probe in comparison.probes
    }
    best = {probe: max((round(means[c, probe][0], 3) for c in columns), default=0) for probe in comparison.probes}
    rows = []
    for column in columns:
        cells = []
        for probe in comparison.probes:
            text = _with_interval(means[column, probe])
            cells.append(f"**{text}**" if round(means[column, probe][0], 3) == best[probe] else text)
        rows.append([column, *cells])
    title = f"Balanced accuracy by classifier, {ACROSS[across]}"
    note = "In percent, mean over the pairs of centres, with 95 % intervals; the best of each classifier is bold."
    return Part(title, ["Column", *comparison.probes], rows, note)


def _difference_table(comparison: Comparison, reference: str) -> Part:
    """Each column against the reference, on the same cells."""
    measures = ("accuracy", "balanced_accuracy")
    header = ["Column"]
    for across in sides(comparison):
        header += [f"{_TITLES[name]}, {ACROSS[across]}" for name in measures]
    shown = {}
    for entry in differences(comparison, reference):
        column, tested_on, measure = (entry.pop(name) for name in ("column", "tested_on", "measure"))
        shown[column, tested_on, measure] = _show_difference(Difference(**entry))
    rows = [
        [column, *(shown.get((column, ACROSS[a], measure), "–") for a in sides(comparison) for measure in measures)]
        for column in comparison.columns
        if column != reference
    ]
    note = (
        f"Points of percent by which a column is better than {reference} on the same cells, mean over the pairs of "
        "centres, with 95 % intervals over resampled test cells; bold where the interval leaves 0 out, which one in "
        "twenty does without any difference; in brackets the runs in which it is better. Runs share cells and training "
        "data, so that they say nothing of other data."
    )
    whom = _by_whom(comparison, comparison.columns)
    return Part(f"Compared with {reference}, by {whom}", header, rows, note)


def _mixing_table(comparison: Comparison) -> Part:
    rows = []
    for column, scores in comparison.mixing.items():
        values = [scores.get(name) for name in _MIXING]
        rows.append([column, *("–" if value is None else f"{value:.3f}" for value in values)])
    return Part("How centres mix and types separate", ["Column", *_MIXING.values()], rows, _MIXING_NOTE)


def _recall_table(comparison: Comparison, across: bool) -> Part:
    probes = {column: comparison.main_probe(column) for column in comparison.columns}
    recalls = {
        column: comparison.recall(column, probe, across)
        for column, probe in probes.items()
        if comparison.has(column, probe, across)
    }
    names = [n for n in comparison.cells.classes if any(n in recall for recall in recalls.values())]
    rows = [
        [column, *(_with_interval(recall[name]) if name in recall else "–" for name in names)]
        for column, recall in recalls.items()
    ]
    note = (
        "In percent, over the test cells of all pairs of centres together, with 95 % intervals over resampled cells; "
        "where all cells of a class fare alike, Wilson's for so many cells."
    )
    header = ["Column", *(name.replace("_", " ") for name in names)]
    title = f"Recall of each class, {ACROSS[across]}, by {_by_whom(comparison, list(recalls))}"
    return Part(title, header, rows, note)


def _count_table(comparison: Comparison) -> Part:
    """Cells of each class, and a warning where centres hold them in other shares."""
    counts = comparison.cells.counts
    rows = [
        [name.replace("_", " "), *(str(counts[centre][name]) for centre in counts)] for name in comparison.cells.classes
    ]
    cells = comparison.cells
    rows.append(["without a type", *(str(int((types == "").sum())) for types in cells.types.values())])
    rows.append(["to learn from", *(str(len(cells.train_rows(centre))) for centre in counts)])
    rows.append(["to test on", *(str(len(cells.test_rows((centre, centre), "test"))) for centre in counts)])
    warnings = label_shifts(comparison)
    note = "Cells found. Those to learn from and to test on have a type; of the types, all cells are counted."
    if warnings:
        note += " **Label shift**: " + "; ".join(warnings) + "."
    return Part("What the centres hold", ["Cell type", *counts], rows, note)


def _by_whom(comparison: Comparison, names: Sequence[str]) -> str:
    """What names the cells in the main tables of some columns."""
    is_network = {comparison.main_probe(name) == NETWORK for name in names}
    if len(is_network) > 1:
        return "the networks and the random forest"
    return "the networks" if True in is_network else "the random forest"


def _mean(comparison: Comparison, column: str, measure: str, across: bool) -> tuple[float, float, float] | None:
    probe = comparison.main_probe(column)
    return comparison.mean(column, probe, measure, across) if comparison.has(column, probe, across) else None


def _show_thesis(value: Value) -> str:
    return f"{value[0]:g}" if value[1] is None else f"{value[0]:g} ± {value[1]:g}"


def _with_deviation(scores: PairScores, measure: str) -> str:
    mean = f"{100 * scores.mean(measure):.1f}"
    # A single run has no deviation, and not one of 0.
    return mean if scores.num_runs == 1 else f"{mean} ± {100 * scores.deviation(measure):.1f}"


def _with_interval(value: tuple[float, float, float]) -> str:
    mean, low, high = (100 * number for number in value)
    return f"{mean:.1f} ({low:.1f}–{high:.1f})"


def _show_difference(difference: Difference) -> str:
    text = f"{100 * difference.mean:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    text = f"**{text}**" if difference.is_clear else text
    return text if difference.runs_better < 0 else f"{text} [{difference.runs_better}/{difference.runs}]"


def write_comparison(comparison: Comparison, folder: Path, heading: Heading) -> dict[str, Path]:
    """Write `<name>.md`, `.csv`, `.tex` and `.json`, each atomically.

    Returns:
        The paths, by ending.
    """
    paths = {ending: Path(folder) / f"{heading.name}.{ending}" for ending in ("md", "csv", "tex", "json")}
    write_text(paths["md"], to_markdown(comparison, heading))
    write_text(paths["csv"], to_csv(comparison, heading))
    write_text(paths["tex"], to_latex_tables(comparison, heading))
    write_json(paths["json"], to_json(comparison, heading))
    return paths


def to_markdown(comparison: Comparison, heading: Heading) -> str:
    """All tables on one page, with what made them."""
    lines = [f"# {heading.title}", "", _protocol_text(comparison), ""]
    if comparison.notes:
        lines += ["Columns:", "", *(f"- {note}" for note in dict.fromkeys(comparison.notes.values())), ""]
    lines += [f"{remark}\n" for remark in heading.remarks]
    for part in page_parts(comparison, heading):
        lines += [f"## {part.title}", "", *([part.note, ""] if part.note else [])]
        lines += [markdown_table(part.header, part.rows), ""]
    lines += ["## What made this", "", *(f"- {name}: {value}" for name, value in heading.provenance.items()), ""]
    return "\n".join(lines)


def to_latex_tables(comparison: Comparison, heading: Heading) -> str:
    """All tables for a paper, each with what a reader must know of it."""
    number = heading.name.removeprefix("table-")
    tables = []
    for i, part in enumerate(page_parts(comparison, heading), 1):
        notes = [part.note, _protocol_text(comparison)]
        notes += [comparison.notes[name] for name in part.columns if name in comparison.notes]
        text = " ".join(dict.fromkeys(note for note in notes if note))
        tables.append(to_latex(part.header, part.rows, caption=part.title, label=f"tab:{number}-{i}", notes=text))
    return "\n".join(tables)


def to_csv(comparison: Comparison, heading: Heading) -> str:
    """A line for each column, classifier and pair of centres; what is not defined is empty."""
    header = ["column", "classifier", "trained_on", "tested_on", "runs"]
    header += [f"{name}_{kind}" for name in MEASURES for kind in ("mean", "std")]
    header += ["accuracy_low", "accuracy_high", "num_test", "largest_class", "thesis_accuracy", "thesis_std"]
    header += [f"recall_{name}{kind}" for name in comparison.cells.classes for kind in ("", "_low", "_high")]
    rows = []
    for (column, probe, pair), scores in comparison.pair_scores.items():
        is_main = probe == comparison.main_probe(column)
        thesis = thesis_value(heading, column, pair) if is_main else None
        values: list[Any] = [value for name in MEASURES for value in (scores.mean(name), scores.deviation(name))]
        values += [*scores.accuracy_interval, scores.num_test, scores.majority_rate]
        values += ["", ""] if thesis is None else [thesis[0] / 100, "" if thesis[1] is None else thesis[1] / 100]
        for number in range(len(comparison.cells.classes)):
            values += scores.recall.get(number, ("", "", ""))
        texts = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]
        rows.append([column, probe, *pair, str(scores.num_runs), *texts])
    return csv_table(header, rows)


def to_json(comparison: Comparison, heading: Heading) -> dict[str, Any]:
    """Everything that was measured, as JSON values."""
    classes = comparison.cells.classes
    scores = [
        {
            "column": column,
            "classifier": probe,
            "trained_on": pair[0],
            "tested_on": pair[1],
            **{name: values.tolist() for name, values in entry.values.items()},
            "accuracy_interval": list(entry.accuracy_interval),
            "recall": {classes[number]: list(value) for number, value in entry.recall.items()},
            "confusion": entry.confusion.tolist(),
            "num_test": entry.num_test,
            "largest_class": entry.majority_rate,
        }
        for (column, probe, pair), entry in comparison.pair_scores.items()
    ]
    means = [
        {
            "column": column,
            "classifier": probe,
            "tested_on": ACROSS[across],
            **{name: list(comparison.mean(column, probe, name, across)) for name in ("accuracy", "balanced_accuracy")},
        }
        for column, probe in comparison.predictions
        for across in sides(comparison)
        if comparison.has(column, probe, across)
    ]
    protocol = comparison.protocol
    return {
        "title": heading.title,
        "provenance": dict(heading.provenance),
        "protocol": {
            "name": protocol.name,
            "runs": protocol.runs,
            "seed": protocol.seed,
            "test_on": protocol.test_on,
            "bootstrap": protocol.bootstrap,
        },
        "columns": list(comparison.columns),
        "notes": comparison.notes,
        "classifiers": list(comparison.probes),
        "centres": list(comparison.cells.centres),
        "classes": list(classes),
        "class_counts": comparison.cells.counts,
        "label_shift": label_shifts(comparison),
        "means": means,
        "reference": heading.reference,
        "differences": differences(comparison, heading.reference),
        "scores": scores,
        "mixing": comparison.mixing,
    }


def _protocol_text(comparison: Comparison) -> str:
    protocol = comparison.protocol
    tested = {
        "test": "every centre is tested on its test part",
        "all": "other centres are tested whole, the own one on its test part",
    }[protocol.test_on]
    others = "" if protocol.name == "thesis" else "; the other classifiers have the settings of DinoBloom"
    text = (
        f"A random forest of {NUM_TREES} trees of depth {MAX_DEPTH} at most (thesis section 3.4{others}) learns on the "
        f"training part of one centre; {tested}. {protocol.runs} run{'s' * (protocol.runs > 1)}, seed {protocol.seed}."
    )
    networks = [name for name in comparison.columns if comparison.main_probe(name) == NETWORK]
    return text + (f" {', '.join(networks)}: networks that name the same cells themselves." if networks else "")
