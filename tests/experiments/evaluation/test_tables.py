import pytest

from experiments.evaluation.tables import markdown_table, text_table, to_latex

HEADER = ["Method", "Accuracy", "Cells"]
ROWS = [["AE-RF", "80.1 ± 0.4", "1,234"], ["AE-CFE", "**85.0 ± 1.2** / 70.3 ± 2.0", "–"]]


def cells_of(line):
    return [cell.strip() for cell in line.split(" & ")]


def test_markdown_keeps_bold_and_escapes_bars():
    first, _, last = markdown_table(["a", "b"], [["**1**", "x|y"]]).splitlines()
    assert first.replace(" ", "") == "|a|b|" and last.replace(" ", "") == "|**1**|x\\|y|"


def test_text_drops_bold():
    lines = text_table(["Method", "n"], [["**AE**", "1"], ["AE-CFE", "012"], ["2 ** 3", "–"]]).splitlines()
    assert [line.split() for line in lines[2:]] == [["AE", "1"], ["AE-CFE", "012"], ["2", "**", "3", "–"]]


def test_latex_is_a_booktabs_table():
    text = to_latex(HEADER, ROWS, caption="Accuracy in %", label="tab:a_b", notes="5 runs; a_b")
    lines = text.splitlines()
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert lines[0] == r"\begin{table}[htbp]" and lines[-1] == r"\end{table}"
    # Columns of numbers are flush right.
    assert lines.index(r"\caption{Accuracy in \%}") < lines.index(r"\begin{tabular}{lrr}")
    assert r"\label{tab:a-b}" in lines and r"\smallskip{\footnotesize 5 runs; a\_b\par}" in lines
    rows = [cells_of(line.removesuffix(r"\\")) for line in lines if line.endswith(r"\\")]
    assert rows == [
        HEADER,
        ["AE-RF", r"80.1 $\pm$ 0.4", "1,234"],
        ["AE-CFE", r"\textbf{85.0 $\pm$ 1.2} / 70.3 $\pm$ 2.0", "–"],
    ]
    assert r"\begin{tabular}{ll}" in to_latex(["a", "b"], [], caption="c", label="t")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("#$%&_{}~^\\", r"\#\$\%\&\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("x < 5 | y → z", r"x $<$ 5 \textbar{} y $\rightarrow$ z"),
        ("--config", "-{}-config"),
        ("**a_b** & **c**", r"\textbf{a\_b} \& \textbf{c}"),
        ("[x]", "{}[x]"),
        ("two\nlines", "two lines"),
    ],
)
def test_latex_escapes(text, written):
    lines = to_latex(["h"], [[text]], caption="c", label="t").splitlines()
    assert lines[lines.index(r"\midrule") + 1] == rf"{written} \\"
