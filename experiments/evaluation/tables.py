"""Tables of text cells as Markdown, plain text and LaTeX.

A table is a header and rows of equal length. A cell may hold `**bold**` markers, which Markdown and LaTeX show and
plain text drops.
"""

import re
from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

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
    return tabulate(cells, "firstrow", tablefmt="pipe", disable_numparse=True)


def text_table(header: Sequence[str], rows: Rows) -> str:
    """Return the table in columns of equal width, for a terminal, without a line break at its end."""
    cells = [[_BOLD.sub(r"\1", cell) for cell in line] for line in (header, *rows)]
    return tabulate(cells, "firstrow", tablefmt="simple", disable_numparse=True)


def to_latex(header: Sequence[str], rows: Rows, *, caption: str, label: str, notes: str = "") -> str:
    r"""Return the table as a LaTeX table environment, which needs the package booktabs and UTF-8.

    Columns without letters are flush right, all others flush left. All text is escaped. The caption, which stands above
    the table, and the notes, in a smaller type under it, may have `**bold**` markers. In the label, as "tab:3.2", what
    is no letter or digit becomes a hyphen.
    """
    columns = zip(*rows, strict=True) if rows else [["none"]] * len(header)
    formats = ["l" if any(re.search(r"[^\W\d_]", cell) for cell in column) else "r" for column in columns]
    cells = [[_escape(cell) for cell in line] for line in (header, *rows)]
    table = pd.DataFrame(cells[1:], columns=cells[0], dtype=str).to_latex(
        index=False,
        escape=False,
        position="htbp",
        caption=_escape(caption),
        label=re.sub(r"[^\w:.]|_", "-", label),
        column_format="".join(formats),
    )
    note = f"\n\\smallskip{{\\footnotesize {_escape(notes)}\\par}}\n" if notes else ""
    table = table.replace(r"\begin{table}[htbp]", "\\begin{table}[htbp]\n\\centering")
    return table.replace("\\end{tabular}\n", "\\end{tabular}\n" + note)


def _escape(text: str) -> str:
    # Splitting at a pattern with one group gives plain and bold parts in turn.
    parts = [_TWO_HYPHENS.sub("-{}", part.translate(_LATEX)) for part in _BOLD.split(text)]
    text = "".join(rf"\textbf{{{part}}}" if i % 2 else part for i, part in enumerate(parts))
    # After the \\ of the line above, LaTeX would take a bracket or star for an argument of it.
    return "{}" + text if text.startswith(("[", "*")) else text
