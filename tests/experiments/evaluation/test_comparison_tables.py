import csv
import io
import json
import re

import numpy as np
import pytest

from experiments.evaluation import comparison_tables
from experiments.evaluation.comparison import MAIN_PROBE, NETWORK, Comparison, Protocol
from experiments.evaluation.comparison_records import Heading, to_csv, to_json
from experiments.evaluation.comparison_tables import page_parts, write_comparison
from experiments.evaluation.transfer import make_cells

PAIRS = [("m19", "m19"), ("m19", "a20"), ("a20", "m19"), ("a20", "a20")]
HEADING = Heading("table-3.2", "A title", {"command": "`aecfe x`", "machine": "a machine"}, reference="AE-CFE")
WITH_THESIS = Heading("table-3.2", "A title", {}, {"m19": "matek19", "a20": "acevedo20"}, "AE-CFE", ("A remark.",))


def cells_of(centres=("m19", "a20"), shifted=False):
    """Each centre learns from a cell of each type and tests two of basophil and two of smudge_cell."""
    types = {c: np.array(["basophil", "smudge_cell"] * 3) for c in centres}
    parts = {c: np.array(["train"] * 2 + ["test"] * 4) for c in centres}
    if shifted:  # most cells of the first centre are of one type, and one has none
        types["m19"] = np.append(types["m19"], [*["basophil"] * 20, ""])
        parts["m19"] = np.append(parts["m19"], [*["train"] * 20, ""])
    keys = {c: np.arange(len(t)).astype(str) for c, t in types.items()}
    return make_cells(keys, types, parts)


# Named by two forests; tested are the classes 0, 1, 0, 1.
RIGHT, HALF = [0, 1, 0, 1], [0, 0, 0, 0]
PREDICTIONS = {
    ("AE-RF", MAIN_PROBE): {pair: np.array([RIGHT, HALF]) for pair in PAIRS},
    ("AE-CFE", MAIN_PROBE): {pair: np.array([RIGHT, RIGHT]) for pair in PAIRS},
    ("AE-RF (std)", MAIN_PROBE): {pair: np.array([HALF, HALF]) for pair in PAIRS},
    # A network that learned on one centre, and gave a name that is no class.
    ("ResNeXt", NETWORK): {pair: np.array([[0, 1, 0, -1]]) for pair in PAIRS[:2]},
}


def comparison_of(*columns, cells=None, probes=(MAIN_PROBE,), **changes):
    cells = cells or cells_of()
    predictions = {key: named for key, named in PREDICTIONS.items() if key[0] in columns}
    predictions = {key: {p: v for p, v in named.items() if set(p) <= set(cells.centres)}
                   for key, named in predictions.items()}  # fmt: skip
    values = {"columns": columns, "notes": {}, "probes": probes, "cells": cells}
    values |= {"protocol": Protocol(runs=2, seed=3, bootstrap=200), "predictions": predictions, "mixing": {}}
    return Comparison(**{**values, **changes})


@pytest.fixture
def comparison():
    notes = {"AE-RF": "AE-RF: **a warning**.", "AE-RF (std)": "AE-RF: **a warning**.", "ResNeXt": "ResNeXt: a network."}
    mixing = {"AE-CFE": {"centre_accuracy": 0.75, "lisi_centre": None}}
    columns = ("AE-RF", "AE-CFE", "AE-RF (std)", "ResNeXt")
    return comparison_of(*columns, notes=notes, mixing=mixing)


def to_markdown(comparison, heading):
    return comparison_tables.to_markdown(comparison, heading, page_parts(comparison, heading))


def to_latex_tables(comparison, heading):
    return comparison_tables.to_latex_tables(comparison, heading, page_parts(comparison, heading))


def tables_of(markdown):
    """Header and rows of each table of a page, by its title; every row has as many cells as its header."""
    tables = {}
    for section in markdown.split("\n## ")[1:]:
        title, _, rest = section.partition("\n")
        lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in rest.splitlines() if line.startswith("|")]
        if lines:
            assert {len(line) for line in lines} == {len(lines[0])}
            tables[title] = [lines[0], *lines[2:]]
    return tables


def table_named(tables, start):
    (title,) = [title for title in tables if title.startswith(start)]
    return tables[title]


def test_markdown_shows_pairs_with_deviations_and_the_best_bold(comparison):
    tables = tables_of(to_markdown(comparison, HEADING))
    header, *rows = table_named(tables, "Accuracy of the networks and the random forest")
    assert header == ["Trained on", "Tested on", "AE-RF", "AE-CFE", "ResNeXt", "Majority class", "Cells"]
    # The network was trained once, which has no deviation, and on one centre alone.
    assert rows[0] == ["m19", "m19", "75.0 ± 25.0", "**100.0 ± 0.0**", "75.0", "50.0", "4"]
    assert rows[2] == ["a20", "m19", "75.0 ± 25.0", "**100.0 ± 0.0**", "–", "50.0", "4"]
    assert rows[4] == ["mean", "across centres", "75.0", "**100.0**", "–", "50.0", ""]
    header, *rows = table_named(tables, "Balanced accuracy of the random forest, every feature standardised")
    assert header == ["Trained on", "Tested on", "AE-RF (std)", "Majority class", "Cells"]
    assert rows[0] == ["m19", "m19", "50.0 ± 0.0", "50.0", "4"]  # alone, nothing is best


def test_markdown_shows_means_differences_recalls_and_mixing(comparison):
    text = to_markdown(comparison, HEADING)
    tables = tables_of(text)
    header, *rows = table_named(tables, "Means over pairs")
    assert header[1:3] == ["Accuracy, across centres", "Balanced accuracy, across centres"] and len(header) == 9
    assert rows[1][:5] == ["AE-CFE", "100.0 (100.0–100.0)", "100.0 (100.0–100.0)", "100.0", "100.0"]
    assert rows[0][3] == f"{100 * (1 + 1 / 3) / 2:.1f}"  # F1 is 1 twice in a run, and 2/3 and 0 in the other
    assert rows[3] == ["ResNeXt", *["–"] * 8]
    header, *rows = table_named(tables, "Compared with AE-CFE")
    assert [row[0] for row in rows] == ["AE-RF", "AE-RF (std)", "ResNeXt"]
    assert rows[0][1].startswith("**-25.0 (") and rows[0][1].endswith(")** [0/2]") and rows[2][1:] == ["–"] * 4
    header, *rows = table_named(tables, "Recall of each class, across centres, by the random forest")
    assert header == ["Column", "basophil", "smudge cell"]
    # Two cells of each centre, each right in one of two runs: Wilson's interval of 2 of 4.
    assert rows[0] == ["AE-RF", "100.0 (51.0–100.0)", "50.0 (15.0–85.0)"]
    header, *rows = table_named(tables, "How centres mix")
    assert rows == [["AE-CFE", "0.750", "–", "–", "–", "–", "–"]]
    assert "- AE-RF: **a warning**.\n- ResNeXt: a network.\n" in text  # once, though two columns have it
    assert "## Provenance\n\n- command: `aecfe x`\n- machine: a machine" in text
    assert "ResNeXt: networks that predict the types themselves" in text


def test_markdown_shows_the_thesis_in_brackets_where_the_data_are_its_own(comparison):
    text = to_markdown(comparison, WITH_THESIS)
    _, *rows = table_named(tables_of(text), "Accuracy of the networks")
    # Thesis Table 3.2 of Matek-19 on itself and on Acevedo-20; it has no ResNeXt that learned on Matek-19.
    assert rows[0][2:5] == ["75.0 ± 25.0 [86 ± 0.04]", "**100.0 ± 0.0** [83.7 ± 0.5]", "75.0"]
    assert rows[1][3] == "**100.0 ± 0.0** [21.9 ± 0.4]"
    assert "In brackets: what the thesis reports" in text and "\nA remark.\n" in text
    other = to_markdown(comparison, HEADING)
    assert "[8" not in other and "In brackets: what" not in other


def test_markdown_counts_cells_and_warns_of_label_shift():
    comparison = comparison_of("AE-RF", "AE-CFE", cells=cells_of(shifted=True))
    text = to_markdown(comparison, HEADING)
    header, *rows = table_named(tables_of(text), "What the centres hold")
    assert header == ["Cell type", "m19", "a20"]
    assert rows == [
        ["basophil", "23", "3"], ["smudge cell", "3", "3"], ["without a type", "1", "0"],
        ["to learn from", "22", "2"], ["to test on", "4", "4"],
    ]  # fmt: skip
    # Shares 23/26 and 3/6.
    distance = f"{23 / 26 - 1 / 2:.2f}"
    warning = f"m19 and a20 differ in their cell types (total variation distance {distance}, 0 is the same mixture)"
    assert f"**Label shift**: {warning}." in text
    assert to_json(comparison, HEADING)["label_shift"] == [warning]
    assert "Label shift" not in to_markdown(comparison_of("AE-RF", "AE-CFE"), HEADING)


def test_markdown_shows_every_classifier_where_there_are_several():
    predictions = {("AE-CFE", probe): PREDICTIONS["AE-CFE", MAIN_PROBE] for probe in (MAIN_PROBE, "knn-1")}
    predictions |= {("AE-RF", probe): PREDICTIONS["AE-RF", MAIN_PROBE] for probe in (MAIN_PROBE, "knn-1")}
    comparison = comparison_of("AE-RF", "AE-CFE", predictions=predictions, probes=(MAIN_PROBE, "knn-1"))
    header, *rows = table_named(
        tables_of(to_markdown(comparison, HEADING)), "Balanced accuracy by classifier, across centres"
    )
    assert header == ["Column", "random-forest", "knn-1"]
    assert [row[0] for row in rows] == ["AE-RF", "AE-CFE"]
    assert rows[0][2].startswith("75.0 (") and rows[1][1:] == ["**100.0 (100.0–100.0)**"] * 2


def test_one_centre_has_tables_of_its_own_row_alone():
    comparison = comparison_of("AE-RF", "AE-CFE", cells=cells_of(centres=("m19",)))
    text = to_markdown(comparison, HEADING)
    tables = tables_of(text)
    _, *rows = table_named(tables, "Accuracy of the random forest")
    assert [row[:2] for row in rows] == [["m19", "m19"], ["mean", "within centre"]]
    assert table_named(tables, "Compared with AE-CFE")[0][1:] == [
        "Accuracy, within centre",
        "Balanced accuracy, within centre",
    ]
    assert "across centres" not in text and "Label shift" not in text
    assert len(rows_of(to_csv(comparison, HEADING))) == 2
    assert {entry["tested"] for entry in to_json(comparison, HEADING)["means"]} == {"within centre"}
    assert to_latex_tables(comparison, HEADING).count(r"\begin{table}") == len(tables)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_line_for_each_pair(comparison):
    rows = rows_of(to_csv(comparison, WITH_THESIS))
    assert len(rows) == 3 * 4 + 2
    first, network = rows[0], rows[-1]
    expected = {"method": "AE-RF", "classifier": "random-forest", "trained_on": "m19", "tested_on": "m19", "runs": "2"}
    expected |= {"accuracy_mean": "0.7500", "accuracy_std": "0.2500", "num_test": "4", "recall_smudge_cell": "0.5000"}
    assert first == {**first, **expected, "thesis_accuracy": "0.8600", "thesis_std": "0.0004"}
    assert float(first["accuracy_low"]) < 0.75 < float(first["accuracy_high"])
    assert (network["method"], network["classifier"], network["thesis_accuracy"]) == ("ResNeXt", "network", "")


def test_json_has_what_was_measured(comparison):
    content = json.loads(json.dumps(to_json(comparison, HEADING)))
    assert content["methods"] == ["AE-RF", "AE-CFE", "AE-RF (std)", "ResNeXt"]
    assert content["settings"] == {
        "protocol": "thesis", "runs": 2, "seed": 3, "test_on": "test", "bootstrap": 200, "trees": 100, "max_depth": 16
    }  # fmt: skip
    assert len(content["scores"]) == 14 and content["classes"] == ["basophil", "smudge_cell"]
    first = content["scores"][0]
    assert first["accuracy"] == {"mean": 0.75, "std": 0.25, "runs": [1.0, 0.5]}
    assert first["recall"] == {"basophil": 1.0, "smudge_cell": 0.5} and first["confusion"] == [[4, 0], [2, 2]]
    assert len(content["means"]) == 3 * 2
    differences = {(d["column"], d["tested"], d["measure"]): d for d in content["differences"]}
    assert len(differences) == 2 * 2 * 2 and content["reference"] == "AE-CFE"
    assert differences["AE-RF", "across centres", "accuracy"]["mean"] == pytest.approx(-0.25)
    assert to_json(comparison, Heading("x", "x", {}, reference="none"))["differences"] == []


def test_latex_has_a_whole_table_for_each_part(comparison):
    text = to_latex_tables(comparison, WITH_THESIS)
    tables = tables_of(to_markdown(comparison, WITH_THESIS))
    parts = text.split(r"\begin{table}")[1:]
    assert len(parts) == len(tables) == text.count(r"\end{table}")
    assert [re.search(r"\\label\{(.+?)\}", part)[1] for part in parts] == [
        f"tab:3.2-{i}" for i in range(1, len(parts) + 1)
    ]
    for part in parts:
        # Lines between the rules have as many cells as there are columns.
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", part)[1])
        lines = [line for line in part.splitlines() if line.endswith(r"\\")]
        assert lines and all(line.count(" & ") == columns - 1 for line in lines)
        assert not re.search(r"(?<!\\)[%_#]|\*\*|±|–(?=\d)±", part)
    assert r"\textbf{100.0 $\pm$ 0.0} [83.7 $\pm$ 0.5]" in parts[0]
    # What a reader must know stands beside the table, for it may stand alone in a paper.
    assert "In brackets: what the thesis reports" in parts[0] and r"AE-RF: \textbf{a warning}." in parts[0]
    assert r"smudge cell" in text and "seed 3" in parts[-1]


def test_write_comparison_writes_every_format(comparison, tmp_path):
    paths = write_comparison(comparison, tmp_path / "tables", HEADING)
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        f"table-3.2.{ending}" for ending in ("csv", "json", "md", "tex", "txt")
    ]
    assert paths["md"].read_text(encoding="utf-8") == to_markdown(comparison, HEADING)
    assert json.loads(paths["json"].read_text()) == to_json(comparison, HEADING)
    text = paths["txt"].read_text(encoding="utf-8")
    assert "100.0 ± 0.0" in text and "Majority class" in text and "without a type" in text and "*" not in text
