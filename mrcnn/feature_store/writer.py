"""Writing a feature store, so that a crash costs little."""

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.feature_store.layout import (
    ARRAY_FIELDS,
    IMAGE_COUNTS,
    IMAGE_STRINGS,
    MERGE_ROWS,
    STRING_FIELDS,
    Cell,
    cell_fields,
    check_cell,
    create_file,
    encode_text,
    make_header,
    text_width,
)
from mrcnn.feature_store.reader import FeatureStore, as_input_error, check_same_origin
from mrcnn.files.atomic import OutputLock, remove_leftovers
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import atomic_hdf5


class PartBuffer:
    """Rows that wait to become a part.

    Each array column is one array that is kept from part to part: thousands of arrays, made and freed anew for every
    part, would leave the heap in pieces, and the memory of a long extraction would grow.

    Args:
        with_masks: whether cells have masks.
        capacity: cells to make room for; an image with many cells may make it grow.
    """

    def __init__(self, with_masks: bool, capacity: int):
        self._arrays = {
            name: np.empty((capacity, *ARRAY_FIELDS[name][1]), ARRAY_FIELDS[name][0])
            for name in cell_fields(with_masks)
            if name in ARRAY_FIELDS
        }
        self.clear()

    @property
    def num_cells(self) -> int:
        """Cells that wait."""
        return len(self._cell_texts["key"])

    @property
    def num_images(self) -> int:
        """Images that wait, with a cell or without."""
        return len(self._images["key"])

    def clear(self) -> None:
        """Forget all rows."""
        self._cell_texts: dict[str, list[bytes]] = {name: [] for name in STRING_FIELDS}
        self._images: dict[str, list] = {name: [] for name in (*IMAGE_STRINGS, *IMAGE_COUNTS)}

    def add_image(self, row: dict[str, Any]) -> None:
        """Add a row of group `images`: bytes and counts by column."""
        for name, value in row.items():
            self._images[name].append(value)

    def add_cell(self, row: dict[str, np.ndarray], texts: dict[str, bytes]) -> None:
        """Add a row of group `cells`: arrays as from `check_cell`, and the strings."""
        number = self.num_cells
        for name, value in row.items():
            if number == len(self._arrays[name]):
                self._arrays[name] = np.concatenate([self._arrays[name], np.empty_like(self._arrays[name])])
            self._arrays[name][number] = value
        for name, text in texts.items():
            self._cell_texts[name].append(text)

    def write(self, path: Path, header: dict[str, Any]) -> None:
        """Write all rows as a store of their own, atomically."""
        with atomic_hdf5(path) as file:
            widths = {f"cells/{name}": text_width(texts) for name, texts in self._cell_texts.items()}
            widths |= {f"images/{name}": text_width(self._images[name]) for name in IMAGE_STRINGS}
            create_file(file, header, self.num_cells, self.num_images, widths)
            for name, values in self._arrays.items():
                if self.num_cells:
                    dataset = file["cells"][name]
                    dataset[...] = values[: self.num_cells]
                    dataset.flush()
            for group, columns in (("cells", self._cell_texts), ("images", self._images)):
                for name, values in columns.items():
                    if values:
                        dataset = file[group][name]
                        dataset[...] = np.asarray(values, dtype=dataset.dtype)


def merge_parts(parts: Iterable[Path], path: Path, header: dict[str, Any]) -> None:
    """Stream `parts` into `path`, one after the other; memory is that of a few rows and of one part's strings."""
    parts = list(parts)
    num_cells, num_images, widths = 0, 0, {}
    for part in parts:
        with FeatureStore(part) as store:
            num_cells += len(store)
            num_images += len(store.image_keys)
            for name, width in store.text_widths().items():
                widths[name] = max(widths.get(name, 1), width)
    with atomic_hdf5(path) as file:
        create_file(file, header, num_cells, num_images, widths)
        cell_row = image_row = 0
        for part in parts:
            with FeatureStore(part) as store, as_input_error(part):
                _copy_rows(store.group("cells"), file["cells"], cell_row)
                _copy_rows(store.group("images"), file["images"], image_row)
                cell_row += len(store)
                image_row += len(store.image_keys)


def _copy_rows(source: h5py.Group, target: h5py.Group, offset: int) -> None:
    for name, dataset in target.items():
        rows = source[name]
        for start in range(0, len(rows), MERGE_ROWS):
            stop = min(start + MERGE_ROWS, len(rows))
            dataset[offset + start : offset + stop] = rows[start:stop]
        dataset.flush()


logger = logging.getLogger(__name__)


class FeatureStoreWriter:
    """Write a store so that a crash, even `kill -9`, costs at most the last part.

    Cells gather in memory and go to disk in parts, `<path>.parts/part-00000.h5` and so on, each renamed into
    place when it is whole; an image is never divided between parts. A new writer for the same path finds the
    parts, and `done_keys` tells which images to pass over. `finish` streams the parts into `<path>`, then
    removes them; meanwhile the disk holds the data twice. From beginning to end nobody else writes this store.

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
        replace_parts: begin anew where parts of another centre, detector or setting, or damaged ones, lie.

    Raises:
        InputError: if parts of another centre, detector or setting lie there or a part is damaged and
            `replace_parts` is False, another run is writing this store, or nothing can be written there.
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
        part_size: int = 128,
        replace_parts: bool = False,
    ):
        if part_size < 1:
            raise ValueError(f"part_size must be 1 or more, got {part_size}")
        self.path = Path(path)
        self.part_size = part_size
        self._header = make_header(centre, detector, with_masks, attributes or {})
        self._parts_folder = _parts_folder(self.path)
        self._buffer = PartBuffer(with_masks, part_size)
        self._finished = False
        self._lock = OutputLock(self.path)
        try:
            self._parts_folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self._parts = sorted(self._parts_folder.glob("part-*.h5"))
            self._done = self._resume(replace_parts)
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> "FeatureStoreWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._finished:
            self._unlock()
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
        rows = [check_cell(key, cell, self._header["with_masks"]) for cell in cells]
        self._add_image(key, label, cell_type, "", num_detections, len(cells))
        texts = {name: text.encode() for name, text in zip(STRING_FIELDS, (key, label, cell_type), strict=True)}
        for row in rows:
            self._buffer.add_cell(row, texts)
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
        merge_parts(self._parts, self.path, self._header)
        # One rename takes all parts away at once: a kill during their deletion leaves no half set to resume.
        trash = _trash(self.path)
        os.rename(self._parts_folder, trash)
        self._finished = True
        shutil.rmtree(trash, ignore_errors=True)
        self._unlock()

    def _sweep(self) -> None:
        """Remove what a killed run left half-written; the lock says that nobody is writing it now."""
        remove_leftovers(self._parts_folder)
        if _trash(self.path).exists():
            shutil.rmtree(_trash(self.path))

    def _resume(self, replace_parts: bool) -> set[str]:
        """Keys of the images in the parts; parts that cannot be gone on from are removed if they may be."""
        try:
            done = self._read_parts()
        except InputError as error:
            if not replace_parts:
                raise
            logger.info("%s: begun anew (%s)", self.path, error)
            for part in reversed(self._parts):  # a kill on the way leaves the first ones, in their order
                part.unlink()
            self._parts, done = [], set()
        if done:
            logger.info("%s: resuming after %d images", self.path, len(done))
        return done

    def _read_parts(self) -> set[str]:
        done: set[str] = set()
        for part in self._parts:
            advice = f"give --overwrite, delete {self._parts_folder} or choose another output"
            with FeatureStore(part) as store:
                check_same_origin(store, self._header, advice)
                done.update(store.image_keys.tolist())
        return done

    def _add_image(
        self, key: str, label: str, cell_type: str, reason: str, num_detections: int, num_cells: int
    ) -> None:
        if self._finished:
            raise ValueError(f"{self.path}: the store is finished")
        if key in self._done:
            raise ValueError(f"{key}: image added twice to {self.path}")
        texts = zip(IMAGE_STRINGS, (key, label, cell_type, reason), strict=True)
        row = {name: encode_text(name, text) for name, text in texts}
        self._buffer.add_image({**row, "num_detections": num_detections, "num_cells": num_cells})
        self._done.add(key)

    def _flush_if_full(self) -> None:
        if max(self._buffer.num_images, self._buffer.num_cells) >= self.part_size:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer.num_images:
            return
        number = int(self._parts[-1].stem.split("-")[1]) + 1 if self._parts else 0
        part = self._parts_folder / f"part-{number:05d}.h5"
        self._buffer.write(part, self._header)
        self._parts.append(part)
        self._buffer.clear()

    def _unlock(self) -> None:
        self._lock.release()


def clear_parts(path: str | os.PathLike) -> None:
    """Remove the parts, and the lock, of a finished store whose writer was killed before it did so itself.

    Parts that are not those of the store stay, as do all where another run is writing the store anew, or in a folder
    that must not be written to.

    Args:
        path: the store.
    """
    path = Path(path)
    if not _parts_folder(path).is_dir() and not _trash(path).is_dir():
        return
    with suppress(InputError), OutputLock(path):
        shutil.rmtree(_trash(path), ignore_errors=True)
        if _are_parts_of(_parts_folder(path), path):
            shutil.rmtree(_parts_folder(path), ignore_errors=True)


def _are_parts_of(folder: Path, path: Path) -> bool:
    """Whether a store holds all that lies in a folder of parts, and nothing else."""
    with FeatureStore(path) as store:
        keys = []
        for part_path in sorted(folder.glob("part-*.h5")):
            with FeatureStore(part_path) as part:
                if part.detector_hash != store.detector_hash or part.settings != store.settings:
                    return False
                keys += part.image_keys.tolist()
        return keys == store.image_keys.tolist()


def _parts_folder(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _trash(path: Path) -> Path:
    return path.with_name(f".{path.name}.parts.merged")
