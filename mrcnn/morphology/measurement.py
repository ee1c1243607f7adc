"""All measurements of one cell, under their names."""

import cv2
import numpy as np

from mrcnn.morphology import colour, lobes, shape
from mrcnn.morphology.shape import AREA, LENGTH
from mrcnn.morphology.surroundings import Surroundings, describe_surroundings

# Unit and definition by name, in the order of the columns.
COLUMNS: dict[str, tuple[str, str]] = {**shape.COLUMNS, **lobes.COLUMNS, **colour.COLUMNS}
_MOST_DIAMETER = 128  # px
_MARGIN = 0.1  # of the longer side of the box, around it


def measure(
    image: np.ndarray,
    cell_mask: np.ndarray,
    nucleus_mask: np.ndarray,
    surroundings: Surroundings | None = None,
    pixel_size: float | None = None,
) -> dict[str, float]:
    """Measure one cell; `COLUMNS` says what each number is.

    A cell wider than 128 px is shrunk to that first, so that large ones take no longer; areas are counted before. What
    cannot be measured is 0: all of an empty cell, and what tells of the nucleus where that is empty.

    Args:
        image: uint8 (height, width, 3), RGB.
        cell_mask, nucleus_mask: bool (height, width); what of the nucleus is outside the cell is left out.
        surroundings: of `describe_surroundings`; None takes all outside this cell for what surrounds it.
        pixel_size: side of a pixel in micrometres, to give lengths and areas in µm and µm²; None leaves them in pixels.

    Returns:
        Finite numbers by the names of `COLUMNS`, in that order.
    """
    cell_mask = np.asarray(cell_mask, bool)
    nucleus_mask = np.asarray(nucleus_mask, bool) & cell_mask
    if surroundings is None:
        surroundings = describe_surroundings(image, cell_mask)
    found: dict[str, float] = {}
    if cell_mask.any():
        box = _box(cell_mask)
        image, cell, nucleus = (np.ascontiguousarray(array[box]) for array in (image, cell_mask, nucleus_mask))
        diameter = 2 * np.sqrt(np.count_nonzero(cell) / np.pi)
        scale = min(1.0, _MOST_DIAMETER / diameter)
        found = shape.measure_shape(cell, nucleus)
        if scale < 1:
            image, cell, nucleus = (_shrink(array, scale) for array in (image, cell, nucleus))
            nucleus &= cell
        chromatin = colour.without_clefts(image, cell, nucleus)
        found |= lobes.measure_lobes(chromatin) | colour.measure_colour(image, cell, nucleus, surroundings)
    units = {LENGTH: pixel_size or 1.0, AREA: (pixel_size or 1.0) ** 2}
    return {name: float(found.get(name, 0.0)) * units.get(unit, 1.0) for name, (unit, _) in COLUMNS.items()}


def column_names(pixel_size: float | None = None) -> list[str]:
    """Names of the columns of a table: with a pixel size those of lengths end in _um, those of areas in _um2."""
    endings = {LENGTH: "_um", AREA: "_um2"} if pixel_size else {}
    return [name + endings.get(unit, "") for name, (unit, _) in COLUMNS.items()]


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The part of an image that holds a mask, with a margin."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    margin = int(_MARGIN * max(width, height)) + 4
    return np.s_[max(y - margin, 0) : y + height + margin, max(x - margin, 0) : x + width + margin]


def _shrink(array: np.ndarray, scale: float) -> np.ndarray:
    """An image or a mask, smaller."""
    is_mask = array.dtype == bool
    values = array.astype(np.float32) if is_mask else array
    shrunk = cv2.resize(values, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return shrunk >= 0.5 if is_mask else shrunk
