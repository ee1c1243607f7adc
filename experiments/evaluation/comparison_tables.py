"""Tables of a comparison, and the files that they are written to: Markdown, CSV, LaTeX, JSON and plain text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.evaluation.classifiers import MAX_DEPTH, NUM_TREES
from experiments.evaluation.comparison import NETWORK, STANDARDISED, Comparison
from experiments.evaluation.comparison_records import (
    MAIN_MEASURES,
    SIDES,
    Heading,
    differences,
    label_shifts,
    sides,
    thesis_value,
    to_csv,
    to_json,
    unlabelled,
)
from experiments.evaluation.scores import MEASURES, Difference, Interval, PairScores
from experiments.evaluation.tables import markdown_table, text_table, to_latex
from mrcnn.files.atomic import write_json, write_text

_TITLES = {name: name.replace("_", " ").capitalize().replace("f1", "F1") for name in MEASURES}
_MIXING = {
    "centre_accuracy": "domain classification accuracy",
    "proxy_a_distance": "proxy A-distance",
    "silhouette_centre": "silhouette by centre",
    "silhouette_type": "silhouette by type",
    "lisi_centre": "LISI by centre",
    "lisi_type": "LISI by type",
}
_MIXING_NOTE = (
    "How well the centres mix (batch effect), and how well the types separate, over all cells that a column describes "
    "or a sample of them, of the first training of each. Domain classification accuracy: balanced accuracy of a linear "
    "classifier of the centre. Proxy A-distance: 0 where centres cannot be told apart, 2 where they always can. "
    "LISI by centre: how many centres there are around a cell. Mixing means a high LISI by centre, and low values of "
    "the other three; by type, the opposite is good."
)


@dataclass(frozen=True)
class Part:
    """One table of the page; the notes of its `columns` must stand beside it, and the terminal shows it if main."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    columns: Sequence[str] = ()
    is_main: bool = False


def write_comparison(comparison: Comparison, folder: Path, heading: Heading) -> dict[str, Path]:
    """Write `<name>.md`, `.csv`, `.tex`, `.json` and `.txt`, each atomically; return their paths by ending."""
    parts = page_parts(comparison, heading)
    texts = {
        "md": to_markdown(comparison, heading, parts),
        "csv": to_csv(comparison, heading),
        "tex": to_latex_tables(comparison, heading, parts),
        "txt": to_text(comparison, parts),
    }
    paths = {ending: Path(folder) / f"{heading.name}.{ending}" for ending in (*texts, "json")}
    for ending, text in texts.items():
        write_text(paths[ending], text)
    write_json(paths["json"], to_json(comparison, heading))
    return paths


def page_parts(comparison: Comparison, heading: Heading) -> list[Part]:
    """The tables of the page, in order."""
    plain = [name for name in comparison.columns if not name.endswith(STANDARDISED)]
    standardised = [name for name in comparison.columns if name not in plain]
    parts = []
    for names, what in ((plain, ""), (standardised, ", every feature standardised within its centre")):
        for measure in MAIN_MEASURES if names else ():
            parts.append(_pair_table(comparison, heading, names, measure, what))
    parts.append(_mean_table(comparison))
    if len(comparison.probes) > 1:
        parts += [_probe_table(comparison, across) for across in sides(comparison)]
    found = differences(comparison, heading.reference)
    parts += [_difference_table(comparison, heading.reference, found)] if found else []
    parts += [_mixing_table(comparison)] if comparison.mixing else []
    parts += [_recall_table(comparison, across) for across in sides(comparison)]
    return [*parts, _count_table(comparison)]


def _pair_table(comparison: Comparison, heading: Heading, names: Sequence[str], measure: str, what: str) -> Part:
    """The thesis' Table 3.2: a row for each pair of centres, a column for each representation."""
    rows, has_thesis = [], False
    for pair in comparison.cells.pairs:
        scores = [comparison.pair_scores.get((name, comparison.main_probe(name), pair)) for name in names]
        cells = _bold_best([(_with_deviation(s, measure), s.mean(measure)) if s else None for s in scores])
        for i, name in enumerate(names):
            value = thesis_value(heading, name, pair) if measure == "accuracy" and scores[i] else None
            if value is not None:
                cells[i] += f" [{value[0]:g}]" if value[1] is None else f" [{value[0]:g} ± {value[1]:g}]"
                has_thesis = True
        counts = np.unique(comparison.truths[pair], return_counts=True)[1]
        chance = counts.max() / counts.sum() if measure == "accuracy" else 1 / len(counts)
        rows.append([*pair, *cells, f"{100 * chance:.1f}", str(counts.sum())])
    for across in sides(comparison):
        means = [_mean(comparison, name, measure, across) for name in names]
        cells = _bold_best([(f"{100 * mean[0]:.1f}", mean[0]) if mean else None for mean in means])
        rows.append(["mean", SIDES[across], *cells, f"{100 * comparison.chance(across)[measure]:.1f}", ""])
    note = (
        "In percent, mean ± standard deviation over the runs where there are several; the best of a row is bold. "
        "Majority class: the baseline that predicts the most frequent class for every cell."
    )
    note += " In brackets: what the thesis reports of this data set." if has_thesis else ""
    title = f"{_TITLES[measure]} of {_by_whom(comparison, names)}{what}"
    return Part(title, ["Trained on", "Tested on", *names, "Majority class", "Cells"], rows, note, names, is_main=True)


def _mean_table(comparison: Comparison) -> Part:
    """Means over pairs with intervals, by the classifier of the main tables."""
    columns = [(across, measure) for across in sides(comparison) for measure in MEASURES]
    rows = []
    for name in comparison.columns:
        cells, probe = [], comparison.main_probe(name)
        for across, measure in columns:
            if measure in MAIN_MEASURES:
                cells.append(_with_interval(_mean(comparison, name, measure, across)))
                continue
            scores = [comparison.pair_scores.get((name, probe, pair)) for pair in comparison.pairs(across)]
            mean = None if None in scores else sum(each.mean(measure) for each in scores) / len(scores)
            cells.append("–" if mean is None else f"{100 * mean:.1f}")
        rows.append([name, *cells])
    note = (
        "In percent, mean over the pairs of centres, with 95 % intervals over "
        f"{comparison.protocol.bootstrap:,} resamples of the test cells. They say how sure a mean is with so many "
        "cells, and nothing of other trainings; where a class has few cells they are too narrow."
    )
    if any(name.endswith(STANDARDISED) for name in comparison.columns):
        note += f" “{STANDARDISED.strip()}”: every feature standardised within its centre, without labels."
    title = f"Means over pairs of centres, by {_by_whom(comparison, comparison.columns)}"
    return Part(title, ["Column", *(f"{_TITLES[measure]}, {SIDES[across]}" for across, measure in columns)], rows, note)


def _probe_table(comparison: Comparison, across: bool) -> Part:
    """Balanced accuracy by column and classifier."""
    probes = comparison.probes
    columns = [c for c in comparison.columns if all(comparison.has(c, probe, across) for probe in probes)]
    means = {p: [comparison.mean(c, p, "balanced_accuracy", across) for c in columns] for p in probes}
    cells = [_bold_best([(_with_interval(mean), mean[0]) for mean in means[p]], alone=True) for p in probes]
    title = f"Balanced accuracy by classifier, {SIDES[across]}"
    note = "In percent, mean over the pairs of centres, with 95 % intervals; the best of each classifier is bold."
    return Part(title, ["Column", *probes], [list(row) for row in zip(columns, *cells, strict=True)], note)


def _difference_table(
    comparison: Comparison, reference: str, found: Mapping[tuple[str, bool, str], Difference]
) -> Part:
    """Each column against the reference, on the same cells."""
    columns = [(across, measure) for across in sides(comparison) for measure in MAIN_MEASURES]
    shown = {key: _show_difference(difference) for key, difference in found.items()}
    others = [name for name in comparison.columns if name != reference]
    rows = [[name, *(shown.get((name, *column), "–") for column in columns)] for name in others]
    note = (
        f"Points of percent by which a column is better than {reference} on the same cells, mean over the pairs of "
        "centres, with 95 % intervals over resampled test cells. Bold where the interval excludes 0, which one in "
        "twenty does without any difference; in brackets the runs in which it is better. Runs share cells and training "
        "data, so that they say nothing of other data."
    )
    title = f"Compared with {reference}, by {_by_whom(comparison, comparison.columns)}"
    return Part(title, ["Column", *(f"{_TITLES[measure]}, {SIDES[across]}" for across, measure in columns)], rows, note)


def _mixing_table(comparison: Comparison) -> Part:
    rows = [
        [name, *("–" if scores.get(key) is None else f"{scores[key]:.3f}" for key in _MIXING)]
        for name, scores in comparison.mixing.items()
    ]
    return Part("How centres mix and types separate", ["Column", *_MIXING.values()], rows, _MIXING_NOTE)


def _recall_table(comparison: Comparison, across: bool) -> Part:
    recalls = {
        name: comparison.recall(name, comparison.main_probe(name), across)
        for name in comparison.columns
        if comparison.has(name, comparison.main_probe(name), across)
    }
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
    tested = [(c, c) for c in counts]
    rows = [[name.replace("_", " "), *(str(counts[c][name]) for c in counts)] for name in cells.classes]
    rows.append(["without a type", *(str(value) for value in unlabelled(comparison).values())])
    rows.append(["to learn from", *(str(len(cells.train_rows(c))) for c in counts)])
    rows.append(["to test on", *(str(len(cells.test_rows(pair, "test"))) for pair in tested)])
    note = "Cells found. Those to learn from and to test on have a type; of the types, all cells are counted."
    if warnings := label_shifts(comparison):
        note += " **Label shift**: " + "; ".join(warnings) + "."
    return Part("What the centres hold", ["Cell type", *counts], rows, note, is_main=True)


def _bold_best(cells: Sequence[tuple[str, float] | None], alone: bool = False) -> list[str]:
    """Texts of a row, the best as shown in bold; where there is one alone nothing is best."""
    best = max((round(cell[1], 3) for cell in cells if cell), default=0)
    is_bold = [bool(cell) and (alone or len(cells) > 1) and round(cell[1], 3) == best for cell in cells]
    return [f"**{cell[0]}**" if bold else cell[0] if cell else "–" for cell, bold in zip(cells, is_bold, strict=True)]


def _by_whom(comparison: Comparison, names: Sequence[str]) -> str:
    """What predicts the types in the main tables of some columns."""
    is_network = {comparison.main_probe(name) == NETWORK for name in names}
    if len(is_network) > 1:
        return "the networks and the random forest"
    return "the networks" if True in is_network else "the random forest"


def _mean(comparison: Comparison, column: str, measure: str, across: bool) -> Interval | None:
    probe = comparison.main_probe(column)
    return comparison.mean(column, probe, measure, across) if comparison.has(column, probe, across) else None


def _with_deviation(scores: PairScores, measure: str) -> str:
    mean = f"{100 * scores.mean(measure):.1f}"
    # A single run has no deviation, and not one of 0.
    return mean if scores.num_runs == 1 else f"{mean} ± {100 * scores.deviation(measure):.1f}"


def _with_interval(value: Interval | None) -> str:
    if value is None:
        return "–"
    mean, low, high = (100 * number for number in value)
    return f"{mean:.1f} ({low:.1f}–{high:.1f})"


def _show_difference(difference: Difference) -> str:
    text = f"{100 * difference.mean:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    text = f"**{text}**" if difference.is_clear else text
    return text if difference.runs_better < 0 else f"{text} [{difference.runs_better}/{difference.runs}]"


def to_markdown(comparison: Comparison, heading: Heading, parts: Sequence[Part]) -> str:
    """All tables on one page, with what made them."""
    lines = [f"# {heading.title}", "", _protocol_text(comparison), ""]
    if comparison.notes:
        lines += ["Columns:", "", *(f"- {note}" for note in dict.fromkeys(comparison.notes.values())), ""]
    lines += [f"{remark}\n" for remark in heading.remarks]
    for part in parts:
        lines += [f"## {part.title}", "", *([part.note, ""] if part.note else [])]
        lines += [markdown_table(part.header, part.rows), ""]
    if heading.provenance:
        lines += ["## Provenance", "", *(f"- {name}: {value}" for name, value in heading.provenance.items()), ""]
    return "\n".join(lines)


def to_text(comparison: Comparison, parts: Sequence[Part]) -> str:
    """The main tables in columns, for a terminal."""
    main = [part for part in parts if part.is_main]
    texts = [f"{part.title}, in percent\n\n{text_table(part.header, part.rows)}\n" for part in main[:-1]]
    return "\n".join([*texts, _protocol_text(comparison), "", text_table(main[-1].header, main[-1].rows), ""])


def to_latex_tables(comparison: Comparison, heading: Heading, parts: Sequence[Part]) -> str:
    """All tables for a paper, each with what a reader must know of it."""
    number = heading.name.removeprefix("table-")
    tables = []
    for i, part in enumerate(parts, 1):
        notes = [part.note, _protocol_text(comparison)]
        notes += [comparison.notes[name] for name in part.columns if name in comparison.notes]
        text = " ".join(dict.fromkeys(note for note in notes if note))
        tables.append(to_latex(part.header, part.rows, caption=part.title, label=f"tab:{number}-{i}", notes=text))
    return "\n".join(tables)


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
