"""Tables of text cells as Markdown, plain text, CSV and LaTeX.

A table is a header and rows of equal length. A cell may hold `**bold**` markers, which Markdown and LaTeX show and
the others drop.
"""

import re
from collections.abc import Sequence

import pandas as pd

_BOLD = re.compile(r"\*\*(.+?)\*\*")
_TWO_HYPHENS = re.compile("-(?=-)")  # LaTeX would make a dash of those of an option such as --config
# Characters that LaTeX reads as commands, and those that its usual fonts lack or show as another character.
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "#$%&_{}"},
        **{"±": r"$\pm$", "×": r"$\times$", "−": "$-$", "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$"},
        **{"<": "$<$", ">": "$>$", "|": r"\textbar{}", "\u00a0": "~", "\n": " "},
    }
)

Rows = Sequence[Sequence[str]]


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """Return the table in Markdown, without a line break at its end."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    return _frame(*cells).to_markdown(index=False, disable_numparse=True)


def text_table(header: Sequence[str], rows: Rows) -> str:
    """Return the table in columns of equal width, for a terminal, without a line break at its end."""
    return _frame(*_plain(header, rows)).to_markdown(index=False, disable_numparse=True, tablefmt="simple")


def csv_table(header: Sequence[str], rows: Rows) -> str:
    """Return the table as comma-separated values, each line ended by a line feed."""
    return _frame(*_plain(header, rows)).to_csv(index=False, lineterminator="\n")


def to_latex(header: Sequence[str], rows: Rows, *, caption: str, label: str, notes: str = "") -> str:
    r"""Return the table as a LaTeX table environment, which needs the package booktabs and UTF-8.

    Columns without letters are flush right, all others flush left. All text is escaped. The caption, which stands above
    the table, and the notes, in a smaller type under it, may have `**bold**` markers. In the label, as "tab:3.2", what
    is no letter or digit becomes a hyphen.
    """
    columns = zip(*rows, strict=True) if rows else [["none"]] * len(header)
    numeric = [not any(re.search(r"[^\W\d_]", cell) for cell in column) for column in columns]
    table = _frame(*([_escape(cell) for cell in line] for line in (header, *rows))).to_latex(
        index=False,
        escape=False,
        position="htbp",
        caption=_escape(caption),
        label=re.sub(r"[^\w:.]|_", "-", label),
        column_format="".join("r" if is_numeric else "l" for is_numeric in numeric),
    )
    note = f"\n\\smallskip{{\\footnotesize {_escape(notes)}\\par}}\n" if notes else ""
    return table.replace(r"\begin{table}[htbp]", "\\begin{table}[htbp]\n\\centering").replace(
        r"\end{tabular}" + "\n", r"\end{tabular}" + "\n" + note
    )


def _frame(header: Sequence[str], *rows: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([list(row) for row in rows], columns=list(header), dtype=str)


def _plain(header: Sequence[str], rows: Rows) -> list[list[str]]:
    """The lines without their bold markers."""
    return [[_BOLD.sub(r"\1", cell) for cell in line] for line in (header, *rows)]


def _escape(text: str) -> str:
    # Splitting at a pattern with one group gives plain and bold parts in turn.
    parts = [_TWO_HYPHENS.sub("-{}", part.translate(_LATEX)) for part in _BOLD.split(text)]
    text = "".join(rf"\textbf{{{part}}}" if i % 2 else part for i, part in enumerate(parts))
    # After the \\ of the line above, LaTeX would take a bracket or star for an argument of it.
    return "{}" + text if text.startswith(("[", "*")) else text
