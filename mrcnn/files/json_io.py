"""Reading JSON that others may have written: settings, records of trained models, splits, annotations, headers."""

import json
import math
import os
from pathlib import Path
from typing import Any

from mrcnn.files.errors import InputError

_MAX_DIGITS = 19  # more do not fit into 64 bits, nor always into a float


def read_json_file(path: str | os.PathLike, *, missing: str, advice: str, allow_nan: bool = False) -> Any:
    """Read a JSON file as `parse_json` does.

    Args:
        path: the file.
        missing: what to do if there is no such file, for the message.
        advice: what to do if it cannot be read, for the message.
        allow_nan: whether numbers may be NaN or infinite.

    Raises:
        InputError: if it is not to be had or not to be read.
    """
    try:
        return parse_json(Path(path).read_bytes(), allow_nan=allow_nan)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); {advice}") from None


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file of annotations; whoever knows what its numbers stand for says which must be finite."""
    return read_json_file(path, missing="name a file", advice="export it again as UTF-8", allow_nan=True)


def parse_json(content: str | bytes, *, allow_nan: bool = False) -> Any:
    """Parse JSON, as text or as UTF-8 with or without byte order mark.

    Raises:
        ValueError: in one line: no UTF-8 or no JSON; a key twice in one mapping, of which one would be lost; nesting
            too deep; a number out of range, or NaN or infinite without `allow_nan`.
    """

    def number(digits: str) -> float:
        value = float(digits)
        if not (allow_nan or math.isfinite(value)):
            raise ValueError(f"number {digits[:40]} out of range")
        return value

    def whole_number(digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            raise ValueError(f"number {digits[:20]}... out of range")
        return int(digits)

    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(
            text, object_pairs_hook=_unique, parse_int=whole_number, parse_float=number, parse_constant=number
        )
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
