"""What surrounds the cells of an image: its plasma and its red cells, to which colours can be compared."""

from typing import NamedTuple

import cv2
import numpy as np
from skimage.filters import threshold_otsu

_MOST_PIXELS = 10_000  # that are looked at
_LEAST_SHARE = 0.02  # of the pixels, to be taken for red cells
_LEAST_CONTRAST = 4.0  # units of Lab between plasma and red cells


class Surroundings(NamedTuple):
    """Median colours (L, a, b), float (3,). Without red cells theirs is that of the plasma."""

    plasma: np.ndarray
    red_cells: np.ndarray


def describe_surroundings(image: np.ndarray, white_cells: np.ndarray) -> Surroundings:
    """Divide what is outside the white cells by its lightness into plasma, which is brighter, and red cells.

    Args:
        image: uint8 (height, width, 3), RGB.
        white_cells: bool (height, width), all of the image's. Where they fill it, all of it is taken.
    """
    step = max(1, int(np.sqrt(white_cells.size / _MOST_PIXELS)))
    near = cv2.dilate(white_cells.view(np.uint8), np.ones((7, 7), np.uint8))[::step, ::step] != 0
    lab = to_lab(image[::step, ::step])
    lab = lab[~near] if not near.all() else lab.reshape(-1, 3)
    lightness = lab[:, 0]
    if np.ptp(lightness) < _LEAST_CONTRAST:
        colour = np.median(lab, axis=0)
        return Surroundings(colour, colour)
    is_plasma = lightness > threshold_otsu(lightness)
    plasma, rest = np.median(lab[is_plasma], axis=0), np.median(lab[~is_plasma], axis=0)
    has_red = np.mean(~is_plasma) >= _LEAST_SHARE and np.linalg.norm(rest - plasma) >= _LEAST_CONTRAST
    return Surroundings(plasma, rest if has_red else plasma)


def to_lab(image: np.ndarray) -> np.ndarray:
    """CIE Lab of RGB, uint8 (height, width, 3): float32, L from 0 to 100."""
    return cv2.cvtColor(np.ascontiguousarray(image).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
