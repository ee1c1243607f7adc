"""Files and folders that are either whole or absent under their final name, and written by one process at a time."""

import errno
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mrcnn.files.errors import InputError
from mrcnn.files.provenance import command_text

log = logging.getLogger(__name__)

# What file systems without locks say.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_TEMPORARY = re.compile(r"\.\d+\.(?:tmp|old)\.(.+)")


class OutputLock:
    """The right to write an output, until `release`, the end of a `with` block or of the process.

    The system drops the lock with the process, so that the file of a killed run is in nobody's way. What killed runs
    had begun to write is removed. Where a file system knows no locks, writing goes on without one.

    Args:
        path: the file or folder that is written.
        inside: put the lock into the folder `path`, which is made, instead of beside it.

    Raises:
        InputError: if another run holds it.
        OSError: if nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike, *, inside: bool = False):
        path = Path(path)
        self._file = path / ".lock" if inside else path.with_name(f".{path.name}.lock")
        self._lock = FileLock(self._file, blocking=False, thread_local=False)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._write_note()
        except Timeout:
            advice = "wait for it, or choose another output"
            raise InputError(f"{path}: another run{self._read_note()} is writing it; {advice}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                self.release()
                raise OSError(error.errno, error.strerror, str(path)) from None
            log.warning("%s: no locks here (%s); let one run at a time write there", path, error.strerror)
        else:
            remove_leftovers(path if inside else path.parent, None if inside else path.name)

    def __enter__(self) -> "OutputLock":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock up, and remove its file."""
        if self._lock.is_locked:
            # While it is locked: whoever opened it meanwhile sees that it is no longer the one.
            with suppress(OSError):
                self._file.unlink()
            self._lock.release()

    def _write_note(self) -> None:
        """Say who is writing, behind the first byte, which Windows locks."""
        since = datetime.now().strftime("%Y-%m-%d %H:%M")
        note = f" (pid {os.getpid()} on {socket.gethostname()} since {since}: {command_text()[:200]})"
        with open(self._file, "rb+") as handle:
            handle.seek(1)
            handle.write(note.replace("\n", " ").encode("utf-8", "replace") + b"\n")

    def _read_note(self) -> str:
        with suppress(OSError), open(self._file, "rb") as handle:
            handle.seek(1)
            return handle.readline(2000).decode("utf-8", "replace").rstrip("\n")
        return ""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`, which is synced and moved there when the block ends without an error.

    The folder of `path` is made if it is missing. The temporary name keeps the suffix, by which Keras and others choose
    the format. An `OSError` that names no file names `path` then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        with _named_in_errors(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # of writing to an open file, on a full disk
            error.filename = str(path)
        raise


def check_folder_is_free(path: str | os.PathLike, marker: str, overwrite: bool) -> None:
    """Refuse to write a folder over anything but an empty one or, with `overwrite`, one with the file `marker`."""
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / marker).is_file():
        raise InputError(f"{path}: holds something else (no {marker}) and is left alone; give another folder")
    if not overwrite:
        raise InputError(f"{path}: is there already; give another folder, or --overwrite to replace it")


@contextmanager
def atomic_folder(path: str | os.PathLike, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder beside `path`, which is synced and moved there when the block ends without an error.

    An older folder is moved aside just before and removed just after it. `check_folder_is_free` says what is replaced.

    Raises:
        InputError: if something else is there, or another run is writing the folder.
    """
    check_folder_is_free(path, marker, overwrite)
    final = Path(path).resolve()  # beside the folder that a link points to, since a rename cannot cross disks
    temporary, old = (final.with_name(f".{os.getpid()}.{kind}.{final.name}") for kind in ("tmp", "old"))
    with OutputLock(final):
        try:
            with _named_in_errors(final):
                temporary.mkdir()
                yield temporary
                for file in filter(Path.is_file, temporary.rglob("*")):
                    _sync(file)
                if final.exists():
                    final.rename(old)
                temporary.rename(final)
        finally:
            if old.exists() and not final.exists():
                old.rename(final)
            for folder in (temporary, old):
                shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike, name: str | None = None) -> None:
    """Remove what killed processes had begun to write in a folder, or of it what was to be called `name`.

    The folder may be missing. One that was moved aside and never replaced gets its name back.
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


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _sync(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
