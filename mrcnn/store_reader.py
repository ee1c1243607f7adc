"""Reading a feature store: what every kind of store offers, and the store that is one file."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.errors import InputError
from mrcnn.store_checks import as_input_error, check_layout, check_values, open_file, read_header
from mrcnn.store_layout import UNREADABLE, cell_fields, decode_text

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
