"""Reading JSON that others may have written: settings, records of trained models, splits, annotations, headers."""

import json
import os
from pathlib import Path
from typing import Any

from mrcnn.files.errors import InputError


def read_json_file(
    path: str | os.PathLike, *, missing: str = "name a file", advice: str = "export it again as UTF-8"
) -> Any:
    """Read a JSON file as `parse_json` does.

    Raises:
        InputError: that says what to do, if there is no such file (`missing`) or it cannot be read (`advice`).
    """
    try:
        return parse_json(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); {advice}") from None


def parse_json(content: str | bytes) -> Any:
    """Parse JSON, as text or as UTF-8 with or without byte order mark.

    Raises:
        ValueError: in one line, if it is none, nested too deep, or has a key twice, of which one would be lost.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(text, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text, byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {ascii(twice)[:60]} twice in one mapping")
    return values
