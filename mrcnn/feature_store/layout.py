"""Layout of the feature store, the HDF5 file that the detector writes and the autoencoder reads.

A store holds one centre. Group `cells` has one row per stored cell, group `images` one row per image that was
dealt with, whether a cell was found on it or not, so that nothing is lost in silence:

    cells/features     float16 (n, 14, 14, 256)   RoIAlign output of the mask branch, channel-last
    cells/crop         uint8   (n, 128, 128, 3)   image inside the grown detection box, resized
    cells/image        uint8   (n, 128, 128, 3)   whole image, resized
    cells/box          float32 (n, 4)             (y1, x1, y2, x2), pixels of the image, ends exclusive
    cells/score        float32 (n,)               detection score, 0 to 1
    cells/class_id     int32   (n,)               the detector's class
    cells/image_shape  int32   (n, 2)             (height, width) of the original image
    cells/mask         uint8   (n, h, w)          mask probability times 255, h and w 28 or 56; with masks alone
    cells/nucleus_mask uint8   (n, h, w)          the same of the nucleus, where the detector draws it
    cells/morphology   float32 (n, columns)       measurements of cell and nucleus; the dataset's attribute `columns`
                                                  names them (`mrcnn.morphology.COLUMNS`)
    cells/image_id, label, cell_type              fixed-length UTF-8 strings, as in `ImageRecord`
    images/image_id, label, cell_type, reason     `reason` is "" where a cell was found
    images/num_detections, num_cells              int32 (m,)

Array rows are one chunk each, with a fletcher32 checksum and no compression: random rows read at the speed of
the disk, and a flipped bit is an error rather than a feature. Strings have a fixed length because
variable-length ones lie in a heap that the checksum does not cover. Stores are written as HDF5 1.10 does, which has
checksums of the file's structure too; older ones are read as well. Schema 1 called `image_id` `key`; up to schema 2
masks were 28x28, and there were neither nuclei nor measurements.
"""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mrcnn.files.hdf5 import atomic_hdf5, check_room

FORMAT = "aecfe-features"
SCHEMA = 3
UNREADABLE = "unreadable"  # begins the reason of an image that could not be read

ARRAY_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "features": ("float16", (14, 14, 256)),
    "crop": ("uint8", (128, 128, 3)),
    "image": ("uint8", (128, 128, 3)),
    "box": ("float32", (4,)),
    "score": ("float32", ()),
    "class_id": ("int32", ()),
    "image_shape": ("int32", (2,)),
}
OLD_MASK_SHAPE = (28, 28)  # up to schema 2
MASKS = ("mask", "nucleus_mask")
COLUMNS = "columns"  # attribute of the measurements
STRING_FIELDS = ("image_id", "label", "cell_type")
IMAGE_STRINGS = (*STRING_FIELDS, "reason")
IMAGE_COUNTS = ("num_detections", "num_cells")

ATTRIBUTES = ("format", "schema", "centre", "detector", "with_masks", "versions", "created", "settings")
NEW_ATTRIBUTES = ("mask_shape", "with_nuclei")  # since schema 3
_SMALL_ROWS = 1024  # rows in a chunk of strings, scores or boxes


class Cell(NamedTuple):
    """One detected cell, as the store takes it.

    Attributes:
        features: float array of shape (14, 14, 256), finite; kept as float16.
        crop: uint8 array of shape (128, 128, 3).
        image: uint8 array of shape (128, 128, 3).
        box: (y1, x1, y2, x2) in pixels of the original image.
        score: 0 to 1.
        class_id: the detector's class, 1 or more.
        image_shape: (height, width) of the original image in pixels.
        mask: uint8 array of the store's mask shape, 0 to 255 for probability 0 to 1, or None.
        nucleus_mask: the same of the nucleus, or None.
        morphology: float array of shape (columns,), finite, or None.
    """

    features: np.ndarray
    crop: np.ndarray
    image: np.ndarray
    box: np.ndarray
    score: float
    class_id: int
    image_shape: tuple[int, int]
    mask: np.ndarray | None = None
    nucleus_mask: np.ndarray | None = None
    morphology: np.ndarray | None = None


def is_unreadable(reason: str) -> bool:
    """Whether the reason for an image without a cell is that it could not be read."""
    return reason.startswith(UNREADABLE)


def array_fields(header: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of a row of each array of group `cells` in a store of a header of `make_header`."""
    fields, mask = dict(ARRAY_FIELDS), ("uint8", tuple(header["mask_shape"]))
    if header["with_masks"]:
        fields["mask"] = mask
    if header["with_nuclei"]:
        fields["nucleus_mask"] = mask
    if header["morphology"]:
        fields["morphology"] = ("float32", (len(header["morphology"]),))
    return fields


def all_columns(header: dict[str, Any]) -> dict[str, tuple[str | None, tuple[int, ...]]]:
    """Type and shape of a row of each dataset, by its path; the type is None for text."""
    text = (None, ())
    columns = {f"cells/{name}": field for name, field in array_fields(header).items()}
    columns |= {f"cells/{name}": text for name in STRING_FIELDS}
    columns |= {f"images/{name}": text for name in IMAGE_STRINGS}
    return columns | {f"images/{name}": ("int32", ()) for name in IMAGE_COUNTS}


def make_header(
    centre: str,
    detector: dict,
    with_masks: bool,
    settings: dict,
    *,
    mask_shape: Sequence[int] = OLD_MASK_SHAPE,
    with_nuclei: bool = False,
    morphology: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe a store: its centre, detector, versions and settings, as JSON values; see `FeatureStoreWriter`."""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "h5py": h5py.__version__}
    header = {"centre": centre, "detector": detector, "with_masks": bool(with_masks), "versions": versions}
    header |= {"mask_shape": list(mask_shape), "with_nuclei": bool(with_nuclei), "morphology": list(morphology)}
    # JSON there and back: a tuple becomes the list that a resumed run reads from the parts.
    return json.loads(json.dumps({**header, "settings": settings}))


def origin(header: dict[str, Any]) -> dict[str, Any]:
    """Take from a header what two stores have in common that may be one: `versions` and times do not matter."""
    detector = header["detector"]["hash"]
    masks = {"masks": header["with_masks"], "nuclei": header["with_nuclei"], "measurements": header["morphology"]}
    return {"centre": header["centre"], "detector": detector, **masks, **header["settings"]}


@contextmanager
def new_store(
    path: str | os.PathLike, header: dict[str, Any], num_cells: int, num_images: int, widths: dict[str, int]
) -> Iterator[h5py.File]:
    """Give an empty store of known size, which gets its final name `path` when the block ends without an error.

    The header is that of `make_header`; `widths` are the bytes of string datasets by their path, 1 where none is named.
    """
    rows, columns = {"cells": num_cells, "images": num_images}, all_columns(header)
    arrays = [np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in columns.values() if dtype]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    check_room(path, num_cells * sum(arrays))
    texts = {"format": FORMAT, "centre": header["centre"]}
    texts["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    texts |= {name: json.dumps(header[name]) for name in ("detector", "versions", "settings")}
    with atomic_hdf5(path, "v110") as file:
        for name, text in texts.items():
            file.attrs.create(name, np.bytes_(text.encode()), dtype=h5py.string_dtype("utf-8", len(text.encode()) or 1))
        file.attrs.create("schema", SCHEMA, dtype="int32")
        for name in ("with_masks", *NEW_ATTRIBUTES):
            file.attrs.create(name, np.asarray(header[name], "int32"))
        for name, (dtype, shape) in columns.items():
            num_rows = rows[name.partition("/")[0]]
            # Images and features are read row by row, in any order; what is small is read whole.
            rows_per_chunk = 1 if len(shape) >= 2 else min(_SMALL_ROWS, max(num_rows, 1))
            file.create_dataset(
                name,
                (num_rows, *shape),
                dtype or h5py.string_dtype("utf-8", widths.get(name, 1)),
                maxshape=(None, *shape),  # without a limit HDF5 also takes a column of no rows
                chunks=(rows_per_chunk, *shape),
                fletcher32=True,
                track_times=False,
            )
        if header["morphology"]:
            file["cells/morphology"].attrs[COLUMNS] = np.array([name.encode() for name in header["morphology"]])
        yield file


def check_cell(image_id: str, cell: Cell, fields: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Bring a cell to the types of `array_fields`; raises `ValueError` for an odd shape, type or value."""
    for name in (*MASKS, "morphology"):
        if (getattr(cell, name) is not None) != (name in fields):
            raise ValueError(f"{image_id}: cell {'lacks its' if name in fields else 'has a'} {name}, unlike the store")
    row = {}
    for name, (dtype, shape) in fields.items():
        value = np.asarray(getattr(cell, name))
        if value.shape != shape or (dtype == "uint8" and value.dtype != np.uint8):
            raise ValueError(f"{image_id}: {name} must be {dtype} of shape {shape}, got {value.dtype} {value.shape}")
        with np.errstate(over="ignore"):
            row[name] = value.astype(dtype)
        if not np.all(np.isfinite(row[name])):
            raise ValueError(f"{image_id}: {name} holds NaN or values too large for {dtype}")
    return row


def encode_text(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A str array as UTF-8 of the type of a dataset; other arrays as they are."""
    return np.char.encode(values, "utf-8").astype(dtype) if values.dtype.kind == "U" else values


def decode_text(values: np.ndarray) -> np.ndarray:
    """Bytes as a str array; other arrays as they are."""
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
