"""Files and folders that are either whole or absent under their final name."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mrcnn.errors import InputError


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends without an error.

    The temporary name keeps the suffix of `path`, since Keras and others choose the format by it. The file is
    synced before the move, so that a crash leaves either the old file or the new one.

    Args:
        path: the final name. Its folder is made if it is missing.

    Yields:
        The temporary path to write to.

    Raises:
        OSError: what the block or the move raised; it names `path` if it named no file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # of writing to an open file, as where a disk is full
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_folder_is_free(path: str | os.PathLike, marker: str, overwrite: bool) -> None:
    """Refuse to write a folder over something else.

    Args:
        path: the folder to be written.
        marker: file that every folder of the kind holds; only such folders, and empty ones, are ever replaced.
        overwrite: whether an older one may be replaced.

    Raises:
        InputError: if it may not.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / marker).is_file():
        raise InputError(f"{path}: holds something else (no {marker}) and is left alone; give another folder")
    if not overwrite:
        raise InputError(f"{path}: is there already; give another folder, or --overwrite to replace it")


@contextmanager
def atomic_folder(path: str | os.PathLike, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; move it there when the block ends without an error.

    Every file is synced before the move. An older folder is moved aside just before and removed just after it.

    Args:
        path: the final name. Folders above it are made if they are missing.
        marker: file that the folder gets, see `check_folder_is_free`.
        overwrite: replace an older folder.

    Yields:
        The temporary folder, which is there and empty.

    Raises:
        InputError: if something is there that may not be replaced.
    """
    check_folder_is_free(path, marker, overwrite)
    final = Path(path).resolve()  # beside the folder that a link points to, since a rename cannot cross disks
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (final.with_name(f".{os.getpid()}.{kind}.{final.name}") for kind in ("tmp", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed and had the same number
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        if final.exists():
            final.rename(old)
        temporary.rename(final)
    finally:
        if old.exists() and not final.exists():
            old.rename(final)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


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
