"""Shapes that people draw around cells, the objects and images made of them, and the pixels inside.

Convention: x runs to the right and y down from the upper left corner of the image, in pixels, so the pixel in row r and
column c is the square from (c, r) to (c + 1, r + 1). A pixel is inside a shape if its centre, (c + 0.5, r + 0.5), is.
This is how canvases and COCO count. A polygon that crosses itself is filled by the even-odd rule. An object of several
shapes is their union; a hole can only be given by run lengths or a bitmap.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import ellipse
from typing_extensions import Self

from mrcnn.annotations.faults import Fault, as_number, expect, shorten

# Tools round corners and let the last click slip over the edge; what is farther out belongs to another image.
EDGE_TOLERANCE = 2.0
# Rows of all edges together; a cell's outline crosses each row of the image a few times.
MAX_CROSSINGS = 2_000_000


@dataclass(frozen=True, eq=False)
class Shape:
    """A part of an image."""

    points: np.ndarray  # float64 (num_points, 2), `(x, y)`: corners, or a centre, that must lie in the image
    fill: Callable[[int, int], np.ndarray]  # from height and width of the image to the pixels inside, bool

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels inside, bool of shape (height, width); `Fault` if it does not belong into such an image."""
        limits = np.array([width, height]) + EDGE_TOLERANCE
        outside = ((self.points < -EDGE_TOLERANCE) | (self.points > limits)).any(axis=1)
        if outside.any():
            x, y = self.points[outside.argmax()]
            raise Fault(f"({x:g}, {y:g}) is outside the image of {width}x{height} px")
        return self.fill(height, width)


def make_polygon(xs: Sequence[Any], ys: Sequence[Any], *, is_line: bool = False) -> Shape:
    """Make a polygon from its corners, in order, as a file has them; a line must end where it begins, within a pixel.

    Raises:
        Fault: if it encloses nothing or a coordinate is no number.
    """
    if len(xs) != len(ys):
        raise Fault(f"{len(xs)} x and {len(ys)} y coordinates")
    if len(xs) < 3:
        raise Fault(f"polygon with {len(xs)} points")
    points = np.array([(as_number(x, "x"), as_number(y, "y")) for x, y in zip(xs, ys, strict=True)])
    if is_line and math.dist(points[0], points[-1]) > 1.0:
        raise Fault("a line that does not end where it begins encloses nothing; draw a polygon")
    return Shape(points, partial(fill_polygon, points))


def make_ellipse(x: Any, y: Any, radius_x: Any, radius_y: Any, theta: Any = 0.0) -> Shape:
    """Make an ellipse around a centre, which may reach over the edge of the image as its cell does.

    The radii are half the axes that are horizontal and vertical before turning by `theta`, in radians, clockwise as
    seen. Raises `Fault` if it has no area or a value is no number.
    """
    x, y, theta = (as_number(value, name) for value, name in ((x, "x"), (y, "y"), (theta, "theta")))
    radius_x, radius_y = as_number(radius_x, "radius"), as_number(radius_y, "radius")
    if min(radius_x, radius_y) < 0.01:
        raise Fault(f"circle or ellipse without area: its radii are {radius_x:g} and {radius_y:g} px")

    def fill(height: int, width: int) -> np.ndarray:
        mask = np.zeros((height, width), bool)
        mask[ellipse(y - 0.5, x - 0.5, radius_y, radius_x, shape=mask.shape, rotation=-theta)] = True
        return mask

    return Shape(np.array([(x, y)]), fill)


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Find the pixels whose centres lie inside a polygon, by the even-odd rule: bool (height, width).

    Where an outline passes exactly through a centre, the pixel belongs to what lies to its right, and on a horizontal
    line to what lies below: polygons that share an edge share no pixel and leave none out. `skimage.draw.polygon2mask`
    counts such pixels twice, and asks every pixel about every corner: of 1,000 corners it takes a second and more.

    `points`, float (num_points, 2), are corners `(x, y)`, which may lie outside the image. A polygon that crosses more
    than `MAX_CROSSINGS` rows, as a zigzag over the whole image does, is a `Fault`.
    """
    mask = np.zeros((height, width), bool)
    # Each edge runs from its upper end down, so that it crosses at the same x from whichever side it is drawn.
    edges = np.stack([points, np.roll(points, -1, axis=0)], axis=1)
    edges = np.where(edges[:, :1, 1:] <= edges[:, 1:, 1:], edges, edges[:, ::-1])
    (x0, y0), (x1, y1) = edges[:, 0].T, edges[:, 1].T
    # Rows whose centres lie in [y0, y1): horizontal edges have none, and a corner counts for one of its two edges.
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (y0, y1))
    num_rows = last - first
    if num_rows.sum() > MAX_CROSSINGS:
        raise Fault(f"polygon that crosses {num_rows.sum()} rows of pixels, too many to fill")
    edge = np.repeat(np.arange(len(points)), num_rows)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(num_rows) - num_rows - first, num_rows)
    crossing = x0[edge] + (rows + 0.5 - y0[edge]) * ((x1[edge] - x0[edge]) / (y1[edge] - y0[edge]))
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    if len(rows):
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max()
        turns = np.zeros((bottom - top, right - left + 1), bool)
        np.logical_xor.at(turns, (rows - top, columns - left), True)
        mask[top:bottom, left:right] = np.logical_xor.accumulate(turns[:, :-1], axis=1)
    return mask


@dataclass(frozen=True, eq=False)
class OutlinedObject:
    """One object of an image."""

    name: str  # what a message calls it, such as "annotation 17" or "region 2"
    label: str | None  # its class in the file's own words, "" if it has none; None if it cannot be told
    shapes: tuple[Shape, ...] = ()  # it is their union
    is_crowd: bool = False  # a group of objects that nobody took apart
    is_nucleus: bool = False  # whatever its label, which is then that of its cell
    fault: str = ""  # why it cannot be used

    @classmethod
    def read(cls, name: str, entry: Any, read_label: Callable, read_shapes: Callable, **flags: bool) -> Self:
        """Make an object of its entry in a file, a mapping; a `Fault` in reading label or shapes becomes its fault.

        `flags` are `is_crowd` and `is_nucleus`.
        """
        label = None
        try:
            label = read_label(expect(entry, dict, "entry"))
            return cls(name, label, read_shapes(entry), **flags)
        except Fault as error:
            return cls(name, label, **flags, fault=str(error))

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the object's pixels, bool of shape (height, width); `Fault` if it has none in such an image."""
        if self.fault:
            raise Fault(self.fault)
        mask = np.zeros((height, width), bool)
        for shape in self.shapes:
            mask |= shape.draw(height, width)
        if not mask.any():
            raise Fault("covers no pixel of the image")
        return mask


@dataclass
class OutlinedImage:
    """One image of an annotation file."""

    file_name: str  # its name or path as the file has it
    source: Path  # the annotation file
    objects: list[OutlinedObject] = field(default_factory=list)
    width: int | None = None  # in pixels, if the file says it
    height: int | None = None
    faults: list[str] = field(default_factory=list)  # of the entry as a whole

    @classmethod
    def read(
        cls, what: str, entry: Any, name: str, annotations: "Annotations", size: Sequence[str] = ("width", "height")
    ) -> "OutlinedImage | None":
        """Add an image to `annotations`: `name` and `size` are keys of its entry. One without a name is a fault."""
        file_name = entry.get(name) if isinstance(entry, dict) else None
        source = annotations.sources[0]
        if not isinstance(file_name, str) or not file_name:
            annotations.faults.append((source.name, f"{what} has no {name}"))
            return None
        image = cls(file_name, source)
        for side, key in zip(("width", "height"), size, strict=True):
            value = entry.get(key)  # 640.0 will do
            if type(value) in (int, float) and value > 0 and value % 1 == 0:
                setattr(image, side, int(value))
            elif value is not None:
                image.faults.append(f"{key} is {shorten(value)}, not a number of pixels")
        annotations.images.append(image)
        return image


@dataclass
class Annotations:
    """All that was read from an annotation file, or from a folder of them."""

    kind: str  # "coco", "geojson", "labelme" or "via"
    sources: list[Path]
    images: list[OutlinedImage] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)  # (file or image, reason) of what belongs to no image
    num_lost_objects: int = 0  # how many of these are objects
