"""Detectors that ship with the package: where they lie, and whether the files of a detector are whole.

Nothing here imports TensorFlow.
"""

import os
import re
from importlib import resources
from pathlib import Path

from mrcnn.files.errors import InputError
from mrcnn.files.provenance import file_hash

DEFAULT = "smear-small"
SUMS = "SHA256SUMS"  # as of `sha256sum`
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")


def models_folder() -> Path:
    """Where the detectors that ship with `aecfe` lie, each in a folder of its name."""
    return Path(str(resources.files("aecfe"))) / "models"


def shipped_detector(name: str = DEFAULT) -> Path | None:
    """The folder of the detector that ships under this name, or None if there is none."""
    folder = models_folder() / name
    return folder if re.fullmatch(r"[\w-]+", name) and folder.is_dir() else None


def find_detector(detector: str | os.PathLike) -> Path:
    """The folder of a detector: a folder, or the name of one that ships. A folder of that name wins."""
    return (None if Path(detector).exists() else shipped_detector(str(detector))) or Path(detector)


def write_sums(folder: Path, *names: str) -> None:
    """Write the SHA-256 of files in a folder to its `SHA256SUMS`."""
    lines = [f"{file_hash(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Compare files with the folder's `SHA256SUMS`, if it has one; an InputError names the first that differs."""
    path, advice = folder / SUMS, "install aecfe again, or copy the detector's folder again"
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{path}: damaged ({line[:60]!a} is no SHA-256 and name of a file); {advice}")
        file = folder / match[2]
        if not file.is_file() or file_hash(file) != match[1]:
            raise InputError(f"{file}: damaged, not the file that {SUMS} tells of; {advice}")
