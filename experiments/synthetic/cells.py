"""Synthetic white blood cells: outline, nucleus, chromatin, granules.

A cell is not painted in colours but as amounts of four dyes, as a stained cell is: how these look is the matter of a
centre's stain (`experiments.synthetic.smear`). So the same cell can be shown as different laboratories would show it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

Rng = np.random.Generator

_SHIFT = 4  # cv2.fillPoly takes coordinates in fixed point with this many binary places


def smooth_noise(shape: tuple[int, int], grain: float, rng: Rng) -> np.ndarray:
    """Return random texture of about unit variance, float32 of `shape`, its spots about `grain` (1 or more) px wide."""
    rows, columns = (int(np.ceil(n / grain)) + 3 for n in shape)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    fine = cv2.resize(coarse, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
    y, x = (int(rng.integers(0, max(1, f - n))) for f, n in zip(fine.shape, shape, strict=True))
    # Cubic interpolation loses about this much of the standard deviation.
    return fine[y : y + shape[0], x : x + shape[1]] * 1.3


def wavy_circle(rng: Rng, waviness: float, num_points: int = 56) -> np.ndarray:
    """Return a closed outline around 0 of mean radius 1 as complex numbers x + iy.

    `waviness` is about the standard deviation of the radius, 0 for a circle; 0.1 is a strongly uneven cell.
    """
    angles = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    radius = np.ones(num_points)
    for order in (2, 3, 4, 5, 7):
        radius += waviness * rng.normal() * 1.2 / (order - 0.5) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    return np.clip(radius, 0.7, 1.3) * np.exp(1j * angles)


class Stencil:
    """A binary mask in the frame of a cell: 0 is the middle, 1 the mean cell radius, turned by `turn`."""

    def __init__(self, side: int, scale: float, turn: float = 0.0):
        self.mask = np.zeros((side, side), np.uint8)
        self._scale, self._turn, self._middle = scale, np.exp(1j * turn), side / 2 - 0.5

    def _to_pixels(self, points: np.ndarray) -> np.ndarray:
        z = points * self._turn * self._scale
        xy = np.stack([z.real, z.imag], axis=-1) + self._middle
        return np.round(xy * (1 << _SHIFT)).astype(np.int32)

    def fill(self, outline: np.ndarray) -> None:
        """Fill a closed outline, complex array of shape (n,)."""
        cv2.fillPoly(self.mask, [self._to_pixels(outline)], 255, shift=_SHIFT)

    def stroke(self, path: np.ndarray, width: float) -> None:
        """Draw a line of some width, in cell radii, along a path, complex array of shape (n,)."""
        thickness = max(1, round(width * self._scale))
        cv2.polylines(self.mask, [self._to_pixels(path)], False, 255, thickness, shift=_SHIFT)

    def dots(self, number: tuple[int, int], reach: float, radius: tuple[float, float], rng: Rng) -> np.ndarray:
        """Draw so many discs of such radii, evenly over the disc of radius `reach`; returns the mask."""
        count = rng.integers(*number, endpoint=True)
        places = reach * np.sqrt(rng.random(count)) * np.exp(2j * np.pi * rng.random(count))
        for xy, r in zip(self._to_pixels(places), rng.uniform(*radius, count) * self._scale, strict=True):
            cv2.circle(self.mask, xy.tolist(), max(1, round(r * (1 << _SHIFT))), 255, -1, shift=_SHIFT)
        return self.mask


# Fills a nucleus of the given size (in cell radii) on the stencil.
NucleusDrawer = Callable[[Stencil, float, Rng], None]


def round_nucleus(stencil: Stencil, size: float, rng: Rng) -> None:
    """Draw a round to slightly oval nucleus, as lymphocytes, blasts and erythroblasts have."""
    shift = rng.uniform(0.3, 0.95) * max(0.0, 0.93 - size) * np.exp(2j * np.pi * rng.random())
    stencil.fill(shift + size * wavy_circle(rng, 0.04))


def kidney_nucleus(depth: tuple[float, float], stencil: Stencil, size: float, rng: Rng) -> None:
    """Draw a nucleus that is dented on one side, by `depth` (fraction of the radius)."""
    outline = wavy_circle(rng, 0.05)
    away = np.abs(np.angle(outline))
    outline = outline * (1 - rng.uniform(*depth) * np.exp(-((away / rng.uniform(0.5, 0.75)) ** 2)))
    stencil.fill(size * (outline.real * rng.uniform(0.8, 0.95) + 1.08j * outline.imag) - rng.uniform(0.05, 0.15))


def band_nucleus(stencil: Stencil, size: float, rng: Rng) -> None:
    """Draw a ribbon of even width, bent to a C or an S."""
    t = np.linspace(-1, 1, 25)
    if rng.random() < 0.7:
        path = 0.82 * size * np.exp(1j * t * np.radians(rng.uniform(95, 140))) - rng.uniform(0.0, 0.1)
    else:
        path = size * (1.15 * t + 1j * rng.uniform(0.45, 0.65) * np.sin(np.pi * t * rng.uniform(0.8, 1.0)))
    width = rng.uniform(0.34, 0.42)
    for part in np.array_split(np.arange(len(path)), 5):
        stencil.stroke(path[max(part[0] - 1, 0) : part[-1] + 1], width * rng.uniform(0.92, 1.1))


def lobed_nucleus(lobes: tuple[int, int], stencil: Stencil, size: float, rng: Rng) -> None:
    """Draw a nucleus of `lobes` (fewest, most) lobes that hang on thin threads."""
    num_lobes = int(rng.integers(*lobes, endpoint=True))
    step = np.radians({2: 150, 3: 100, 4: 78, 5: 64}[num_lobes]) * rng.uniform(0.88, 1.1)
    angles = (np.arange(num_lobes) - (num_lobes - 1) / 2) * step
    places = size * rng.uniform(0.75, 1.1, num_lobes) * np.exp(1j * angles)
    radii = {2: 0.4, 3: 0.31, 4: 0.265, 5: 0.23}[num_lobes] * rng.uniform(0.88, 1.15, num_lobes)
    stencil.stroke(places, rng.uniform(0.06, 0.13))
    for place, angle, radius in zip(places, angles, radii, strict=True):
        lobe = wavy_circle(rng, 0.07)
        stretched = lobe.real * rng.uniform(0.8, 1.0) + 1j * lobe.imag * rng.uniform(1.0, 1.2)
        stencil.fill(place + radius * stretched * np.exp(1j * (angle + rng.normal(0, 0.4))))


CHROMATIN, AZURE, EOSIN, HAEMOGLOBIN = range(4)
NUM_DYES = 4

PATCH_REACH = 1.4  # half the side of a cell's patch, in cell radii
SUPERSAMPLING = 2  # white cells are made twice as large and averaged down, which smooths every edge


class WhiteCell(NamedTuple):
    """A white cell on a square patch, the middle of the patch being the middle of the cell."""

    dyes: np.ndarray  # float32 array of shape (side, side, 4), optical density of each dye, zero outside the cell
    coverage: np.ndarray  # float32 array of shape (side, side), fraction of the pixel that the cell covers
    nucleus: np.ndarray  # bool array of shape (side, side), pixels that lie mostly in the nucleus


@dataclass(frozen=True)
class Granules:
    """Round grains in the cytoplasm: how many per cell, radius (fraction of the cell radius), dye, density."""

    number: tuple[int, int]
    radius: tuple[float, float]
    dye: int
    density: float
    over_nucleus: bool = False


@dataclass(frozen=True)
class CellType:
    """How a type of white cell looks under any stain; pairs are the ends of a uniform distribution."""

    radius: tuple[float, float]  # cell radius in radii of a red cell (3.75 micrometres)
    draw_nucleus: NucleusDrawer  # fills the nucleus of a given size on a stencil
    nucleus_size: tuple[float, float]  # radius (round nuclei) or reach of the nucleus in cell radii
    azure: tuple[float, float]  # density of these dyes in the cytoplasm
    eosin: tuple[float, float]  # density of these dyes in the cytoplasm
    chromatin: tuple[float, float]  # density of the nucleus
    waviness: float = 0.03  # unevenness of the outline, see `wavy_circle`
    haemoglobin: tuple[float, float] = (0.0, 0.0)  # density of these dyes in the cytoplasm
    clumping: float = 0.18  # relative standard deviation of the density within the nucleus
    clump_size: float = 0.16  # width of the clumps in cell radii
    nucleoli: tuple[int, int] = (0, 0)  # number of pale spots in the nucleus
    fine_grain: float = 0.0  # amount of dust-like grains in the cytoplasm
    granules: Granules | None = None  # large grains, or None
    vacuoles: tuple[int, int] = (0, 0)  # number of holes in the cytoplasm
    rim: float = 0.3  # how much darker the cytoplasm is at its edge


CELL_TYPES: dict[str, CellType] = {
    "basophil": CellType(
        (1.45, 1.75), partial(lobed_nucleus, (2, 3)), (0.40, 0.50), (0.3, 0.5), (0.2, 0.4), (0.65, 0.85),
        waviness=0.04, granules=Granules((55, 95), (0.06, 0.105), CHROMATIN, 1.0, over_nucleus=True),
    ),
    "eosinophil": CellType(
        (1.65, 1.95), partial(lobed_nucleus, (2, 2)), (0.44, 0.54), (0.0, 0.1), (0.5, 0.75), (0.85, 1.1),
        granules=Granules((130, 190), (0.055, 0.08), EOSIN, 0.85), rim=0.1,
    ),
    "erythroblast": CellType(
        (1.05, 1.35), round_nucleus, (0.54, 0.68), (0.1, 0.4), (0.1, 0.3), (1.15, 1.4),
        haemoglobin=(0.4, 0.8), clumping=0.12,
    ),
    "myeloblast": CellType(
        (1.85, 2.3), round_nucleus, (0.78, 0.87), (0.7, 1.0), (0.0, 0.1), (0.55, 0.72), waviness=0.05,
        clumping=0.09, clump_size=0.07, nucleoli=(2, 4), rim=0.5,
    ),
    "promyelocyte": CellType(
        (2.1, 2.5), round_nucleus, (0.62, 0.71), (0.6, 0.9), (0.1, 0.25), (0.6, 0.8), waviness=0.04,
        clumping=0.12, clump_size=0.09, nucleoli=(0, 2),
        granules=Granules((90, 150), (0.022, 0.036), CHROMATIN, 0.55, over_nucleus=True),
    ),
    "myelocyte": CellType(
        (1.75, 2.1), round_nucleus, (0.54, 0.63), (0.25, 0.45), (0.2, 0.35), (0.75, 0.95),
        clump_size=0.12, fine_grain=0.5,
    ),
    "metamyelocyte": CellType(
        (1.65, 2.0), partial(kidney_nucleus, (0.45, 0.65)), (0.56, 0.66), (0.1, 0.25), (0.3, 0.45), (0.8, 1.0),
        clump_size=0.14, fine_grain=0.5,
    ),
    "neutrophil_banded": CellType(
        (1.55, 1.85), band_nucleus, (0.50, 0.60), (0.0, 0.12), (0.3, 0.5), (0.9, 1.15),
        fine_grain=0.4, rim=0.15,
    ),
    "neutrophil_segmented": CellType(
        (1.55, 1.85), partial(lobed_nucleus, (3, 5)), (0.45, 0.54), (0.0, 0.1), (0.3, 0.5), (0.95, 1.2),
        fine_grain=0.4, rim=0.15,
    ),
    "monocyte": CellType(
        (2.0, 2.5), partial(kidney_nucleus, (0.25, 0.6)), (0.62, 0.74), (0.5, 0.75), (0.05, 0.15), (0.65, 0.85),
        waviness=0.1, clumping=0.2, clump_size=0.13, fine_grain=0.2, vacuoles=(2, 7), rim=0.0,
    ),
    "lymphocyte_typical": CellType(
        (1.15, 1.45), round_nucleus, (0.72, 0.88), (0.6, 0.9), (0.0, 0.1), (1.0, 1.25), clump_size=0.25,
        clumping=0.2, rim=0.5,
    ),
}  # fmt: skip


def synthetic_cell(cell_type: str, red_cell_radius: float, rng: Rng) -> WhiteCell:
    """Make one white cell of a type, on a patch whose side is even.

    Args:
        cell_type: a key of `CELL_TYPES`.
        red_cell_radius: radius of a red cell in pixels, the yardstick of all sizes.
        rng: source of randomness.
    """
    look = CELL_TYPES[cell_type]
    radius = red_cell_radius * rng.uniform(*look.radius)
    side = 2 * int(np.ceil(radius * PATCH_REACH)) * SUPERSAMPLING
    scale = radius * SUPERSAMPLING
    turn = rng.uniform(0, 2 * np.pi)

    body = Stencil(side, scale, turn)
    outline = wavy_circle(rng, look.waviness)
    aspect = rng.uniform(1.0, 1.0 + 2.5 * look.waviness + 0.06)
    body.fill(outline.real * np.sqrt(aspect) + 1j * outline.imag / np.sqrt(aspect))
    nucleus = Stencil(side, scale, turn + rng.uniform(0, 2 * np.pi))
    look.draw_nucleus(nucleus, rng.uniform(*look.nucleus_size), rng)
    # The nucleus keeps a little cytoplasm around it wherever the outline comes close.
    margin = 2 * max(1, round(0.05 * scale)) + 1
    inner = cv2.erode(body.mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin)))
    nucleus_mask = cv2.bitwise_and(nucleus.mask, inner)

    dyes = _cytoplasm(look, body.mask, scale, rng)
    chromatin, amount = _chromatin(look, nucleus_mask, scale, rng)
    dyes *= (1 - amount)[..., np.newaxis]
    dyes[..., CHROMATIN] += chromatin
    dyes[..., AZURE] += 0.15 * amount
    if look.granules is not None:
        _add_granules(dyes, look.granules, nucleus_mask, scale, rng)

    coverage = _softened(body.mask, 0.7)
    dyes *= coverage[..., np.newaxis]
    half = (side // SUPERSAMPLING, side // SUPERSAMPLING)
    dyes, coverage, amount = (cv2.resize(a, half, interpolation=cv2.INTER_AREA) for a in (dyes, coverage, amount))
    return WhiteCell(dyes, coverage, amount > 0.5)


def _cytoplasm(look: CellType, body: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    """Fill the cell with unevenly stained cytoplasm; returns float32 dyes of shape (side, side, 4)."""
    texture = 1 + 0.13 * smooth_noise(body.shape, 0.3 * scale, rng) + 0.06 * smooth_noise(body.shape, 3, rng)
    depth = cv2.blur(body, (max(3, round(0.4 * scale)),) * 2).astype(np.float32) / 255
    texture *= 1 + look.rim * (1 - depth)
    if look.vacuoles[1]:
        holes = Stencil(len(body), scale).dots(look.vacuoles, 0.9, (0.04, 0.1), rng)
        texture *= 1 - 0.8 * _softened(holes, 0.8)
    dyes = np.zeros((*body.shape, NUM_DYES), np.float32)
    dyes[..., AZURE] = rng.uniform(*look.azure) * texture
    dyes[..., EOSIN] = rng.uniform(*look.eosin) * texture
    dyes[..., HAEMOGLOBIN] = rng.uniform(*look.haemoglobin) * texture
    if look.fine_grain:
        dust = np.clip(smooth_noise(body.shape, 2.5, rng) - 0.6, 0, 1.5) * look.fine_grain
        dyes[..., EOSIN] += 0.5 * dust
        dyes[..., CHROMATIN] += 0.25 * dust
    return dyes


def _chromatin(look: CellType, nucleus: np.ndarray, scale: float, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Return the density of chromatin and the share of nucleus, both float32 of shape (side, side)."""
    amount = _softened(nucleus, 0.8)
    clumps = smooth_noise(nucleus.shape, max(1.5, look.clump_size * scale), rng)
    clumps += 0.5 * smooth_noise(nucleus.shape, max(1.5, 0.45 * look.clump_size * scale), rng)
    depth = cv2.blur(nucleus, (max(3, round(0.17 * scale)),) * 2).astype(np.float32) / 255
    density = 1 + look.clumping * np.tanh(clumps) + 0.25 * (1 - depth)
    if look.nucleoli[1]:
        spots = Stencil(len(nucleus), scale).dots(look.nucleoli, 0.55, (0.08, 0.14), rng)
        density *= 1 - 0.38 * _softened(spots, 1.2)
    return rng.uniform(*look.chromatin) * density * amount, amount


def _add_granules(dyes: np.ndarray, granules: Granules, nucleus: np.ndarray, scale: float, rng: Rng) -> None:
    """Add large grains to `dyes` in place."""
    grains = Stencil(len(nucleus), scale).dots(granules.number, 0.95, granules.radius, rng)
    if not granules.over_nucleus:
        grains[nucleus > 0] = 0
    texture = 1 + 0.15 * smooth_noise(nucleus.shape, 4, rng)
    dyes[..., granules.dye] += granules.density * _softened(grains, 0.9) * texture


def _softened(mask: np.ndarray, sigma: float) -> np.ndarray:
    """A uint8 mask with soft edges, float32 from 0 to 1."""
    return cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) / 255
