"""Checks that results can be written where they are asked for, before the work that makes them."""

import os
from pathlib import Path

from mrcnn.files.errors import InputError

# Bytes. File systems take 255, and a file or folder has a longer name than its own while it is being written.
LONGEST_NAME = 240


def is_file_name(text: str) -> bool:
    """Whether a name from a file can be part of a file's name."""
    return bool(text) and text.isprintable() and not text.startswith(".") and not set("/\\") & set(text)


def check_output_file(path: str | os.PathLike, option: str = "-o") -> None:
    """Refuse a place where no file can be written or replaced; `option` is how the user named it in the error."""
    # A device would be replaced by a file, since results are written under another name and moved.
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{option} {path}: is {'a folder' if os.path.isdir(path) else 'no file'}; name a file")
    _check_can_be_made(path, option)


def check_output_folder(path: str | os.PathLike, option: str = "-o") -> None:
    """Refuse a place where no folder can be made, or a folder that must not be written to; as `check_output_file`."""
    if not os.path.isdir(path):
        if os.path.lexists(path):
            raise InputError(f"{option} {path}: is a file; name a folder")
        _check_can_be_made(path, option)
    elif not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: this folder must not be written to; choose another place")


def _check_can_be_made(path: str | os.PathLike, option: str) -> None:
    """Check the names that are not there yet, and the nearest folder above that is."""
    place = Path(os.path.abspath(path))
    names = [place.name]
    while not os.path.lexists(place := place.parent):
        names.append(place.name)
    if not os.path.isdir(place):
        raise InputError(f"{option} {path}: {place} is a file, and nothing can lie below it; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: the folder {place} must not be written to; choose another place")
    if any(len(os.fsencode(name)) > LONGEST_NAME for name in names):
        raise InputError(f"{option} {path}: a name of more than {LONGEST_NAME} bytes; choose a shorter one")
