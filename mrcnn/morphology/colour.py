"""Colour, chromatin and granules: statistics in CIE Lab of nucleus and cytoplasm."""

from collections.abc import Sequence

import cv2
import numpy as np
from skimage.feature import graycomatrix

from mrcnn.morphology.shape import NUMBER, edge_distance
from mrcnn.morphology.surroundings import Surroundings, to_lab

LAB = "Lab"
FINE, COARSE = 1 / 60, 1 / 20  # scales, relative to the diameter of the cell
_PARTS = ("nucleus", "cytoplasm")
_CHANNELS = ("l", "a", "b")
_EDGE = 1 / 40  # of the diameter: how far from an edge a pixel has the colour of one part alone
_LEAST_PIXELS = 20
_CLEFT, _LEAST_CLEFT = 0.6, 0.005  # of the way from the nucleus' colour to the cytoplasm's; of the area of the cell
_LEAST_STEP = 10.0  # units of Lab between the two, or noise would be taken for clefts
_CLEFT_BLUR = 0.7  # px
_LEVELS, _LEVEL = 32, 2.0  # of lightness about the mean of a part, and units of L in one
_LOOSE = 0.35


def _shown(channel: str) -> str:
    return channel.upper() if channel == "l" else channel


_STATISTICS = {
    "mean": "mean {1} of the {0}",
    "sd": "standard deviation of {1} in the {0}",
    "to_plasma": "mean {1} of the {0} less that of the image's plasma",
    "to_red_cells": "mean {1} of the {0} less that of the image's red cells, or of its plasma where it has none",
}
_TEXTURES = {
    "fine": (LAB, "standard deviation of L in the {0} at a scale of a sixtieth of the cell's diameter"),
    "coarse": (LAB, "the same at a scale of a twentieth"),
    "contrast": (NUMBER, "contrast of the co-occurrence of L in the {0}, in steps of 2 units"),
    "homogeneity": (NUMBER, "homogeneity of that co-occurrence"),
}
COLUMNS = {
    **{
        f"{part}_{channel}_{name}": (LAB, text.format(part, _shown(channel)))
        for part in _PARTS
        for name, text in _STATISTICS.items()
        for channel in _CHANNELS
    },
    **{
        f"difference_{channel}": (
            LAB,
            f"mean {channel.upper() if channel == 'l' else channel} of the nucleus less that of the cytoplasm",
        )
        for channel in _CHANNELS
    },
    **{f"{part}_{name}": (unit, text.format(part)) for part in _PARTS for name, (unit, text) in _TEXTURES.items()},
    **{
        f"cytoplasm_{channel}_{name}": (LAB, f"{text} percentile of {_shown(channel)} in the cytoplasm less its median")
        for name, text in (("low", "fifth"), ("high", "ninety-fifth"))
        for channel in _CHANNELS
    },
    "nucleus_loose": (NUMBER, f"share of the nucleus beyond {_LOOSE} of the way from its colour to the cytoplasm's"),
    "cytoplasm_dark_spots": (LAB, "mean height of dark spots in the cytoplasm: black top-hat of L, coarse scale"),
    "cytoplasm_bright_spots": (LAB, "mean height of bright spots in the cytoplasm: white top-hat of L, coarse scale"),
    "cytoplasm_vacuoles": (NUMBER, f"share of the cytoplasm nearer to plasma than {_LOOSE} of its median distance"),
}


def measure_colour(
    image: np.ndarray, cell: np.ndarray, nucleus: np.ndarray, surroundings: Surroundings
) -> dict[str, float]:
    """`COLUMNS` of one cell: image uint8 (height, width, 3), masks bool (height, width), the nucleus in the cell.

    Pixels near an edge are left out where enough are left. A cell without cytoplasm shows that of its outermost pixels.
    """
    if not cell.any():
        return {}
    diameter = 2 * np.sqrt(np.count_nonzero(cell) / np.pi)
    lab = to_lab(image)
    edge = _EDGE * diameter
    cytoplasm = _cytoplasm(cell, nucleus, edge)
    parts = {"cytoplasm": cytoplasm}
    if nucleus.any():
        parts["nucleus"] = _first_of([_within(nucleus, edge), nucleus])
    values, means = {}, {}
    for part, mask in parts.items():
        pixels = lab[mask].astype(np.float64)
        means[part] = pixels.mean(axis=0)
        compared = {
            "mean": means[part],
            "sd": pixels.std(axis=0),
            "to_plasma": means[part] - surroundings.plasma,
            "to_red_cells": means[part] - surroundings.red_cells,
        }
        for name, numbers in compared.items():
            values |= {f"{part}_{channel}_{name}": v for channel, v in zip(_CHANNELS, numbers, strict=True)}
        fine, coarse = _bands(lab[..., 0], mask, means[part][0], diameter)
        contrast, homogeneity = _co_occurrence(lab[..., 0], mask, means[part][0])
        textures = {"fine": fine, "coarse": coarse, "contrast": contrast, "homogeneity": homogeneity}
        values |= {f"{part}_{name}": v for name, v in textures.items()}
    if "nucleus" in means:
        differences = means["nucleus"] - means["cytoplasm"]
        values |= {f"difference_{channel}": v for channel, v in zip(_CHANNELS, differences, strict=True)}
        step = -differences
        way = (lab[nucleus] - means["nucleus"]) @ step / max(float(step @ step), 1e-6)
        values["nucleus_loose"] = np.mean(way > _LOOSE)
    return values | _describe_cytoplasm(lab, cytoplasm, surroundings, diameter)


def _describe_cytoplasm(
    lab: np.ndarray, mask: np.ndarray, surroundings: Surroundings, diameter: float
) -> dict[str, float]:
    """What is measured on cytoplasm alone."""
    pixels = lab[mask]
    low, middle, high = np.percentile(pixels, (5, 50, 95), axis=0)
    values = {}
    for name, numbers in (("low", low - middle), ("high", high - middle)):
        values |= {f"cytoplasm_{channel}_{name}": v for channel, v in zip(_CHANNELS, numbers, strict=True)}
    # Filled up around it, so that its neighbours are no spots.
    alone = np.where(mask, lab[..., 0], middle[0].astype(np.float32))
    side = 2 * max(1, round(COARSE * diameter)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    to_plasma = np.linalg.norm(pixels - surroundings.plasma, axis=1)
    return values | {
        "cytoplasm_dark_spots": cv2.morphologyEx(alone, cv2.MORPH_BLACKHAT, disc)[mask].mean(),
        "cytoplasm_bright_spots": cv2.morphologyEx(alone, cv2.MORPH_TOPHAT, disc)[mask].mean(),
        "cytoplasm_vacuoles": np.mean(to_plasma < _LOOSE * np.median(to_plasma)),
    }


def without_clefts(image: np.ndarray, cell: np.ndarray, nucleus: np.ndarray) -> np.ndarray:
    """The nucleus without what in it has the colour of cytoplasm: clefts between lobes that touch, and holes.

    A mask of a network is too coarse for them. Images are as of `measure_colour`; the nucleus is bool (height, width).
    """
    if not nucleus.any():
        return nucleus
    area = np.count_nonzero(cell)
    edge = _EDGE * 2 * np.sqrt(area / np.pi)
    lab = cv2.GaussianBlur(to_lab(image), (0, 0), _CLEFT_BLUR)
    core, cytoplasm = _first_of([_within(nucleus, edge), nucleus]), _cytoplasm(cell, nucleus, edge)
    nucleus_colour, cytoplasm_colour = (np.median(lab[mask], axis=0) for mask in (core, cytoplasm))
    step = cytoplasm_colour - nucleus_colour
    if np.linalg.norm(step) < _LEAST_STEP:
        return nucleus
    # How far along the way from the one colour to the other.
    way = (lab - nucleus_colour) @ step / (step @ step)
    is_bright = nucleus & (way > _CLEFT)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(is_bright.view(np.uint8))
    is_cleft = stats[:, cv2.CC_STAT_AREA] > _LEAST_CLEFT * area
    return nucleus & ~(is_bright & is_cleft[labels])


def _cytoplasm(cell: np.ndarray, nucleus: np.ndarray, edge: float) -> np.ndarray:
    """Pixels of the cytoplasm away from its edges, or all of it, or the outermost ones of a cell that shows none."""
    inside = _within(cell, edge)
    return _first_of([inside & _within(~nucleus, edge), cell & ~nucleus, cell & ~inside, cell])


def _first_of(masks: Sequence[np.ndarray]) -> np.ndarray:
    """The first mask that has pixels enough, or the last."""
    return next((mask for mask in masks if np.count_nonzero(mask) >= _LEAST_PIXELS), masks[-1])


def _within(mask: np.ndarray, distance: float) -> np.ndarray:
    """Pixels of a mask that are farther than a distance from those outside; the frame of the image is no edge."""
    return edge_distance(mask) > distance


def _bands(lightness: np.ndarray, mask: np.ndarray, mean: float, diameter: float) -> tuple[float, float]:
    """Standard deviation in a mask of what is about as large as each of two scales: differences of Gaussians."""
    # Filled up around the part, so that its neighbours do not blur into it.
    alone = np.where(mask, lightness, np.float32(mean))
    scales = (FINE * diameter / 2, FINE * diameter, COARSE * diameter)
    finest, fine, coarse = (cv2.GaussianBlur(alone, (0, 0), max(scale, 0.5)) for scale in scales)
    return (finest - fine)[mask].std(), (fine - coarse)[mask].std()


def _co_occurrence(lightness: np.ndarray, mask: np.ndarray, mean: float) -> tuple[float, float]:
    """Contrast and homogeneity of neighbours across, down and along the diagonals, both inside the mask."""
    y, x, height, width = *np.argwhere(mask).min(axis=0), *np.ptp(np.argwhere(mask), axis=0) + 1
    box = np.s_[y : y + height, x : x + width]
    levels = np.clip(np.floor((lightness[box] - mean) / _LEVEL) + _LEVELS // 2, 0, _LEVELS - 1) + 1
    levels = np.where(mask[box], levels, 0).astype(np.uint8)
    angles = np.arange(4) * np.pi / 4
    counts = graycomatrix(levels, [1], angles, _LEVELS + 1)[1:, 1:].sum(axis=(2, 3)).astype(np.float64)
    if not counts.any():
        return 0.0, 1.0
    counts /= counts.sum()
    squares = np.subtract.outer(np.arange(_LEVELS), np.arange(_LEVELS)) ** 2
    return float(np.sum(counts * squares)), float(np.sum(counts / (1 + squares)))
