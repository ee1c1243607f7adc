"""The files of `aecfe features`: their names, whether they may be written, and the table of cells and images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from experiments.centres import check_centre_name
from experiments.output_paths import check_output_file
from mrcnn.atomic import atomic_path
from mrcnn.data.records import ImageRecord
from mrcnn.errors import InputError
from mrcnn.feature_store import UNREADABLE, is_unreadable
from mrcnn.json_values import parse_json
from mrcnn.plain_hdf5 import read_note

FOUND, MISSED = "found", "missed"  # status beside UNREADABLE
# A centre's images often lie in a folder of this name, whose own name says nothing.
IMAGES_FOLDER = "images"
PROVENANCE = "provenance"
BOX = ("y1", "x1", "y2", "x2")
CSV_COLUMNS = ("cell", "key", "centre", "image", "status", "reason", "score", *BOX, "detections")

# Of what is known by its hash, which says nothing to a person.
_DIFFERENT = {"detector": "another detector", "autoencoder": "another autoencoder or none", "images": "other images"}


@dataclass(frozen=True)
class FeatureFiles:
    """What one call writes; None leaves that file out.

    Attributes:
        h5ad: a vector for each cell.
        store: feature store of the cells.
        csv: a row for each cell, and one for each image without a cell.
        overlay: picture of some images with what was found on them.
    """

    h5ad: Path
    store: Path
    csv: Path | None
    overlay: Path | None

    @classmethod
    def beside(cls, output: str | os.PathLike, *, csv: bool = True, overlay: bool = True) -> "FeatureFiles":
        """Name the files after the `.h5ad` file.

        Raises:
            InputError: if it has another ending.
        """
        h5ad = Path(output)
        if h5ad.suffix.lower() != ".h5ad":
            raise InputError(f"-o {output}: the name must end in .h5ad; the other files are named after it")
        table, picture = h5ad.with_suffix(".csv"), h5ad.with_suffix(".overlay.png")
        return cls(h5ad, h5ad.with_suffix(".h5"), table if csv else None, picture if overlay else None)

    def listed(self) -> list[Path]:
        """The files, in the order in which to look at them."""
        return [path for path in (self.h5ad, self.csv, self.overlay, self.store) if path is not None]

    def check(self, images: Sequence[ImageRecord]) -> None:
        """Refuse places where a file cannot be written, or would be taken for one of the images.

        Args:
            images: what will be searched.

        Raises:
            InputError: naming the place.
        """
        for path in self.listed():
            check_output_file(path)
        folders = {os.path.dirname(os.path.abspath(image.path)) for image in images}
        if self.overlay is not None and os.path.dirname(os.path.abspath(self.overlay)) in folders:
            raise InputError(
                f"-o {self.h5ad}: {self.overlay.name} would lie among the images, and be taken for one of them the "
                "next time; write to another folder, or give --no-overlay"
            )


def centre_name(images: Sequence[ImageRecord], given: str | None = None) -> str:
    """The centre that images belong to: the given name, or that of the deepest folder that holds all of them.

    Where this folder is called `images`, the one above gives its name.

    Args:
        images: of `find_images`.
        given: by the user, or None.

    Raises:
        InputError: if the name cannot be used.
    """
    first = images[0]
    folder = Path(os.path.abspath(first.path)).parents[len(PurePosixPath(first.key).parts) - 1]
    name = given
    if name is None:
        name = folder.parent.name if folder.name.lower() == IMAGES_FOLDER else folder.name
    try:
        check_centre_name(name)
        name.encode()
    except (InputError, UnicodeEncodeError):
        source = f"--centre {given!r}" if given is not None else f"{ascii(str(folder))}"
        raise InputError(f"{source}: gives no name that a centre can have; give --centre NAME") from None
    return name


def read_provenance(path: Path) -> dict[str, Any]:
    """What an `.h5ad` file of `aecfe features` says of its origin.

    Raises:
        InputError: if it is no such file.
    """
    try:
        provenance = parse_json(read_note(path, f"uns/{PROVENANCE}"))
        if isinstance(provenance["identity"], dict) and isinstance(provenance["counts"], dict):
            return provenance
    except (KeyError, TypeError, ValueError):  # InputError is one
        pass
    raise InputError(f"{path}: was not written by aecfe features; give another -o, or --overwrite to replace it")


def check_same_inputs(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a finished file that was made of something else.

    Args:
        path: the file.
        there: its identity, what decides what is in it.
        wanted: what would be made now.

    Raises:
        InputError: naming all that differs.
    """
    different = [
        _DIFFERENT.get(name, f"{name.replace('_', ' ')} {there.get(name)!r}, not {value!r}")
        for name, value in wanted.items()
        if there.get(name) != value
    ]
    if different:
        raise InputError(
            f"{path}: is there already, made with {'; '.join(different)}; give another -o, or --overwrite to make it "
            "again"
        )


def write_cell_table(path: Path, cells: pd.DataFrame, missed: Sequence[dict[str, str]], images: pd.DataFrame) -> None:
    """Write the CSV of cells and of images without one, image by image in their order, atomically.

    Args:
        path: the file.
        cells: a row for each cell, as in the `.h5ad` file.
        missed: of a store: key and reason of each image without a cell.
        images: by key, in their order, the columns `image` and `centre`.
    """
    found = cells.rename_axis("cell").reset_index().assign(reason="")
    lost = pd.DataFrame(
        [
            {
                "key": entry["key"],
                "status": UNREADABLE if is_unreadable(entry["reason"]) else MISSED,
                "reason": entry["reason"],
                "detections": 0,
            }
            for entry in missed
        ],
        columns=["key", "status", "reason", "detections"],
    )
    lost = lost.join(images, on="key")
    # As plain objects: categories of the one are unknown to the other, and whole numbers stay whole beside gaps.
    table = pd.concat([part.reindex(columns=CSV_COLUMNS).astype(object) for part in (found, lost)])
    order = images.index.get_indexer(table["key"])
    table = table.iloc[order.argsort(kind="stable")]
    table["score"] = [f"{score:.4f}" if pd.notna(score) else "" for score in table["score"]]
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
