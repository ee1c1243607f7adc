"""The parts that a store under way consists of: gathering rows, writing them as a part, merging the parts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.hdf5_files import atomic_hdf5
from mrcnn.store_checks import as_input_error
from mrcnn.store_layout import (
    ARRAY_FIELDS,
    IMAGE_COUNTS,
    IMAGE_STRINGS,
    MERGE_ROWS,
    STRING_FIELDS,
    cell_fields,
    create_file,
    text_width,
)
from mrcnn.store_reader import FeatureStore


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
        with atomic_hdf5(path) as (file, check):
            widths = {f"cells/{name}": text_width(texts) for name, texts in self._cell_texts.items()}
            widths |= {f"images/{name}": text_width(self._images[name]) for name in IMAGE_STRINGS}
            create_file(file, header, self.num_cells, self.num_images, widths)
            for name, values in self._arrays.items():
                if self.num_cells:
                    file["cells"][name][...] = values[: self.num_cells]
                    check()
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
    with atomic_hdf5(path) as (file, check):
        create_file(file, header, num_cells, num_images, widths)
        cell_row = image_row = 0
        for part in parts:
            with FeatureStore(part) as store, as_input_error(part):
                _copy_rows(store.group("cells"), file["cells"], cell_row)
                _copy_rows(store.group("images"), file["images"], image_row)
                cell_row += len(store)
                image_row += len(store.image_keys)
            check()


def _copy_rows(source: h5py.Group, target: h5py.Group, offset: int) -> None:
    for name, dataset in target.items():
        rows = source[name]
        for start in range(0, len(rows), MERGE_ROWS):
            stop = min(start + MERGE_ROWS, len(rows))
            dataset[offset + start : offset + stop] = rows[start:stop]
