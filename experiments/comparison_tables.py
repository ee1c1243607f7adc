"""A comparison of representations as Markdown, CSV, LaTeX and JSON (thesis Tables 3.2 and 3.3, and what they lack)."""

from pathlib import Path
from typing import Any

from experiments.comparison import NETWORK, Comparison
from experiments.comparison_parts import ACROSS, Heading, differences, label_shifts, page_parts, sides, thesis_value
from experiments.probes import MAX_DEPTH, NUM_TREES
from experiments.scores import MEASURES
from experiments.tables import csv_table, markdown_table, to_latex
from mrcnn.atomic import write_json, write_text


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
