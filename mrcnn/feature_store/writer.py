"""Writing a feature store in parts, so that a crash costs little."""

import logging
import os
import shutil
from collections.abc import Sequence
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
    encode_text,
    make_header,
    new_store,
)
from mrcnn.feature_store.reader import FeatureStore, check_same_origin
from mrcnn.files.atomic import OutputLock, remove_leftovers
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import damage_named

logger = logging.getLogger(__name__)


class PartBuffer:
    """Rows that wait to become a part, with room for `capacity` cells; an image with many cells may make it grow.

    Its arrays are kept from part to part: thousands of them, made and freed anew, would leave the heap in pieces, and
    the memory of a long extraction would grow.
    """

    def __init__(self, with_masks: bool, capacity: int):
        names = [name for name in cell_fields(with_masks) if name in ARRAY_FIELDS]
        self._arrays = {name: np.empty((capacity, *ARRAY_FIELDS[name][1]), ARRAY_FIELDS[name][0]) for name in names}
        self.clear()

    @property
    def num_cells(self) -> int:
        """Cells that wait."""
        return len(self._columns["cells/image_id"])

    @property
    def num_images(self) -> int:
        """Images that wait, with a cell or without."""
        return len(self._columns["images/image_id"])

    def clear(self) -> None:
        """Forget all rows."""
        names = [f"cells/{name}" for name in STRING_FIELDS]
        names += [f"images/{name}" for name in (*IMAGE_STRINGS, *IMAGE_COUNTS)]
        self._columns: dict[str, list[Any]] = {name: [] for name in names}

    def add_image(self, row: dict[str, Any], cells: Sequence[dict[str, np.ndarray]]) -> None:
        """Add an image, as bytes and counts by column, and its cells, as arrays by column."""
        for name, value in row.items():
            self._columns[f"images/{name}"].append(value)
        for cell in cells:
            for name, value in cell.items():
                if self.num_cells == len(self._arrays[name]):
                    self._arrays[name] = np.concatenate([self._arrays[name], np.empty_like(self._arrays[name])])
                self._arrays[name][self.num_cells] = value
            for name in STRING_FIELDS:
                self._columns[f"cells/{name}"].append(row[name])

    def write(self, path: Path, header: dict[str, Any]) -> None:
        """Write all rows as a store of their own, atomically."""
        numbers = [f"images/{name}" for name in IMAGE_COUNTS]
        texts = {name: values for name, values in self._columns.items() if name not in numbers}
        widths = {name: max([1, *map(len, values)]) for name, values in texts.items()}
        with new_store(path, header, self.num_cells, self.num_images, widths) as file:
            arrays = {f"cells/{name}": values[: self.num_cells] for name, values in self._arrays.items()}
            for name, values in {**arrays, **self._columns}.items():
                dataset = file[name]
                if len(values):
                    dataset[...] = np.asarray(values, dtype=dataset.dtype)
                    dataset.flush()


def merge_parts(parts: Sequence[Path], path: Path, header: dict[str, Any]) -> None:
    """Stream `parts` into `path`, one after the other, a few rows at a time."""
    num_cells, num_images, widths = 0, 0, {}
    for part in parts:
        with FeatureStore(part) as store:
            num_cells += len(store)
            num_images += len(store.all_image_ids)
            widths = {name: max(widths.get(name, 1), width) for name, width in store.text_widths().items()}
    with new_store(path, header, num_cells, num_images, widths) as file:
        cell_row = image_row = 0
        for part in parts:
            with FeatureStore(part) as store:
                _copy_rows(store, file["cells"], cell_row)
                _copy_rows(store, file["images"], image_row)
                cell_row += len(store)
                image_row += len(store.all_image_ids)


def _copy_rows(source: FeatureStore, target: h5py.Group, offset: int) -> None:
    for dataset in target.values():
        rows = source.column(dataset.name[1:])
        for start in range(0, len(rows), MERGE_ROWS):
            stop = min(start + MERGE_ROWS, len(rows))
            with damage_named(source.path, "delete the parts and extract again"):
                values = rows[start:stop]
            dataset[offset + start : offset + stop] = values
        dataset.flush()


class FeatureStoreWriter:
    """Write a store so that a crash, even `kill -9`, costs at most the last part.

    Cells go to disk in parts, `<path>.parts/part-00000.h5` and so on; an image is never divided between parts. A new
    writer for the same path finds them, and `done_ids` tells which images to pass over. `finish` streams the parts
    into `<path>`, then removes them; meanwhile the disk holds the data twice.

    A `with` block that ends well finishes the store. One that ends with an error saves the cells so far as a part.

    Args:
        path: final name of the store; an older store of that name is replaced by `finish`, not before.
        centre: name of the centre.
        detector: what made the features: at least `hash`, and usually `config`; JSON values.
        with_masks: whether every cell comes with a mask.
        attributes: settings that decide what is stored (crop margins, minimum score ...), JSON values, the same in a
            resumed run.
        part_size: number of images or cells, whichever comes first, after which a part is written.
        replace_parts: begin anew where parts of another centre, detector or setting, or damaged ones, lie.

    Raises:
        InputError: if parts lie there that cannot be gone on from, another run is writing this store, or nothing can
            be written there.
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
        self.path = Path(path)
        self.part_size = part_size
        self._header = make_header(centre, detector, with_masks, attributes or {})
        self._folder = _parts_folder(self.path)
        self._buffer = PartBuffer(with_masks, part_size)
        self._finished = False
        self._lock = OutputLock(self.path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._folder)
            shutil.rmtree(_trash(self.path), ignore_errors=True)
            self._parts = sorted(self._folder.glob("part-*.h5"))
            self._done = self._resume(replace_parts)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "FeatureStoreWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                self.finish()
            else:
                self._flush()
        except OSError as flush_error:
            if kind is None:
                raise
            # The first error is the one to report; a full disk is often its cause.
            logger.warning("%s: the last cells could not be saved (%s)", self._folder, flush_error)
        finally:
            self._lock.release()

    @property
    def done_ids(self) -> set[str]:
        """Keys of all images dealt with so far, in this run and in those it resumes."""
        return self._done

    def add(
        self,
        image_id: str,
        cells: Sequence[Cell],
        *,
        label: str = "",
        cell_type: str = "",
        num_detections: int | None = None,
    ) -> None:
        """Store the cells of one image.

        Args:
            image_id: its image_id in its centre.
            cells: one cell or more.
            label: the centre's own name of the cell type.
            cell_type: the harmonised name, or "".
            num_detections: how many cells the detector found, of which `cells` are those kept.

        Raises:
            ValueError: if the image_id was added before, `cells` is empty, or a cell is odd.
        """
        num_detections = len(cells) if num_detections is None else num_detections
        if not 0 < len(cells) <= num_detections:
            raise ValueError(
                f"{image_id}: {len(cells)} cells of {num_detections} detections; report none with missed()"
            )
        self._add(image_id, label, cell_type, "", num_detections, cells)

    def missed(self, image_id: str, reason: str, label: str = "", cell_type: str = "") -> None:
        """Record an image without a cell, and the `reason`: one that starts with "unreadable" counts as such."""
        if not reason:
            raise ValueError(f"{image_id}: an image without a cell needs a reason")
        self._add(image_id, label, cell_type, reason, 0, ())

    def finish(self) -> None:
        """Merge the parts into the final file and remove them."""
        if self._finished:
            return
        self._flush()
        merge_parts(self._parts, self.path, self._header)
        # One rename takes all parts away at once: a kill during their deletion leaves no half set to resume.
        os.rename(self._folder, _trash(self.path))
        self._finished = True
        shutil.rmtree(_trash(self.path), ignore_errors=True)
        self._lock.release()

    def _resume(self, replace_parts: bool) -> set[str]:
        """Keys of the images in the parts; parts that cannot be gone on from are removed if they may be."""
        advice = f"give --overwrite, delete {self._folder} or choose another output"
        done: set[str] = set()
        try:
            for part in self._parts:
                with FeatureStore(part) as store:
                    check_same_origin(store, self._header, advice)
                    done.update(store.all_image_ids.tolist())
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

    def _add(
        self, image_id: str, label: str, cell_type: str, reason: str, num_detections: int, cells: Sequence[Cell]
    ) -> None:
        if self._finished or image_id in self._done:
            raise ValueError(f"{image_id}: {'the store is finished' if self._finished else 'image added twice'}")
        rows = [check_cell(image_id, cell, self._header["with_masks"]) for cell in cells]
        texts = zip(IMAGE_STRINGS, (image_id, label, cell_type, reason), strict=True)
        image = {name: encode_text(name, text) for name, text in texts}
        self._buffer.add_image({**image, "num_detections": num_detections, "num_cells": len(rows)}, rows)
        self._done.add(image_id)
        if max(self._buffer.num_images, self._buffer.num_cells) >= self.part_size:
            self._flush()

    def _flush(self) -> None:
        if self._finished or not self._buffer.num_images:
            return
        number = int(self._parts[-1].stem.split("-")[1]) + 1 if self._parts else 0
        part = self._folder / f"part-{number:05d}.h5"
        self._buffer.write(part, self._header)
        self._parts.append(part)
        self._buffer.clear()


def clear_parts(path: str | os.PathLike) -> None:
    """Remove the parts of a finished store whose writer was killed before it did so itself.

    Parts that are not those of the store stay, as do all where another run is writing the store anew, or in a folder
    that must not be written to.
    """
    path = Path(path)
    folder, trash = _parts_folder(path), _trash(path)
    if folder.is_dir() or trash.is_dir():
        with suppress(InputError), OutputLock(path):
            shutil.rmtree(trash, ignore_errors=True)
            if _are_parts_of(folder, path):
                shutil.rmtree(folder, ignore_errors=True)


def _are_parts_of(folder: Path, path: Path) -> bool:
    """Whether a store holds all that lies in a folder of parts, and nothing else."""
    image_ids: list[str] = []
    with FeatureStore(path) as store:
        for part_path in sorted(folder.glob("part-*.h5")):
            with FeatureStore(part_path) as part:
                check_same_origin(part, store.header, "")
                image_ids += part.all_image_ids.tolist()
        return image_ids == store.all_image_ids.tolist()


def _parts_folder(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _trash(path: Path) -> Path:
    return path.with_name(f".{path.name}.parts.merged")
