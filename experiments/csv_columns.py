"""Reading columns of a CSV file that says something of images."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.errors import InputError


def read_columns(path: str | os.PathLike, names: Sequence[str], advice: str) -> list[tuple[Any, ...]]:
    """Read some columns of a CSV file.

    Args:
        path: a UTF-8 file, with or without byte order mark, comma-separated, the columns' names in its first line.
        names: the columns; others are not read.
        advice: what to do if there is no such file, for the message.

    Returns:
        For each row that is not blank a tuple of its line number and the texts in the columns, "" where there is none.

    Raises:
        InputError: if the file is missing, lacks a column, or is something else.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            columns = [(column or "").strip() for column in reader.fieldnames or []]
            lacking = [column for column in names if column not in columns]
            if lacking:
                raise InputError(
                    f"{path}: no column {' or '.join(lacking)} in its first line "
                    f"({','.join(columns) or 'empty'}); it must be comma-separated with columns {','.join(names)}"
                )
            reader.fieldnames = columns
            return [(reader.line_num, *((row[name] or "").strip() for name in names)) for row in reader]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {advice}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error})") from None
