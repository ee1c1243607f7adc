"""A centre: a folder of images in any of the layouts that labs and public data sets use, read as records with labels.

Layouts:
    csv: `labels.csv` with columns `image` and `label`; images in `images/`, or beside the CSV where there is no such
        folder. Images without a row are kept, without a label.
    matek19, int20, mll23: one folder per class, with the names of those data sets.
    acevedo20: one folder per class; in `ig` and `neutrophil` the prefix of the file name (`MY_`, `SNE_`) is the label.
    folders: one folder per class, of any names.
    unlabelled: images in `images/` or directly in the centre's folder. Where `images/` holds images itself, folders
        beside it are taken for masks, results and the like, and not for classes.

In every layout `masks/` and `nuclei/` (label PNGs) and `annotations/` (boxes) beside the images are noted when present.
Archives that wrap a data set in folders of their own (`PBC_dataset_normal_DIB/basophil/...`) are read where it begins.
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
    other_files: tuple[str, ...] = ()  # files that are not images, as paths from `root`
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
    masks_folder = None if annotations is None else tree.locate(annotations, root)
    if masks_folder is not None and (masks_folder.is_file() or any(masks_folder.rglob("*json"))):
        masks_folder = None  # outlines may lie among the images
    images, others = tree.list_files(root, masks_folder and masks_folder.resolve())
    base = tree.find_base(images, others)
    if layout == "auto":
        layout = _tell_layout(root / base, images, base)
    mapping = make_class_map(class_map, layout)
    folder = f"{base}images/" if (root / base / "images").is_dir() else base
    if layout == "csv":
        labelled = _read_labels(root, base, folder, images)
        others = [name for name in others if name != f"{base}labels.csv"]
    elif layout == "unlabelled":
        labelled = dict.fromkeys(tree.by_folder(images, folder).get("", ()), "")
    else:
        labelled = _name_folders(tree.by_folder(images, base), layout)
    if not labelled:
        what = f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in layout {layout!r}"
        advice = "a centre holds images/, or one folder of images per class"
        raise InputError(f"centre {name}: {root / base}: {what}; {advice}")
    records = [
        ImageRecord(image.removeprefix(base), root / image, label, mapping.cell_type(label))
        for image, label in labelled.items()
    ]
    unmapped = Counter(r.label for r in records if r.label and not r.cell_type)
    places = [root.joinpath(*base.split("/")[:depth]) for depth in range(base.count("/") + 1)]
    centre = Centre(
        name,
        root,
        layout,
        mapping,
        sorted(records, key=lambda record: record.image_id),
        masks=next((place / "masks" for place in places if (place / "masks").is_dir()), None),
        boxes=next((place / "annotations" for place in places if (place / "annotations").is_dir()), None),
        unmapped=dict(sorted(unmapped.items())),
        other_files=tuple(others),
        inner=base.rstrip("/"),
    )
    begins = f", which begins in {centre.inner}" if base else ""
    logger.info("%s: %d images in layout %s%s", name, len(records), layout, begins)
    if not_read := sorted(tree.by_folder((image for image in images if image not in labelled), base)):
        folders = ", ".join(str(root / base / one) for one in not_read)
        logger.info("%s: images that are not read are in %s", name, folders)
    if unmapped:
        listed = ", ".join(f"{label} ({count})" for label, count in centre.unmapped.items())
        logger.info("%s: labels outside %s: %s", name, mapping.name, listed)
    if others:
        logger.info("%s: %d files are not images", name, len(others))
    return centre


def load_centres(folders: Iterable[Path], *args: Any, **options: Any) -> dict[str, Centre]:
    """The centres in some folders by the folders' names, each once; further arguments as of `load_centre`."""
    centres: dict[str, Centre] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in centres:
            raise InputError(f"{folder}: two centres are called {name}; rename a folder, or take one after the other")
        centres[name] = load_centre(name, folder, *args, **options)
    return centres


def read_columns(path: str | os.PathLike, names: Sequence[str], advice: str) -> list[tuple[int | str, ...]]:
    """Read the columns `names` of a UTF-8 CSV file: of each row not blank its line number and its texts.

    A text is "" where there is none. A file that cannot be read, for which `advice` ends the message, and one that
    lacks a column, has it twice, or has a row with too many values, is refused.
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


def _tell_layout(folder: Path, images: list[str], base: str) -> str:
    """Tell the layout of a centre's folder by what is in it."""
    if os.path.lexists(folder / "labels.csv"):  # what is no file is refused when it is read
        return "csv"
    inside = tree.by_folder(images, base)
    names = {fold_label(name) for name in inside.keys() - {""}}
    if not names or names == {"images"} or "" in tree.by_folder(images, f"{base}images/"):
        return "unlabelled"
    # Names such as "basophil" are anybody's; a data set is known by one that only it uses.
    is_own = {
        "acevedo20": "ig" in names or any(_match_acevedo20(files[0]) for files in inside.values()),
        "mll23": bool(names - labels_of("generic")),
    }
    layouts = ("acevedo20", "matek19", "int20", "mll23")
    return next((one for one in layouts if names <= labels_of(one) and is_own.get(one, True)), "folders")


def _read_labels(root: Path, base: str, folder: str, images: list[str]) -> dict[str, str]:
    """The label of each image in `folder` as `labels.csv` has it, "" for none."""
    path = root / base / "labels.csv"
    labels, row_of, faults = {name: "" for name in images if name.startswith(folder)}, {}, []
    for number, image, label in read_columns(path, ("image", "label"), "layout csv needs it"):
        name = Path(folder, image).as_posix()
        if name not in labels:
            faults.append(f"row {number}: {image[:200]!r} is none of the images")
        elif row_of.setdefault(name, number) != number:
            faults.append(f"row {number}: {image} was named in row {row_of[name]}")
        else:
            labels[name] = label
    if faults:
        raise InputError(f"{path}: {shorten(faults)}; mend the rows or add the files to {root / folder}")
    return labels


def _name_folders(inside: dict[str, list[str]], layout: str) -> dict[str, str]:
    """The label of each image by the folder that it is in; in some of Acevedo-20 neutrophil/SNE_1.jpg is "SNE"."""
    labels = {}
    for folder in inside.keys() - {""}:
        labels |= dict.fromkeys(inside[folder], folder)
        if layout == "acevedo20" and folder.casefold() in _ACEVEDO20_MIXED:
            labels |= {name: match[1].upper() for name in inside[folder] if (match := _match_acevedo20(name))}
    return labels


def _match_acevedo20(name: str) -> re.Match | None:
    return _ACEVEDO20_FILE.match(name.rpartition("/")[2])
