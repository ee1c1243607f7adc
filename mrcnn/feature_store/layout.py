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
    cells/mask         uint8   (n, 28, 28)        mask probability times 255; only in stores with masks
    cells/key, label, cell_type                   fixed-length UTF-8 strings, as in `ImageRecord`
    images/key, label, cell_type, reason          `reason` is "" where a cell was found
    images/num_detections, num_cells              int32 (m,)

Array rows are one chunk each, with a fletcher32 checksum and no compression: random rows read at the speed of
the disk, and a flipped bit is an error rather than a feature. Strings have a fixed length because
variable-length ones lie in a heap that the checksum does not cover. Stores are written as HDF5 1.10 does, which has
checksums of the file's structure too; older ones are read as well.
"""

import json
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import atomic_hdf5, check_room

FORMAT = "aecfe-features"
SCHEMA = 1
UNREADABLE = "unreadable"  # begins the reason of an image that could not be read

ARRAY_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "features": ("float16", (14, 14, 256)),
    "crop": ("uint8", (128, 128, 3)),
    "image": ("uint8", (128, 128, 3)),
    "box": ("float32", (4,)),
    "score": ("float32", ()),
    "class_id": ("int32", ()),
    "image_shape": ("int32", (2,)),
    "mask": ("uint8", (28, 28)),
}
STRING_FIELDS = ("key", "label", "cell_type")
IMAGE_STRINGS = (*STRING_FIELDS, "reason")
IMAGE_COUNTS = ("num_detections", "num_cells")

RESERVED = ("format", "schema", "centre", "detector", "with_masks", "versions", "created", "settings")
MAX_STRING = 4096  # bytes; the longest path that Linux takes
MAX_ATTRIBUTE = 60_000  # bytes; HDF5 keeps at most 64 KiB of attributes in an object's header
_SMALL_ROWS = 1024  # rows in a chunk of strings, scores or boxes
MERGE_ROWS = 64  # about 13 MB, whatever the size of the store


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
        mask: uint8 array of shape (28, 28), 0 to 255 for probability 0 to 1, or None.
    """

    features: np.ndarray
    crop: np.ndarray
    image: np.ndarray
    box: np.ndarray
    score: float
    class_id: int
    image_shape: tuple[int, int]
    mask: np.ndarray | None = None


def is_unreadable(reason: str) -> bool:
    """Whether the reason that a store gives for an image without a cell is that it could not be read."""
    return reason.startswith(UNREADABLE)


def cell_fields(with_masks: bool) -> tuple[str, ...]:
    """Names of the columns of group `cells`."""
    arrays = tuple(name for name in ARRAY_FIELDS if with_masks or name != "mask")
    return (*arrays, *STRING_FIELDS)


def make_header(centre: str, detector: dict, with_masks: bool, settings: dict) -> dict[str, Any]:
    """Describe a store: its centre, detector, versions and settings, as JSON values.

    Args:
        centre: name of the centre.
        detector: at least `hash`; JSON values.
        with_masks: whether every cell has a mask.
        settings: what decides which cells are stored; JSON values.

    Raises:
        ValueError: if `detector` has no hash, or `settings` uses a reserved name or is too long.
    """
    if not detector.get("hash"):
        raise ValueError("detector must have a 'hash'")
    taken = sorted(set(settings) & set(RESERVED))
    if taken:
        raise ValueError(f"attributes uses reserved names: {', '.join(taken)}")
    versions = {"python": platform.python_version(), "numpy": np.__version__, "h5py": h5py.__version__}
    header = {
        "centre": centre,
        # JSON there and back: a tuple becomes the list that a resumed run reads from the parts.
        "detector": json.loads(json.dumps(detector)),
        "with_masks": bool(with_masks),
        "versions": versions,
        "settings": json.loads(json.dumps(settings)),
    }
    size = sum(len(json.dumps(value)) for value in header.values())
    if size > MAX_ATTRIBUTE:
        raise ValueError(f"centre, detector and attributes take {size} bytes; at most {MAX_ATTRIBUTE} fit")
    return header


def origin(header: dict[str, Any]) -> dict[str, Any]:
    """Take from a header what two stores have in common that may be one: `versions` and times do not matter."""
    detector = header["detector"]["hash"]
    return {"centre": header["centre"], "detector": detector, "masks": header["with_masks"], **header["settings"]}


@contextmanager
def new_store(
    path: str | os.PathLike, header: dict[str, Any], num_cells: int, num_images: int, widths: dict[str, int]
) -> Iterator[h5py.File]:
    """Give an empty store of known size, which gets its final name when the block ends without an error.

    Args:
        path: the final name.
        header: as from `make_header`.
        num_cells: rows of group `cells`.
        num_images: rows of group `images`.
        widths: bytes of each string dataset, by its path; 1 where it is not named.

    Raises:
        OSError: if the disk is full.
    """
    fields = cell_fields(header["with_masks"])
    arrays = (ARRAY_FIELDS[name] for name in fields if name in ARRAY_FIELDS)
    row_bytes = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in arrays)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    check_room(path, num_cells * row_bytes)
    with atomic_hdf5(path, "v110") as file:
        _lay_out(file, header, num_cells, num_images, widths)
        yield file


def _lay_out(file: h5py.File, header: dict[str, Any], num_cells: int, num_images: int, widths: dict[str, int]) -> None:
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for name, value in {"format": FORMAT, "centre": header["centre"], "created": created}.items():
        _write_text_attribute(file, name, value)
    for name in ("detector", "versions", "settings"):
        _write_text_attribute(file, name, json.dumps(header[name]))
    file.attrs.create("schema", SCHEMA, dtype="int32")
    file.attrs.create("with_masks", int(header["with_masks"]), dtype="int32")
    cells, images = file.create_group("cells"), file.create_group("images")
    for name in cell_fields(header["with_masks"]):
        if name in STRING_FIELDS:
            _create_column(cells, name, num_cells, _text_dtype(widths, f"cells/{name}"))
        else:
            dtype, shape = ARRAY_FIELDS[name]
            _create_column(cells, name, num_cells, dtype, shape)
    for name in IMAGE_STRINGS:
        _create_column(images, name, num_images, _text_dtype(widths, f"images/{name}"))
    for name in IMAGE_COUNTS:
        _create_column(images, name, num_images, "int32")


def _create_column(group: h5py.Group, name: str, num_rows: int, dtype: Any, shape: tuple[int, ...] = ()) -> None:
    # Images and features are read row by row, in any order; what is small is read whole.
    rows_per_chunk = 1 if len(shape) >= 2 else min(_SMALL_ROWS, max(num_rows, 1))
    group.create_dataset(
        name,
        (num_rows, *shape),
        dtype,
        maxshape=(None, *shape),  # without a limit HDF5 also takes a column of no rows
        chunks=(rows_per_chunk, *shape),
        fletcher32=True,
        track_times=False,
    )


def _text_dtype(widths: dict[str, int], name: str) -> np.dtype:
    return h5py.string_dtype("utf-8", widths.get(name, 1))


def _write_text_attribute(file: h5py.File, name: str, text: str) -> None:
    data = text.encode()
    file.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(len(data), 1)))


def check_cell(key: str, cell: Cell, with_masks: bool) -> dict[str, np.ndarray]:
    """Bring a cell to the store's types.

    Raises:
        ValueError: if a value has an odd shape, type or value.
    """
    if (cell.mask is not None) != with_masks:
        raise ValueError(f"{key}: cell {'lacks its' if with_masks else 'has a'} mask, unlike the store")
    row = {}
    for name, (dtype, shape) in ARRAY_FIELDS.items():
        if name == "mask" and not with_masks:
            continue
        value = np.asarray(getattr(cell, name))
        if value.shape != shape:
            raise ValueError(f"{key}: {name} must have shape {shape}, got {value.shape}")
        if dtype == "uint8" and value.dtype != np.uint8:
            raise ValueError(f"{key}: {name} must be uint8, got {value.dtype}")
        with np.errstate(over="ignore"):
            value = value.astype(dtype)
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{key}: {name} holds NaN or values too large for {dtype}")
        row[name] = value
    return row


def encode_text(name: str, text: str) -> bytes:
    """UTF-8 of a text for the column `name`.

    Raises:
        InputError: if a file name is not UTF-8.
        ValueError: if it is too long, holds NUL, or is an empty key.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text!r}: name is not valid UTF-8; rename the file") from None
    if len(data) > MAX_STRING or b"\0" in data or (name == "key" and not data):
        raise ValueError(f"{name} must be text of at most {MAX_STRING} bytes without NUL, got {text[:80]!r}")
    return data


def decode_text(values: np.ndarray) -> np.ndarray:
    """Bytes as a str array; other arrays as they are."""
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def text_width(texts: list[bytes]) -> int:
    """Bytes that a column of these texts needs for each."""
    return max((len(t) for t in texts), default=0) or 1
