"""Groups of images that belong together, such as those of a patient or of a slide, read from a CSV file."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from experiments.csv_columns import read_columns
from mrcnn.errors import InputError

IMAGE_COLUMN = "image"
_MAX_FAULTS = 10


def read_groups(path_to_csv: str | os.PathLike, column: str, keys: Sequence[str], where: str) -> dict[str, str]:
    """Read the group of each image of a centre.

    The file names an image by its key, by its path in `images/`, or by the end of its key if only one image has it
    (`001.png` for `images/a/001.png`). Accented letters may be written in one character or in two.

    Args:
        path_to_csv: a UTF-8 file, comma-separated, with the columns `image` and `column`; others are not read.
        column: the name of the group's column.
        keys: every image of the centre.
        where: what to call the centre or the setting in an error.

    Returns:
        The group of each key, in their order.

    Raises:
        InputError: if the file is missing, not UTF-8 or lacks a column; a row names no image of the centre, or one of
            several; an image has two groups; or images have none. The message counts the faults.
    """
    path = Path(path_to_csv)
    if not column or column == IMAGE_COLUMN:
        raise InputError(f"{where}: {column!r} is no column of groups; name the one of {path} that tells them")
    names = _Names(keys)
    groups: dict[str, str] = {}
    faults = []
    advice = f"{where}: it must hold the column {column}, or name another file"
    for number, image, group in read_columns(path, (IMAGE_COLUMN, column), advice):
        candidates = names.find(image)
        if not image:
            faults.append(f"row {number} names no image")
        elif not candidates:
            faults.append(f"row {number}: {image} is none of the images of the centre")
        elif len(candidates) > 1:
            faults.append(f"row {number}: {image} could be {' or '.join(candidates[:3])}; write the folder too")
        elif group and groups.setdefault(candidates[0], group) != group:
            faults.append(f"row {number}: {image} is in {column} {group}, and in {groups[candidates[0]]} above")
    if faults:
        more = f" and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        count = f"{len(faults)} faults: " if len(faults) > 1 else ""
        raise InputError(f"{where}: {path}: {count}{'; '.join(faults[:_MAX_FAULTS])}{more}; mend the rows")
    lacking = [key for key in keys if key not in groups]
    if lacking:
        raise InputError(
            f"{where}: {path}: {len(lacking)} of {len(keys)} images have no {column}, the first is {lacking[0]}; "
            f"give each image one (its own name, if it belongs with no other)"
        )
    return {key: groups[key] for key in keys}


class _Names:
    """The names by which the file may call images.

    Args:
        keys: of the images.
    """

    def __init__(self, keys: Sequence[str]):
        self._by_key = {_compose(key): key for key in keys}
        self._by_end: dict[str, list[str]] = {}
        for key in keys:
            parts = _compose(key).split("/")
            for start in range(1, len(parts)):
                self._by_end.setdefault("/".join(parts[start:]), []).append(key)

    def find(self, name: str) -> list[str]:
        """The one key that is meant, those that could be, or none."""
        name = _compose(name.replace("\\", "/")).removeprefix("./")
        # labels.csv names images by their path in images/.
        exact = self._by_key.get(name) or self._by_key.get(f"images/{name}")
        return [exact] if exact else self._by_end.get(name, [])


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)
