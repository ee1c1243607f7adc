"""Reading a feature store, checked: what every kind of store offers, and the store that is one file."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.feature_store.layout import (
    ATTRIBUTES,
    COLUMNS,
    FORMAT,
    IMAGE_STRINGS,
    MASKS,
    OLD_MASK_SHAPE,
    SCHEMA,
    STRING_FIELDS,
    UNREADABLE,
    all_columns,
    array_fields,
    decode_text,
    origin,
)
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import damage_named, open_plain
from mrcnn.files.json_io import parse_json
from mrcnn.files.output_paths import is_file_name
from mrcnn.files.run_folder import check_same

NEEDS_NUCLEI = "with masks, by a detector that draws nuclei"
_ADVICE = "copy it again, or make it with aecfe extract"


class FeatureStore:
    """Read a store; nothing but the rows asked for, the strings and the image table is ever held in memory.

    Attributes:
        path: the store; of shards, the first one.
        paths: all files, one or more.
        centre: name of the centre.
        attributes: `schema`, `centre`, `detector` (a dict with at least `hash`), `with_masks`, `mask_shape`,
            `with_nuclei`, `morphology` (names of the measurements, [] for none), `versions`, `created` (ISO 8601, UTC)
            and the settings that the writer was given.
        settings: those settings alone.

    Raises:
        InputError: if the file is not whole and of this schema, with every dataset of the stated type and shape inside
            the file itself, and as many cells as its images have.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.paths = (self.path,)
        with ExitStack() as stack:
            self._file = stack.enter_context(open_plain(self.path, advice=_ADVICE))
            with damage_named(self.path, _ADVICE):
                header = _read_header(self._file)
                self._length = _check_layout(self._file, header)
            self._closing = stack.pop_all()
        self.settings: dict[str, Any] = header.pop("settings")
        self.centre: str = header["centre"]
        self.attributes = {name: value for name, value in header.items() if name != "format"} | self.settings

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of cells."""
        return self._length

    def close(self) -> None:
        """Close the files; strings and counts that were read before stay available."""
        self._closing.close()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names that `read` takes."""
        return (*array_fields(self.attributes), *STRING_FIELDS)

    @property
    def detector_hash(self) -> str:
        """Hash of the detector that made the features."""
        return self.attributes["detector"]["hash"]

    @property
    def header(self) -> dict[str, Any]:
        """As `make_header` gave it to the writer."""
        return {**self.attributes, "settings": self.settings}

    @cached_property
    def image_ids(self) -> np.ndarray:
        """str array of shape (n,): the image of each cell."""
        return self.read("image_id", 0, len(self))

    @cached_property
    def labels(self) -> np.ndarray:
        """str array of shape (n,): the centre's own names, "" where unlabelled."""
        return self.read("label", 0, len(self))

    @cached_property
    def cell_types(self) -> np.ndarray:
        """str array of shape (n,): harmonised names, "" where there is none."""
        return self.read("cell_type", 0, len(self))

    @cached_property
    def all_image_ids(self) -> np.ndarray:
        """str array of shape (m,): image_ids of all images that were dealt with, in order."""
        return self.image_column("image_id")

    @cached_property
    def missed(self) -> list[dict[str, str]]:
        """Images without a cell: dicts with image_id, reason, label, cell_type."""
        columns = {name: self.image_column(name) for name in IMAGE_STRINGS}
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
        """Read the rows from `start` up to `stop`, exclusive, as `read_rows` does."""
        return self.read_rows(field, np.arange(start, stop))

    def read_rows(self, field: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read single rows; neighbouring rows are read at one go.

        Args:
            field: one of `fields`.
            indices: int array of shape (k,), strictly increasing.

        Returns:
            Array of shape (k, ...) of the field's type, in the order of `indices`; strings as a numpy str array.

        Raises:
            InputError: if a checksum fails, or masks or measurements are asked of a store without them.
            IndexError: if the rows are not in the store.
        """
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if np.any(np.diff(indices) <= 0):
            raise ValueError("indices must be strictly increasing")
        if len(indices) and not 0 <= indices[0] <= indices[-1] < len(self):
            raise IndexError(f"rows {indices[0]} to {indices[-1]} of a store with {len(self)} cells")
        return self._read_rows(field, indices)

    def image_column(self, name: str) -> np.ndarray:
        """A column of the image table: str array of shape (m,), or int32 for `num_detections` and `num_cells`."""
        with damage_named(self.path, _ADVICE):
            return decode_text(_column(self._file, f"images/{name}")[...])

    def text_widths(self) -> dict[str, int]:
        """Bytes that each string dataset needs, by its path in `layout`."""
        texts = [name for name, (dtype, _) in all_columns(self.attributes).items() if dtype is None]
        return {name: _column(self._file, name).dtype.itemsize for name in texts}

    def _read_rows(self, field: str, indices: np.ndarray) -> np.ndarray:
        """Rows that are in the store, perhaps none; `indices` increase."""
        if field not in self.fields:
            advice = {"mask": "with masks"} | dict.fromkeys((MASKS[1], "morphology"), NEEDS_NUCLEI)
            hint = f"; extract again {advice[field]}" if field in advice else ""
            raise InputError(f"{self.path}: has no field {field!r} (it has {', '.join(self.fields)}){hint}")
        with damage_named(self.path, _ADVICE):
            dataset = _column(self._file, f"cells/{field}")
            rows = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
            # h5py's own list indexing builds one selection per row, far slower than reading runs of rows.
            edges = np.flatnonzero(np.diff(indices) > 1) + 1
            for begin, end in zip([0, *edges], [*edges, len(indices)], strict=True):
                if end > begin:
                    dataset.read_direct(rows, np.s_[indices[begin] : indices[end - 1] + 1], np.s_[begin:end])
            return decode_text(rows)


def _column(file: h5py.File, name: str) -> h5py.Dataset:
    is_old = name.endswith("image_id") and file.attrs["schema"] == 1
    return file[name.replace("image_id", "key") if is_old else name]


def _read_header(file: h5py.File) -> dict[str, Any]:
    """The attributes of a store: those of ATTRIBUTES, as `make_header` gives them."""
    values = {name: file.attrs[name] for name in ATTRIBUTES}
    header = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
    if header["format"] != FORMAT or int(header["schema"]) not in range(1, SCHEMA + 1):
        found = f"{header['format']}, schema {header['schema']}"
        raise ValueError(f"it is {found}, and this software reads {FORMAT}, schema 1 to {SCHEMA}")
    for name in ("detector", "versions", "settings"):
        header[name] = dict(parse_json(header[name]))
    header["schema"], header["with_masks"] = int(header["schema"]), bool(header["with_masks"])
    header |= {"mask_shape": list(OLD_MASK_SHAPE), "with_nuclei": False, "morphology": []}
    if header["schema"] > 2:
        header["mask_shape"] = [int(side) for side in file.attrs["mask_shape"]]
        header["with_nuclei"] = bool(file.attrs["with_nuclei"])
        if "morphology" in file["cells"]:
            header["morphology"] = [str(name, "utf-8") for name in file["cells/morphology"].attrs[COLUMNS]]
    centre = header["centre"]
    if not is_file_name(centre) or not isinstance(header["detector"]["hash"], str):
        raise ValueError(f"centre {ascii(centre)[:80]} is no name for files, or the detector has no hash")
    return header


def _check_layout(file: h5py.File, header: dict[str, Any]) -> int:
    """Compare types, shapes and lengths of all columns with what they should be; returns the number of cells."""
    for name, (wanted, shape) in all_columns(header).items():
        dataset, rows = _column(file, name), len(_column(file, name.partition("/")[0] + "/image_id"))
        is_type = dataset.dtype == wanted if wanted else dataset.dtype.kind == "S"
        if dataset.shape != (rows, *shape) or not is_type:
            expected = f"{wanted or 'text'} of shape {(rows, *shape)}"
            raise ValueError(f"{name} is {dataset.dtype} of shape {dataset.shape}, not {expected}")
    counts = file["images/num_cells"][...]
    num_cells, stated = len(_column(file, "cells/image_id")), int(counts.sum(dtype=np.int64))
    if stated != num_cells or np.any(counts < 0):
        raise ValueError(f"its images have {stated} cells, but it holds {num_cells}")
    return num_cells


def check_same_origin(store: FeatureStore, header: dict[str, Any], advice: str) -> None:
    """Refuse a store that another centre, detector or setting made than those of a header; `advice` ends the error."""
    check_same(store.path, origin(store.header), origin(header), advice)


# As integers, float16 numbers from this one on are infinite or NaN; with the sign bit set, from the second on.
_INFINITY, _MINUS_INFINITY = 0x7C00, 0xFC00


def check_finite(store: FeatureStore, rows: Sequence[int] | np.ndarray, features: np.ndarray) -> None:
    """Refuse features, float16 of shape (n, 14, 14, 256), that are NaN or infinite, naming the first such cell.

    They are the n `rows` of a store.
    """
    # Two maxima over integers take a fifth of the time of `isfinite`, which is half that of reading.
    if not features.size or (
        features.view(np.int16).max() < _INFINITY and features.view(np.uint16).max() < _MINUS_INFINITY
    ):
        return
    first = int(rows[np.argmin(np.isfinite(features).all(axis=(1, 2, 3)))])
    image_id = store.read("image_id", first, first + 1)[0]
    files = ", ".join(map(str, store.paths))
    raise InputError(f"{files}: features of cell {first} ({image_id}) hold NaN or Inf; extract this centre again")


_READ_ROWS = 256  # 26 MB of features


def roi_vectors(store: FeatureStore, mode: str = "mean") -> np.ndarray:
    """Read the detector's features as one vector per cell: the R-CNN-RF baseline of thesis section 3.4.

    Args:
        store: opened.
        mode: "flat" as in the thesis, 100 kB a cell and 6.6 GB for its 65,693 cells; or "mean" over the 14x14 grid.

    Returns:
        float16 array of shape (n, 50176), or float32 of shape (n, 256); rows as in the store.
    """
    size, dtype = {"mean": (256, np.float32), "flat": (14 * 14 * 256, np.float16)}[mode]
    vectors = np.empty((len(store), size), dtype)
    for start in range(0, len(store), _READ_ROWS):
        stop = min(start + _READ_ROWS, len(store))
        features = store.read("features", start, stop)
        # float16 sums lose digits; the mean is taken in float32.
        vectors[start:stop] = (
            features.mean(axis=(1, 2), dtype=np.float32) if mode == "mean" else features.reshape(-1, size)
        )
    return vectors
