"""The cross-centre scores as JSON, CSV, Markdown and plain text (thesis Table 3.2)."""

import os
from dataclasses import asdict
from pathlib import Path

from experiments.evaluation.comparison import Evaluation, Scores
from experiments.evaluation.tables import csv_table, markdown_table, text_table
from mrcnn.files.atomic import write_json, write_text

NAME = "cross_centre"
_NOTE = "accuracy / balanced accuracy in percent, mean ± standard deviation over {runs} forests"
_CHANCE = "largest class: accuracy of naming that class for every cell"


def to_json(evaluation: Evaluation) -> dict[str, object]:
    """Return everything that was measured, as JSON values."""
    scores = []
    for entry in evaluation.scores:
        content = asdict(entry)
        for name in ("accuracy", "balanced_accuracy", "macro_f1"):
            mean, deviation = content[name]
            content[name] = {"mean": mean, "std": deviation}
        content["accuracy_interval"] = list(entry.accuracy_interval)
        content["confusion"] = entry.confusion.tolist()
        scores.append(content)
    return {
        "settings": evaluation.settings,
        "methods": list(evaluation.methods),
        "centres": list(evaluation.centres),
        "classes": list(evaluation.classes),
        "class_counts": evaluation.class_counts,
        "unlabelled": evaluation.unlabelled,
        "unsplit": evaluation.unsplit,
        "scores": scores,
    }


def to_csv(evaluation: Evaluation) -> str:
    """Return one line for each method and pair of centres; the recall of an absent class is empty."""
    means = ("accuracy", "balanced_accuracy", "macro_f1")
    numbers = ("num_train", "num_test", "num_unseen", "majority_rate")
    header = ["trained_on", "tested_on", "method", *(f"{name}_{kind}" for name in means for kind in ("mean", "std"))]
    header += ["accuracy_low", "accuracy_high", *numbers, *(f"recall_{name}" for name in evaluation.classes)]
    rows = []
    for entry in evaluation.scores:
        values = [value for name in means for value in getattr(entry, name)] + [*entry.accuracy_interval]
        values += [getattr(entry, name) for name in numbers]
        values += [entry.recall.get(name, "") for name in evaluation.classes]
        cells = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]
        rows.append([entry.trained_on, entry.tested_on, entry.method, *cells])
    return csv_table(header, rows)


def to_markdown(evaluation: Evaluation) -> str:
    """Return the table of scores and the table of classes; the best accuracy of a row is bold."""
    header, rows = _score_rows(evaluation, bold=True)
    lines = [markdown_table(header, rows), "", f"{_describe(evaluation)}.", ""]
    lines += [markdown_table(*_count_rows(evaluation)), ""]
    return "\n".join(lines)


def to_text(evaluation: Evaluation) -> str:
    """Return the same two tables in columns, for a terminal."""
    parts = [text_table(*_score_rows(evaluation, bold=False)), _describe(evaluation), ""]
    return "\n".join([*parts, text_table(*_count_rows(evaluation)), ""])


def save_tables(evaluation: Evaluation, folder: str | os.PathLike) -> dict[str, Path]:
    """Write `cross_centre.json`, `.csv`, `.md` and `.txt`, each atomically.

    Returns:
        The paths, by ending.
    """
    folder = Path(folder)
    paths = {ending: folder / f"{NAME}.{ending}" for ending in ("json", "csv", "md", "txt")}
    write_json(paths["json"], to_json(evaluation))
    write_text(paths["csv"], to_csv(evaluation))
    write_text(paths["md"], to_markdown(evaluation))
    write_text(paths["txt"], to_text(evaluation))
    return paths


def _score_rows(evaluation: Evaluation, bold: bool) -> tuple[list[str], list[list[str]]]:
    header = ["Trained on", "Tested on", *evaluation.methods, "Largest class", "Cells"]
    table = {(s.trained_on, s.tested_on, s.method): s for s in evaluation.scores}
    rows = []
    for trained_on in evaluation.centres:
        for tested_on in evaluation.centres:
            entries = [table[trained_on, tested_on, method] for method in evaluation.methods]
            best = max((entry.accuracy[0] for entry in entries), default=0.0)
            cells = [_show(entry, bold and len(entries) > 1 and entry.accuracy[0] == best) for entry in entries]
            if entries:
                cells += [f"{100 * entries[0].majority_rate:.1f}", str(entries[0].num_test)]
            rows.append([trained_on, tested_on, *cells])
    return header, rows


def _show(entry: Scores, bold: bool) -> str:
    accuracy, balanced = (
        f"{100 * mean:.1f} ± {100 * deviation:.1f}" for mean, deviation in (entry.accuracy, entry.balanced_accuracy)
    )
    return f"{f'**{accuracy}**' if bold else accuracy} / {balanced}"


def _count_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Cells of each class: what a difference between centres may be owed to."""
    centres = list(evaluation.class_counts)
    rows = [[name, *(str(evaluation.class_counts[centre][name]) for centre in centres)] for name in evaluation.classes]
    rows.append(["without a cell type", *(str(evaluation.unlabelled[centre]) for centre in centres)])
    if any(evaluation.unsplit.values()):
        rows.append(["not in the split", *(str(evaluation.unsplit[centre]) for centre in centres)])
    return ["Cell type", *centres], rows


def _describe(evaluation: Evaluation) -> str:
    tested = {
        "test": "every centre tested on its test part",
        "all": "other centres tested whole, the own one on its test part",
    }[str(evaluation.settings["test_on"])]
    return f"{_NOTE.format(runs=evaluation.settings['runs'])}; {tested}; {_CHANCE}"
