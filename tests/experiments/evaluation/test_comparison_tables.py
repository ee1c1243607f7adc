import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from experiments.evaluation.comparison import MAIN_PROBE, NETWORK, Comparison, Protocol
from experiments.evaluation.comparison_tables import Heading, write_comparison
from experiments.evaluation.transfer import make_cells

PAIRS = [("m19", "m19"), ("m19", "a20"), ("a20", "m19"), ("a20", "a20")]
HEADING = Heading("table-3.2", "A title", {"command": "`aecfe x`", "machine": "a machine"}, reference="AE-CFE")
WITH_THESIS = replace(HEADING, thesis={"m19": "matek19", "a20": "acevedo20"})
# Named by two forests; tested are the classes 0, 1, 0, 1.
RIGHT, HALF = [0, 1, 0, 1], [0, 0, 0, 0]
NOTES = {"AE-RF": "AE-RF: **a warning**.", "AE-RF (std)": "AE-RF: **a warning**.", "ResNeXt": "ResNeXt: a network."}


def cells_of(centres=("m19", "a20"), shifted=False):
    """Each centre learns from a cell of each type and tests two of basophil and two of smudge_cell."""
    types = {c: np.array(["basophil", "smudge_cell"] * 3) for c in centres}
    parts = {c: np.array(["train"] * 2 + ["test"] * 4) for c in centres}
    if shifted:  # most cells of the first centre are of one type, and one has none
        types["m19"] = np.append(types["m19"], [*["basophil"] * 20, ""])
        parts["m19"] = np.append(parts["m19"], [*["train"] * 20, ""])
    return make_cells({c: np.arange(len(t)) for c, t in types.items()}, types, parts)


def comparison_of(cells, *probes, **further):
    """AE-RF and AE-CFE, predicted by each of the probes, and further predictions."""
    runs = {"AE-RF": [RIGHT, HALF], "AE-CFE": [RIGHT, RIGHT]}
    predictions = {(c, p): dict.fromkeys(cells.pairs, np.array(named)) for c, named in runs.items() for p in probes}
    values = {"notes": {}, "mixing": {}, "predictions": predictions, **further}
    columns = tuple(dict.fromkeys(column for column, _ in values["predictions"]))
    protocol = Protocol(runs=2, seed=3, bootstrap=200)
    return Comparison(columns, probes=probes, cells=cells, protocol=protocol, **values)


@pytest.fixture
def comparison():
    """Two columns more: standardised features, and a network that learned on one centre and named no class once."""
    plain = comparison_of(cells_of(), MAIN_PROBE)
    network = {pair: np.array([[0, 1, 0, -1]]) for pair in PAIRS[:2]}
    further = {("AE-RF (std)", MAIN_PROBE): dict.fromkeys(PAIRS, np.array([HALF, HALF])), ("ResNeXt", NETWORK): network}
    mixing = {"AE-CFE": {"centre_accuracy": 0.75, "lisi_centre": None}}
    return comparison_of(plain.cells, MAIN_PROBE, predictions=plain.predictions | further, notes=NOTES, mixing=mixing)


@pytest.fixture
def written(tmp_path):
    """Function of a comparison and a heading that gives the text of each file by its ending, and JSON as values."""

    def write(comparison, heading=HEADING):
        paths = write_comparison(comparison, tmp_path / "tables", heading)
        assert sorted((tmp_path / "tables").iterdir()) == sorted(paths.values())
        texts = {ending: path.read_text(encoding="utf-8") for ending, path in paths.items()}
        return {**texts, "json": json.loads(texts["json"])}

    return write


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


def table_named(markdown, start):
    (table,) = [table for title, table in tables_of(markdown).items() if title.startswith(start)]
    return table


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_markdown_shows_pairs_with_deviations_and_the_best_bold(comparison, written):
    markdown = written(comparison)["md"]
    header, *rows = table_named(markdown, "Accuracy of the networks and the random forest")
    assert header == ["Trained on", "Tested on", "AE-RF", "AE-CFE", "ResNeXt", "Majority class", "Cells"]
    # The network was trained once, which has no deviation, and on one centre alone.
    assert rows[0] == ["m19", "m19", "75.0 ± 25.0", "**100.0 ± 0.0**", "75.0", "50.0", "4"]
    assert rows[2] == ["a20", "m19", "75.0 ± 25.0", "**100.0 ± 0.0**", "–", "50.0", "4"]
    assert rows[4] == ["mean", "across centres", "75.0", "**100.0**", "–", "50.0", ""]
    header, *rows = table_named(markdown, "Balanced accuracy of the random forest, every feature standardised")
    assert header == ["Trained on", "Tested on", "AE-RF (std)", "Majority class", "Cells"]
    assert rows[0] == ["m19", "m19", "50.0 ± 0.0", "50.0", "4"]  # alone, nothing is best


def test_markdown_shows_means_differences_recalls_and_mixing(comparison, written):
    texts = written(comparison)
    text = texts["md"]
    header, *rows = table_named(text, "Means over pairs")
    assert header[1:3] == ["Accuracy, across centres", "Balanced accuracy, across centres"] and len(header) == 9
    assert rows[1][:5] == ["AE-CFE", "100.0 (100.0–100.0)", "100.0 (100.0–100.0)", "100.0", "100.0"]
    assert rows[0][3] == f"{100 * (1 + 1 / 3) / 2:.1f}"  # F1 is 1 twice in a run, and 2/3 and 0 in the other
    assert rows[3] == ["ResNeXt", *["–"] * 8]
    header, *rows = table_named(text, "Compared with AE-CFE")
    assert [row[0] for row in rows] == ["AE-RF", "AE-RF (std)", "ResNeXt"]
    assert rows[0][1].startswith("**-25.0 (") and rows[0][1].endswith(")** [0/2]") and rows[2][1:] == ["–"] * 4
    header, *rows = table_named(text, "Recall of each class, across centres, by the random forest")
    assert header == ["Column", "basophil", "smudge cell"]
    # Two cells of each centre, each right in one of two runs: Wilson's interval of 2 of 4.
    assert rows[0] == ["AE-RF", "100.0 (51.0–100.0)", "50.0 (15.0–85.0)"]
    header, *rows = table_named(text, "How centres mix")
    assert rows == [["AE-CFE", "0.750", "–", "–", "–", "–", "–"]]
    assert "- AE-RF: **a warning**.\n- ResNeXt: a network.\n" in text  # once, though two columns have it
    assert "## Provenance\n\n- command: `aecfe x`\n- machine: a machine" in text
    assert "ResNeXt: networks that predict the types themselves" in text
    assert all(part in texts["txt"] for part in ("100.0 ± 0.0", "Majority class", "without a type"))
    assert "*" not in texts["txt"]


def test_the_thesis_stands_in_brackets_where_the_data_are_its_own(comparison, written):
    texts = written(comparison, WITH_THESIS)
    _, *rows = table_named(texts["md"], "Accuracy of the networks")
    # Thesis Table 3.2 of Matek-19 on itself and on Acevedo-20; it has no ResNeXt that learned on Matek-19.
    assert rows[0][2:5] == ["75.0 ± 25.0 [86 ± 0.04]", "**100.0 ± 0.0** [83.7 ± 0.5]", "75.0"]
    assert rows[1][3] == "**100.0 ± 0.0** [21.9 ± 0.4]"
    assert "In brackets: what the thesis reports" in texts["md"]
    first, *others = rows_of(texts["csv"])
    expected = {"method": "AE-RF", "classifier": "random-forest", "trained_on": "m19", "tested_on": "m19", "runs": "2"}
    expected |= {"accuracy_mean": "0.7500", "accuracy_std": "0.2500", "num_test": "4", "recall_smudge_cell": "0.5000"}
    assert first == {**first, **expected, "thesis_accuracy": "0.8600", "thesis_std": "0.0004"}
    assert float(first["accuracy_low"]) < 0.75 < float(first["accuracy_high"])
    assert len(others) == 3 * 4 + 2 - 1  # each pair of centres
    network = {"method": "ResNeXt", "classifier": "network", "thesis_accuracy": ""}
    assert others[-1] == {**others[-1], **network}
    other = written(comparison)
    assert "In brackets: what" not in other["md"] and "thesis_accuracy" not in other["csv"]


def test_cells_are_counted_and_label_shift_is_told(written):
    texts = written(comparison_of(cells_of(shifted=True), MAIN_PROBE))
    assert table_named(texts["md"], "What the centres hold") == [
        ["Cell type", "m19", "a20"], ["basophil", "23", "3"], ["smudge cell", "3", "3"],
        ["without a type", "1", "0"], ["to learn from", "22", "2"], ["to test on", "4", "4"],
    ]  # fmt: skip
    # Shares 23/26 and 3/6.
    distance = f"{23 / 26 - 1 / 2:.2f}"
    warning = f"m19 and a20 differ in their cell types (total variation distance {distance}, 0 is the same mixture)"
    assert f"**Label shift**: {warning}." in texts["md"] and texts["json"]["label_shift"] == [warning]
    assert "Label shift" not in written(comparison_of(cells_of(), MAIN_PROBE))["md"]


def test_markdown_shows_every_classifier_where_there_are_several(written):
    text = written(comparison_of(cells_of(), MAIN_PROBE, "knn-1"))["md"]
    header, *rows = table_named(text, "Balanced accuracy by classifier, across centres")
    assert header == ["Column", "random-forest", "knn-1"] and [row[0] for row in rows] == ["AE-RF", "AE-CFE"]
    assert rows[0][2].startswith("75.0 (") and rows[1][1:] == ["**100.0 (100.0–100.0)**"] * 2


def test_one_centre_has_tables_of_its_own_row_alone(written):
    texts = written(comparison_of(cells_of(centres=("m19",)), MAIN_PROBE))
    _, *rows = table_named(texts["md"], "Accuracy of the random forest")
    assert [row[:2] for row in rows] == [["m19", "m19"], ["mean", "within centre"]]
    header = table_named(texts["md"], "Compared with AE-CFE")[0]
    assert header[1:] == ["Accuracy, within centre", "Balanced accuracy, within centre"]
    assert "across centres" not in texts["md"] and len(rows_of(texts["csv"])) == 2
    assert {entry["tested"] for entry in texts["json"]["means"]} == {"within centre"}


def test_json_has_what_was_measured(comparison, written):
    content = written(comparison)["json"]
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
    assert written(comparison, replace(HEADING, reference="none"))["json"]["differences"] == []


def test_latex_has_a_whole_table_for_each_part(comparison, written):
    texts = written(comparison, WITH_THESIS)
    parts = texts["tex"].split(r"\begin{table}")[1:]
    assert len(parts) == len(tables_of(texts["md"])) == texts["tex"].count(r"\end{table}")
    assert re.findall(r"\\label\{(.+?)\}", texts["tex"]) == [f"tab:3.2-{i}" for i in range(1, len(parts) + 1)]
    for part in parts:
        # Lines between the rules have as many cells as there are columns.
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", part)[1])
        lines = [line for line in part.splitlines() if line.endswith(r"\\")]
        assert lines and all(line.count(" & ") == columns - 1 for line in lines)
        assert not re.search(r"(?<!\\)[%_#]|\*\*|±|–(?=\d)±", part)
    assert r"\textbf{100.0 $\pm$ 0.0} [83.7 $\pm$ 0.5]" in parts[0]
    # What a reader must know stands beside the table, for it may stand alone in a paper.
    assert "In brackets: what the thesis reports" in parts[0] and r"AE-RF: \textbf{a warning}." in parts[0]
    assert r"smudge cell" in texts["tex"] and "seed 3" in parts[-1]
