"""Writing a feature store in parts, so that a crash costs little."""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.feature_store.layout import (
    IMAGE_COUNTS,
    IMAGE_STRINGS,
    OLD_MASK_SHAPE,
    STRING_FIELDS,
    Cell,
    array_fields,
    check_cell,
    encode_text,
    make_header,
    new_store,
)
from mrcnn.feature_store.reader import FeatureStore, check_same_origin
from mrcnn.files.atomic import OutputLock, remove_leftovers
from mrcnn.files.errors import InputError

logger = logging.getLogger(__name__)

MERGE_ROWS = 64  # about 13 MB, whatever the size of the store


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
        with_masks: whether every cell comes with a mask, of `mask_shape` (height, width).
        with_nuclei: whether every cell comes with a mask of its nucleus too, of that shape.
        morphology: names of the measurements that every cell comes with; none for a store without.
        attributes: settings that decide what is stored (crop margins, minimum score ...), JSON values, the same in a
            resumed run.
        part_size: number of images or cells, whichever comes first, after which a part is written.
        replace_parts: begin anew where parts of another centre, detector or setting, or damaged ones, lie.

    Raises:
        InputError: if parts lie there that cannot be gone on from, or another run is writing this store.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        centre: str,
        detector: dict[str, Any],
        with_masks: bool = False,
        mask_shape: Sequence[int] = OLD_MASK_SHAPE,
        with_nuclei: bool = False,
        morphology: Sequence[str] = (),
        attributes: dict[str, Any] | None = None,
        part_size: int = 128,
        replace_parts: bool = False,
    ):
        self.path = Path(path)
        self.part_size = part_size
        extras = {"mask_shape": mask_shape, "with_nuclei": with_nuclei, "morphology": morphology}
        self._header = make_header(centre, detector, with_masks, attributes or {}, **extras)
        self._fields = array_fields(self._header)
        # Kept from part to part: thousands of arrays, made and freed anew, would leave the heap in pieces, and the
        # memory of a long extraction would grow.
        self._arrays = {name: np.empty((part_size, *shape), dtype) for name, (dtype, shape) in self._fields.items()}
        self._clear()
        self._finished = False
        self._lock = OutputLock(self.path)
        try:
            self._folder = _parts_folder(self.path)
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._folder)
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
        """image_ids of all images dealt with so far, in this run and in those it resumes."""
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
            image_id: the image in its centre.
            cells: one cell or more.
            label: the centre's own name of the cell type.
            cell_type: the harmonised name, or "".
            num_detections: how many cells the detector found, of which `cells` are those kept.

        Raises:
            ValueError: if the image was added before, `cells` is empty, or a cell is odd.
        """
        num_detections = len(cells) if num_detections is None else num_detections
        if not 0 < len(cells) <= num_detections:
            raise ValueError(f"{image_id}: {len(cells)} cells of {num_detections} detections; missed() reports none")
        self._add((image_id, label, cell_type, ""), num_detections, cells)

    def missed(self, image_id: str, reason: str, label: str = "", cell_type: str = "") -> None:
        """Record an image without a cell, and the `reason`: one that starts with "unreadable" counts as such."""
        if not reason:
            raise ValueError(f"{image_id}: an image without a cell needs a reason")
        self._add((image_id, label, cell_type, reason), 0, ())

    def finish(self) -> None:
        """Merge the parts into the final file and remove them."""
        if not self._finished:
            self._flush()
            write_merged(self.path, self._header, [partial(FeatureStore, part) for part in self._parts])
            self._finished = True
            _remove_parts(self._folder)
            self._lock.release()

    def _resume(self, replace_parts: bool) -> set[str]:
        """Images in the parts; parts that cannot be gone on from are removed if they may be."""
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
            _remove_parts(self._folder)
            self._folder.mkdir()
            self._parts, done = [], set()
        if done:
            logger.info("%s: resuming after %d images", self.path, len(done))
        return done

    def _add(self, texts: tuple[str, ...], num_detections: int, cells: Sequence[Cell]) -> None:
        image_id = texts[0]
        if self._finished or image_id in self._done:
            raise ValueError(f"{image_id}: {'the store is finished' if self._finished else 'image added twice'}")
        rows = [check_cell(image_id, cell, self._fields) for cell in cells]
        image = {name: text.encode() for name, text in zip(IMAGE_STRINGS, texts, strict=True)}
        for name, value in {**image, "num_detections": num_detections, "num_cells": len(rows)}.items():
            self._columns[f"images/{name}"].append(value)
        for number, row in enumerate(rows, len(self._columns["cells/image_id"])):
            for name, value in row.items():
                if number == len(self._arrays[name]):  # an image with many cells
                    self._arrays[name] = np.concatenate([self._arrays[name], np.empty_like(self._arrays[name])])
                self._arrays[name][number] = value
            for name in STRING_FIELDS:
                self._columns[f"cells/{name}"].append(image[name])
        self._done.add(image_id)
        if max(map(len, self._columns.values())) >= self.part_size:
            self._flush()

    def _clear(self) -> None:
        names = [f"cells/{name}" for name in STRING_FIELDS]
        names += [f"images/{name}" for name in (*IMAGE_STRINGS, *IMAGE_COUNTS)]
        self._columns: dict[str, list[Any]] = {name: [] for name in names}

    def _flush(self) -> None:
        """Write what waits as a store of its own, atomically."""
        num_cells, num_images = (len(self._columns[f"{group}/image_id"]) for group in ("cells", "images"))
        if self._finished or not num_images:
            return
        number = int(self._parts[-1].stem.split("-")[1]) + 1 if self._parts else 0
        part = self._folder / f"part-{number:05d}.h5"
        texts = {name: values for name, values in self._columns.items() if not name.startswith("images/num_")}
        widths = {name: max([1, *map(len, values)]) for name, values in texts.items()}
        columns = {f"cells/{name}": values[:num_cells] for name, values in self._arrays.items()} | self._columns
        with new_store(part, self._header, num_cells, num_images, widths) as file:
            for name, values in columns.items():
                if len(values):
                    file[name][...] = np.asarray(values, dtype=file[name].dtype)
                    file[name].flush()
        self._parts.append(part)
        self._clear()


def write_merged(
    path: Path, header: dict[str, Any], parts: Sequence[Callable[[], AbstractContextManager[FeatureStore]]]
) -> None:
    """Write stores, one after the other, as one; each is opened by a function, and read a few rows at a time."""
    num_cells, num_images, widths = 0, 0, {}
    for part in parts:
        with part() as store:
            num_cells += len(store)
            num_images += len(store.all_image_ids)
            widths = {name: max(widths.get(name, 1), width) for name, width in store.text_widths().items()}
    with new_store(path, header, num_cells, num_images, widths) as file:
        cell_row = image_row = 0
        for part in parts:
            with part() as store:
                _copy_rows(store, file, cell_row, image_row)
                cell_row += len(store)
                image_row += len(store.all_image_ids)


def _copy_rows(store: FeatureStore, file: h5py.File, cell_row: int, image_row: int) -> None:
    for name, dataset in file["cells"].items():
        for start in range(0, len(store), MERGE_ROWS):
            stop = min(start + MERGE_ROWS, len(store))
            dataset[cell_row + start : cell_row + stop] = encode_text(store.read(name, start, stop), dataset.dtype)
        dataset.flush()
    for name, dataset in file["images"].items():
        values = store.image_column(name)
        dataset[image_row : image_row + len(values)] = encode_text(values, dataset.dtype)
        dataset.flush()


def clear_parts(path: str | os.PathLike) -> None:
    """Remove the parts of a finished store whose writer was killed before it did so itself.

    Parts that are younger than the store are of a run that is to replace it, and stay, as do those that are being
    written, or lie in a folder that must not be written to.
    """
    folder, written = _parts_folder(Path(path)), os.path.getmtime(path)
    if folder.is_dir() and all(part.stat().st_mtime <= written for part in folder.glob("part-*.h5")):
        with suppress(InputError, OSError), OutputLock(path):
            _remove_parts(folder)


def _remove_parts(folder: Path) -> None:
    for part in sorted(folder.glob("part-*.h5"), reverse=True):  # a kill on the way leaves the first ones, in order
        part.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _parts_folder(path: Path) -> Path:
    return path.with_name(path.name + ".parts")
