"""Synthetic smears: the surroundings of a white cell, and the microscope that looks at them.

A smear is a map of dye amounts, shape (height, width, 4); light is absorbed by them after Beer and Lambert, each dye
having the colour that the centre's stain gives it. Then come lens, lamp, sensor and JPEG.
"""

from typing import NamedTuple

import cv2
import numpy as np

from experiments.synthetic.cells import (
    AZURE,
    CHROMATIN,
    EOSIN,
    HAEMOGLOBIN,
    NUM_DYES,
    PATCH_REACH,
    Rng,
    WhiteCell,
    smooth_noise,
    synthetic_cell,
)
from experiments.synthetic.styles import CentreStyle

NUM_TRIALS = 8  # places tried for a second cell

Placed = tuple[WhiteCell, np.ndarray, float]  # a white cell, its middle (y, x) and its radius in pixels


class SyntheticImage(NamedTuple):
    """An image with what is known of it."""

    image: np.ndarray  # uint8 array of shape (size, size, 3), RGB
    instances: np.ndarray  # uint8 array of shape (size, size); 0 background, 1 the labelled cell, 2 another
    nuclei: np.ndarray  # bool array of shape (size, size), nuclei of these cells


def synthetic_image(style: CentreStyle, cell_type: str, rng: Rng, image_size: int | None = None) -> SyntheticImage:
    """Make an image with a labelled white cell near its middle, in the manner of a centre.

    Args:
        style: the centre's manner.
        cell_type: type of the labelled cell, a key of `CELL_TYPES`; a second cell is of any type.
        rng: source of randomness; the same state gives the same image.
        image_size: side in pixels instead of the style's; what is shown stays the same fraction of the image.
    """
    size = image_size or style.image_size
    red_radius = style.red_cell_radius * size
    white = synthetic_cell(cell_type, red_radius, rng)
    reach = white.coverage.shape[0] / (2 * PATCH_REACH)  # the cell's radius
    # Off the middle by at most 0.4 radii, so that the labelled cell always covers the middle of the image.
    middle = size / 2 + rng.uniform(-0.28, 0.28, 2) * reach
    whites = [(white, middle, reach)]
    if rng.random() < style.second_cell_share:
        whites.append(_second_cell(style, size, middle, reach, rng))

    smear = np.zeros((size, size, NUM_DYES), np.float32)
    for dye in (AZURE, EOSIN):  # plasma takes a little of them, unevenly
        smear[..., dye] = np.clip(0.035 * (0.6 + smooth_noise((size, size), size / 3, rng)), 0, None)
    _add_red_cells(smear, style, red_radius, whites, rng)
    _add_platelets(smear, style, red_radius, rng)
    instances = np.zeros((size, size), np.uint8)
    nuclei = np.zeros((size, size), bool)
    for number in range(len(whites), 0, -1):  # the labelled cell comes last and lies on top
        nucleus = _lay_white_cell(smear, instances, whites[number - 1], number)
        nuclei[instances == number] = nucleus[instances == number]
    _add_debris(smear, style, red_radius, rng)
    return SyntheticImage(_photograph(smear, style, rng), instances, nuclei)


def _second_cell(style: CentreStyle, size: int, middle: np.ndarray, reach: float, rng: Rng) -> Placed:
    """Place another white cell so that the border cuts it and it leaves the labelled cell free.

    Its centre stays in the image: of a cell with less to show, people disagree whether to label it.
    """
    types = list(style.type_counts)
    white = synthetic_cell(types[int(rng.integers(len(types)))], style.red_cell_radius * size, rng)
    other_reach = white.coverage.shape[0] / (2 * PATCH_REACH)
    depth = rng.uniform(0.0, 0.5, NUM_TRIALS) * other_reach
    depth = np.where(rng.random(NUM_TRIALS) < 0.5, depth, size - depth)
    along = rng.choice([0.0, 1.0], NUM_TRIALS) * size
    along = np.clip(along + rng.choice([-1, 1], NUM_TRIALS) * rng.uniform(0.0, 0.3, NUM_TRIALS) * size, 0, size)
    places = np.stack([depth, along], axis=1)
    places = np.where(rng.random((NUM_TRIALS, 1)) < 0.5, places, places[:, ::-1])
    gaps = np.linalg.norm(places - middle, axis=1) - 1.05 * (reach + other_reach)
    # The first place that leaves a gap, else the one with the least overlap.
    free = np.flatnonzero(gaps >= 0)
    return white, places[free[0] if free.size else np.argmax(gaps)], other_reach


def _lay_white_cell(smear: np.ndarray, instances: np.ndarray, white: Placed, number: int) -> np.ndarray:
    """Put a white cell on the smear and into the instance mask; returns its nucleus, bool (size, size)."""
    cell, place, _ = white
    size, side = smear.shape[0], cell.coverage.shape[0]
    top, left = (int(round(v)) - side // 2 for v in place)
    y1, y2 = max(top, 0), min(top + side, size)
    x1, x2 = max(left, 0), min(left + side, size)
    inside = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    coverage = cell.coverage[inside]
    # A white cell pushes others aside rather than lying on them: what is below shines through faintly.
    smear[y1:y2, x1:x2] = smear[y1:y2, x1:x2] * (1 - 0.88 * coverage)[..., np.newaxis] + cell.dyes[inside]
    instances[y1:y2, x1:x2][coverage >= 0.5] = number
    nucleus = np.zeros((size, size), bool)
    nucleus[y1:y2, x1:x2] = cell.nucleus[inside]
    return nucleus


def _add_red_cells(smear: np.ndarray, style: CentreStyle, radius: float, whites: list[Placed], rng: Rng) -> None:
    """Strew red cells, which may overlap each other but hardly the white cells."""
    size = smear.shape[0]
    crowding = style.crowding * rng.uniform(0.5, 1.4)
    number = int(crowding * (size + 2 * radius) ** 2 / (np.pi * radius**2))
    for place in rng.uniform(-radius, size + radius, (number, 2)):
        own_radius = radius * rng.normal(1.0, 0.07)
        if any(np.linalg.norm(place - p) < r + 0.8 * own_radius for _, p, r in whites):
            continue
        disc = _soft_disc(smear, place, own_radius, rng)
        if disc is None:
            continue
        window, coverage, distance = disc
        density, pallor = rng.uniform(*style.red_cell_density), rng.uniform(*style.pallor)
        if rng.random() < style.dark_red_share:
            density, pallor = 1.7 * density, 0.0
        profile = 1 - pallor * np.exp(-((distance / 0.55) ** 4))
        below, above = smear[window][..., HAEMOGLOBIN], density * profile * coverage
        # Cells that overlap flatten each other, so the overlap is far paler than the sum.
        smear[window][..., HAEMOGLOBIN] = np.maximum(below, above) + 0.4 * np.minimum(below, above)
        smear[window][..., AZURE] += max(0.0, rng.normal(-0.1, 0.12)) * coverage  # young ones are bluish


def _add_platelets(smear: np.ndarray, style: CentreStyle, radius: float, rng: Rng) -> None:
    """Strew platelets, some of them giant or in clumps, as dark as a small nucleus."""
    size = smear.shape[0]
    for _ in range(rng.integers(*style.platelets, endpoint=True)):
        place = rng.uniform(0, size, 2)
        giant = rng.random() < 0.12
        clump = int(rng.integers(3, 7)) if rng.random() < 0.12 else 1
        for _ in range(clump):
            own_radius = radius * rng.uniform(*((0.5, 0.75) if giant and clump == 1 else (0.18, 0.38)))
            beside = rng.normal(0, 0.3 * radius, 2) if clump > 1 else 0.0
            disc = _soft_disc(smear, place + beside, own_radius, rng, 0.12)
            if disc is None:
                continue
            window, coverage, distance = disc
            grain = 1 + 0.5 * smooth_noise(coverage.shape, 2, rng)
            core = rng.uniform(0.35, 0.95) * np.exp(-(distance**2) * 1.5) * np.clip(grain, 0.2, 2)
            smear[window][..., CHROMATIN] += core * coverage
            smear[window][..., AZURE] += 0.35 * coverage


def _add_debris(smear: np.ndarray, style: CentreStyle, radius: float, rng: Rng) -> None:
    """Add dirt: grains of precipitated dye, pools of stain, fibres. It lies over cells as well."""
    size = smear.shape[0]
    for _ in range(rng.integers(*style.debris, endpoint=True)):
        place = rng.uniform(0, size, 2)
        kind = rng.choice(["grains", "pool", "fibre"], p=[0.6, 0.25, 0.15])
        if kind == "grains":
            for _ in range(rng.integers(2, 9)):
                beside = rng.normal(0, 0.4 * radius, 2)
                disc = _soft_disc(smear, place + beside, radius * rng.uniform(0.05, 0.14), rng)
                if disc is not None:
                    smear[disc[0]][..., CHROMATIN] += rng.uniform(0.6, 1.6) * disc[1]
        elif kind == "pool":
            disc = _soft_disc(smear, place, radius * rng.uniform(0.6, 1.4), rng, 0.15)
            if disc is not None:
                fading = np.exp(-2.5 * disc[2] ** 2) * disc[1]
                dye = int(rng.choice([CHROMATIN, AZURE, EOSIN]))
                smear[disc[0]][..., dye] += rng.uniform(0.15, 0.5) * fading
        else:
            steps = np.cumsum(rng.normal(0, 0.25, 14)) + rng.uniform(0, 2 * np.pi)
            path = place + np.cumsum(np.stack([np.sin(steps), np.cos(steps)], axis=-1), axis=0) * 0.3 * radius
            fibre = np.zeros((size, size), np.uint8)
            cv2.polylines(fibre, [np.round(path * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, shift=4)
            smear[..., int(rng.choice([CHROMATIN, AZURE]))] += fibre * np.float32(rng.uniform(0.3, 0.8) / 255)


def _soft_disc(
    smear: np.ndarray, place: np.ndarray, radius: float, rng: Rng, unevenness: float = 0.05
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray] | None:
    """An uneven disc: the window that holds it, coverage (0 to 1) and distance from the middle in radii of its pixels.

    None if it lies outside of the smear.
    """
    size = smear.shape[0]
    low = np.maximum(np.floor(place - 1.3 * radius - 1), 0).astype(int)
    high = np.minimum(np.ceil(place + 1.3 * radius + 2), size).astype(int)
    if (low >= high).any():
        return None
    window = (slice(low[0], high[0]), slice(low[1], high[1]))
    y, x = np.arange(low[0], high[0])[:, np.newaxis], np.arange(low[1], high[1])
    z = (x - place[1]) + 1j * (y - place[0])
    length = np.abs(z) + 1e-6
    direction = z / length
    wave = 1 + unevenness * rng.normal() * np.real(direction**2 * np.exp(1j * rng.uniform(0, 6.3)))
    wave += 0.6 * unevenness * rng.normal() * np.real(direction**3 * np.exp(1j * rng.uniform(0, 6.3)))
    distance = (length / (radius * np.clip(wave, 0.75, 1.25))).astype(np.float32)
    return window, np.clip((1 - distance) * radius + 0.5, 0, 1), distance


def _photograph(smear: np.ndarray, style: CentreStyle, rng: Rng) -> np.ndarray:
    """Turn dye amounts into the uint8 RGB image that the centre's camera gives."""
    size = smear.shape[0]
    colours = np.array([style.chromatin, style.azure, style.eosin, style.haemoglobin], np.float32)
    absorbance = -np.log(colours / 255)
    absorbance *= np.exp(rng.normal(0, style.stain_variation, (NUM_DYES, 1)))
    absorbance *= np.exp(rng.normal(0, 0.3 * style.stain_variation, (NUM_DYES, 3)))
    light = np.exp(-(smear @ absorbance.astype(np.float32)))
    light = cv2.GaussianBlur(light, (0, 0), max(0.2, rng.uniform(*style.blur) * size / style.image_size))

    brightness, balance = rng.normal(0, style.lamp_variation), rng.normal(0, style.lamp_variation / 3, 3)
    lamp = np.array(style.lamp) * np.exp(brightness + balance)
    offset = rng.normal(0.5, 0.12, 2)
    y, x = np.ogrid[:size, :size]
    off_axis = ((y / size - offset[0]) ** 2 + (x / size - offset[1]) ** 2) * 2
    light *= (1 - style.vignetting * off_axis).astype(np.float32)[..., np.newaxis]
    light *= np.minimum(lamp, 255).astype(np.float32)
    # Photon noise grows with the root of the light.
    light += style.noise * np.sqrt(light / 255) * rng.standard_normal(light.shape, dtype=np.float32)
    image = np.clip(np.round(light), 0, 255).astype(np.uint8)
    quality = int(rng.integers(*style.jpeg_quality, endpoint=True))
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])
