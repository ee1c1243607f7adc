"""Folders of images: where a centre begins, the centres in a folder, and which folders in one may be its classes."""

import logging
import os
from pathlib import Path

from experiments.centres.class_maps import LAYOUT_MAPS, fold_label, labels_of
from mrcnn.data.images import IMAGE_SUFFIXES
from mrcnn.files.errors import InputError, escape_unprintable

logger = logging.getLogger(__name__)

NOT_CLASSES = frozenset({"masks", "annotations"})
_HIDDEN = (".", "__")  # `.git`, `__MACOSX` and the like
_MAX_WRAPPERS = 4  # the download of Matek-19 has two around its classes


def find_centres(root: str | Path) -> tuple[list[Path], list[str]]:
    """The centres that a path leads to, itself or folders in it, and the folders in it that hold no image.

    It is a centre if it holds `labels.csv`, images, or a folder that is called as a data set calls a type of cells.
    Else it is a folder of centres if one of the folders in it is such a centre; then every folder in it that holds an
    image counts as one. What is neither is a centre whose classes have names of their own.
    """
    root = Path(root)
    if not os.path.isdir(root):  # of Path it would fail for a name that is too long
        raise InputError(f"{root}: no such folder; give a centre's folder, or a folder of centres")
    folder = unwrap(root)[-1]
    inside = class_folders(folder)
    # Images right inside a folder say nothing here: they may be those of a class.
    if has_image(folder) or _looks_like_centre(folder) or not any(map(_looks_like_centre, inside)):
        return [root], []
    centres = [inner for inner in inside if _holds_image(inner)]
    return centres, [inner.name for inner in inside if inner not in centres]


def _looks_like_centre(root: Path) -> bool:
    folder = unwrap(root)[-1]
    is_listed = (folder / "labels.csv").is_file() or has_image(folder / "images")
    return is_listed or any(_has_known_name(inner) for inner in class_folders(folder))


def unwrap(root: Path, masks_folder: Path | None = None) -> list[Path]:
    """The folders from `root` down to where the centre begins, past those that archives wrap it in.

    A wrapper holds no image and no `labels.csv`, and one folder alone with images in it. That folder must not be a
    class itself: it has no images right inside, unless `labels.csv` names them, and no name of a data set's cells.
    """
    folders = [root]
    while len(folders) <= _MAX_WRAPPERS and not ((folders[-1] / "labels.csv").is_file() or has_image(folders[-1])):
        with_images = [inner for inner in class_folders(folders[-1], masks_folder) if _holds_image(inner)]
        if len(with_images) != 1:
            break
        (inner,) = with_images
        if _has_known_name(inner) or (has_image(inner) and not (inner / "labels.csv").is_file()):
            break
        folders.append(inner)
    return folders


def _has_known_name(folder: Path) -> bool:
    return any(fold_label(folder.name) in labels_of(layout) for layout in LAYOUT_MAPS)


def class_folders(root: Path, masks_folder: Path | None = None) -> list[Path]:
    """The folders right inside `root` that may be classes, sorted; `masks_folder`, a resolved path, is none."""
    folders = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith(_HIDDEN))
    return sorted(path for path in folders if path.name not in NOT_CLASSES and path.resolve() != masks_folder)


def images_below(
    folder: Path, masks_folder: Path | None = None, skip: frozenset[str] = frozenset()
) -> tuple[list[Path], list[Path]]:
    """Images and other files below `folder`, without folders of a name in `skip` right inside it.

    Links to folders are not followed, since they may lead in a circle; a warning names them, and unreadable folders.
    """
    images, others = [], []
    for parent, folders, files in os.walk(folder, onerror=_warn_of_unread):
        inner = [Path(parent, name) for name in folders if not name.startswith(_HIDDEN)]
        inner = [path for path in inner if path.resolve() != masks_folder]
        inner = [path for path in inner if path.parent != folder or path.name not in skip]
        for link in filter(os.path.islink, inner):
            logger.warning("%s: a link to a folder, which is not followed", escape_unprintable(str(link)))
        folders[:] = sorted(path.name for path in inner)  # in place: so os.walk is told where to go
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            (images if is_image(path) else others).append(path)
    return sorted(images), others


def files_in(folder: Path) -> list[Path]:
    """Files right inside a folder, hidden ones left out."""
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]


def is_image(path: Path) -> bool:
    """Whether a file has the name of an image; what is in it is not looked at."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def has_image(folder: Path) -> bool:
    """Whether an image lies right inside the folder."""
    return folder.is_dir() and any(is_image(path) for path in folder.iterdir())


def _holds_image(folder: Path) -> bool:
    """Whether an image lies in the folder or anywhere below it."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
        if any(is_image(Path(parent, name)) for name in files):
            return True
    return False


def _warn_of_unread(error: OSError) -> None:
    name = escape_unprintable(str(error.filename))
    logger.warning("%s: cannot be read (%s); images in it are left out", name[:300], error.strerror)


def locate(path: str | os.PathLike, root: Path) -> Path | None:
    """What the user's path leads to, as it is or from the centre's folder; None if nothing is there."""
    return next((found for found in (Path(path), root / path) if found.exists()), None)
