"""Checks of a feature store before anything is read from it, since stores are handed between labs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.errors import InputError, first_line
from mrcnn.json_values import parse_json
from mrcnn.store_layout import (
    ARRAY_FIELDS,
    FORMAT,
    IMAGE_COUNTS,
    IMAGE_STRINGS,
    MAX_ATTRIBUTE,
    MAX_STRING,
    RESERVED,
    SCHEMA,
    cell_fields,
)

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
