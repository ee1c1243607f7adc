"""Telling files from what else may stand at a path, before it is opened: reading a pipe or a device may never end."""

import os
import stat

from mrcnn.files.errors import InputError


def check_ordinary_file(path: str | os.PathLike, kind: str = "file", max_bytes: int | None = None) -> None:
    """Refuse a path where no file lies that can be read to its end.

    Args:
        path: a file, or a link to one.
        kind: what is expected there, for the message.
        max_bytes: the most that is to be read; None for no limit.

    Raises:
        InputError: if nothing, a folder, a pipe, a socket or a device is there, links lead in a circle, or the file is
            larger than `max_bytes`.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such {kind}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); name a {kind}") from None
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{path}: cannot be read ({error}); name a {kind}") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: cannot be read, since it is a folder; name a {kind}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: cannot be read, since it is a pipe, socket or device; name a {kind}")
    if max_bytes is not None and status.st_size > max_bytes:
        size = f"{status.st_size / (1 << 20):.0f} MiB"
        raise InputError(f"{path}: {size}; at most {max_bytes >> 20} are read: split the file")
