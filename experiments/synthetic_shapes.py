"""Shapes that synthetic blood cells are made of: texture, uneven discs, and the forms of nuclei."""

from collections.abc import Callable

import cv2
import numpy as np

_SHIFT = 4  # cv2.fillPoly takes coordinates in fixed point with this many binary places


def smooth_noise(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Return random texture of about unit variance whose spots are about `grain` pixels wide.

    Args:
        shape: (height, width).
        grain: distance in pixels between independent values, at least 1.
        rng: source of randomness.

    Returns:
        float32 array of shape (height, width).
    """
    rows, columns = (int(np.ceil(n / grain)) + 3 for n in shape)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    fine = cv2.resize(coarse, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
    y, x = (int(rng.integers(0, max(1, f - n))) for f, n in zip(fine.shape, shape, strict=True))
    return fine[y : y + shape[0], x : x + shape[1]] * 1.3  # cubic interpolation loses about this much deviation


def wavy_circle(rng: np.random.Generator, waviness: float, num_points: int = 56) -> np.ndarray:
    """Return a closed outline around 0 of mean radius 1 as complex numbers x + iy.

    Args:
        rng: source of randomness.
        waviness: deviation of the radius, 0 for a circle; 0.1 is a strongly uneven cell.
        num_points: number of corners.
    """
    angles = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    radius = np.ones(num_points)
    for order in (2, 3, 4, 5, 7):
        radius += waviness * rng.normal() * 1.2 / (order - 0.5) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    return np.clip(radius, 0.7, 1.3) * np.exp(1j * angles)


class Stencil:
    """A binary drawing in the frame of a cell: 0 is the middle, 1 the mean cell radius, turned by `turn`."""

    def __init__(self, side: int, scale: float, turn: float):
        self.mask = np.zeros((side, side), np.uint8)
        self._scale, self._turn, self._middle = scale, np.exp(1j * turn), side / 2 - 0.5

    def _to_pixels(self, points: np.ndarray) -> np.ndarray:
        z = points * self._turn * self._scale
        xy = np.stack([z.real, z.imag], axis=-1) + self._middle
        return np.round(xy * (1 << _SHIFT)).astype(np.int32)

    def fill(self, outline: np.ndarray, value: int = 255) -> None:
        """Fill a closed outline, complex array of shape (n,)."""
        cv2.fillPoly(self.mask, [self._to_pixels(outline)], value, shift=_SHIFT)

    def stroke(self, path: np.ndarray, width: float) -> None:
        """Draw a line of some width, in cell radii, along a path, complex array of shape (n,)."""
        thickness = max(1, round(width * self._scale))
        cv2.polylines(self.mask, [self._to_pixels(path)], False, 255, thickness, shift=_SHIFT)

    def dots(self, places: np.ndarray, radii: np.ndarray) -> None:
        """Draw discs around places, complex array of shape (n,), with radii in cell radii, of shape (n,)."""
        for xy, radius in zip(self._to_pixels(places), radii * self._scale, strict=True):
            cv2.circle(self.mask, xy.tolist(), max(1, round(radius * (1 << _SHIFT))), 255, -1, shift=_SHIFT)


# Fills a nucleus of the given size (in cell radii) on the stencil.
NucleusDrawer = Callable[[Stencil, float, np.random.Generator], None]


def round_nucleus(stencil: Stencil, size: float, rng: np.random.Generator) -> None:
    """Draw a round to slightly oval nucleus, as lymphocytes, blasts and erythroblasts have."""
    shift = rng.uniform(0.3, 0.95) * max(0.0, 0.93 - size) * np.exp(2j * np.pi * rng.random())
    stencil.fill(shift + size * wavy_circle(rng, 0.04))


def kidney_nucleus(depth: tuple[float, float]) -> NucleusDrawer:
    """Make a drawer of nuclei that are dented on one side, by `depth` (share of the radius)."""

    def draw(stencil: Stencil, size: float, rng: np.random.Generator) -> None:
        outline = wavy_circle(rng, 0.05)
        away = np.abs(np.angle(outline))
        dent = 1 - rng.uniform(*depth) * np.exp(-((away / rng.uniform(0.5, 0.75)) ** 2))
        outline = outline * dent
        stencil.fill(size * (outline.real * rng.uniform(0.8, 0.95) + 1.08j * outline.imag) - rng.uniform(0.05, 0.15))

    return draw


def band_nucleus(stencil: Stencil, size: float, rng: np.random.Generator) -> None:
    """Draw a ribbon of even width, bent to a C or an S."""
    t = np.linspace(-1, 1, 25)
    if rng.random() < 0.7:
        path = 0.82 * size * np.exp(1j * t * np.radians(rng.uniform(95, 140))) - rng.uniform(0.0, 0.1)
    else:
        path = size * (1.15 * t + 1j * rng.uniform(0.45, 0.65) * np.sin(np.pi * t * rng.uniform(0.8, 1.0)))
    width = rng.uniform(0.34, 0.42)
    for part in np.array_split(np.arange(len(path)), 5):
        stencil.stroke(path[max(part[0] - 1, 0) : part[-1] + 1], width * rng.uniform(0.92, 1.1))


def lobed_nucleus(lobes: tuple[int, int]) -> NucleusDrawer:
    """Make a drawer of nuclei of `lobes` (fewest, most) lobes that hang on thin threads."""

    def draw(stencil: Stencil, size: float, rng: np.random.Generator) -> None:
        num_lobes = int(rng.integers(lobes[0], lobes[1] + 1))
        step = np.radians({2: 150, 3: 100, 4: 78, 5: 64}[num_lobes]) * rng.uniform(0.88, 1.1)
        angles = (np.arange(num_lobes) - (num_lobes - 1) / 2) * step
        places = size * rng.uniform(0.75, 1.1, num_lobes) * np.exp(1j * angles)
        radii = {2: 0.4, 3: 0.31, 4: 0.265, 5: 0.23}[num_lobes] * rng.uniform(0.88, 1.15, num_lobes)
        stencil.stroke(places, rng.uniform(0.06, 0.13))
        for place, angle, radius in zip(places, angles, radii, strict=True):
            lobe = wavy_circle(rng, 0.07)
            stretched = lobe.real * rng.uniform(0.8, 1.0) + 1j * lobe.imag * rng.uniform(1.0, 1.2)
            stencil.fill(place + radius * stretched * np.exp(1j * (angle + rng.normal(0, 0.4))))

    return draw


def places_in_disc(number: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return `number` complex places, spread evenly over the disc of `radius` around 0."""
    return radius * np.sqrt(rng.random(number)) * np.exp(2j * np.pi * rng.random(number))
