"""The HDF5 file between the two stages: what the detector writes and the autoencoder reads.

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
variable-length ones lie in a heap that the checksum does not cover.
"""

import json
import logging
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mrcnn.atomic import atomic_path
from mrcnn.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind; there the writer runs without one.
    fcntl = None

logger = logging.getLogger(__name__)

FORMAT = "aecfe-features"
SCHEMA = 1
UNREADABLE = "unreadable"

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

_RESERVED = ("format", "schema", "centre", "detector", "with_masks", "versions", "created", "settings")
_MAX_STRING = 4096  # bytes; the longest path that Linux takes
_MAX_ATTRIBUTE = 60_000  # bytes; HDF5 keeps at most 64 KiB of attributes in an object's header
_MAX_CHUNK = 16 * 2**20  # bytes; a read allocates whole chunks
_SMALL_ROWS = 1024  # rows in a chunk of strings, scores or boxes
_MERGE_ROWS = 64  # about 13 MB, whatever the size of the store


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


class FeatureStoreWriter:
    """Write a store so that a crash, even `kill -9`, costs at most the last part.

    Cells gather in memory and go to disk in parts, `<path>.parts/part-00000.h5` and so on, each renamed into
    place when it is whole; an image is never divided between parts. A new writer for the same path finds the
    parts, and `done_keys` tells which images to pass over. `finish` streams the parts into `<path>`, then
    removes them; meanwhile the disk holds the data twice.

    As a context manager it finishes when the block ends well. When the block ends with an error the cells
    gathered so far are saved as a part, and the parts stay.

    Args:
        path: final name of the store; an older store of that name is replaced by `finish`, not before.
        centre: name of the centre.
        detector: what made the features: at least `hash`, and usually `config`; JSON values.
        with_masks: whether every cell comes with a mask.
        attributes: settings that decide what is stored (crop margins, score threshold ...), JSON values. A
            resumed run must give the same ones, so times and host names do not belong here.
        part_size: number of images or cells, whichever comes first, after which a part is written.

    Raises:
        InputError: if parts of another centre, detector or setting lie there, a part is damaged, or another
            process is writing this store.
        ValueError: if `detector` has no hash, or `attributes` uses a reserved name or is too long.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        centre: str,
        detector: dict[str, Any],
        with_masks: bool = False,
        attributes: dict[str, Any] | None = None,
        part_size: int = 256,
    ):
        if part_size < 1:
            raise ValueError(f"part_size must be 1 or more, got {part_size}")
        self.path = Path(path)
        self.part_size = part_size
        self._header = _make_header(centre, detector, with_masks, attributes or {})
        self._parts_folder = self.path.with_name(self.path.name + ".parts")
        self._cells: dict[str, list] = {}
        self._images: dict[str, list] = {}
        self._clear_buffer()
        self._finished = False
        self._parts_folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._parts_folder / "lock", self.path)
        try:
            self._sweep()
            self._parts = sorted(self._parts_folder.glob("part-*.h5"))
            self._done = self._resume()
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> "FeatureStoreWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._finished:
            return
        try:
            if kind is None:
                self.finish()
            else:
                self._flush()
        except OSError as flush_error:
            if kind is None:
                raise
            # The first error is the one to report; a full disk is often its cause.
            logger.warning("%s: the last cells could not be saved (%s)", self._parts_folder, flush_error)
        finally:
            self._unlock()

    @property
    def done_keys(self) -> set[str]:
        """Keys of all images dealt with so far, in this run and in those it resumes."""
        return self._done

    def add(
        self,
        key: str,
        cells: Sequence[Cell],
        *,
        label: str = "",
        cell_type: str = "",
        num_detections: int | None = None,
    ) -> None:
        """Store the cells of one image.

        Args:
            key: the image's key in its centre.
            cells: one cell or more.
            label: the centre's own name of the cell type.
            cell_type: the harmonised name, or "".
            num_detections: how many cells the detector found, of which `cells` are those kept.

        Raises:
            ValueError: if the key was added before, `cells` is empty, or a cell has an odd shape, type or
                value.
        """
        if not cells:
            raise ValueError(f"{key}: no cells; report the image with missed()")
        num_detections = len(cells) if num_detections is None else num_detections
        if num_detections < len(cells):
            raise ValueError(f"{key}: {len(cells)} cells of only {num_detections} detections")
        rows = [_check_cell(key, cell, self._header["with_masks"]) for cell in cells]
        self._add_image(key, label, cell_type, "", num_detections, len(cells))
        for row in rows:
            for name, value in row.items():
                self._cells[name].append(value)
            for name, text in zip(STRING_FIELDS, (key, label, cell_type), strict=True):
                self._cells[name].append(text.encode())
        self._flush_if_full()

    def missed(self, key: str, reason: str, label: str = "", cell_type: str = "") -> None:
        """Record an image without a cell.

        Args:
            key: the image's key in its centre.
            reason: why, such as "no detection above score 0.7"; one that starts with "unreadable" counts as
                such.
            label: the centre's own name of the cell type.
            cell_type: the harmonised name, or "".

        Raises:
            ValueError: if the key was added before or the reason is empty.
        """
        if not reason:
            raise ValueError(f"{key}: an image without a cell needs a reason")
        self._add_image(key, label, cell_type, reason, 0, 0)
        self._flush_if_full()

    def finish(self) -> None:
        """Merge the parts into the final file and remove them.

        Raises:
            InputError: if a part cannot be read back.
        """
        if self._finished:
            return
        self._flush()
        _merge(self._parts, self.path, self._header)
        # One rename takes all parts away at once: a kill during their deletion leaves no half set to resume.
        trash = self._trash
        os.rename(self._parts_folder, trash)
        self._finished = True
        self._unlock()
        shutil.rmtree(trash, ignore_errors=True)

    @property
    def _trash(self) -> Path:
        return self.path.with_name(f".{self.path.name}.parts.merged")

    def _sweep(self) -> None:
        """Remove what a killed run left half-written; the lock says that nobody is writing it now."""
        for leftover in (*self._parts_folder.glob(".*.tmp.part-*.h5"), *self._own_temporaries()):
            leftover.unlink(missing_ok=True)
        if self._trash.exists():
            shutil.rmtree(self._trash)

    def _own_temporaries(self) -> list[Path]:
        ending = f".tmp.{self.path.name}"
        return [p for p in self.path.parent.iterdir() if p.name.startswith(".") and p.name.endswith(ending)]

    def _resume(self) -> set[str]:
        done: set[str] = set()
        for part in self._parts:
            advice = f"delete {self._parts_folder} or choose another output"
            with FeatureStore(part) as store:
                _check_same_origin(store, self._header, advice)
                done.update(store.image_keys.tolist())
        if done:
            logger.info("%s: resuming after %d images", self.path, len(done))
        return done

    def _add_image(
        self, key: str, label: str, cell_type: str, reason: str, num_detections: int, num_cells: int
    ) -> None:
        if self._finished:
            raise ValueError(f"{self.path}: the store is finished")
        if key in self._done:
            raise ValueError(f"{key}: image added twice to {self.path}")
        texts = zip(IMAGE_STRINGS, (key, label, cell_type, reason), strict=True)
        row = {name: _encode(name, text) for name, text in texts}
        for name, value in {**row, "num_detections": num_detections, "num_cells": num_cells}.items():
            self._images[name].append(value)
        self._done.add(key)

    def _flush_if_full(self) -> None:
        if max(len(self._images["key"]), len(self._cells["key"])) >= self.part_size:
            self._flush()

    def _flush(self) -> None:
        if not self._images["key"]:
            return
        number = int(self._parts[-1].stem.split("-")[1]) + 1 if self._parts else 0
        part = self._parts_folder / f"part-{number:05d}.h5"
        with atomic_path(part) as temporary, h5py.File(temporary, "w", locking="best-effort") as file:
            widths = {f"cells/{n}": _width(self._cells[n]) for n in STRING_FIELDS}
            widths.update({f"images/{n}": _width(self._images[n]) for n in IMAGE_STRINGS})
            _create(file, self._header, len(self._cells["key"]), len(self._images["key"]), widths)
            for group, columns in (("cells", self._cells), ("images", self._images)):
                for name, values in columns.items():
                    if values:
                        dataset = file[group][name]
                        dataset[...] = np.asarray(values, dtype=dataset.dtype)
        self._parts.append(part)
        self._clear_buffer()

    def _clear_buffer(self) -> None:
        self._cells = {name: [] for name in _cell_fields(self._header["with_masks"])}
        self._images = {name: [] for name in (*IMAGE_STRINGS, *IMAGE_COUNTS)}

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class FeatureStore:
    """Read a store; nothing but the rows asked for, the strings and the image table is ever held in memory.

    The file is checked before anything is read from it, since stores are handed between labs: it must be
    whole, of this schema, with every dataset of the stated type and shape inside the file itself.

    Args:
        path: the store.

    Raises:
        InputError: if the file is missing, not HDF5, cut short, of another schema, refers to other files, or
            states sizes that it does not hold.

    Attributes:
        path: the store.
        centre: name of the centre.
        attributes: dict with `schema`, `centre`, `detector` (a dict with at least `hash`), `with_masks`,
            `versions`, `created` (ISO 8601, UTC) and the settings that the writer was given.
        settings: dict, those settings alone.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            with _as_input_error(self.path):
                header = _read_header(self._file, self.path)
                self._length = _check_layout(self._file, self.path, header["with_masks"])
        except BaseException:
            self._file.close()
            raise
        self.attributes: dict[str, Any] = {k: v for k, v in header.items() if k not in ("format", "settings")}
        self.attributes.update(header["settings"])
        self.settings: dict[str, Any] = header["settings"]
        self.centre: str = header["centre"]

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.close()

    def __len__(self) -> int:
        return self._length

    def close(self) -> None:
        """Close the file; strings and counts that were read before stay available."""
        self._file.close()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names that `read` takes."""
        return _cell_fields(self.attributes["with_masks"])

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
        return self._image_column("key")

    @cached_property
    def missed(self) -> list[dict[str, str]]:
        """Images without a cell: dicts with key, reason, label, cell_type."""
        columns = {name: self._image_column(name) for name in ("key", "reason", "label", "cell_type")}
        rows = np.flatnonzero(columns["reason"] != "")
        return [{name: str(column[row]) for name, column in columns.items()} for row in rows]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Numbers of images (= found + missed + unreadable), detections and stored cells."""
        reasons = self._image_column("reason")
        unreadable = int(np.sum(np.char.startswith(reasons, UNREADABLE)))
        found = int(np.sum(reasons == ""))
        return {
            "images": len(reasons),
            "found": found,
            "missed": len(reasons) - found - unreadable,
            "unreadable": unreadable,
            "detections": int(np.sum(self._image_column("num_detections"), dtype=np.int64)),
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
        dataset = self._dataset(field)
        with _as_input_error(self.path):
            return _decode(dataset[start:stop])

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
        dataset = self._dataset(field)
        rows = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
        # h5py's own list indexing builds one selection per row, far slower than reading runs of rows.
        edges = np.flatnonzero(np.diff(indices) > 1) + 1
        with _as_input_error(self.path):
            for begin, end in zip(np.r_[0, edges], np.r_[edges, len(indices)], strict=True):
                rows[begin:end] = dataset[indices[begin] : indices[end - 1] + 1]
            return _decode(rows)

    def _dataset(self, field: str) -> h5py.Dataset:
        if field not in self.fields:
            hint = "; extract again with masks" if field == "mask" else ""
            raise InputError(f"{self.path}: has no field {field!r} (it has {', '.join(self.fields)}){hint}")
        return self._file["cells"][field]

    def _image_column(self, name: str) -> np.ndarray:
        dataset = self._file["images"][name]
        with _as_input_error(self.path):
            return _decode(dataset[...])


def merge_stores(paths: Sequence[str | os.PathLike], path: str | os.PathLike) -> None:
    """Join the stores of several shards of one centre into one, row block by row block.

    Args:
        paths: the shards, in the order in which their rows shall stand.
        path: final name, written atomically.

    Raises:
        InputError: if no shard is given, or shards differ in centre, detector or settings, or share an image.
    """
    paths = [Path(p) for p in paths]
    if not paths:
        raise InputError(f"{path}: no shards to join")
    with FeatureStore(paths[0]) as first:
        header = {name: first.attributes[name] for name in ("centre", "detector", "with_masks", "versions")}
        header["settings"] = first.settings
    seen: dict[str, Path] = {}
    for shard in paths:
        with FeatureStore(shard) as store:
            _check_same_origin(store, header, f"it cannot be joined with {paths[0]}")
            for key in store.image_keys.tolist():
                if key in seen:
                    raise InputError(f"{shard}: image {key} is in {seen[key]} too; give every shard once")
                seen[key] = shard
    _merge(paths, Path(path), header)


def _merge(parts: Iterable[Path], path: Path, header: dict[str, Any]) -> None:
    """Stream `parts` into `path`; memory is that of a few rows and of one part's strings."""
    parts = list(parts)
    num_cells, num_images, widths = 0, 0, {}
    for part in parts:
        with FeatureStore(part) as store:
            num_cells += len(store)
            num_images += len(store.image_keys)
            for name in (*(f"cells/{n}" for n in STRING_FIELDS), *(f"images/{n}" for n in IMAGE_STRINGS)):
                widths[name] = max(widths.get(name, 1), store._file[name].dtype.itemsize)
    with atomic_path(path) as temporary, h5py.File(temporary, "w", locking="best-effort") as file:
        _create(file, header, num_cells, num_images, widths)
        cell_row = image_row = 0
        for part in parts:
            with FeatureStore(part) as store, _as_input_error(part):
                _copy_rows(store._file["cells"], file["cells"], cell_row)
                _copy_rows(store._file["images"], file["images"], image_row)
                cell_row += len(store)
                image_row += len(store.image_keys)


def _copy_rows(source: h5py.Group, target: h5py.Group, offset: int) -> None:
    for name, dataset in target.items():
        rows = source[name]
        for start in range(0, len(rows), _MERGE_ROWS):
            stop = min(start + _MERGE_ROWS, len(rows))
            dataset[offset + start : offset + stop] = rows[start:stop]


def _cell_fields(with_masks: bool) -> tuple[str, ...]:
    arrays = tuple(name for name in ARRAY_FIELDS if with_masks or name != "mask")
    return (*arrays, *STRING_FIELDS)


def _make_header(centre: str, detector: dict, with_masks: bool, settings: dict) -> dict[str, Any]:
    if not detector.get("hash"):
        raise ValueError("detector must have a 'hash'")
    taken = sorted(set(settings) & set(_RESERVED))
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
    if size > _MAX_ATTRIBUTE:
        raise ValueError(f"centre, detector and attributes take {size} bytes; at most {_MAX_ATTRIBUTE} fit")
    return header


def _check_same_origin(store: FeatureStore, header: dict[str, Any], advice: str) -> None:
    """Refuse a store that another centre, detector or setting made."""
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


def _create(file: h5py.File, header: dict[str, Any], num_cells: int, num_images: int, widths: dict[str, int]) -> None:
    """Lay out an empty store of known size.

    Args:
        file: opened for writing.
        header: as from `_make_header`.
        num_cells: rows of group `cells`.
        num_images: rows of group `images`.
        widths: bytes of each string dataset, by its path; 1 where it is not named.
    """
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for name, value in {"format": FORMAT, "centre": header["centre"], "created": created}.items():
        _write_text_attribute(file, name, value)
    for name in ("detector", "versions", "settings"):
        _write_text_attribute(file, name, json.dumps(header[name]))
    file.attrs.create("schema", SCHEMA, dtype="int32")
    file.attrs.create("with_masks", int(header["with_masks"]), dtype="int32")
    cells, images = file.create_group("cells"), file.create_group("images")
    for name in _cell_fields(header["with_masks"]):
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


def _check_cell(key: str, cell: Cell, with_masks: bool) -> dict[str, np.ndarray]:
    """Bring a cell to the store's types, or say what is wrong with it."""
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


def _encode(name: str, text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text!r}: name is not valid UTF-8; rename the file") from None
    if len(data) > _MAX_STRING or b"\0" in data or (name == "key" and not data):
        raise ValueError(f"{name} must be text of at most {_MAX_STRING} bytes without NUL, got {text[:80]!r}")
    return data


def _decode(values: np.ndarray) -> np.ndarray:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _width(texts: list[bytes]) -> int:
    return max((len(t) for t in texts), default=0) or 1


def _lock(lock_path: Path, path: Path) -> int | None:
    """Take the writer's lock, which the system drops with the process however it ends."""
    if fcntl is None:
        return None
    handle = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{path}: another process is writing this store; wait for it or end it") from None
    except OSError as error:
        os.close(handle)
        logger.warning("%s: this file system has no locks (%s); start one writer at a time", path, error)
        return None
    return handle


def _open(path: Path) -> h5py.File:
    try:
        with open(path, "rb") as handle:
            signature = handle.read(8)
        if signature != b"\x89HDF\r\n\x1a\n":
            raise InputError(f"{path}: not an HDF5 feature store; make one with extract")
        return h5py.File(path, "r", locking="best-effort")
    except FileNotFoundError:
        raise InputError(f"{path}: no such feature store; make one with extract") from None
    except OSError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: damaged or cut short ({reason}); copy or extract it again") from None


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into an error that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: damaged ({reason}); copy or extract it again") from None


def _read_header(file: h5py.File, path: Path) -> dict[str, Any]:
    header: dict[str, Any] = {}
    for name in _RESERVED:
        if name not in file.attrs:
            raise InputError(f"{path}: not a feature store (no attribute {name!r}); make one with extract")
        attribute = file.attrs.get_id(name)
        kind = "i" if name in ("schema", "with_masks") else "S"
        # A variable-length string would read as kind "O", of a size known only after reading it.
        type_is_right = attribute.shape == () and attribute.dtype.kind == kind
        if not type_is_right or attribute.get_storage_size() > _MAX_ATTRIBUTE:
            raise InputError(f"{path}: attribute {name!r} has an odd type or size; extract it again")
        value = file.attrs[name]
        header[name] = int(value) if kind == "i" else _as_text(value)
    if header["format"] != FORMAT:
        raise InputError(f"{path}: not a feature store (format {header['format']!r}); make one with extract")
    if header["schema"] != SCHEMA:
        schema = header["schema"]
        raise InputError(f"{path}: has schema {schema}, this software reads {SCHEMA}; extract it again")
    for name in ("detector", "versions", "settings"):
        header[name] = json.loads(header[name])
        if not isinstance(header[name], dict):
            raise InputError(f"{path}: attribute {name!r} is not a JSON object; extract it again")
    if not isinstance(header["detector"].get("hash"), str):
        raise InputError(f"{path}: does not say which detector made it; extract it again")
    header["with_masks"] = bool(header["with_masks"])
    return header


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_layout(file: h5py.File, path: Path, with_masks: bool) -> int:
    """Check every dataset before one is read; returns the number of cells."""
    text = (None, ())
    columns_of = {
        "cells": {name: ARRAY_FIELDS.get(name, text) for name in _cell_fields(with_masks)},
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
        type_is_right = dataset.dtype.kind == "S" and dataset.dtype.itemsize <= _MAX_STRING
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
    return dataset.shape[0]
