"""Files of found cells: a CSV of all of them, and per image a label image, GeoJSON outlines and an overlay."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mrcnn.data.masks import label_image, mask_polygons, write_label_image
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import atomic_path, write_text
from mrcnn.files.errors import InputError
from mrcnn.overlays import OVERLAY_COLORS, draw_detections

COLUMNS = ("image", "cell", "class_id", "class_name", "y1", "x1", "y2", "x2", "score", "area_px")
SIZE_COLUMNS = ("area_um2", "equivalent_diameter_um")
# Whole file names are kept, so that a.png and a.jpg get files of their own; the endings differ, so that one folder
# can hold all of them.
ENDINGS = {"labels": ".labels.tif", "nuclei": ".nuclei.tif", "geojson": ".geojson", "overlay": ".overlay.png"}
# Of these whoever reads the folder takes the files for images to search; nuclei lie beside the labels.
PICTURES = {"labels", "overlay"}
OVERLAY_SIDE = 400  # px; smaller images are enlarged, or their scores could not be read


@dataclass(frozen=True)
class CellFiles:
    """Where found cells are to be written: a table, and folders; None leaves that kind out."""

    csv: Path | None = None
    labels: Path | None = None
    geojson: Path | None = None
    overlay: Path | None = None

    @property
    def nuclei(self) -> Path | None:
        """The folder of the label images, which those of nuclei lie in, where the detector draws them."""
        return self.labels

    @property
    def folders(self) -> dict[str, Path]:
        """The folders that are wanted, by kind."""
        return {kind: getattr(self, kind) for kind in ENDINGS if getattr(self, kind) is not None}

    def of_image(self, image_id: str) -> dict[str, Path]:
        """The files of one image by kind ("labels", "nuclei", "geojson", "overlay"); they mirror its image_id."""
        return {kind: Path(folder, image_id + ENDINGS[kind]) for kind, folder in self.folders.items()}

    def check(self, images: Sequence[ImageRecord], overwrite: bool = False) -> None:
        """Refuse to start where nothing would be written, or something that is there would be lost."""
        if self.csv is None and not self.folders:
            raise InputError("nothing to write: give at least one of --overlay, --csv, --labels and --geojson")
        inputs = {os.path.abspath(image.path) for image in images}
        csv_path = None if self.csv is None else os.path.abspath(self.csv)
        of_kind = {kind: [self.of_image(image.image_id)[kind] for image in images] for kind in self.folders}
        outputs = [*chain.from_iterable(of_kind.values()), *([] if self.csv is None else [self.csv])]
        for path in outputs:
            whole = os.path.abspath(path)
            if whole in inputs:
                raise InputError(f"{path}: is one of the images, and would be replaced; write to another place")
            if path is not self.csv and csv_path and f"{whole}{os.sep}".startswith(csv_path + os.sep):
                raise InputError(f"--csv {self.csv}: is also where {path} would be written; name another file")
        for kind in self.folders.keys() & PICTURES:
            refuse_among_images(f"--{kind} {self.folders[kind]}", of_kind[kind], images, "name another folder")
        there = [] if overwrite else [path for path in outputs if path.exists()]
        if there:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise InputError(f"{there[0]}{more}: already there; write to another place, or give --overwrite")


def refuse_among_images(option: str, paths: Iterable[Path], images: Sequence[ImageRecord], advice: str) -> None:
    """Refuse pictures in a folder of the images."""
    folders = {os.path.dirname(os.path.abspath(image.path)) for image in images}
    if any(os.path.dirname(os.path.abspath(path)) in folders for path in paths):
        raise InputError(f"{option}: would lie among the images, and be taken for one of them the next time; {advice}")


def measure_cells(
    image_id: str, result: Mapping[str, np.ndarray], class_names: Mapping[int, str], pixel_size: float | None = None
) -> pd.DataFrame:
    """The cells of one image, a `result` of `MaskRCNN.detect` with masks, as the rows of the CSV, best score first.

    `class_names` are by class id; "class 7" stands for an id without one. `pixel_size`, the side of a pixel in
    micrometres, adds `SIZE_COLUMNS`. Of the `COLUMNS` "cell" is the value in the label image, from 1; boxes are pixels,
    y2 and x2 exclusive; "area_px" counts the pixels of the mask, whether or not other cells overlap it.
    """
    cells = pd.DataFrame(result["rois"].reshape(-1, 4), columns=["y1", "x1", "y2", "x2"])
    # The module csv does not quote a carriage return, and readers would take it for the end of the row.
    cells["image"] = image_id.replace("\r", "\\r")
    cells["cell"] = np.arange(1, len(cells) + 1)
    cells["class_id"] = result["class_ids"]
    cells["class_name"] = cells["class_id"].map(lambda number: class_names.get(number, f"class {number}"))
    cells["score"] = result["scores"]
    cells["area_px"] = np.count_nonzero(result["masks"], axis=(0, 1))
    if pixel_size is not None:
        cells["area_um2"] = cells["area_px"] * pixel_size**2
        cells["equivalent_diameter_um"] = 2.0 * np.sqrt(cells["area_um2"] / np.pi)
    return cells[[*COLUMNS, *(SIZE_COLUMNS if pixel_size is not None else ())]]


def write_table(path: Path, cells: pd.DataFrame) -> None:
    """Write cells of `measure_cells`, perhaps with further numbers, as the CSV.

    Names that are not UTF-8 are written with escapes.
    """
    measured = [name for name in cells if name not in COLUMNS]
    formats = {"score": "{:.4f}".format, **dict.fromkeys(measured, "{:.6g}".format)}
    texts = {name: cells[name].map(as_text) for name, as_text in formats.items()}
    with atomic_path(path) as temporary:
        how = {"encoding": "utf-8", "errors": "backslashreplace", "lineterminator": "\n"}
        cells.assign(**texts).to_csv(temporary, index=False, **how)


def write_image_files(
    paths: Mapping[str, Path],
    image: np.ndarray,
    result: Mapping[str, np.ndarray],
    cells: pd.DataFrame,
    pixel_size: float | None = None,
) -> None:
    """Write the label images, outlines and overlay of one image to the `paths` of `CellFiles.of_image`."""
    masks, nuclei = result["masks"], result.get("nucleus_masks")
    for kind, drawn in (("labels", masks), ("nuclei", nuclei)):
        if kind in paths and drawn is not None:
            write_label_image(paths[kind], label_image(drawn, result["scores"]), pixel_size)
    if "geojson" in paths:
        write_text(paths["geojson"], json.dumps(feature_collection(cells, masks, nuclei), separators=(",", ":")))
    if "overlay" in paths:
        picture = draw_detections(image, result["rois"], result["scores"], masks, nuclei, min_side=OVERLAY_SIDE)
        with atomic_path(paths["overlay"]) as temporary:
            Image.fromarray(picture).save(temporary)


def feature_collection(cells: pd.DataFrame, masks: np.ndarray, nuclei: np.ndarray | None = None) -> dict[str, Any]:
    """Cells of `measure_cells` and their masks, bool `(height, width, cells)`, as GeoJSON for QuPath 0.4 on.

    With `nuclei`, of the same shape, they are QuPath's cells, which may have a nucleus, else its detections.
    Coordinates are x and y in pixels of the full image from its upper left corner, along the edges of pixels. A cell is
    a Polygon, or a MultiPolygon where its mask is in parts; one whose mask is empty is left out. See RFC 7946; QuPath's
    classes QuPathTypeAdapters and GsonTools for the members and properties that it reads.
    """
    features = []
    for i, cell in enumerate(cells.to_dict("records")):
        geometry = _geometry(masks[..., i])
        if geometry is None:
            continue
        measurements = {"Score": round(cell["score"], 4), "Area px^2": cell["area_px"]}
        if "area_um2" in cell:
            # The names that QuPath itself gives such measurements.
            measurements["Area µm^2"] = round(cell["area_um2"], 4)
            measurements["Equivalent diameter µm"] = round(cell["equivalent_diameter_um"], 4)
        color = OVERLAY_COLORS[(cell["class_id"] - 1) % len(OVERLAY_COLORS)]
        properties = {
            "objectType": "detection" if nuclei is None else "cell",
            "name": str(cell["cell"]),
            "classification": {"name": cell["class_name"], "color": list(color)},
            "measurements": measurements,
        }
        nucleus = None if nuclei is None else _geometry(nuclei[..., i])
        of_nucleus = {} if nucleus is None else {"nucleusGeometry": nucleus}
        features.append({"type": "Feature", "geometry": geometry, **of_nucleus, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def _geometry(mask: np.ndarray) -> dict[str, Any] | None:
    """A mask as a GeoJSON geometry, None if it is empty."""
    polygons = mask_polygons(mask)
    if not polygons:
        return None
    whole = len(polygons) == 1
    return {"type": "Polygon" if whole else "MultiPolygon", "coordinates": polygons[0] if whole else polygons}
