"""Shapes that people draw around cells, the objects and images made of them, and the pixels inside.

Convention: x runs to the right and y down from the upper left corner of the image, in pixels, so the pixel in row r and
column c is the square from (c, r) to (c + 1, r + 1). A pixel is inside a shape if its centre, (c + 0.5, r + 0.5), is.
This is how canvases and COCO count. A polygon that crosses itself is filled by the even-odd rule. An object of several
shapes is their union; a hole can only be given by run lengths or a bitmap.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import ellipse

from mrcnn.annotations.faults import Fault, as_number, expect, shorten

# Tools round corners and let the last click slip over the edge; what is farther out belongs to another image.
EDGE_TOLERANCE = 2.0
# An outline drawn pixel by pixel around the largest image has fewer.
MAX_CORNERS = 100_000
# Rows of all edges together; a cell's outline crosses each row of the image a few times.
MAX_CROSSINGS = 2_000_000
MIN_RADIUS = 0.01


@dataclass(frozen=True, eq=False)
class Shape:
    """A part of an image."""

    points: np.ndarray  # float64 (num_points, 2), `(x, y)`: corners, or a centre, that must lie in the image

    def check(self, height: int, width: int) -> None:
        """Raise `Fault` if the shape does not belong into an image of this size."""
        limits = np.array([width, height]) + EDGE_TOLERANCE
        outside = ((self.points < -EDGE_TOLERANCE) | (self.points > limits)).any(axis=1)
        if outside.any():
            x, y = self.points[outside.argmax()]
            raise Fault(f"({x:g}, {y:g}) is outside the image of {width}x{height} px")

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels inside, bool of shape (height, width)."""
        raise NotImplementedError


class Polygon(Shape):
    """A closed polygon."""

    def draw(self, height: int, width: int) -> np.ndarray:  # noqa: D102
        return fill_polygon(self.points, height, width)


@dataclass(frozen=True, eq=False)
class Ellipse(Shape):
    """An ellipse around a centre, which may reach over the edge of the image as its cell does."""

    radii: tuple[float, float]  # half the axes that are horizontal and vertical before turning
    theta: float = 0.0  # by how much it is turned, in radians, clockwise as seen

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels inside."""
        mask = np.zeros((height, width), bool)
        (x, y), (radius_x, radius_y) = self.points[0] - 0.5, self.radii
        mask[ellipse(y, x, radius_y, radius_x, shape=mask.shape, rotation=-self.theta)] = True
        return mask


@dataclass(frozen=True, eq=False)
class Bitmap(Shape):
    """Pixels of a part of the image, between its upper left and lower right corner."""

    pixels: np.ndarray  # bool, of the shape of the part

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels, set into the image and cut at its edge."""
        left, top = (int(value) for value in self.points[0])
        y, x = max(top, 0), max(left, 0)
        part = self.pixels[y - top :, x - left :][: max(height - y, 0), : max(width - x, 0)]
        mask = np.zeros((height, width), bool)
        mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        return mask


def make_polygon(xs: Sequence[Any], ys: Sequence[Any]) -> Polygon:
    """Make a polygon from the coordinates of its corners, in order, as a file has them; else raise `Fault`."""
    if len(xs) != len(ys):
        raise Fault(f"{len(xs)} x and {len(ys)} y coordinates")
    if not 3 <= len(xs) <= MAX_CORNERS:
        raise Fault(f"polygon with {len(xs)} points, of at least 3 and at most {MAX_CORNERS}")
    return Polygon(np.array([(as_number(x, "x"), as_number(y, "y")) for x, y in zip(xs, ys, strict=True)]))


def make_rectangle(x1: Any, y1: Any, x2: Any, y2: Any) -> Polygon:
    """Make a rectangle from two opposite corners; else raise `Fault`."""
    return make_polygon([x1, x2, x2, x1], [y1, y1, y2, y2])


def make_ellipse(x: Any, y: Any, radius_x: Any, radius_y: Any, theta: Any = 0.0) -> Ellipse:
    """Make an ellipse, or a circle from two equal radii; else raise `Fault`."""
    radii = as_number(radius_x, "radius"), as_number(radius_y, "radius")
    if min(radii) < MIN_RADIUS:
        raise Fault(f"circle or ellipse without area: its radii are {radii[0]:g} and {radii[1]:g} px")
    return Ellipse(np.array([(as_number(x, "x"), as_number(y, "y"))]), radii, as_number(theta, "theta"))


def make_closed_line(xs: Sequence[Any], ys: Sequence[Any]) -> Polygon:
    """Make a polygon from a line that ends where it begins, within a pixel; else raise `Fault`."""
    polygon = make_polygon(xs, ys)
    if math.dist(polygon.points[0], polygon.points[-1]) > 1.0:
        raise Fault("a line that does not end where it begins encloses nothing; draw a polygon")
    return polygon


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Find the pixels whose centres lie inside a polygon, by the even-odd rule.

    Where an outline passes exactly through a centre, the pixel belongs to what lies to its right, and on a horizontal
    line to what lies below: polygons that share an edge share no pixel and leave none out. `skimage.draw.polygon2mask`
    counts such pixels twice, and asks every pixel about every corner: of 1,000 corners it takes a second and more.

    `points`, float (num_points, 2), are corners `(x, y)`, which may lie outside the image. Gives bool (height, width).

    Raises:
        Fault: if it crosses more than `MAX_CROSSINGS` rows, as a zigzag over the whole image does.
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
    fault: str = ""  # why it cannot be used

    @classmethod
    def read(
        cls,
        name: str,
        entry: Any,
        read_label: Callable[[dict], str],
        read_shapes: Callable[[dict], tuple[Shape, ...]],
        *,
        is_crowd: bool = False,
    ) -> "OutlinedObject":
        """Make an object of its entry in a file; a `Fault` in reading it becomes its fault."""
        label = None
        try:
            label = read_label(expect(entry, dict, "entry"))
            return cls(name, label, read_shapes(entry), is_crowd)
        except Fault as error:
            return cls(name, label, is_crowd=is_crowd, fault=str(error))

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the object's pixels, bool of shape (height, width); `Fault` if it has none in such an image."""
        if self.fault:
            raise Fault(self.fault)
        mask = np.zeros((height, width), bool)
        for shape in self.shapes:
            shape.check(height, width)
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

    kind: str  # "coco", "via" or "labelme"
    sources: list[Path]
    images: list[OutlinedImage] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)  # (file or image, reason) of what belongs to no image
    num_lost_objects: int = 0  # how many of these are objects
