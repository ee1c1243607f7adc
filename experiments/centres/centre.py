"""Reading a centre: a folder of images in any of the layouts that labs and public data sets use.

Layouts:
    csv: `labels.csv` with columns `image` and `label`; images in `images/`, or beside the CSV where there is
        no such folder. Images without a row are kept, without a label.
    matek19, int20, mll23: one folder per class, with the names of those data sets.
    acevedo20: one folder per class; in `ig` and `neutrophil` the prefix of the file name (`MY_`, `SNE_` ...)
        is the label.
    folders: one folder per class, of any names.
    unlabelled: images in `images/` or directly in the centre's folder. Where `images/` holds images itself, folders
        beside it are taken for masks, results and the like, and not for classes.

In every layout `masks/` (label PNGs) and `annotations/` (boxes) beside the images are noted when present. Archives that
wrap a data set in folders of their own (`PBC_dataset_normal_DIB/basophil/...`) are read where it begins.
"""

import csv
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.centres.class_maps import LAYOUT_MAPS, ClassMap, fold_label, labels_of, make_class_map
from experiments.centres.reannotations import COMPANIONS, Reannotations, log_reannotations, read_reannotations
from mrcnn.data.images import IMAGE_SUFFIXES
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError, escape_unprintable

logger = logging.getLogger(__name__)


NOT_CLASSES = frozenset({"masks", "annotations"})
# Of `.git`, `__MACOSX` and the like: neither classes nor anything else of the centre.
_HIDDEN = (".", "__")
_MAX_WRAPPERS = 4  # the download of Matek-19 has two around its classes


@dataclass(frozen=True)
class Place:
    """What a path given to the command turned out to be.

    Attributes:
        root: the path.
        centres: the centre itself, or the centres in it.
        skipped: names of folders in it that hold no image.
    """

    root: Path
    centres: tuple[Path, ...]
    skipped: tuple[str, ...] = ()


def unwrap(root: Path, masks_folder: Path | None) -> list[Path]:
    """Find where a centre begins: archives often wrap it in folders of their own.

    A folder is such a wrapper if it holds no image and no `labels.csv`, and one folder alone with images in it. That
    folder must not be a class itself, as it is in a centre of a single class: it has no images right inside, unless
    `labels.csv` names them, and no name that a data set gives its cells.

    Args:
        root: the centre's folder.
        masks_folder: where the user says that masks lie, or None.

    Returns:
        The folders from `root` down to where the centre begins; as a rule `root` alone.
    """
    folders = [root]
    while len(folders) <= _MAX_WRAPPERS and (inner := _wrapped_folder(folders[-1], masks_folder)) is not None:
        folders.append(inner)
    return folders


def _wrapped_folder(folder: Path, masks_folder: Path | None) -> Path | None:
    if (folder / "labels.csv").is_file() or has_image(folder):
        return None
    with_images = [inner for inner in class_folders(folder, masks_folder) if holds_image(inner)]
    if len(with_images) != 1:
        return None
    (inner,) = with_images
    is_class = has_known_name(inner) or (has_image(inner) and not (inner / "labels.csv").is_file())
    return None if is_class else inner


def find_centres(root: str | Path) -> Place:
    """Tell whether a folder is a centre or a folder of centres.

    It is a centre if it holds `labels.csv`, images, or a folder that is called as a data set calls a type of cells.
    Else it is a folder of centres if one of the folders in it is such a centre; then every folder in it that holds an
    image counts as one. What is neither is a centre whose classes have names of their own. Folders that archives wrap
    around their content are passed over, see `unwrap`.

    Raises:
        InputError: if there is no such folder.
    """
    root = Path(root)
    if not os.path.isdir(root):  # of Path it would fail for a name that is too long
        raise InputError(f"{root}: no such folder; give a centre's folder, or a folder of centres")
    folder = unwrap(root, None)[-1]
    inside = class_folders(folder)
    # Images right inside a folder say nothing here: they may be those of a class.
    if has_image(folder) or _looks_like_centre(folder) or not any(map(_looks_like_centre, inside)):
        return Place(root, (root,))
    centres = tuple(inner for inner in inside if holds_image(inner))
    return Place(root, centres, tuple(inner.name for inner in inside if inner not in centres))


def _looks_like_centre(root: Path) -> bool:
    folder = unwrap(root, None)[-1]
    is_listed = (folder / "labels.csv").is_file() or has_image(folder / "images")
    return is_listed or any(has_known_name(inner) for inner in class_folders(folder))


def has_known_name(folder: Path) -> bool:
    """Whether the folder is called as a data set calls a type of cells."""
    return any(fold_label(folder.name) in labels_of(layout) for layout in LAYOUT_MAPS)


def class_folders(root: Path, masks_folder: Path | None = None) -> list[Path]:
    """Return the folders right inside `root` that may be classes, sorted."""
    return sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and path.name not in NOT_CLASSES and not path.name.startswith(_HIDDEN)
        if not _is_same(path, masks_folder)
    )


def images_below(
    folder: Path, recursive: bool, skip: frozenset[str] = frozenset(), masks_folder: Path | None = None
) -> tuple[list[Path], list[Path]]:
    """Return the images below `folder`, sorted, and the files that are not images.

    Links to folders are not followed, since they may lead in a circle; a warning names them, and folders that cannot be
    read.

    Args:
        folder: where to look.
        recursive: whether to look in folders inside it too.
        skip: names of folders right inside it that are left out.
        masks_folder: is left out wherever it lies.
    """
    images, others = [], []
    for parent, folders, files in os.walk(folder, onerror=_warn_of_unread):
        # Pruning in place is how os.walk is told where not to go.
        hidden_from = [n for n in folders if n.startswith(_HIDDEN) or (Path(parent) == folder and n in skip)]
        shown = [n for n in folders if n not in hidden_from and not _is_same(Path(parent, n), masks_folder)]
        folders[:] = sorted(shown) if recursive else []
        for link in (path for path in (Path(parent, name) for name in folders) if os.path.islink(path)):
            logger.warning("%s: a link to a folder, which is not followed", escape_unprintable(str(link)))
        for name in files:
            path = Path(parent, name)
            if is_image(path):
                images.append(path)
            elif not name.startswith("."):
                others.append(path)
    return sorted(images), others


def files_in(folder: Path) -> list[Path]:
    """Return the files right inside a folder, hidden ones left out."""
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]


def is_image(path: Path) -> bool:
    """Whether a file has the name of an image; what is in it is not looked at."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def has_image(folder: Path) -> bool:
    """Whether an image lies right inside the folder."""
    return folder.is_dir() and any(is_image(path) for path in folder.iterdir())


def holds_image(folder: Path) -> bool:
    """Whether an image lies in the folder or anywhere below it."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
        if any(is_image(Path(parent, name)) for name in files):
            return True
    return False


def _warn_of_unread(error: OSError) -> None:
    name = escape_unprintable(str(error.filename))
    logger.warning("%s: cannot be read (%s); images in it are left out", name[:300], error.strerror)


def _is_same(path: Path, other: Path | None) -> bool:
    return other is not None and path.resolve() == other.resolve()


MAX_BYTES = 256 * 2**20
_MAX_SHOWN = 200  # characters of a first line


def read_columns(path: str | os.PathLike, names: Sequence[str], advice: str) -> list[tuple[Any, ...]]:
    """Read some columns of a CSV file.

    Args:
        path: a UTF-8 file, with or without byte order mark, comma-separated, the columns' names in its first line.
        names: the columns; others are not read.
        advice: what to do if there is no such file, for the message.

    Returns:
        For each row that is not blank a tuple of its line number and the texts in the columns, "" where there is none.

    Raises:
        InputError: if the file is missing, too large or something else, a column is lacking or there twice, or a row
            has more values than there are columns.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no list of images is; {advice}")
        with open(path, encoding="utf-8-sig", newline="") as handle:
            # Strict, since a quote that is never closed would otherwise take the rest of the file for one text.
            reader = csv.reader(_checked_lines(handle), strict=True)
            columns = [column.strip() for column in next(reader, [])]
            _check_columns(path, columns, names)
            places = [columns.index(name) for name in names]
            rows = []
            for row in reader:
                if len(row) > len(columns) and any(text.strip() for text in row[len(columns) :]):
                    raise InputError(
                        f"{path}: row {reader.line_num} has {len(row)} values, but there are {len(columns)} columns; "
                        "put a text that holds a comma into double quotes"
                    )
                if row:
                    rows.append((reader.line_num, *(row[i].strip() if i < len(row) else "" for i in places)))
            return rows
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {advice}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error}); save it again as CSV in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from None


def _checked_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines, none of which holds what no text has; binary files and UTF-16 are full of it."""
    for line in lines:
        if "\0" in line:
            raise csv.Error("it holds NUL characters")
        yield line


def _check_columns(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    lacking = [column for column in names if column not in columns]
    if lacking:
        shown = ",".join(columns)
        shown = (shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + " ...") or "empty"
        shown = shown if shown.isprintable() else ascii(shown)
        raise InputError(
            f"{path}: no column {' or '.join(lacking)} in its first line ({shown}); it must be comma-separated with "
            f"columns {','.join(names)}"
        )
    twice = [name for name in names if columns.count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]} is there twice; remove or rename one")


LAYOUTS = ("auto", "csv", "matek19", "int20", "mll23", "acevedo20", "folders", "unlabelled")

_ACEVEDO20_FOLDERS = frozenset(
    {"basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet"}
)
_ACEVEDO20_MIXED = ("ig", "neutrophil")
_ACEVEDO20_FILE = re.compile(r"(BA|BNE|EO|ERB|IG|LY|MMY|MO|MY|NEUTROPHIL|PLATELET|PMY|SNE)_\d+", re.IGNORECASE)
_MAX_FAULTS = 10


@dataclass(frozen=True)
class Centre:
    """The images of one lab.

    Attributes:
        name: name of the centre, used for files and tables.
        root: its folder.
        layout: one of `LAYOUTS`, never "auto".
        class_map: names of the cell types and what maps to them.
        records: the images, sorted by key.
        masks: folder of label masks, named as the images, or None.
        boxes: folder of box annotations, or None.
        unmapped: how many images bear each label that maps to no cell type.
        other_files: files among the images that are not images.
        inner: where the layout begins, as a path from `root`: "" for `root` itself, or the folders that an archive
            wraps it in. Keys begin there, so that they are the same with and without a wrapper.
        reannotations: what Matek-19's `annotations.dat` says of the images, or None without one.
    """

    name: str
    root: Path
    layout: str
    class_map: ClassMap
    records: list[ImageRecord]
    masks: Path | None = None
    boxes: Path | None = None
    unmapped: dict[str, int] = field(default_factory=dict)
    other_files: tuple[Path, ...] = ()
    inner: str = ""
    reannotations: Reannotations | None = None

    @property
    def num_other_files(self) -> int:
        """Files among the images that are not images."""
        return len(self.other_files)

    @property
    def counts(self) -> dict[str, int]:
        """Images of each cell type, in the order of the class map; types without an image are 0."""
        counts = Counter(record.cell_type for record in self.records)
        return {cell_type: counts[cell_type] for cell_type in self.class_map.classes}

    @property
    def num_unlabelled(self) -> int:
        """Images for which the centre gives no label."""
        return sum(not record.label for record in self.records)


def load_centre(
    name: str,
    root: str | os.PathLike,
    layout: str = "auto",
    class_map: str | os.PathLike | dict[str, str] = "thesis13",
    annotations: str | os.PathLike | None = None,
) -> Centre:
    """List the images of a centre with their labels; no image is opened.

    Args:
        name: name of the centre.
        root: its folder.
        layout: one of `LAYOUTS`; "auto" tells it from the files and folders that are there.
        class_map: "thesis13", "eleven", "five", a dict from labels to cell types, or a YAML file with one.
        annotations: where the user says that masks lie, as it is or from the centre's folder. A folder of label images
            is neither a class nor are its images the centre's.

    Returns:
        The centre. Labels that map to no cell type stay, with `cell_type` "", and count in `unmapped`.

    Raises:
        InputError: if the folder is missing or holds no image, or the CSV file is faulty; the message counts
            the faults and names the first ten.
    """
    root = Path(root)
    check_centre_name(name)
    if layout not in LAYOUTS:
        raise InputError(f"centre {name}: layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    if not os.path.isdir(root):  # of Path it would fail for a name that is too long
        raise InputError(f"centre {name}: {root}: no such folder")
    masks_folder = _folder_of_masks(root, annotations)
    folders = unwrap(root, masks_folder)
    folder = folders[-1]
    if layout == "auto":
        layout = _tell_layout(folder, masks_folder)
        if layout == "unlabelled":
            _log_folders_not_read(name, folder, masks_folder)
    mapping = make_class_map(class_map, layout)
    if layout == "csv":
        labelled, others = _read_csv_layout(folder, masks_folder)
    elif layout == "unlabelled":
        paths, others = images_below(_images_folder(folder), recursive=False)
        labelled = [(path, "") for path in paths]
    else:
        labelled, others = _read_folders(folder, layout, masks_folder)
    if not labelled:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"centre {name}: {folder}: no images ({suffixes}) in layout {layout!r}")
    records = sorted(
        (ImageRecord(p.relative_to(folder).as_posix(), p, label, mapping.cell_type(label)) for p, label in labelled),
        key=lambda record: record.key,
    )
    others += [path for wrapper in folders[:-1] for path in files_in(wrapper)]
    reannotations = None
    if layout == "matek19":
        reannotations = read_reannotations(folders, records)
        others = [path for path in others if path.name not in COMPANIONS]
    unmapped = Counter(r.label for r in records if r.label and not r.cell_type)
    centre = Centre(
        name,
        root,
        layout,
        mapping,
        records,
        masks=_first_folder(folders, "masks"),
        boxes=_first_folder(folders, "annotations"),
        unmapped=dict(sorted(unmapped.items())),
        other_files=tuple(sorted(others)),
        inner="" if folder == root else folder.relative_to(root).as_posix(),
        reannotations=reannotations,
    )
    _log_summary(centre)
    return centre


def check_centre_name(name: str) -> None:
    """Refuse a name that files cannot have.

    Raises:
        InputError: if it is empty, holds a slash or begins with a dot.
    """
    if not name or "/" in name or "\\" in name or name.startswith("."):
        raise InputError(f"centre name {name!r}: must be usable as a file name")


def detect_layout(root: str | os.PathLike) -> str:
    """Tell the layout of a centre's folder by what is in it.

    Returns:
        One of `LAYOUTS` but "auto".

    Raises:
        InputError: if the folder holds neither `labels.csv`, nor folders, nor images, or `labels.csv` is no file.
    """
    return _tell_layout(unwrap(Path(root), None)[-1], None)


def _tell_layout(root: Path, masks_folder: Path | None) -> str:
    if (root / "labels.csv").is_file():
        return "csv"
    if os.path.lexists(root / "labels.csv"):
        raise InputError(f"{root / 'labels.csv'}: no file that can be read; mend it, or give it another name")
    folders = class_folders(root, masks_folder)
    names = {fold_label(folder.name) for folder in folders}
    if names and names != {"images"} and not has_image(root / "images"):
        if names <= _ACEVEDO20_FOLDERS and ("ig" in names or _has_acevedo20_file(folders)):
            return "acevedo20"
        for layout in ("matek19", "int20", "mll23"):
            # Names such as "basophil" are anybody's; a data set is known by one that only it uses.
            generic = labels_of("generic") if layout == "mll23" else frozenset()
            if names <= labels_of(layout) and names - generic:
                return layout
        return "folders"
    if names or any(is_image(path) for path in root.iterdir()):
        return "unlabelled"
    raise InputError(f"{root}: empty; a centre holds images/ with labels.csv, or one folder of images per class")


def _read_csv_layout(root: Path, masks_folder: Path | None) -> tuple[list[tuple[Path, str]], list[Path]]:
    csv_path = root / "labels.csv"
    folder = _images_folder(root)
    skip = NOT_CLASSES if folder == root else frozenset()
    paths, others = images_below(folder, recursive=True, skip=skip, masks_folder=masks_folder)
    labels: dict[Path, str] = {}
    row_of: dict[Path, int] = {}
    faults = []
    for number, image, label in read_columns(csv_path, ("image", "label"), "layout csv needs it"):
        path = folder / image
        if not image:
            faults.append(f"row {number} names no image")
        elif ".." in Path(image).parts or Path(image).is_absolute():
            faults.append(f"row {number}: {image} lies outside {folder}")
        elif path in row_of:
            faults.append(f"row {number}: {image} was named in row {row_of[path]}")
        elif not _is_file(path):
            faults.append(f"row {number}: {image:.200} is missing")
        elif not is_image(path):
            faults.append(f"row {number}: {image} is not an image file")
        else:
            labels[path], row_of[path] = label, number
    if faults:
        raise InputError(f"{csv_path}: {_shorten(faults)}; mend the rows or add the files to {folder}")
    # labels.csv lies among the images where there is no folder of them, and is no stray file.
    return [(path, labels.get(path, "")) for path in paths], [path for path in others if path != csv_path]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long to be one
        return False


def _read_folders(root: Path, layout: str, masks_folder: Path | None) -> tuple[list[tuple[Path, str]], list[Path]]:
    labelled, others = [], files_in(root)
    for folder in class_folders(root, masks_folder):
        paths, others_in_it = images_below(folder, recursive=True, masks_folder=masks_folder)
        others += others_in_it
        labelled += [(p, _acevedo20_label(folder.name, p) if layout == "acevedo20" else folder.name) for p in paths]
    return labelled, others


def _acevedo20_label(folder: str, path: Path) -> str:
    """The folder's name, or in folders of several types the file's prefix: neutrophil/SNE_1.jpg -> "SNE"."""
    match = _ACEVEDO20_FILE.match(path.name)
    return match[1].upper() if match and folder.casefold() in _ACEVEDO20_MIXED else folder


def _has_acevedo20_file(folders: list[Path]) -> bool:
    first_images = (next((p for p in folder.iterdir() if is_image(p)), None) for folder in folders)
    return any(path and _ACEVEDO20_FILE.match(path.name) for path in first_images)


def _folder_of_masks(root: Path, annotations: str | os.PathLike | None) -> Path | None:
    """The folder of label images that the user names, or None; files of outlines may lie among the images."""
    if annotations is None:
        return None
    folder = next((path for path in (Path(annotations), root / annotations) if path.exists()), None)
    if folder is None or not folder.is_dir() or any(folder.rglob("*.json")):
        return None
    return folder


def _first_folder(folders: list[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_dir()), None)


def _images_folder(root: Path) -> Path:
    folder = root / "images"
    return folder if folder.is_dir() else root


def _shorten(faults: list[str]) -> str:
    more = f" and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
    count = f"{len(faults)} faults: " if len(faults) > 1 else ""
    return count + "; ".join(faults[:_MAX_FAULTS]) + more


def _log_summary(centre: Centre) -> None:
    below = f", which begins in {centre.inner}" if centre.inner else ""
    logger.info("%s: %d images in layout %s%s", centre.name, len(centre.records), centre.layout, below)
    if centre.unmapped:
        listed = ", ".join(f"{label} ({count})" for label, count in centre.unmapped.items())
        logger.info("%s: labels outside %s: %s", centre.name, centre.class_map.name, listed)
    if centre.num_other_files:
        logger.info("%s: %d files are not images", centre.name, centre.num_other_files)
    if centre.reannotations:
        log_reannotations(centre.name, centre.reannotations)


def _log_folders_not_read(name: str, root: Path, masks_folder: Path | None) -> None:
    """Say which folders of images lie beside `images/` and are left alone."""
    beside = [folder.name for folder in class_folders(root, masks_folder) if folder.name != "images"]
    beside = [folder for folder in beside if has_image(root / folder)]
    if beside:
        logger.info("%s: the images are those of images/; not read: %s", name, ", ".join(beside))
