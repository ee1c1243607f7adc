"""Files and folders that are either whole or absent under their final name."""

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

from mrcnn.files.errors import InputError
from mrcnn.files.provenance import command_text

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind; there outputs are written without one.
    fcntl = None

log = logging.getLogger(__name__)

LONGEST_COMMAND = 200  # characters of a message
LONGEST_NOTE = 4096  # bytes
# What file systems without locks say.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_told_of_no_locks = False


class OutputLock:
    """The right to write an output, from now on until `release`, the end of a `with` block or of the process.

    The system locks a small hidden file and drops the lock with the process, so that what a killed run left of it is
    in nobody's way. The file tells the others who is writing; it is removed with the lock. On Linux the lock holds
    across the hosts of an NFS too.

    Args:
        path: the file or folder that is written.
        inside: put the lock into the folder `path`, which is made; else it lies beside `path`, which may then be
            replaced as a whole.

    Attributes:
        is_held: False where the file system knows no locks; that is logged once, and writing goes on without.

    Raises:
        InputError: if another run holds it, or nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike, *, inside: bool = False):
        self._shown = os.fspath(path)
        self._file = _lock_file(Path(path), inside)
        self._made: list[Path] = []
        self._handle: int | None = None
        self.is_held = False
        if fcntl is None:
            return
        try:
            self._make_folders(self._file.parent)
            self._acquire()
        except InputError:
            self._remove_folders()
            raise
        except OSError as error:
            self._remove_folders()
            advice = "make room, or choose another place" if error.errno in _NO_ROOM else "choose another place"
            raise InputError(f"{self._shown}: cannot be written ({error.strerror}); {advice}") from None

    def __enter__(self) -> "OutputLock":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock up. Folders that were made for it go too if nothing was put into them."""
        if self._handle is not None:
            # Removed while it is locked: whoever opened it meanwhile sees that it is no longer the one.
            with suppress(OSError):
                self._file.unlink()
            os.close(self._handle)
            self._handle, self.is_held = None, False
        self._remove_folders()

    def _make_folders(self, place: Path) -> None:
        missing = [folder for folder in (place, *place.parents) if not folder.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another run was faster
                folder.mkdir()
                self._made.append(folder)

    def _remove_folders(self) -> None:
        while self._made:
            with suppress(OSError):  # it is not empty
                self._made.pop().rmdir()

    def _acquire(self) -> None:
        while self._handle is None:
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_still_there(self._file, handle):
                    os.close(handle)  # removed by the one who had it: the next one has another file
                    continue
                os.ftruncate(handle, 0)
                os.write(handle, _note())
            except BlockingIOError:
                text = os.pread(handle, LONGEST_NOTE, 0)
                os.close(handle)
                raise InputError(
                    f"{self._shown}: {_describe(text)} is writing it; wait for it, or choose another output"
                ) from None
            except OSError as error:
                if error.errno in (*_NO_LOCKS, *_NO_ROOM):
                    with suppress(OSError):
                        self._file.unlink()
                os.close(handle)
                if error.errno not in _NO_LOCKS:
                    raise
                self._tell_of_no_locks(error)
                return
            self._handle, self.is_held = handle, True

    def _tell_of_no_locks(self, error: OSError) -> None:
        global _told_of_no_locks
        if not _told_of_no_locks:
            log.warning(
                "%s: this file system has no locks (%s); let one run at a time write there",
                self._shown,
                error.strerror,
            )
        _told_of_no_locks = True


def remove_stale_lock(path: str | os.PathLike) -> None:
    """Remove what a run that was killed at its very end has left of its lock beside a finished output.

    That of a run that goes on stays, and so does one in a folder that must not be written to.
    """
    if _lock_file(Path(path), inside=False).exists():
        with suppress(InputError):
            OutputLock(path).release()


def _lock_file(path: Path, inside: bool) -> Path:
    return path / ".lock" if inside else path.with_name(f".{path.name}.lock")


def _is_still_there(path: Path, handle: int) -> bool:
    """Whether an open file still has its name."""
    try:
        there, opened = os.stat(path), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)


def _note() -> bytes:
    """Who is writing, as JSON."""
    note = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now().isoformat(timespec="seconds"),
        "command": _one_line(command_text()),
    }
    return json.dumps(note).encode()


def _describe(text: bytes) -> str:
    """Who is writing, in words; as much of it as the note tells."""
    try:
        note = json.loads(text)
    except ValueError:
        note = None
    if not isinstance(note, dict):
        return "another run"
    known = [f"pid {_one_line(note['pid'])}"] if "pid" in note else []
    known += [f"on {_one_line(note['host'])}"] if "host" in note else []
    known += [f"since {_when(note['started'])}"] if "started" in note else []
    command = f": {_one_line(note['command'])}" if note.get("command") else ""
    return f"another run ({' '.join(known)}{command})"


def _when(text: Any) -> str:
    """A time of today as 10:02, another one with its date."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return _one_line(text)
    return time.strftime("%H:%M" if time.date() == datetime.now().date() else "%Y-%m-%d %H:%M")


def _one_line(value: Any) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= LONGEST_COMMAND else text[: LONGEST_COMMAND - 3] + "..."


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
