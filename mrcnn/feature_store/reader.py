"""Reading a feature store, checked: what every kind of store offers, and the store that is one file."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.feature_store.layout import (
    ARRAY_FIELDS,
    FORMAT,
    IMAGE_COUNTS,
    IMAGE_STRINGS,
    MAX_ATTRIBUTE,
    MAX_STRING,
    RESERVED,
    SCHEMA,
    UNREADABLE,
    cell_fields,
    decode_text,
)
from mrcnn.files.errors import InputError, first_line
from mrcnn.files.json_io import parse_json

_MAX_OUTSIDE = 1.0  # pixels: boxes are rounded
_MAX_CHUNK = 16 * 2**20  # bytes; a read allocates whole chunks


def open_file(path: Path) -> h5py.File:
    """Open a store for reading.

    Raises:
        InputError: if it is missing, not HDF5 or cut short.
    """
    try:
        with open(path, "rb") as handle:
            signature = handle.read(8)
        if signature != b"\x89HDF\r\n\x1a\n":
            raise InputError(f"{path}: not an HDF5 feature store; make one with extract")
        return h5py.File(path, "r", locking="best-effort")
    except FileNotFoundError:
        raise InputError(f"{path}: no such feature store; make one with extract") from None
    except OSError as error:
        raise InputError(f"{path}: damaged or cut short ({first_line(error)}); copy or extract it again") from None


@contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into an error that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); copy or extract it again") from None


def read_header(file: h5py.File, path: Path) -> dict[str, Any]:
    """The attributes of a store, checked: `format`, `schema`, `created` and what `make_header` gives.

    Raises:
        InputError: if one is missing or odd, or the file is of another format or schema.
    """
    header: dict[str, Any] = {}
    for name in RESERVED:
        if name not in file.attrs:
            raise InputError(f"{path}: not a feature store (no attribute {name!r}); make one with extract")
        attribute = file.attrs.get_id(name)
        kind = "i" if name in ("schema", "with_masks") else "S"
        # A variable-length string would read as kind "O", of a size known only after reading it.
        type_is_right = attribute.shape == () and attribute.dtype.kind == kind
        if not type_is_right or attribute.get_storage_size() > MAX_ATTRIBUTE:
            raise InputError(f"{path}: attribute {name!r} has an odd type or size; extract it again")
        value = file.attrs[name]
        header[name] = int(value) if kind == "i" else _as_text(value)
    if header["format"] != FORMAT:
        raise InputError(f"{path}: not a feature store (format {header['format']!r}); make one with extract")
    if header["schema"] != SCHEMA:
        schema = header["schema"]
        raise InputError(f"{path}: has schema {schema}, this software reads {SCHEMA}; extract it again")
    for name in ("detector", "versions", "settings"):
        try:
            header[name] = parse_json(header[name], allow_nan=True)
        except ValueError as error:
            raise InputError(f"{path}: attribute {name!r} is not valid JSON ({error}); extract it again") from None
        if not isinstance(header[name], dict):
            raise InputError(f"{path}: attribute {name!r} is not a JSON object; extract it again")
    if not isinstance(header["detector"].get("hash"), str):
        raise InputError(f"{path}: does not say which detector made it; extract it again")
    if header["with_masks"] not in (0, 1):
        raise InputError(f"{path}: attribute 'with_masks' is {header['with_masks']}, not 0 or 1; extract it again")
    header["with_masks"] = bool(header["with_masks"])
    centre = header["centre"]
    # Files are named after centres.
    if not centre or not centre.isprintable() or "/" in centre or "\\" in centre or centre.startswith("."):
        raise InputError(f"{path}: centre {ascii(centre)[:80]} is no name for files; extract it again with another")
    return header


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def check_layout(file: h5py.File, path: Path, with_masks: bool) -> int:
    """Check every dataset before one is read; returns the number of cells.

    Raises:
        InputError: if a dataset is missing, odd, or larger than what the file holds.
    """
    text = (None, ())
    columns_of = {
        "cells": {name: ARRAY_FIELDS.get(name, text) for name in cell_fields(with_masks)},
        "images": {**dict.fromkeys(IMAGE_STRINGS, text), **dict.fromkeys(IMAGE_COUNTS, ("int32", ()))},
    }
    lengths = {}
    for group, columns in columns_of.items():
        _check_link(file, group, path, h5py.Group)
        rows = {name: _check_column(file[group], name, path, *spec) for name, spec in columns.items()}
        if len(set(rows.values())) > 1:
            raise InputError(f"{path}: columns of {group!r} differ in length {rows}; extract it again")
        lengths[group] = next(iter(rows.values()))
    return lengths["cells"]


def check_values(file: h5py.File, path: Path) -> None:
    """Check the small columns, of a file whose layout is known to be right: the rows of images and cells must fit.

    Raises:
        InputError: saying which row is wrong.
    """
    cells, images = file["cells"], file["images"]
    keys, counts = images["key"][...], images["num_cells"][...]
    _check_rows(keys != b"", path, "images/key", "is empty")
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), bool)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    _check_rows(~again, path, "images/key", "is there before")
    _check_rows(images["num_detections"][...] >= 0, path, "images/num_detections", "is below 0")
    stated = int(counts.sum(dtype=np.int64))
    if stated != len(cells["key"]):
        raise InputError(f"{path}: its images have {stated} cells, but it holds {len(cells['key'])}; extract it again")
    _check_rows(counts >= 0, path, "images/num_cells", "is below 0")
    _check_rows(cells["key"][...] == np.repeat(keys, counts), path, "cells/key", "is not the image that the cell is of")
    scores, boxes, shapes = cells["score"][...], cells["box"][...], cells["image_shape"][...]
    _check_rows((scores >= 0) & (scores <= 1), path, "cells/score", "is not from 0 to 1")
    _check_rows(cells["class_id"][...] >= 1, path, "cells/class_id", "is below 1")
    _check_rows(np.all(shapes >= 1, axis=1), path, "cells/image_shape", "is below 1")
    within = np.all(boxes[:, :2] >= -_MAX_OUTSIDE, axis=1) & np.all(boxes[:, 2:] <= shapes + _MAX_OUTSIDE, axis=1)
    _check_rows(within & np.all(boxes[:, :2] <= boxes[:, 2:], axis=1), path, "cells/box", "does not lie in its image")


def _check_rows(are_right: np.ndarray, path: Path, column: str, what: str) -> None:
    if not np.all(are_right):
        raise InputError(f"{path}: {column} of row {int(np.argmin(are_right))} {what}; extract it again")


def _check_link(group: h5py.Group, name: str, path: Path, kind: type) -> None:
    link = group.get(name, getlink=True)
    if link is None:
        raise InputError(f"{path}: not a feature store (no {name!r}); make one with extract")
    if not isinstance(link, h5py.HardLink):
        raise InputError(f"{path}: {name!r} is a link to somewhere else, which is refused; extract it again")
    if group.get(name, getclass=True) is not kind:
        raise InputError(f"{path}: {name!r} is not a {kind.__name__.lower()}; extract it again")


def _check_column(group: h5py.Group, name: str, path: Path, dtype: str | None, shape: tuple[int, ...]) -> int:
    """Check one dataset; `dtype` None stands for fixed-length strings. Returns its number of rows."""
    _check_link(group, name, path, h5py.Dataset)
    dataset = group[name]
    where = f"{path}: {group.name.strip('/')}/{name}"
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} keeps its data in another file, which is refused; extract it again")
    if dtype is None:
        type_is_right = dataset.dtype.kind == "S" and dataset.dtype.itemsize <= MAX_STRING
    else:
        type_is_right = dataset.dtype == np.dtype(dtype)
    if not type_is_right or dataset.ndim != 1 + len(shape) or dataset.shape[1:] != shape:
        expected = f"{dtype or 'string'} of shape (n, {', '.join(map(str, shape))})".replace(", )", ",)")
        found = f"{dataset.dtype} of shape {dataset.shape}"
        raise InputError(f"{where} is {found}, not {expected}; extract it again")
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - {h5py.h5z.FILTER_FLETCHER32}:
        raise InputError(f"{where} is compressed, which is refused; unpack with h5repack -f NONE")
    # With no compression the rows cannot be larger than what the file holds, so a stated size is a true one.
    size = dataset.size * dataset.dtype.itemsize
    if size > min(dataset.id.get_storage_size(), path.stat().st_size):
        raise InputError(f"{where} states {dataset.shape[0]} rows but does not hold them; extract it again")
    if dataset.chunks and np.prod(dataset.chunks, dtype=np.float64) * dataset.dtype.itemsize > _MAX_CHUNK:
        raise InputError(f"{where} has chunks of more than {_MAX_CHUNK >> 20} MiB; extract it again")
    if dataset.chunks:
        _check_chunks(dataset, where, path.stat().st_size, filters)
    return dataset.shape[0]


def _check_chunks(dataset: h5py.Dataset, where: str, file_size: int, filters: set[int]) -> None:
    """Refuse a dataset whose index of chunks is wrong: HDF5 reads zeros where it names none, and has no checksum."""
    chunks: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(chunks.append)
    shape, steps = np.array(dataset.shape), np.array(dataset.chunks)
    count = int(np.prod(-(-shape // steps)))
    size = int(np.prod(steps)) * dataset.dtype.itemsize + 4 * (h5py.h5z.FILTER_FLETCHER32 in filters)
    if len(chunks) != count or len({chunk.chunk_offset for chunk in chunks}) != count:
        raise InputError(f"{where} has {len(chunks)} chunks instead of {count}; extract it again")
    if not chunks:
        return
    offsets = np.array([chunk.chunk_offset for chunk in chunks], np.uint64)
    if np.any(offsets % steps.astype(np.uint64)) or np.any(offsets >= shape.astype(np.uint64)):
        raise InputError(f"{where} has a chunk where there is none; extract it again")
    # A bit of the mask leaves the checksum out.
    if any(chunk.filter_mask or chunk.size != size for chunk in chunks):
        raise InputError(f"{where} has chunks that are not held as they should be; extract it again")
    places = np.sort(np.array([chunk.byte_offset for chunk in chunks], np.uint64))
    if places[-1] > file_size - size or np.any(np.diff(places) < size):
        raise InputError(f"{where} has chunks that share their place, or lie beyond the end; extract it again")


_SECONDS_OF_DOUBT = 2.0


class StoreReader(ABC):
    """What an opened store offers, be it one file or several shards.

    Attributes:
        path: the store; of shards, the first one.
        paths: all files, one or more.
        centre: name of the centre.
        attributes: dict with `schema`, `centre`, `detector` (a dict with at least `hash`), `with_masks`,
            `versions`, `created` (ISO 8601, UTC) and the settings that the writer was given.
        settings: dict, those settings alone.
    """

    path: Path
    paths: tuple[Path, ...]
    centre: str
    attributes: dict[str, Any]
    settings: dict[str, Any]

    def __enter__(self) -> "StoreReader":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.close()

    @abstractmethod
    def __len__(self) -> int:
        """Number of cells."""

    @abstractmethod
    def close(self) -> None:
        """Close the files; strings and counts that were read before stay available."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Names that `read` takes."""
        return cell_fields(self.attributes["with_masks"])

    @property
    def detector_hash(self) -> str:
        """Hash of the detector that made the features."""
        return self.attributes["detector"]["hash"]

    @cached_property
    def keys(self) -> np.ndarray:
        """str array of shape (n,): each cell's image key."""
        return self.read("key", 0, len(self))

    @cached_property
    def labels(self) -> np.ndarray:
        """str array of shape (n,): the centre's own names, "" where unlabelled."""
        return self.read("label", 0, len(self))

    @cached_property
    def cell_types(self) -> np.ndarray:
        """str array of shape (n,): harmonised names, "" where there is none."""
        return self.read("cell_type", 0, len(self))

    @cached_property
    def image_keys(self) -> np.ndarray:
        """str array of shape (m,): keys of all images that were dealt with, in order."""
        return self.image_column("key")

    @cached_property
    def missed(self) -> list[dict[str, str]]:
        """Images without a cell: dicts with key, reason, label, cell_type."""
        columns = {name: self.image_column(name) for name in ("key", "reason", "label", "cell_type")}
        rows = np.flatnonzero(columns["reason"] != "")
        return [{name: str(column[row]) for name, column in columns.items()} for row in rows]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Numbers of images (= found + missed + unreadable), detections and stored cells."""
        reasons = self.image_column("reason")
        unreadable = int(np.sum(np.char.startswith(reasons, UNREADABLE)))
        found = int(np.sum(reasons == ""))
        return {
            "images": len(reasons),
            "found": found,
            "missed": len(reasons) - found - unreadable,
            "unreadable": unreadable,
            "detections": int(np.sum(self.image_column("num_detections"), dtype=np.int64)),
            "cells": len(self),
        }

    def read(self, field: str, start: int, stop: int) -> np.ndarray:
        """Read the rows from `start` up to `stop`, exclusive.

        Returns:
            Array of shape (stop - start, ...) of the field's type; strings as a numpy str array.

        Raises:
            InputError: if a checksum fails, or masks are asked of a store without them.
            IndexError: if the rows are not in the store.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}:{stop} of a store with {len(self)} cells")
        return self._read_range(field, start, stop)

    def read_rows(self, field: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read single rows; neighbouring rows are read at one go.

        Args:
            field: one of `fields`.
            indices: int array of shape (k,), strictly increasing.

        Returns:
            Array of shape (k, ...), in the order of `indices`.

        Raises:
            InputError: as in `read`.
            IndexError: if a row is not in the store.
            ValueError: if the indices do not increase.
        """
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if not len(indices):
            return self.read(field, 0, 0)
        if np.any(np.diff(indices) <= 0):
            raise ValueError("indices must be strictly increasing")
        if indices[0] < 0 or indices[-1] >= len(self):
            raise IndexError(f"rows {indices[0]} to {indices[-1]} of a store with {len(self)} cells")
        return self._read_rows(field, indices)

    @abstractmethod
    def image_column(self, name: str) -> np.ndarray:
        """A column of the image table: str array of shape (m,), or int32 for `num_detections` and `num_cells`."""

    @abstractmethod
    def _read_range(self, field: str, start: int, stop: int) -> np.ndarray:
        """Rows that are in the store."""

    @abstractmethod
    def _read_rows(self, field: str, indices: np.ndarray) -> np.ndarray:
        """Rows that are in the store, one at least; `indices` increase."""


# Number of cells of the files that were found right, by their state. A training opens its stores several times, and
# with ten million cells each check of all chunks takes minutes.
_checked: dict[tuple[int, ...], int] = {}


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What changes whenever a file does; None so soon after a change that a second one could bear the same time."""
    status = path.stat()
    if abs(time.time() - status.st_ctime) < _SECONDS_OF_DOUBT:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FeatureStore(StoreReader):
    """Read a store; nothing but the rows asked for, the strings and the image table is ever held in memory.

    The file is checked before anything is read from it, since stores are handed between labs: it must be
    whole, of this schema, with every dataset of the stated type and shape inside the file itself.

    Args:
        path: the store.

    Raises:
        InputError: if the file is missing, not HDF5, cut short, of another schema, refers to other files, states
            sizes that it does not hold, or its small columns hold what cannot be, such as a box outside of its image.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.paths = (self.path,)
        self._file = open_file(self.path)
        try:
            with as_input_error(self.path):
                header = read_header(self._file, self.path)
                self._length = self._check(header["with_masks"])
        except BaseException:
            self._file.close()
            raise
        self.attributes = {k: v for k, v in header.items() if k not in ("format", "settings")}
        self.attributes.update(header["settings"])
        self.settings = header["settings"]
        self.centre = header["centre"]

    def _check(self, with_masks: bool) -> int:
        """Check layout and values, unless this process did so since the file was last changed; returns the cells."""
        before = _state_of(self.path)
        if before not in _checked:
            length = check_layout(self._file, self.path, with_masks)
            check_values(self._file, self.path)
            if before is None or _state_of(self.path) != before:
                return length
            _checked[before] = length
        return _checked[before]

    def __enter__(self) -> "FeatureStore":
        return self

    def __len__(self) -> int:
        return self._length

    def close(self) -> None:
        self._file.close()

    def image_column(self, name: str) -> np.ndarray:
        dataset = self._file["images"][name]
        with as_input_error(self.path):
            return decode_text(dataset[...])

    def text_widths(self) -> dict[str, int]:
        """Bytes of each string dataset, by its path in the file."""
        widths = {}
        for group in ("cells", "images"):
            for name, dataset in self._file[group].items():
                if dataset.dtype.kind == "S":
                    widths[f"{group}/{name}"] = dataset.dtype.itemsize
        return widths

    def group(self, name: str) -> h5py.Group:
        """The file's group `cells` or `images`, for copying rows as they are."""
        return self._file[name]

    def _read_range(self, field: str, start: int, stop: int) -> np.ndarray:
        dataset = self._dataset(field)
        with as_input_error(self.path):
            return decode_text(dataset[start:stop])

    def _read_rows(self, field: str, indices: np.ndarray) -> np.ndarray:
        dataset = self._dataset(field)
        rows = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
        # h5py's own list indexing builds one selection per row, far slower than reading runs of rows.
        edges = np.flatnonzero(np.diff(indices) > 1) + 1
        with as_input_error(self.path):
            for begin, end in zip(np.r_[0, edges], np.r_[edges, len(indices)], strict=True):
                rows[begin:end] = dataset[indices[begin] : indices[end - 1] + 1]
            return decode_text(rows)

    def _dataset(self, field: str) -> h5py.Dataset:
        if field not in self.fields:
            hint = "; extract again with masks" if field == "mask" else ""
            raise InputError(f"{self.path}: has no field {field!r} (it has {', '.join(self.fields)}){hint}")
        return self._file["cells"][field]


def check_same_origin(store: StoreReader, header: dict[str, Any], advice: str) -> None:
    """Refuse a store that another centre, detector or setting made.

    Args:
        store: opened.
        header: as from `make_header`: what it should have been made with.
        advice: what to do about it, the end of the message.

    Raises:
        InputError: if something differs; it says what.
    """
    pairs = {
        "centre": (store.centre, header["centre"]),
        "detector": (store.detector_hash, header["detector"]["hash"]),
        "masks": (store.attributes["with_masks"], header["with_masks"]),
    }
    for name in sorted(set(store.settings) | set(header["settings"])):
        pairs[name] = (store.settings.get(name), header["settings"].get(name))
    for name, (there, here) in pairs.items():
        if there != here:
            raise InputError(f"{store.path}: made with {name} {there!r}, not {here!r}; {advice}")


# As integers, float16 numbers from this one on are infinite or NaN; with the sign bit set, from the second on.
_INFINITY, _MINUS_INFINITY = 0x7C00, 0xFC00


def check_finite(store: StoreReader, rows: Sequence[int] | np.ndarray, features: np.ndarray) -> None:
    """Refuse features that are NaN or infinite.

    Args:
        store: where they come from.
        rows: int array of shape (n,), the rows that they are.
        features: float16 array of shape (n, 14, 14, 256).

    Raises:
        InputError: naming the first such cell.
    """
    # Two maxima over integers take a fifth of the time of `isfinite`, which is half that of reading.
    if not features.size or (
        features.view(np.int16).max() < _INFINITY and features.view(np.uint16).max() < _MINUS_INFINITY
    ):
        return
    first = int(rows[np.argmin(np.isfinite(features).all(axis=(1, 2, 3)))])
    key = store.read("key", first, first + 1)[0]
    files = ", ".join(map(str, store.paths))
    raise InputError(f"{files}: features of cell {first} ({key}) hold NaN or Inf; extract this centre again")


_READ_ROWS = 256  # 26 MB of features


def roi_vectors(store: StoreReader, mode: str = "mean") -> np.ndarray:
    """Read the detector's features as one vector per cell: the R-CNN-RF baseline of thesis section 3.4.

    The thesis flattens the 14x14x256 features of a cell to 50,176 numbers ("flat"). As float16 that is 100 kB
    a cell, 6.6 GB for the thesis' 65,693 cells, and twice that again while scikit-learn holds a float32 copy.
    "mean" averages over the 14x14 grid and keeps 256 numbers.

    Args:
        store: opened.
        mode: "mean" or "flat".

    Returns:
        float32 array of shape (n, 256), or float16 of shape (n, 50176); rows as in the store.

    Raises:
        ValueError: if `mode` is neither.
    """
    if mode not in ("mean", "flat"):
        raise ValueError(f"mode must be 'mean' or 'flat', got {mode!r}")
    size, dtype = (256, np.float32) if mode == "mean" else (14 * 14 * 256, np.float16)
    vectors = np.empty((len(store), size), dtype)
    for start in range(0, len(store), _READ_ROWS):
        stop = min(start + _READ_ROWS, len(store))
        features = store.read("features", start, stop)
        # float16 sums lose digits; the mean is taken in float32.
        block = features.mean(axis=(1, 2), dtype=np.float32) if mode == "mean" else features.reshape(-1, size)
        vectors[start:stop] = block
    return vectors
