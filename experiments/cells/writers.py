"""The files that hold found cells: a CSV of all of them, and per image a label image, GeoJSON outlines, an overlay."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn.data.masks import label_image, mask_polygons, write_label_image
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import atomic_path, write_text
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import LONGEST_NAME
from mrcnn.overlays import OVERLAY_COLORS, draw_detections

COLUMNS = ("image", "cell", "class_id", "class_name", "y1", "x1", "y2", "x2", "score", "area_px")
SIZE_COLUMNS = ("area_um2", "equivalent_diameter_um")
# Whole file names are kept, so that a.png and a.jpg get files of their own; the endings differ, so that one folder
# can hold all three.
ENDINGS = {"labels": ".labels.tif", "geojson": ".geojson", "overlay": ".overlay.png"}
# Of these whoever reads the folder takes the files for images to search.
PICTURES = ("labels", "overlay")
OVERLAY_SIDE = 400  # px; smaller images are enlarged, or their scores could not be read

AddRows = Callable[[Iterable[Sequence[Any]]], None]


@dataclass(frozen=True)
class CellFiles:
    """Where found cells are to be written; None leaves that kind out.

    Attributes:
        csv: file for a row per cell.
        labels: folder for label images.
        geojson: folder for outlines.
        overlay: folder for pictures.
    """

    csv: Path | None = None
    labels: Path | None = None
    geojson: Path | None = None
    overlay: Path | None = None

    def of_image(self, key: str) -> dict[str, Path]:
        """The files of one image by kind ("labels", "geojson", "overlay"); they mirror its key."""
        folders = {kind: getattr(self, kind) for kind in ENDINGS}
        return {kind: Path(folder, key + ENDINGS[kind]) for kind, folder in folders.items() if folder is not None}

    def check(self, images: Sequence[ImageRecord], overwrite: bool = False) -> None:
        """Refuse to start where nothing would be written, or something that is there would be lost.

        Args:
            images: what will be searched.
            overwrite: files of an earlier run may be replaced.

        Raises:
            InputError: if no kind of file is wanted, a file stands where a folder should be or the reverse, a file
                is there and `overwrite` is False, an output is one of the images, label images or overlays would lie
                among them, the table is to be where another output is, or a name would be too long.
        """
        folders = {kind: getattr(self, kind) for kind in ENDINGS}
        if self.csv is None and not any(folders.values()):
            raise InputError("nothing to write: give at least one of --overlay, --csv, --labels and --geojson")
        if self.csv is not None and self.csv.is_dir():
            raise InputError(f"--csv {self.csv}: is a folder; name a file")
        for kind, folder in folders.items():
            if folder is not None and folder.exists() and not folder.is_dir():
                raise InputError(f"--{kind} {folder}: is a file; name a folder")
        by_image = [self.of_image(image.key) for image in images]
        outputs = [path for paths in by_image for path in paths.values()]
        self._check_csv(outputs)
        outputs += [self.csv] if self.csv is not None else []
        inputs = {os.path.abspath(image.path) for image in images}
        for path in outputs:
            if os.path.abspath(path) in inputs:
                raise InputError(f"{path}: is one of the images, and would be replaced; write to another folder")
            if len(os.fsencode(path.name)) > LONGEST_NAME:
                raise InputError(f"{path}: a name of more than {LONGEST_NAME} bytes; rename the image")
        input_folders = {os.path.dirname(path) for path in inputs}
        for kind, path in ((kind, paths[kind]) for paths in by_image for kind in PICTURES if kind in paths):
            if os.path.dirname(os.path.abspath(path)) in input_folders:
                raise InputError(
                    f"--{kind} {folders[kind]}: would lie among the images, and be taken for one of them the next "
                    "time; name another folder"
                )
        there = [] if overwrite else [path for path in outputs if path.exists()]
        if there:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise InputError(f"{there[0]}{more}: already there; write to another place, or give --overwrite")

    def _check_csv(self, others: Sequence[Path]) -> None:
        """Refuse a table that would be a folder of other outputs, or one of them."""
        if self.csv is None:
            return
        csv_path = os.path.abspath(self.csv)
        for path in map(os.path.abspath, others):
            if path == csv_path or path.startswith(csv_path + os.sep):
                raise InputError(f"--csv {self.csv}: is also where {path} would be written; name another file")


@dataclass(frozen=True)
class FoundCell:
    """What is known of one cell.

    Attributes:
        number: from 1 for the best-scored cell of the image; its value in the label image.
        class_id: as the detector gives it.
        class_name: its name.
        box: `(y1, x1, y2, x2)` pixels, y2 and x2 exclusive.
        score: 0 to 1.
        area: pixels of its mask, whether or not other cells overlap it.
    """

    number: int
    class_id: int
    class_name: str
    box: tuple[int, int, int, int]
    score: float
    area: int

    def size(self, pixel_size: float) -> tuple[float, float]:
        """Area in square micrometres and diameter in micrometres of the circle with that area."""
        area = self.area * pixel_size**2
        return area, 2.0 * math.sqrt(area / math.pi)


def measure_cells(result: Mapping[str, np.ndarray], class_names: Mapping[int, str]) -> list[FoundCell]:
    """The cells of one image.

    Args:
        result: of `MaskRCNN.detect`, with masks.
        class_names: names by class id; "class 7" stands for an id without one.
    """
    cells = []
    for i, box in enumerate(result["rois"].tolist()):
        class_id = int(result["class_ids"][i])
        area = int(np.count_nonzero(result["masks"][..., i]))
        name = class_names.get(class_id, f"class {class_id}")
        cells.append(FoundCell(i + 1, class_id, name, tuple(box), float(result["scores"][i]), area))
    return cells


@contextmanager
def cell_table(path: Path | None, pixel_size: float | None = None) -> Iterator[AddRows]:
    """Open the CSV for the cells of many images; it gets its name only when the block ends without an error.

    Args:
        path: the file, or None to write nothing.
        pixel_size: side of a pixel in micrometres, which adds `SIZE_COLUMNS`, or None.

    Yields:
        Function that writes rows.
    """
    if path is None:
        yield lambda rows: None
        return
    with atomic_path(path) as temporary:
        # Names that are not UTF-8 are written with escapes rather than ending the run.
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(COLUMNS + (() if pixel_size is None else SIZE_COLUMNS))
            yield writer.writerows


def table_rows(key: str, cells: Sequence[FoundCell], pixel_size: float | None = None) -> list[list[Any]]:
    """Rows of the CSV, in the order of `COLUMNS` and, with a pixel size, `SIZE_COLUMNS`."""
    rows = []
    # The module csv does not quote it, and readers would take it for the end of the row.
    name = key.replace("\r", "\\r")
    for cell in cells:
        row = [name, cell.number, cell.class_id, cell.class_name, *cell.box, f"{cell.score:.4f}", cell.area]
        rows.append(row if pixel_size is None else row + [f"{value:.6g}" for value in cell.size(pixel_size)])
    return rows


def write_image_files(
    paths: Mapping[str, Path],
    image: np.ndarray,
    result: Mapping[str, np.ndarray],
    cells: Sequence[FoundCell],
    pixel_size: float | None = None,
) -> None:
    """Write the label image, outlines and overlay of one image, each atomically.

    Args:
        paths: of `CellFiles.of_image`.
        image: uint8 array of shape (height, width, 3).
        result: of `MaskRCNN.detect`.
        cells: of `measure_cells`.
        pixel_size: side of a pixel in micrometres, or None.
    """
    masks = result["masks"]
    if "labels" in paths:
        write_label_image(paths["labels"], label_image(masks, result["scores"]), pixel_size)
    if "geojson" in paths:
        write_text(paths["geojson"], json.dumps(feature_collection(cells, masks, pixel_size), separators=(",", ":")))
    if "overlay" in paths:
        picture = draw_detections(image, result["rois"], result["scores"], masks, min_side=OVERLAY_SIDE)
        with atomic_path(paths["overlay"]) as temporary:
            Image.fromarray(picture).save(temporary)


def feature_collection(
    cells: Sequence[FoundCell], masks: np.ndarray, pixel_size: float | None = None
) -> dict[str, Any]:
    """Cells as GeoJSON that QuPath 0.4 and later imports as detections.

    Coordinates are x and y in pixels of the full image from its upper left corner, along the edges of pixels, as in
    `mrcnn.data.masks`. A cell whose mask is empty has no outline and is left out.

    Args:
        cells: the cells of one image.
        masks: bool array of shape (height, width, num_cells).
        pixel_size: side of a pixel in micrometres, which adds sizes to the measurements, or None.

    Returns:
        A FeatureCollection, ready for `json.dumps`: a Polygon per cell, a MultiPolygon where its mask is in parts.

    Reference:
        RFC 7946; QuPath's classes QuPathTypeAdapters and GsonTools for the properties that it reads.
    """
    features = []
    for i, cell in enumerate(cells):
        polygons = mask_polygons(masks[..., i])
        if not polygons:
            continue
        in_parts = len(polygons) > 1
        measurements = {"Score": round(cell.score, 4), "Area px^2": cell.area}
        if pixel_size is not None:
            # The names that QuPath itself gives such measurements.
            area, diameter = cell.size(pixel_size)
            measurements |= {"Area µm^2": round(area, 4), "Equivalent diameter µm": round(diameter, 4)}
        color = OVERLAY_COLORS[(cell.class_id - 1) % len(OVERLAY_COLORS)]
        features.append(
            {
                "type": "Feature",
                "geometry": {
                    "type": "MultiPolygon" if in_parts else "Polygon",
                    "coordinates": polygons if in_parts else polygons[0],
                },
                "properties": {
                    "objectType": "detection",
                    "name": str(cell.number),
                    "classification": {
                        "name": cell.class_name,
                        "color": [round(255 * value) for value in color],
                    },
                    "measurements": measurements,
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}
