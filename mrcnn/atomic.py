"""Files and folders that are either whole or absent under their final name."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mrcnn.errors import InputError
from mrcnn.output_lock import OutputLock

_HDF5_ERROR = re.compile(r"\berrno = (\d+), error message = ")
_TEMPORARY = re.compile(r"\.\d+\.(?:tmp|old)\.(.+)")


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
        OSError: what the block or the move raised; it names `path` if it named no file. What HDF5 says of a full disk,
            in several lines and of several types, becomes one too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            # HDF5 still wants to write what it holds of the file, and can do so only where there is room.
            os.truncate(temporary, 0)
        number = _hdf5_error_number(error)
        if number is not None:
            raise OSError(number, os.strerror(number), str(path)) from error
        if isinstance(error, OSError) and error.filename is None:  # of writing to an open file, on a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _hdf5_error_number(error: BaseException) -> int | None:
    """The system's error that HDF5 tells of, in this error or in those that it came from; None if there is none."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        match = _HDF5_ERROR.search(str(error))
        if match:
            return int(match[1])
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


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

    Every file is synced before the move. An older folder is moved aside just before and removed just after it. What a
    process that was killed has left is removed; one that is still writing the same folder is respected.

    Args:
        path: the final name. Folders above it are made if they are missing.
        marker: file that the folder gets, see `check_folder_is_free`.
        overwrite: replace an older folder.

    Yields:
        The temporary folder, which is there and empty.

    Raises:
        InputError: if something is there that may not be replaced, or another run is writing the folder.
    """
    check_folder_is_free(path, marker, overwrite)
    final = Path(path).resolve()  # beside the folder that a link points to, since a rename cannot cross disks
    temporary, old = (final.with_name(f".{os.getpid()}.{kind}.{final.name}") for kind in ("tmp", "old"))
    with OutputLock(final) as lock:
        final.parent.mkdir(parents=True, exist_ok=True)
        if lock.is_held:
            remove_leftovers(final.parent, final.name)
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
        except OSError as error:
            if error.filename is None:
                error.filename = str(final)
            raise
        finally:
            if old.exists() and not final.exists():
                old.rename(final)
            for folder in (temporary, old):
                shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike, name: str | None = None) -> None:
    """Remove what killed processes had begun to write in a folder; to be called while it is locked.

    Args:
        folder: is not looked at further down; may be missing.
        name: only what was to become the file or folder of this name; an older folder that was moved aside and never
            replaced gets its name back.
    """
    folder = Path(folder)
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or name not in (None, match[1]):
            continue
        if ".old." in path.name and not (folder / match[1]).exists():
            path.rename(folder / match[1])
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def tidy_folder(folder: str | os.PathLike) -> None:
    """Remove what a run that was killed at its very end has left in a finished folder: unfinished files and its lock.

    Where another run is writing the folder, or it must not be written to, they stay.
    """
    folder = Path(folder)
    if any(path.name == ".lock" or _TEMPORARY.fullmatch(path.name) for path in folder.iterdir()):
        with suppress(InputError), OutputLock(folder, inside=True) as lock:
            if lock.is_held:
                remove_leftovers(folder)


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
