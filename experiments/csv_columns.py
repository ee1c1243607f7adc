"""Reading columns of a CSV file that says something of images."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mrcnn.errors import InputError

MAX_BYTES = 256 * 2**20
_MAX_SHOWN = 200  # characters of a first line


def read_columns(path: str | os.PathLike, names: Sequence[str], advice: str) -> list[tuple[Any, ...]]:
    """Read some columns of a CSV file.

    Args:
        path: a UTF-8 file, with or without byte order mark, comma-separated, the columns' names in its first line.
        names: the columns; others are not read.
        advice: what to do if there is no such file, for the message.

    Returns:
        For each row that is not blank a tuple of its line number and the texts in the columns, "" where there is none.

    Raises:
        InputError: if the file is missing, too large or something else, a column is lacking or there twice, or a row
            has more values than there are columns.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no list of images is; {advice}")
        with open(path, encoding="utf-8-sig", newline="") as handle:
            # Strict, since a quote that is never closed would otherwise take the rest of the file for one text.
            reader = csv.reader(_checked_lines(handle), strict=True)
            columns = [column.strip() for column in next(reader, [])]
            _check_columns(path, columns, names)
            places = [columns.index(name) for name in names]
            rows = []
            for row in reader:
                if len(row) > len(columns) and any(text.strip() for text in row[len(columns) :]):
                    raise InputError(
                        f"{path}: row {reader.line_num} has {len(row)} values, but there are {len(columns)} columns; "
                        "put a text that holds a comma into double quotes"
                    )
                if row:
                    rows.append((reader.line_num, *(row[i].strip() if i < len(row) else "" for i in places)))
            return rows
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {advice}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error}); save it again as CSV in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from None


def _checked_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines, none of which holds what no text has; binary files and UTF-16 are full of it."""
    for line in lines:
        if "\0" in line:
            raise csv.Error("it holds NUL characters")
        yield line


def _check_columns(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    lacking = [column for column in names if column not in columns]
    if lacking:
        shown = ",".join(columns)
        shown = (shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + " ...") or "empty"
        shown = shown if shown.isprintable() else ascii(shown)
        raise InputError(
            f"{path}: no column {' or '.join(lacking)} in its first line ({shown}); it must be comma-separated with "
            f"columns {','.join(names)}"
        )
    twice = [name for name in names if columns.count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]} is there twice; remove or rename one")
