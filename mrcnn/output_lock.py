"""One run at a time writes an output: a lock that ends with the process that holds it, however that ends."""

import errno
import json
import logging
import os
import shlex
import socket
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mrcnn.errors import InputError

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
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    note = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now().isoformat(timespec="seconds"),
        "command": _one_line(command),
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
