"""Tables of a comparison, and the files that they are written to: Markdown, CSV, LaTeX, JSON and plain text."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from autoencoder.label_shift import shift_warnings
from experiments.evaluation.classifiers import MAX_DEPTH, NUM_TREES
from experiments.evaluation.comparison import NETWORK, STANDARDISED, Comparison
from experiments.evaluation.mixing import SCORES
from experiments.evaluation.scores import MEASURES, Difference, Interval
from experiments.evaluation.tables import markdown_table, text_table, to_latex
from experiments.evaluation.thesis_numbers import Value, ablation_number
from experiments.evaluation.transfer import Pair
from mrcnn.files.atomic import write_json, write_text

SIDES = {True: "across centres", False: "within centre"}
MAIN_MEASURES = ("accuracy", "balanced_accuracy")
_TITLES = {name: name.replace("_", " ").capitalize().replace("f1", "F1") for name in MEASURES}
_MIXING_NOTE = (
    "How well the centres mix (batch effect), and how well the types separate, over all cells that a column describes "
    "or a sample of them, of the first training of each. Domain classification accuracy: balanced accuracy of a linear "
    "classifier of the centre. Proxy A-distance: 0 where centres cannot be told apart, 2 where they always can. "
    "LISI by centre: how many centres there are around a cell. Mixing means a high LISI by centre, and low values of "
    "the other three; by type, the opposite is good."
)


@dataclass(frozen=True)
class Heading:
    """What stands around the tables.

    Attributes:
        name: of the files and the table, as "table-3.2".
        provenance: lines such as the command and the machine, by name.
        thesis: which centres are the thesis' data sets, as from `thesis_numbers.thesis_centres`.
        reference: column that the others are compared with; there is no such table where it is none of them.
    """

    name: str
    title: str
    provenance: Mapping[str, str] = field(default_factory=dict)
    thesis: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""

    def thesis_value(self, column: str, pair: Pair) -> Value | None:
        """What the thesis reports of a column and a pair of centres, in percent, or None."""
        return ablation_number(column, *(self.thesis.get(centre) for centre in pair))


@dataclass(frozen=True)
class Part:
    """One table of the page. The notes of its `columns`, those of a main table, must stand beside it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str
    columns: Sequence[str] = ()


def write_comparison(comparison: Comparison, folder: Path, heading: Heading) -> dict[str, Path]:
    """Write `<name>.md`, `.csv`, `.tex`, `.json` and `.txt`, each atomically; return their paths by ending."""
    parts = _parts(comparison, heading)
    texts = {
        "md": _to_markdown(comparison, heading, parts),
        "csv": _to_csv(comparison, heading),
        "tex": _to_latex(comparison, heading, parts),
        "txt": _to_text(comparison, parts),
    }
    paths = {ending: Path(folder) / f"{heading.name}.{ending}" for ending in (*texts, "json")}
    for ending, text in texts.items():
        write_text(paths[ending], text)
    write_json(paths["json"], _to_json(comparison, heading))
    return paths


def _parts(comparison: Comparison, heading: Heading) -> list[Part]:
    """The tables of the page, in order."""
    plain = [name for name in comparison.columns if not name.endswith(STANDARDISED)]
    standardised = [name for name in comparison.columns if name not in plain]
    parts = [
        _pair_table(comparison, heading, names, measure, what)
        for names, what in ((plain, ""), (standardised, ", every feature standardised within its centre"))
        for measure in MAIN_MEASURES
        if names
    ]
    parts.append(_mean_table(comparison))
    if len(comparison.probes) > 1:
        parts += [_probe_table(comparison, across) for across in comparison.sides]
    if differences := _differences(comparison, heading.reference):
        parts.append(_difference_table(comparison, heading.reference, differences))
    parts += [_mixing_table(comparison)] if comparison.mixing else []
    return [*parts, *(_recall_table(comparison, across) for across in comparison.sides), _count_table(comparison)]


def _pair_table(comparison: Comparison, heading: Heading, names: Sequence[str], measure: str, what: str) -> Part:
    """The thesis' Table 3.2: a row for each pair of centres, a column for each representation."""
    rows, has_thesis = [], False
    for pair in comparison.cells.pairs:
        scores = [comparison.main_scores(name, pair) for name in names]
        cells = _bold_best([(_with_deviation(s[measure]), s[measure]["mean"]) if s else None for s in scores])
        for i, name in enumerate(names):
            value = heading.thesis_value(name, pair) if measure == "accuracy" and scores[i] else None
            if value:
                cells[i] += f" [{' ± '.join(f'{number:g}' for number in value if number is not None)}]"
                has_thesis = True
        chance = comparison.chance(pair)[measure]
        rows.append([*pair, *cells, f"{100 * chance:.1f}", str(len(comparison.truths[pair]))])
    for across in comparison.sides:
        means = [comparison.mean(name, measure, across) for name in names]
        cells = _bold_best([(f"{100 * mean[0]:.1f}", mean[0]) if mean else None for mean in means])
        chance = comparison.chance(*comparison.pairs(across))[measure]
        rows.append(["mean", SIDES[across], *cells, f"{100 * chance:.1f}", ""])
    note = (
        "In percent, mean ± standard deviation over the runs where there are several; the best of a row is bold. "
        "Majority class: the baseline that predicts the most frequent class for every cell."
    )
    note += " In brackets: what the thesis reports of this data set." if has_thesis else ""
    title = f"{_TITLES[measure]} of {_by_whom(comparison, names)}{what}"
    return Part(title, ["Trained on", "Tested on", *names, "Majority class", "Cells"], rows, note, names)


def _mean_table(comparison: Comparison) -> Part:
    """Means over pairs with intervals, by the classifier of the main tables."""
    columns = [(across, measure) for across in comparison.sides for measure in MEASURES]
    rows = [[name, *(_show_mean(comparison, name, *column) for column in columns)] for name in comparison.columns]
    note = (
        "In percent, mean over the pairs of centres, with 95 % intervals over "
        f"{comparison.protocol.bootstrap:,} resamples of the test cells. They say how sure a mean is with so many "
        "cells, and nothing of other trainings; where a class has few cells they are too narrow."
    )
    if any(name.endswith(STANDARDISED) for name in comparison.columns):
        note += f" “{STANDARDISED.strip()}”: every feature standardised within its centre, without labels."
    title = f"Means over pairs of centres, by {_by_whom(comparison, comparison.columns)}"
    return Part(title, _measure_header(columns), rows, note)


def _show_mean(comparison: Comparison, name: str, across: bool, measure: str) -> str:
    if measure in MAIN_MEASURES:
        return _with_interval(comparison.mean(name, measure, across))
    scores = [comparison.main_scores(name, pair) for pair in comparison.pairs(across)]
    return "–" if None in scores else f"{100 * np.mean([each[measure]['mean'] for each in scores]):.1f}"


def _probe_table(comparison: Comparison, across: bool) -> Part:
    """Balanced accuracy by column and classifier."""
    probes = comparison.probes
    columns = [c for c in comparison.columns if all(comparison.predicted(c, across, probe) for probe in probes)]
    means = {p: [comparison.mean(c, "balanced_accuracy", across, p) for c in columns] for p in probes}
    cells = [_bold_best([(_with_interval(mean), mean[0]) for mean in means[p]], alone=True) for p in probes]
    title = f"Balanced accuracy by classifier, {SIDES[across]}"
    note = "In percent, mean over the pairs of centres, with 95 % intervals; the best of each classifier is bold."
    return Part(title, ["Column", *probes], [list(row) for row in zip(columns, *cells, strict=True)], note)


def _differences(comparison: Comparison, reference: str) -> dict[tuple[str, bool, str], Difference]:
    """By column, side and measure, each column against the reference, where both were tested on all pairs."""
    return {
        (column, across, measure): difference
        for column in comparison.columns
        for across in comparison.sides
        for measure in MAIN_MEASURES
        if column != reference and reference in comparison.columns
        if (difference := comparison.difference(column, reference, measure, across))
    }


def _difference_table(comparison: Comparison, reference: str, found: Mapping[tuple, Difference]) -> Part:
    """Each column against the reference, on the same cells."""
    columns = [(across, measure) for across in comparison.sides for measure in MAIN_MEASURES]
    others = [name for name in comparison.columns if name != reference]
    rows = [[name, *(_show_difference(found.get((name, *column))) for column in columns)] for name in others]
    note = (
        f"Points of percent by which a column is better than {reference} on the same cells, mean over the pairs of "
        "centres, with 95 % intervals over resampled test cells. Bold where the interval excludes 0, which one in "
        "twenty does without any difference; in brackets the runs in which it is better. Runs share cells and training "
        "data, so that they say nothing of other data."
    )
    title = f"Compared with {reference}, by {_by_whom(comparison, comparison.columns)}"
    return Part(title, _measure_header(columns), rows, note)


def _mixing_table(comparison: Comparison) -> Part:
    rows = [
        [name, *("–" if scores.get(key) is None else f"{scores[key]:.3f}" for key in SCORES)]
        for name, scores in comparison.mixing.items()
    ]
    return Part("How centres mix and types separate", ["Column", *SCORES.values()], rows, _MIXING_NOTE)


def _recall_table(comparison: Comparison, across: bool) -> Part:
    found = {name: comparison.recall(name, across) for name in comparison.columns}
    recalls = {name: recall for name, recall in found.items() if recall}
    classes = [n for n in comparison.cells.classes if any(n in recall for recall in recalls.values())]
    rows = [[name, *(_with_interval(recall.get(n)) for n in classes)] for name, recall in recalls.items()]
    note = (
        "In percent, over the test cells of all pairs of centres together, with 95 % intervals over resampled cells; "
        "where all cells of a class fare alike, Wilson's for so many cells."
    )
    title = f"Recall of each class, {SIDES[across]}, by {_by_whom(comparison, list(recalls))}"
    return Part(title, ["Column", *(name.replace("_", " ") for name in classes)], rows, note)


def _count_table(comparison: Comparison) -> Part:
    """Cells of each class, and a warning where centres hold them in other proportions."""
    cells, counts = comparison.cells, comparison.cells.counts
    rows = [[name.replace("_", " "), *(str(counts[c][name]) for c in counts)] for name in cells.classes]
    rows.append(["without a type", *map(str, _unlabelled(comparison).values())])
    rows.append(["to learn from", *(str(len(cells.train_rows(c))) for c in counts)])
    rows.append(["to test on", *(str(len(cells.test_rows((c, c), "test"))) for c in counts)])
    note = "Cells found. Those to learn from and to test on have a type; of the types, all cells are counted."
    if warnings := _label_shifts(comparison):
        note += " **Label shift**: " + "; ".join(warnings) + "."
    return Part("What the centres hold", ["Cell type", *counts], rows, note)


def _measure_header(columns: Sequence[tuple[bool, str]]) -> list[str]:
    return ["Column", *(f"{_TITLES[measure]}, {SIDES[across]}" for across, measure in columns)]


def _bold_best(cells: Sequence[tuple[str, float] | None], alone: bool = False) -> list[str]:
    """Texts of a row, the best as shown in bold; where there is one alone nothing is best."""
    best = max((round(cell[1], 3) for cell in cells if cell), default=0)
    is_bold = [bool(cell) and (alone or len(cells) > 1) and round(cell[1], 3) == best for cell in cells]
    return [f"**{cell[0]}**" if bold else cell[0] if cell else "–" for cell, bold in zip(cells, is_bold, strict=True)]


def _by_whom(comparison: Comparison, names: Sequence[str]) -> str:
    """What predicts the types in the main tables of some columns."""
    kinds = {"the networks" if comparison.main_probe(name) == NETWORK else "the random forest" for name in names}
    return " and ".join(sorted(kinds))


def _with_deviation(score: Mapping[str, Any]) -> str:
    mean = f"{100 * score['mean']:.1f}"
    # A single run has no deviation, and not one of 0.
    return mean if len(score["runs"]) == 1 else f"{mean} ± {100 * score['std']:.1f}"


def _with_interval(value: Interval | None) -> str:
    return "–" if value is None else "{:.1f} ({:.1f}–{:.1f})".format(*(100 * number for number in value))


def _show_difference(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    text = f"{100 * difference.mean:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    text = f"**{text}**" if difference.is_clear else text
    return text if difference.runs_better < 0 else f"{text} [{difference.runs_better}/{difference.runs}]"


def _to_markdown(comparison: Comparison, heading: Heading, parts: Sequence[Part]) -> str:
    """All tables on one page, with what made them."""
    lines = [f"# {heading.title}", "", _protocol_text(comparison), ""]
    if comparison.notes:
        lines += ["Columns:", "", *(f"- {note}" for note in dict.fromkeys(comparison.notes.values())), ""]
    for part in parts:
        lines += [f"## {part.title}", "", part.note, "", markdown_table(part.header, part.rows), ""]
    if heading.provenance:
        lines += ["## Provenance", "", *(f"- {name}: {value}" for name, value in heading.provenance.items()), ""]
    return "\n".join(lines)


def _to_text(comparison: Comparison, parts: Sequence[Part]) -> str:
    """The main tables and the counts in columns, for a terminal."""
    texts = [f"{part.title}, in percent\n\n{text_table(part.header, part.rows)}\n" for part in parts if part.columns]
    return "\n".join([*texts, _protocol_text(comparison), "", text_table(parts[-1].header, parts[-1].rows), ""])


def _to_latex(comparison: Comparison, heading: Heading, parts: Sequence[Part]) -> str:
    """All tables for a paper, each with what a reader must know of it."""
    tables = []
    for i, part in enumerate(parts, 1):
        notes = [part.note, _protocol_text(comparison), *(comparison.notes.get(name, "") for name in part.columns)]
        text, label = " ".join(filter(None, dict.fromkeys(notes))), f"tab:{heading.name.removeprefix('table-')}-{i}"
        tables.append(to_latex(part.header, part.rows, caption=part.title, label=label, notes=text))
    return "\n".join(tables)


def _to_csv(comparison: Comparison, heading: Heading) -> str:
    """A line for each column, classifier and pair of centres; what is not defined is empty."""
    rows = []
    for (column, probe, pair), scores in comparison.pair_scores.items():
        row = {name: scores[name] for name in ("trained_on", "tested_on", "method", "classifier")}
        row["runs"] = len(scores["accuracy"]["runs"])
        for name in MEASURES:
            row |= {f"{name}_{kind}": scores[name][kind] for kind in ("mean", "std")}
        row["accuracy_low"], row["accuracy_high"] = scores["accuracy_interval"]
        row |= {name: scores[name] for name in ("num_train", "num_test", "num_unseen", "majority_rate")}
        if heading.thesis:
            reported = heading.thesis_value(column, pair) if probe == comparison.main_probe(column) else None
            row["thesis_accuracy"], row["thesis_std"] = np.array(reported or (None, None), float) / 100
        for name in comparison.cells.classes:
            row[f"recall_{name}"] = scores["recall"].get(name)
            row[f"recall_{name}_low"], row[f"recall_{name}_high"] = scores["recall_interval"].get(name, (None, None))
        rows.append(row)
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.4f", lineterminator="\n")


def _to_json(comparison: Comparison, heading: Heading) -> dict[str, Any]:
    """Everything that was measured, as JSON values."""
    cells, protocol = comparison.cells, dataclasses.asdict(comparison.protocol)
    del protocol["jobs"]
    means = [
        {"method": column, "classifier": probe, "tested": SIDES[across]}
        | {name: list(comparison.mean(column, name, across, probe)) for name in MAIN_MEASURES}
        for column, probe in comparison.predictions
        for across in comparison.sides
        if comparison.predicted(column, across, probe)
    ]
    return {
        "title": heading.title,
        "provenance": dict(heading.provenance),
        "settings": {"protocol": protocol.pop("name"), **protocol, "trees": NUM_TREES, "max_depth": MAX_DEPTH},
        "methods": list(comparison.columns),
        "notes": comparison.notes,
        "classifiers": list(comparison.probes),
        "centres": list(cells.centres),
        "classes": list(cells.classes),
        "class_counts": cells.counts,
        "unlabelled": _unlabelled(comparison),
        "unsplit": {c: int(np.sum((types != "") & (cells.parts[c] == ""))) for c, types in cells.types.items()},
        "label_shift": _label_shifts(comparison),
        "means": means,
        "reference": heading.reference,
        "differences": [
            {"column": column, "tested": SIDES[across], "measure": measure, **dataclasses.asdict(difference)}
            for (column, across, measure), difference in _differences(comparison, heading.reference).items()
        ],
        "scores": list(comparison.pair_scores.values()),
        "mixing": comparison.mixing,
    }


def _label_shifts(comparison: Comparison) -> list[str]:
    """Pairs of centres that hold the types in other proportions, as warnings."""
    counts = comparison.cells.counts
    pairs = combinations(comparison.cells.centres, 2)
    return [text.split(": ")[0] for a, b in pairs for text in shift_warnings({a: counts[a], b: counts[b]}, a)]


def _unlabelled(comparison: Comparison) -> dict[str, int]:
    """Cells without a type, by centre."""
    return {centre: int(np.sum(types == "")) for centre, types in comparison.cells.types.items()}


def _protocol_text(comparison: Comparison) -> str:
    protocol = comparison.protocol
    tested = {
        "test": "every centre is tested on its test part",
        "all": "other centres are tested whole, the own one on its test part",
    }[protocol.test_on]
    others = "; the other classifiers have the settings of DinoBloom" if protocol.name == "dinobloom" else ""
    text = (
        f"A random forest of {NUM_TREES} trees of depth {MAX_DEPTH} at most (thesis section 3.4{others}) is trained on "
        f"the training part of one centre; {tested}. {protocol.runs} run{'s' * (protocol.runs > 1)}, seed "
        f"{protocol.seed}."
    )
    networks = [name for name in comparison.columns if comparison.main_probe(name) == NETWORK]
    return text + (f" {', '.join(networks)}: networks that predict the types themselves." if networks else "")
