"""Reading JSON files of unknown origin."""

import json
import os
from pathlib import Path
from typing import Any

from mrcnn.files.errors import InputError, first_line
from mrcnn.files.ordinary_files import check_ordinary_file

# COCO's own training annotations have 470 MB.
MAX_BYTES = 1 << 30


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Numbers that are not finite (NaN, 1e999) are let through as such, so that whoever knows what they stand for can say
    which of them is wrong.

    Args:
        path: a UTF-8 file, with or without byte order mark.

    Returns:
        Its value.

    Raises:
        InputError: if the file is missing, no file (a folder, a pipe), larger than 1 GiB, not UTF-8, not JSON, nested
            too deep, or names a key of a mapping twice, of which one would be lost.
    """
    path = Path(path)
    check_ordinary_file(path, max_bytes=MAX_BYTES)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it again as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _RepeatedKeyError as error:
        raise InputError(f"{path}: key {error} appears twice in one mapping; remove one") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deep for an annotation file") from None
    except ValueError as error:
        # JSONDecodeError, and numbers of more digits than Python converts.
        raise InputError(f"{path}: not JSON ({first_line(error)}); export it again") from None


class _RepeatedKeyError(Exception):
    """Not a ValueError, to be told from what the parser raises."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(repr(key[:60]))
            seen.add(key)
    return values
