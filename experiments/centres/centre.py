"""A centre: a folder of images in any of the layouts that labs and public data sets use, read as records with labels.

Layouts:
    csv: `labels.csv` with columns `image` and `label`; images in `images/`, or beside the CSV where there is no such
        folder. Images without a row are kept, without a label.
    matek19, int20, mll23: one folder per class, with the names of those data sets.
    acevedo20: one folder per class; in `ig` and `neutrophil` the prefix of the file name (`MY_`, `SNE_`) is the label.
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.centres import tree
from experiments.centres.class_maps import ClassMap, fold_label, labels_of, make_class_map
from experiments.settings import check_centre_name
from mrcnn.data.images import IMAGE_SUFFIXES
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError

logger = logging.getLogger(__name__)

LAYOUTS = ("auto", "csv", "matek19", "int20", "mll23", "acevedo20", "folders", "unlabelled")
_MAX_NAMED = 10
_ACEVEDO20_MIXED = ("ig", "neutrophil")
_ACEVEDO20_FILE = re.compile(r"(BA|BNE|EO|ERB|IG|LY|MMY|MO|MY|NEUTROPHIL|PLATELET|PMY|SNE)_\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Centre:
    """The images of one lab (a site, a domain)."""

    name: str  # name of the centre, used for files and tables
    root: Path
    layout: str  # one of `LAYOUTS`, never "auto"
    class_map: ClassMap
    records: list[ImageRecord]  # the images, sorted by image_id
    masks: Path | None = None  # folder of label masks, named as the images, or None
    boxes: Path | None = None  # folder of box annotations, or None
    unmapped: dict[str, int] = field(default_factory=dict)  # how many images bear each label that maps to no cell type
    other_files: tuple[Path, ...] = ()  # files among the images that are not images
    inner: str = ""  # folders that an archive wraps the layout in, as a path from `root`; image_ids begin below them

    @property
    def counts(self) -> dict[str, int]:
        """Images of each cell type, in the order of the class map; types without an image are 0."""
        counts = Counter(record.cell_type for record in self.records)
        return {cell_type: counts[cell_type] for cell_type in self.class_map.classes}


def load_centre(
    name: str,
    root: str | os.PathLike,
    layout: str = "auto",
    class_map: str | os.PathLike | dict[str, str] = "thesis13",
    annotations: str | os.PathLike | None = None,
) -> Centre:
    """List the images of a centre with their labels; no image is opened.

    Args:
        name: of the centre.
        root: its folder.
        layout: one of `LAYOUTS`; "auto" tells it from the files and folders that are there.
        class_map: "thesis13", "eleven", "five", a dict from labels to cell types, or a YAML file with one.
        annotations: where masks lie, as it is or from `root`; a folder of label images is no class of the centre.

    Returns:
        The centre. Labels that map to no cell type stay, with `cell_type` "", and count in `unmapped`.

    Raises:
        InputError: if the folder is missing or holds no image, or the CSV file is faulty.
    """
    root = Path(root)
    check_centre_name(name)
    if layout not in LAYOUTS:
        raise InputError(f"centre {name}: layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    if not os.path.isdir(root):  # of Path it would fail for a name that is too long
        raise InputError(f"centre {name}: {root}: no such folder")
    masks_folder = _folder_of_masks(root, annotations)
    *wrappers, folder = tree.unwrap(root, masks_folder)
    if layout == "auto":
        layout = _tell_layout(folder, masks_folder)
        beside = {one.name for one in tree.class_folders(folder, masks_folder) if tree.has_image(one)} - {"images"}
        if layout == "unlabelled" and beside:
            logger.info("%s: the images are those of images/; not read: %s", name, ", ".join(sorted(beside)))
    mapping = make_class_map(class_map, layout)
    if layout == "csv":
        labelled, others = _read_csv_layout(folder, masks_folder)
    elif layout == "unlabelled":
        files = sorted(tree.files_in(_images_folder(folder)))
        labelled = {path: "" for path in files if tree.is_image(path)}
        others = [path for path in files if path not in labelled]
    else:
        labelled, others = _read_folders(folder, layout, masks_folder)
    if not labelled:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"centre {name}: {folder}: no images ({suffixes}) in layout {layout!r}")
    records = [
        ImageRecord(path.relative_to(folder).as_posix(), path, label, mapping.cell_type(label))
        for path, label in labelled.items()
    ]
    unmapped = Counter(r.label for r in records if r.label and not r.cell_type)
    masks, boxes = (
        next((place / part for place in (*wrappers, folder) if (place / part).is_dir()), None)
        for part in ("masks", "annotations")
    )
    centre = Centre(
        name,
        root,
        layout,
        mapping,
        sorted(records, key=lambda record: record.image_id),
        masks=masks,
        boxes=boxes,
        unmapped=dict(sorted(unmapped.items())),
        other_files=tuple(sorted([*others, *(path for wrapper in wrappers for path in tree.files_in(wrapper))])),
        inner="" if folder == root else folder.relative_to(root).as_posix(),
    )
    below = f", which begins in {centre.inner}" if centre.inner else ""
    logger.info("%s: %d images in layout %s%s", name, len(records), layout, below)
    if unmapped:
        listed = ", ".join(f"{label} ({count})" for label, count in centre.unmapped.items())
        logger.info("%s: labels outside %s: %s", name, mapping.name, listed)
    if centre.other_files:
        logger.info("%s: %d files are not images", name, len(centre.other_files))
    return centre


def load_centres(folders: Iterable[Path], *args: Any, **options: Any) -> dict[str, Centre]:
    """The centres in some folders by the folders' names; further arguments as of `load_centre`.

    Raises:
        InputError: if a centre is faulty, or two have the same name.
    """
    centres: dict[str, Centre] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in centres:
            raise InputError(f"{folder}: two centres are called {name}; rename a folder, or take one after the other")
        centres[name] = load_centre(name, folder, *args, **options)
    return centres


def read_columns(path: str | os.PathLike, names: Sequence[str], advice: str) -> list[tuple[int | str, ...]]:
    """Read the columns `names` of a UTF-8 CSV file; `advice` ends the message if it cannot be read.

    Returns:
        For each row that is not blank a tuple of its line number and the texts in the columns, "" where there is none.

    Raises:
        InputError: if the file cannot be read, a column is lacking or there twice, or a row has too many values.
    """
    rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            # Strict, since a quote that is never closed would otherwise take the rest of the file for one text.
            reader = csv.DictReader(handle, restval="", strict=True)
            columns = reader.fieldnames = [column.strip() for column in reader.fieldnames or ()]
            if lacking := [name for name in names if columns.count(name) != 1]:
                shown = ",".join(columns)[:200] or "empty"
                raise InputError(
                    f"{path}: no column {' or '.join(lacking)} in its first line, or two of that name ({shown}); it "
                    f"must be comma-separated with columns {','.join(names)}"
                )
            for row in reader:
                if any(text.strip() for text in row.pop(None, ())):
                    raise InputError(
                        f"{path}: row {reader.line_num} has more values than the {len(columns)} columns; put a text "
                        "that holds a comma into double quotes"
                    )
                rows.append((reader.line_num, *(row[name].strip() for name in names)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error}); save it again as CSV in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from None
    return rows


def shorten(faults: Sequence[str]) -> str:
    """Count and list faults, the first ten of them."""
    more = f" and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
    count = f"{len(faults)} faults: " if len(faults) > 1 else ""
    return count + "; ".join(faults[:_MAX_NAMED]) + more


def _tell_layout(root: Path, masks_folder: Path | None) -> str:
    """Tell the layout of a centre's folder by what is in it."""
    if os.path.lexists(root / "labels.csv"):  # what is no file is refused when it is read
        return "csv"
    folders = tree.class_folders(root, masks_folder)
    names = {fold_label(folder.name) for folder in folders}
    if names and names != {"images"} and not tree.has_image(root / "images"):
        # Names such as "basophil" are anybody's; a data set is known by one that only it uses.
        is_own = {
            "acevedo20": "ig" in names or any(map(_begins_with_acevedo20_file, folders)),
            "mll23": bool(names - labels_of("generic")),
        }
        layouts = ("acevedo20", "matek19", "int20", "mll23")
        return next((one for one in layouts if names <= labels_of(one) and is_own.get(one, True)), "folders")
    if names or tree.has_image(root):
        return "unlabelled"
    raise InputError(f"{root}: empty; a centre holds images/ with labels.csv, or one folder of images per class")


def _read_csv_layout(root: Path, masks_folder: Path | None) -> tuple[dict[Path, str], list[Path]]:
    csv_path, folder = root / "labels.csv", _images_folder(root)
    paths, others = tree.images_below(folder, masks_folder, skip=tree.NOT_CLASSES if folder == root else frozenset())
    labels, row_of, faults = dict.fromkeys(paths, ""), {}, []
    for number, image, label in read_columns(csv_path, ("image", "label"), "layout csv needs it"):
        path = folder / image
        if path not in labels:
            faults.append(f"row {number}: {image[:200]!r} is none of the images")
        elif row_of.setdefault(path, number) != number:
            faults.append(f"row {number}: {image} was named in row {row_of[path]}")
        else:
            labels[path] = label
    if faults:
        raise InputError(f"{csv_path}: {shorten(faults)}; mend the rows or add the files to {folder}")
    # labels.csv lies among the images where there is no folder of them, and is no stray file.
    return labels, [path for path in others if path != csv_path]


def _read_folders(root: Path, layout: str, masks_folder: Path | None) -> tuple[dict[Path, str], list[Path]]:
    labelled, others = {}, tree.files_in(root)
    for folder in tree.class_folders(root, masks_folder):
        paths, others_in_it = tree.images_below(folder, masks_folder)
        others += others_in_it
        labelled |= dict.fromkeys(paths, folder.name)
        if layout == "acevedo20" and folder.name.casefold() in _ACEVEDO20_MIXED:  # neutrophil/SNE_1.jpg -> "SNE"
            prefixes = {path: _ACEVEDO20_FILE.match(path.name) for path in paths}
            labelled |= {path: match[1].upper() for path, match in prefixes.items() if match}
    return labelled, others


def _begins_with_acevedo20_file(folder: Path) -> bool:
    first = next(filter(tree.is_image, folder.iterdir()), None)
    return first is not None and _ACEVEDO20_FILE.match(first.name) is not None


def _folder_of_masks(root: Path, annotations: str | os.PathLike | None) -> Path | None:
    """The folder of label images that the user names, or None; files of outlines may lie among the images."""
    folder = None if annotations is None else tree.locate(annotations, root)
    has_masks = folder is not None and folder.is_dir() and not any(folder.rglob("*.json"))
    return folder.resolve() if has_masks else None


def _images_folder(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root
