"""Measurements of the cells that a detector found on an image."""

from collections.abc import Mapping, Sequence

import numpy as np

from mrcnn.data.masks import unmold_mask
from mrcnn.morphology.measurement import COLUMNS, measure
from mrcnn.morphology.surroundings import describe_surroundings

_MARGIN = 4  # px around a box


def measure_detections(
    image: np.ndarray, result: Mapping[str, np.ndarray], rows: Sequence[int], pixel_size: float | None = None
) -> np.ndarray:
    """Measure some cells of a result of `MaskRCNN.detect` on an image, of a detector that draws nuclei.

    Masks are brought to the pixels of each box alone. All cells of the result are white cells, so none is plasma or a
    red cell of another. `pixel_size` is the side of a pixel in micrometres, as `measure` takes it.

    Returns:
        float32 array of shape (number of rows, number of `COLUMNS`).
    """
    boxes = result["rois"]
    crops = [
        np.s_[max(y1 - _MARGIN, 0) : y2 + _MARGIN, max(x1 - _MARGIN, 0) : x2 + _MARGIN] for y1, x1, y2, x2 in boxes
    ]

    def paste(name: str, row: int) -> np.ndarray:
        """The mask of a cell on the crop of the image around its box."""
        corner = crops[row][0].start, crops[row][1].start
        return unmold_mask(result[name][row], boxes[row] - np.array(corner * 2), image[crops[row]].shape)

    cells = [paste("small_masks", row) for row in range(len(boxes))]
    occupied = np.zeros(image.shape[:2], bool)
    for crop, cell in zip(crops, cells, strict=True):
        occupied[crop] |= cell
    surroundings = describe_surroundings(image, occupied)
    measured = np.zeros((len(rows), len(COLUMNS)), np.float32)
    for place, row in enumerate(rows):
        nucleus = paste("small_nucleus_masks", row)
        found = measure(image[crops[row]], cells[row], nucleus, surroundings, pixel_size)
        measured[place] = list(found.values())
    return measured
