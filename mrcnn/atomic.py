"""Files that are either whole or absent under their final name."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends without an error.

    The temporary name keeps the suffix of `path`, since Keras and others choose the format by it. The file is
    synced before the move, so that a crash leaves either the old file or the new one.

    Args:
        path: the final name. Its folder is made if it is missing.

    Yields:
        The temporary path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically.

    Raises:
        TypeError: if `value` holds something that JSON has no form for.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
