"""Folders of images: what lies in one, where a centre begins in it, and which centres it holds.

Files are named by their paths from the folder, with "/" between parts; so are folders, which end in "/" or are "".
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from experiments.centres.class_maps import LAYOUT_MAPS, fold_label, labels_of
from mrcnn.data.images import IMAGE_SUFFIXES
from mrcnn.files.errors import InputError, escape_unprintable

logger = logging.getLogger(__name__)

_NOT_CLASSES = ("masks", "nuclei", "annotations")
_HIDDEN = (".", "__")  # `.git`, `__MACOSX` and the like
_MAX_WRAPPERS = 4  # the download of Matek-19 has two around its classes


def list_files(root: Path, masks_folder: Path | None = None, links: int = 1) -> tuple[list[str], list[str]]:
    """Images, by their suffixes, and other files below a folder, without hidden ones, masks and annotations.

    `masks_folder`, a resolved path, is left out too. Links to folders are followed on the first `links` levels alone,
    since they may lead in a circle; a warning names others, and folders that cannot be read.
    """

    def warn(path: str | Path, reason: str) -> None:
        logger.warning("%s: %s; images in it are left out", escape_unprintable(str(path))[:300], reason)

    images, others = [], []
    for parent, folders, files in os.walk(root, onerror=lambda e: warn(e.filename, str(e.strerror)), followlinks=True):
        inner = [Path(parent, name) for name in folders if not name.startswith(_HIDDEN) and name not in _NOT_CLASSES]
        inner = [path for path in inner if path.resolve() != masks_folder]
        too_deep = [path for path in inner if path.is_symlink() and len(path.relative_to(root).parts) > links]
        for path in too_deep:
            warn(path, "a link to a folder, which is not followed")
        folders[:] = [path.name for path in inner if path not in too_deep]  # in place: so os.walk is told where to go
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            (images if is_image else others).append(path.relative_to(root).as_posix())
    return sorted(images), sorted(others)


def by_folder(names: Iterable[str], base: str) -> dict[str, list[str]]:
    """Files below the folder `base` by the folder right inside it that they are in, "" for none."""
    groups = defaultdict(list)
    for name in names:
        if name.startswith(base):
            folder, is_deeper, _ = name[len(base) :].partition("/")
            groups[folder if is_deeper else ""].append(name)
    return dict(groups)


def find_base(images: list[str], others: list[str], base: str = "") -> str:
    """The folder in which a centre begins, from `base` down past those that archives wrap it in.

    A wrapper holds no image and no `labels.csv`, and one folder alone with images in it. That folder must not be a
    class itself: it has no images right inside, unless `labels.csv` names them, and no name of a data set's cells.
    """
    for _ in range(_MAX_WRAPPERS):
        inside = by_folder(images, base)
        if len(inside) != 1 or "" in inside or f"{base}labels.csv" in others:
            break
        (name,) = inside
        inner = f"{base}{name}/"
        if _is_known(name) or ("" in by_folder(images, inner) and f"{inner}labels.csv" not in others):
            break
        base = inner
    return base


def find_centres(root: str | Path) -> tuple[list[Path], list[str]]:
    """The centres that a path leads to, itself or folders in it, and the folders in it that hold no image.

    It is a centre if it holds `labels.csv`, images, or a folder that is called as a data set calls a type of cells.
    Else it is a folder of centres if one of the folders in it is such a centre; then every folder in it that holds an
    image counts as one. What is neither is a centre whose classes have names of their own.
    """
    root = Path(root)
    if not os.path.isdir(root):  # of Path it would fail for a name that is too long
        raise InputError(f"{root}: no such folder; give a centre's folder, or a folder of centres")
    images, others = list_files(root, links=2)
    base = find_base(images, others)
    inside = by_folder(images, base)
    # Images right inside a folder say nothing here: they may be those of a class.
    is_centre = "" in inside or _looks_like_centre(images, others, base)
    if is_centre or not any(_looks_like_centre(images, others, f"{base}{name}/") for name in inside):
        return [root], []
    return [root / base / name for name in inside], sorted(by_folder(others, base).keys() - inside.keys() - {""})


def _looks_like_centre(images: list[str], others: list[str], folder: str) -> bool:
    base = find_base(images, others, folder)
    has_images = "" in by_folder(images, f"{base}images/")
    return f"{base}labels.csv" in others or has_images or any(map(_is_known, by_folder(images, base)))


def _is_known(name: str) -> bool:
    return any(fold_label(name) in labels_of(layout) for layout in LAYOUT_MAPS)


def locate(path: str | os.PathLike, root: Path) -> Path | None:
    """What the user's path leads to, as it is or from the centre's folder; None if nothing is there."""
    return next((found for found in (Path(path), root / path) if found.exists()), None)
