"""Pictures of cells and images as both pages show them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.figures.style import choose_rows
from experiments.reports.page import crop_jpeg
from experiments.reports.quality import BOX_COLUMNS, CentreCheck
from mrcnn.data.images import read_image
from mrcnn.feature_store import UNREADABLE, StorePath, is_unreadable, open_store
from mrcnn.files.errors import InputError
from mrcnn.overlays import draw_detections

log = logging.getLogger(__name__)

_BLOCK = 256  # crops in memory


class Picture(NamedTuple):
    """A picture, uint8 of shape (height, width, 3), its image's id, its type or label or "", and further text."""

    pixels: np.ndarray
    image_id: str
    name: str
    detail: str = ""


def open_image(path: Any) -> np.ndarray | None:
    """Read an image; None, with a warning, where it is damaged, and None where there is no path."""
    try:
        return None if path is None else read_image(path)
    except InputError as error:
        log.warning("%s", error)
        return None


def missed_images(
    missed: Sequence[Mapping[str, str]], find: Callable[[str], Any], number: int, seed: int
) -> dict[str, list]:
    """Open some of the readable images without a cell, chosen at random, and list the rest.

    Args:
        missed: of a centre, as its store tells them.
        find: path of an image by its id, or None.
        number: how many to open.
        seed: of the choice.

    Returns:
        "pictures", objects `Picture`; and (image_id, reason) of the "others", which are not shown, and of "unreadable"
        ones.
    """
    readable = [entry for entry in missed if not is_unreadable(entry["reason"])]
    pictures = []
    for index in choose_rows(len(readable), number, seed):
        entry = readable[index]
        pixels = open_image(find(entry["image_id"]))
        if pixels is not None:
            pictures.append(Picture(pixels, entry["image_id"], entry["cell_type"] or entry["label"], entry["reason"]))
    shown = {picture.image_id for picture in pictures}
    return {
        "pictures": pictures,
        "others": [(entry["image_id"], entry["reason"]) for entry in readable if entry["image_id"] not in shown],
        "unreadable": [(e["image_id"], _fault(e)) for e in missed if is_unreadable(e["reason"])],
    }


def boxed_cells(check: CentreCheck, rows: Sequence[int], *, min_side: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each row, the crop of a cell and its whole image with its box, as small as the store keeps it."""
    ordered = np.unique(np.asarray(rows, np.int64))
    with open_store(check.path) as store:
        crops, images = store.read_rows("crop", ordered), store.read_rows("image", ordered)
        shapes = store.read_rows("image_shape", ordered)
    boxes = check.cells[[*BOX_COLUMNS]].to_numpy()[ordered]
    pictures = {}
    for row, crop, image, shape, box in zip(ordered, crops, images, shapes, boxes, strict=True):
        # The store's copy of the image is square.
        scale = np.tile(image.shape[:2] / shape, 2)
        pictures[row] = (crop, draw_detections(image, (box * scale)[np.newaxis], min_side=min_side))
    return [pictures[row] for row in rows]


def add_crops(cells: pd.DataFrame, stores: Mapping[str, StorePath]) -> None:
    """Add a column `crop`: a small JPEG of each cell for plots, b"" where its `row` in the store is not known."""
    crops = pd.Series(b"", cells.index)
    for centre, own in cells.dropna(subset="row").sort_values("row").groupby("centre"):
        with open_store(stores[centre]) as store:
            for start in range(0, len(own), _BLOCK):
                block = own["row"].iloc[start : start + _BLOCK].astype(int)
                crops[block.index] = [crop_jpeg(pixels) for pixels in store.read_rows("crop", block)]
    cells["crop"] = crops


def _fault(entry: Mapping[str, str]) -> str:
    """The reason without what its place says already: that the file is unreadable, and its name behind a long path."""
    reason = entry["reason"].removeprefix(UNREADABLE).lstrip(": ")
    return reason.rpartition(f"{entry['image_id']}: ")[2]
