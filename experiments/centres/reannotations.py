"""Matek-19's `annotations.dat`: what experts called each image at first, and some of them again.

A line holds the path of an image below the class folders, its annotation, and what it was called when it was shown
again, once or twice: `BAS/BAS_0021.tiff BAS UNC UNC`. `nan` stands for no re-annotation, `UNC` for an image that could
not be assigned then. The file is used to check the folders and never overrules them: images that a user has moved
keep the label of their folder.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from experiments.centres.class_maps import fold_label
from mrcnn.data.images import IMAGE_SUFFIXES
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError
from mrcnn.files.ordinary_files import check_ordinary_file

logger = logging.getLogger(__name__)

FILE = "annotations.dat"
COMPANIONS = frozenset({FILE, "abbreviations.txt"})  # files of the data set that are no images
_UNASSIGNED = "unc"
_ABSENT = frozenset({"", "nan", "none", "na", "-"})
_BREAK = re.compile(r"[\s,;]+")
# The path may hold blanks: it ends with the suffix of an image that a break follows.
_LINE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))}))[\"']?[\s,;]+(.+)", re.IGNORECASE)
_MAX_NAMED = 10
_MAX_BYTES = 1 << 26  # the published file has half a MB


@dataclass(frozen=True)
class Reannotations:
    """What `annotations.dat` says of the images of a centre.

    Attributes:
        path: the file.
        num_entries: images that it names.
        differences: by key, the folder's label and the annotation, of images where these are not the same.
        repeated: by key, the one or two re-annotations of images that have any.
        renamed: keys of those that were then called another type than their folder's.
        unassigned: keys of those that could not be assigned then.
        without_entry: keys of images that the file does not name.
        without_image: paths in the file for which there is no image.
        not_understood: numbers of the lines that have another form, or contradict an earlier one.
    """

    path: Path
    num_entries: int
    differences: dict[str, tuple[str, str]]
    repeated: dict[str, tuple[str, ...]]
    renamed: tuple[str, ...]
    unassigned: tuple[str, ...]
    without_entry: tuple[str, ...]
    without_image: tuple[str, ...]
    not_understood: tuple[int, ...]


def read_reannotations(folders: Sequence[Path], records: Sequence[ImageRecord]) -> Reannotations | None:
    """Read `annotations.dat` and compare it with the folders of the images.

    A line belongs to the image of its folder and name, whatever their suffixes (images are often saved in another
    format). A line without such an image belongs to the image of its name in another folder, if name and line are the
    only ones of that name.

    Args:
        folders: where the file may lie; the first that has it counts.
        records: images of the centre, labelled by their folders.

    Returns:
        What it says, or None if there is no such file or it cannot be read.
    """
    path = next((folder / FILE for folder in folders if os.path.lexists(folder / FILE)), None)
    if path is None:
        return None
    try:
        check_ordinary_file(path, max_bytes=_MAX_BYTES)
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except InputError as error:
        logger.warning("%s; the folders alone give the labels", error)
        return None
    except OSError as error:
        logger.warning("%s: cannot be read (%s); the folders alone give the labels", path, error.strerror)
        return None
    entries, not_understood = _parse(lines)
    entry_of = _match(entries, records)
    differences, repeated, renamed, unassigned = {}, {}, [], []
    for record in records:
        if record.key not in entry_of:
            continue
        annotation, *again = entries[entry_of[record.key]]
        own = fold_label(record.label)
        if annotation and fold_label(annotation) != own:
            differences[record.key] = (record.label, annotation)
        opinions = [label for label in again if label]
        if opinions:
            repeated[record.key] = tuple(opinions)
            named = {fold_label(label) for label in opinions}
            renamed += [record.key] if named - {own, _UNASSIGNED} else []
            unassigned += [record.key] if _UNASSIGNED in named else []
    matched = set(entry_of.values())
    return Reannotations(
        path,
        len(entries),
        differences,
        repeated,
        tuple(renamed),
        tuple(unassigned),
        without_entry=tuple(record.key for record in records if record.key not in entry_of),
        without_image=tuple(name for name in entries if name not in matched),
        not_understood=tuple(not_understood),
    )


def log_reannotations(centre: str, found: Reannotations) -> None:
    """Say what the file says; where it contradicts the folders as a warning."""
    logger.info(
        "%s: %s: %d of its %d images were annotated again, %d of them as another type, %d could not be assigned",
        *(centre, FILE, len(found.repeated), found.num_entries, len(found.renamed), len(found.unassigned)),
    )
    if found.differences:
        named = [f"{key} ({annotation})" for key, (_, annotation) in found.differences.items()]
        logger.warning(
            "%s: %d images lie in another folder than %s says and keep the folder's label: %s",
            *(centre, len(named), FILE, shorten(named)),
        )
    for what, items in (
        ("images of the centre are not in it", found.without_entry),
        ("of its images are missing", found.without_image),
        ("of its lines are not understood", [f"line {number}" for number in found.not_understood]),
    ):
        if items:
            logger.info("%s: %s: %d %s: %s", centre, FILE, len(items), what, shorten(items))


def shorten(items: Sequence[str]) -> str:
    """List the first ten."""
    return ", ".join(items[:_MAX_NAMED]) + (", ..." if len(items) > _MAX_NAMED else "")


def _parse(lines: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], list[int]]:
    """Return (annotation, re-annotation, re-annotation) of each path, "" where absent, and lines not understood."""
    entries: dict[str, tuple[str, ...]] = {}
    not_understood = []
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line.strip())
        labels = [label.strip("\"'") for label in _BREAK.split(match[2].strip())] if match else []
        if not any(labels):
            # The names of the columns may stand first.
            if line.strip() and not line.lstrip().startswith("#") and number > 1:
                not_understood.append(number)
            continue
        path = match[1].strip("\"' ").replace("\\", "/")
        given = tuple("" if label.casefold() in _ABSENT else label for label in [*labels, "", ""][:3])
        if len(labels) > 3 or entries.setdefault(path, given) != given:
            not_understood.append(number)
    return entries, not_understood


def _match(entries: dict[str, tuple[str, ...]], records: Sequence[ImageRecord]) -> dict[str, str]:
    """Return the path in the file of each image's key."""
    by_folder: dict[tuple[str, str], str] = {}
    for path in entries:
        by_folder.setdefault((fold_label(PurePosixPath(path).parent.name), _stem(path)), path)
    entry_of = {
        record.key: by_folder[fold_label(record.label), _stem(record.key)]
        for record in records
        if (fold_label(record.label), _stem(record.key)) in by_folder
    }
    taken = set(entry_of.values())
    names = Counter(_stem(record.key) for record in records)
    lines = Counter(map(_stem, entries))
    by_name = {_stem(path): path for path in entries if path not in taken and lines[_stem(path)] == 1}
    for record in records:
        name = _stem(record.key)
        if record.key not in entry_of and names[name] == 1 and name in by_name:
            entry_of[record.key] = by_name[name]
    return entry_of


def _stem(path: str) -> str:
    """The file's name without suffixes of images: some copies end in `.tiff.tiff`."""
    name = PurePosixPath(path).name.casefold()
    while (suffix := PurePosixPath(name).suffix) in IMAGE_SUFFIXES:
        name = name.removesuffix(suffix)
    return name
