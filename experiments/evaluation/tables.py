"""Tables of text cells as Markdown, plain text, CSV and LaTeX.

A table is a header and rows of equal length, all cells text. A cell may hold `**bold**` markers, which Markdown
and LaTeX show and the others drop.
"""

import csv
import io
import re
from collections.abc import Sequence

_BOLD = re.compile(r"\*\*(.+?)\*\*")
_TWO_HYPHENS = re.compile("-(?=-)")  # LaTeX would make a dash of those of an option such as --config
# Characters that LaTeX reads as commands, and those that its usual fonts lack or show as another character.
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "#$%&_{}"},
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": "$-$",
        "→": r"$\rightarrow$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "<": "$<$",
        ">": "$>$",
        "|": r"\textbar{}",
        "\u00a0": "~",
        "\n": " ",
    }
)
# "85.0 ± 1.2 / 70.1 ± 3.0", "1,234", "12 %", "(80.1-88.2)", "< 0.01"; and what stands for a number that is missing.
_NUMBER = re.compile(r"[-+−<>≤≥~(\[\s]*\d[\d.,\s±+\-−–/%()\[\]eE]*")
_MISSING = ("", "-", "–", "—", "n/a")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the table in Markdown, without a line break at its end."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the table in columns of equal width, for a terminal, without a line break at its end.

    Raises:
        ValueError: if a row is shorter or longer than the header.
    """
    header, rows = _plain(header, rows)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def csv_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the table as comma-separated values, each line ended by a line feed.

    Raises:
        ValueError: if a row is shorter or longer than the header.
    """
    stream = io.StringIO()
    header, rows = _plain(header, rows)
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def to_latex(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, notes: str = "") -> str:
    r"""Return the table as a LaTeX table environment, which needs the package booktabs and UTF-8.

    Columns of numbers are flush right, all others flush left. All text is escaped, so that names of files and
    methods can stand in it as they are.

    Args:
        header: names of the columns.
        rows: cells.
        caption: plain text, also with `**bold**` markers; it stands above the table.
        label: for `\ref`, as "tab:3.2".
        notes: plain text under the table, in a smaller type.

    Returns:
        The environment, with a line feed at its end.

    Raises:
        ValueError: if a row is shorter or longer than the header, the header is empty, or the label holds
            other characters than letters, digits and ":.-".
    """
    if not header:
        raise ValueError("a table needs a column")
    if not re.fullmatch(r"[A-Za-z0-9:.\-]+", label):
        raise ValueError(f"label {label!r} may hold letters, digits and :.- only")
    _check(header, rows)
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    alignment = "".join("r" if _is_numeric(column) else "l" for column in columns)
    lines = [
        r"\begin{table}[htbp]",
        r"  \centering",
        rf"  \caption{{{_escape(caption)}}}",
        rf"  \label{{{label}}}",
        r"  \smallskip",  # the standard classes set no space below a caption
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        _latex_line(header),
        r"    \midrule",
        *map(_latex_line, rows),
        r"    \bottomrule",
        r"  \end{tabular}",
    ]
    if notes:
        lines += ["", rf"  \smallskip{{\footnotesize {_escape(notes)}\par}}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_line(cells: Sequence[str]) -> str:
    line = " & ".join(map(_escape, cells))
    # After the \\ of the line above, LaTeX would take a bracket or star for an argument of it.
    return f"    {'{}' if line.startswith(('[', '*')) else ''}{line} \\\\"


def _escape(text: str) -> str:
    # Splitting at a pattern with one group gives plain and bold parts in turn.
    parts = [_TWO_HYPHENS.sub("-{}", part.translate(_LATEX)) for part in _BOLD.split(text)]
    return "".join(rf"\textbf{{{part}}}" if i % 2 else part for i, part in enumerate(parts))


def _is_numeric(column: Sequence[str]) -> bool:
    cells = [_BOLD.sub(r"\1", cell).strip() for cell in column]
    known = [cell for cell in cells if cell not in _MISSING]
    return bool(known) and all(_NUMBER.fullmatch(cell) for cell in known)


def _plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The cells without their bold markers."""
    _check(header, rows)
    bare = [[_BOLD.sub(r"\1", cell) for cell in line] for line in [header, *rows]]
    return bare[0], bare[1:]


def _check(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"row {i} has {len(row)} cells, the header {len(header)}")
