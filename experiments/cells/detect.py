"""Detection alone: the cells of any images written down, for those who want cells and no features."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.cells.writers import CellFiles, measure_cells, write_image_files, write_table
from mrcnn.data.images import IMAGE_SUFFIXES, list_images, read_image
from mrcnn.data.records import ImageRecord
from mrcnn.detection import detect_samples, detection_limit, warn_of_full
from mrcnn.files.errors import InputError
from mrcnn.morphology import column_names, measure_detections

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN

log = logging.getLogger(__name__)


def find_images(inputs: Sequence[str | os.PathLike]) -> list[ImageRecord]:
    """List the images that files and folders name, in the order given; no image is opened.

    Of folders the images directly inside are taken; an image named twice comes once. Their image_ids are the paths
    below the deepest folder that holds all of them: `a/1.png` and `b/1.png`, or the names of those of a single folder.

    Raises:
        InputError: if an input is missing, a folder holds no image, or the images lie on different drives.
    """
    paths: dict[str, Path] = {}
    for given in map(Path, inputs):
        found = list_images(given) if os.path.isdir(given) else [given]
        if not found:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"{given}: no images ({suffixes}) directly in this folder; name those that hold them")
        if not os.path.isfile(found[0]):  # of Path it would fail for a name that is too long
            raise InputError(f"{given}: no such image or folder")
        paths |= {os.path.abspath(path): path for path in found}
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:
        raise InputError("the images lie on different drives; give those of one drive at a time") from None
    return [ImageRecord(Path(os.path.relpath(whole, root)).as_posix(), path) for whole, path in paths.items()]


def detect_images(
    detector: "MaskRCNN",
    images: Sequence[ImageRecord],
    files: CellFiles,
    *,
    pixel_size: float | None = None,
    batch_size: int = 4,
) -> dict[str, int]:
    """Detect the cells of some images, batch by batch, and write them to files.

    Files that are there are replaced: call `files.check` first. Nothing but the rows of the table, which is written at
    the end, is kept from one batch to the next.

    Args:
        detector: a trained model, opened with `load_detector`.
        images: of `find_images`.
        files: where to write.
        pixel_size: side of a pixel in micrometres, or None. The table of a detector that draws nuclei also has the
            numbers of `mrcnn.morphology`.
        batch_size: images in a batch.

    Returns:
        Counts: images, unreadable (also those that the network cannot take; a warning names each), without_cells,
        cells, and empty_masks: cells of which the mask has no pixel, so that they are in the CSV alone.

    Raises:
        InputError: if no image could be read.
    """
    counts = {"images": len(images), "unreadable": 0, "without_cells": 0, "cells": 0, "empty_masks": 0}
    # Without a name of its own a class is called by its number.
    class_names = {1: "cell"} if detector.config.NUM_CLASSES == 2 else {}
    tables, full = [], []
    for record, image, result in detect_samples(
        detector, images, lambda each: read_image(each.path), lambda each: str(each.path), batch_size, "detect"
    ):
        if isinstance(result, InputError):
            log.warning("%s", result)
            counts["unreadable"] += 1
            continue
        # Laid out instance by instance: reading one mask is then far faster.
        for name in {"masks", "nucleus_masks"} & result.keys():
            result[name] = np.moveaxis(np.ascontiguousarray(np.moveaxis(result[name], -1, 0)), 0, -1)
        cells = measure_cells(record.image_id, result, class_names, pixel_size)
        if files.csv is not None and "small_nucleus_masks" in result:
            measured = measure_detections(image, result, range(len(cells)), pixel_size)
            cells = cells.join(pd.DataFrame(measured, columns=column_names(pixel_size)))
        write_image_files(files.of_image(record.image_id), image, result, cells, pixel_size)
        tables.append(cells)
        counts["without_cells"] += cells.empty
        if len(cells) >= detection_limit(detector.config):
            full.append(record.image_id)
    if not tables:
        raise InputError(f"none of the {len(images)} images could be read; see the warnings above")
    table = pd.concat(tables)
    counts |= {"cells": len(table), "empty_masks": int((table["area_px"] == 0).sum())}
    if files.csv is not None:
        write_table(files.csv, table)
    if counts["empty_masks"]:
        log.warning("%d cells have an empty mask: they have neither label nor outline", counts["empty_masks"])
    warn_of_full(full, detector.config)
    return counts
