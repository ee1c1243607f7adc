"""Reading JSON that others may have written: settings and records of trained models, splits, headers of stores."""

import json
import math
import os
from pathlib import Path
from typing import Any

from mrcnn.files.errors import InputError

MAX_BYTES = 256 * 2**20  # a split of a million images has 60 MB
_MAX_DEPTH = 64  # ours are nested five deep; what walks them is recursive
_MAX_DIGITS = 19  # more do not fit into 64 bits, nor always into a float


def read_json_file(path: str | os.PathLike, *, missing: str, advice: str, allow_nan: bool = False) -> Any:
    """Read a JSON file.

    Args:
        path: a UTF-8 file, with or without byte order mark.
        missing: what to say or do if there is no such file, for the message.
        advice: what to do if it cannot be read, for the message.
        allow_nan: whether NaN and Infinity may stand for numbers, as Python writes them.

    Returns:
        Its value.

    Raises:
        InputError: if the file is missing, cannot be read, or is not as `parse_json` wants it.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no such file is; {advice}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from None
    try:
        return parse_json(content, allow_nan=allow_nan)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); {advice}") from None


def parse_json(content: str | bytes, *, allow_nan: bool = False) -> Any:
    """Parse JSON more strictly than the standard library does.

    Args:
        content: the text, or its UTF-8 bytes with or without byte order mark.
        allow_nan: whether NaN and Infinity may stand for numbers, as Python writes them.

    Returns:
        Its value. It can be walked by recursion and written again as UTF-8, and every number fits into a float.

    Raises:
        ValueError: saying in one line what is wrong: no UTF-8 or no JSON; a key twice in one mapping, of which one
            would be lost; nesting too deep; a number out of range; half of a surrogate pair.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text, byte {error.start}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole_number,
            parse_float=_number,
            parse_constant=None if allow_nan else _refuse_constant,
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    _check(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {ascii(key)[:60]} twice in one mapping")
            seen.add(key)
    return values


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"number {digits[:20]}... out of range")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"number {digits[:40]} out of range")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _check(value: Any) -> None:
    """Refuse what is nested too deep, and text that cannot be written again."""
    level, depth = [value], 0
    while level:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level, depth = below, depth + 1


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{ascii(text)[:60]} is no text, it holds half of a surrogate pair") from None
