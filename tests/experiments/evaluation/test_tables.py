import csv
import io

import pytest

from experiments.evaluation.tables import csv_table, markdown_table, text_table, to_latex

HEADER = ["Method", "Accuracy", "Cells"]
ROWS = [["AE-RF", "80.1 ± 0.4", "1,234"], ["AE-CFE", "**85.0 ± 1.2** / 70.3 ± 2.0", "–"]]


def latex_rows(text):
    """The cells of each line of a tabular, header first."""
    lines = [line.strip() for line in text.splitlines() if line.endswith(r"\\")]
    return [line.removesuffix(r"\\").strip().split(" & ") for line in lines]


def test_markdown_table_keeps_bold_and_escapes_bars():
    assert markdown_table(["a", "b"], [["**1**", "x|y"]]) == "| a | b |\n| --- | --- |\n| **1** | x\\|y |"


def test_text_table_pads_columns_and_drops_bold():
    lines = text_table(["Method", "n"], [["**AE**", "1"], ["AE-CFE", "12"]]).split("\n")
    assert lines == ["Method  n", "------  --", "AE      1", "AE-CFE  12"]


def test_csv_table_quotes_and_drops_bold():
    text = csv_table(HEADER, ROWS)
    assert list(csv.reader(io.StringIO(text))) == [HEADER, ROWS[0], ["AE-CFE", "85.0 ± 1.2 / 70.3 ± 2.0", "–"]]
    assert text.endswith("\n") and "\r" not in text and "*" not in text


def test_stars_that_mark_nothing_stay():
    assert csv_table(["a"], [["2 ** 3"]]) == "a\n2 ** 3\n"


def test_to_latex_is_a_booktabs_table():
    text = to_latex(HEADER, ROWS, caption="Accuracy in %", label="tab:3.2", notes="5 runs; a_b")
    lines = [line.strip() for line in text.splitlines()]
    rules = [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [line for line in lines if line.endswith("rule")] == rules
    assert lines[0] == r"\begin{table}[htbp]" and lines[-1] == r"\end{table}" and text.endswith("\n")
    assert r"\caption{Accuracy in \%}" in lines and r"\label{tab:3.2}" in lines
    assert lines.index(r"\caption{Accuracy in \%}") < lines.index(r"\begin{tabular}{lrr}")
    assert text.index(r"\end{tabular}") < text.index(r"\footnotesize 5 runs; a\_b")
    assert latex_rows(text) == [
        ["Method", "Accuracy", "Cells"],
        ["AE-RF", r"80.1 $\pm$ 0.4", "1,234"],
        ["AE-CFE", r"\textbf{85.0 $\pm$ 1.2} / 70.3 $\pm$ 2.0", "–"],
    ]


def test_to_latex_without_notes_or_rows():
    text = to_latex(["a", "b"], [], caption="c", label="t")
    assert r"\begin{tabular}{ll}" in text and "footnotesize" not in text
    assert latex_rows(text) == [["a", "b"]]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("#$%&_{}", r"\#\$\%\&\_\{\}"),
        ("a\\b", r"a\textbackslash{}b"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("a → b", r"a $\rightarrow$ b"),
        ("x < 5 | y", r"x $<$ 5 \textbar{} y"),
        ("--config", "-{}-config"),
        ("---", "-{}-{}-"),
        ("**a_b** & **c**", r"\textbf{a\_b} \& \textbf{c}"),
        ("[x]", "{}[x]"),
        ("*", "{}*"),
        ("two\nlines", "two lines"),
    ],
)
def test_to_latex_escapes(text, written):
    lines = [line.strip() for line in to_latex(["h"], [[text]], caption="c", label="t").splitlines()]
    assert lines[lines.index(r"\midrule") + 1] == rf"{written} \\"


@pytest.mark.parametrize(
    ("cells", "alignment"),
    [
        (["1", "**2.5**"], "r"),
        (["85.0 ± 1.2 / 70.1 ± 3.0", "–"], "r"),
        (["12 %", "(80.1-88.2)", "< 0.01", "−3", "1e-3"], "r"),
        (["", "-", "n/a"], "l"),
        (["1", "MLL23"], "l"),
        (["INT-20", "Matek-19"], "l"),
    ],
)
def test_to_latex_sets_numbers_flush_right(cells, alignment):
    text = to_latex(["h"], [[cell] for cell in cells], caption="c", label="t")
    assert rf"\begin{{tabular}}{{{alignment}}}" in text


@pytest.mark.parametrize("label", ["", "a b", "a_b", "a}b", "a%"])
def test_to_latex_refuses_a_label_that_would_break(label):
    with pytest.raises(ValueError, match="label"):
        to_latex(["h"], [], caption="c", label=label)


def test_to_latex_refuses_no_columns():
    with pytest.raises(ValueError, match="needs a column"):
        to_latex([], [], caption="c", label="t")


def test_tables_refuse_ragged_rows():
    for write in (text_table, csv_table, lambda header, rows: to_latex(header, rows, caption="c", label="t")):
        with pytest.raises(ValueError, match="row 1 has 1 cells, the header 2"):
            write(["a", "b"], [["1", "2"], ["3"]])
