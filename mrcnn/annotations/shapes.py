"""The shapes that people draw around cells, and which pixels lie inside them.

Convention: x runs to the right and y down from the upper left corner of the image, in pixels, so the pixel in row r and
column c is the square from (c, r) to (c + 1, r + 1). A pixel is inside a shape if its centre, (c + 0.5, r + 0.5), is.
This is how canvases and COCO count. A polygon that crosses itself is filled by the even-odd rule. An object of several
shapes is their union; a hole can only be given by run lengths or a bitmap.

A shape is made from numbers of a file by its `make_` function, which refuses what no image could hold, and is held
against the size of its image by `check`. Both raise `ShapeFault`.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# Tools round corners and let the last click slip over the edge; what is farther out belongs to another image.
EDGE_TOLERANCE = 2.0
# Small enough that no sum or product of coordinates overflows.
MAX_COORDINATE = 1e9
# An outline drawn pixel by pixel around the largest image has fewer.
MAX_CORNERS = 100_000
# Rows of all edges together; a cell's outline crosses each row of the image a few times.
MAX_CROSSINGS = 10_000_000
# How many of them are looked at together: each takes some 50 bytes.
_ROWS_AT_ONCE = 1 << 20


class ShapeFault(ValueError):
    """A shape that encloses no pixels of its image; the message says why, in a few words."""


class Shape(Protocol):
    """What polygons, ellipses, run lengths and bitmaps have in common."""

    def check(self, height: int, width: int) -> None:
        """Raise `ShapeFault` if the shape does not belong into an image of this size."""

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels inside, bool of shape (height, width)."""


@dataclass(frozen=True, eq=False)
class Polygon:
    """A closed polygon.

    Attributes:
        points: float64 array of shape (num_points, 2), corners `(x, y)`.
    """

    points: np.ndarray

    def check(self, height: int, width: int) -> None:
        """Raise `ShapeFault` if a corner lies outside the image."""
        limits = np.array([width, height]) + EDGE_TOLERANCE
        outside = ((self.points < -EDGE_TOLERANCE) | (self.points > limits)).any(axis=1)
        if outside.any():
            _check_point("corner", *self.points[outside.argmax()], height, width)

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels inside; see `fill_polygon`.

        Raises:
            ShapeFault: if it goes up and down too often.
        """
        return fill_polygon(self.points, height, width)


@dataclass(frozen=True, eq=False)
class Ellipse:
    """An ellipse, which may reach over the edge of the image as its cell does.

    Attributes:
        x: of the centre.
        y: of the centre.
        radius_x: half the axis that is horizontal before turning.
        radius_y: half the other axis.
        theta: by how much the ellipse is turned, in radians, clockwise as seen.
    """

    x: float
    y: float
    radius_x: float
    radius_y: float
    theta: float = 0.0

    def check(self, height: int, width: int) -> None:
        """Raise `ShapeFault` if the centre lies outside the image."""
        _check_point("centre", self.x, self.y, height, width)

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels inside."""
        cosine, sine = math.cos(self.theta), math.sin(self.theta)
        reach_x = math.hypot(self.radius_x * cosine, self.radius_y * sine)
        reach_y = math.hypot(self.radius_x * sine, self.radius_y * cosine)
        left, right = _pixel_range(self.x - reach_x, self.x + reach_x, width)
        top, bottom = _pixel_range(self.y - reach_y, self.y + reach_y, height)
        dx = np.arange(left, right) + 0.5 - self.x
        dy = np.arange(top, bottom)[:, np.newaxis] + 0.5 - self.y
        mask = np.zeros((height, width), bool)
        along, across = (dx * cosine + dy * sine) / self.radius_x, (dy * cosine - dx * sine) / self.radius_y
        mask[top:bottom, left:right] = along**2 + across**2 <= 1.0
        return mask


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Pixels of a part of the image.

    Attributes:
        left: column of the image that the first column of `pixels` covers.
        top: the same for rows.
        pixels: bool array of shape (height, width).
    """

    left: int
    top: int
    pixels: np.ndarray

    def check(self, height: int, width: int) -> None:
        """Raise `ShapeFault` if the part reaches out of the image."""
        rows, columns = self.pixels.shape
        _check_point("corner", self.left, self.top, height, width)
        _check_point("corner", self.left + columns, self.top + rows, height, width)

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the pixels, set into the image."""
        rows, columns = self.pixels.shape
        top, bottom = max(self.top, 0), min(self.top + rows, height)
        left, right = max(self.left, 0), min(self.left + columns, width)
        mask = np.zeros((height, width), bool)
        if top < bottom and left < right:
            mask[top:bottom, left:right] = self.pixels[
                top - self.top : bottom - self.top, left - self.left : right - self.left
            ]
        return mask


def make_polygon(xs: Sequence[Any], ys: Sequence[Any]) -> Polygon:
    """Make a polygon from the coordinates of its corners, in order.

    Raises:
        ShapeFault: for fewer than three or far too many corners, corners on one line, or what is not a finite number.
    """
    if len(xs) != len(ys):
        raise ShapeFault(f"{len(xs)} x and {len(ys)} y coordinates")
    if len(xs) > MAX_CORNERS:
        raise ShapeFault(f"polygon with {len(xs)} points, of at most {MAX_CORNERS}")
    points = np.array([(as_number(x, "x"), as_number(y, "y")) for x, y in zip(xs, ys, strict=True)]).reshape(-1, 2)
    corners = len(np.unique(points, axis=0))
    if corners < 3:
        raise ShapeFault(f"polygon with {corners} different points, of at least 3")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[1] <= 1e-9 * spread[0]:
        raise ShapeFault("polygon without area: its points lie on one line")
    return Polygon(points)


def make_rectangle(x1: Any, y1: Any, x2: Any, y2: Any) -> Polygon:
    """Make a rectangle from two opposite corners.

    Raises:
        ShapeFault: if it has no area or a coordinate is not a finite number.
    """
    x1, y1, x2, y2 = (as_number(v, what) for v, what in ((x1, "x"), (y1, "y"), (x2, "x"), (y2, "y")))
    if x1 == x2 or y1 == y2:
        raise ShapeFault(f"rectangle without area: {abs(x2 - x1):g} by {abs(y2 - y1):g} px")
    return Polygon(np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]))


def make_ellipse(x: Any, y: Any, radius_x: Any, radius_y: Any, theta: Any = 0.0) -> Ellipse:
    """Make an ellipse, or a circle from two equal radii; see `Ellipse`.

    Raises:
        ShapeFault: for a radius that is not positive, or what is not a finite number.
    """
    values = ((x, "x"), (y, "y"), (radius_x, "radius"), (radius_y, "radius"), (theta, "theta"))
    x, y, radius_x, radius_y, theta = (as_number(value, what) for value, what in values)
    if min(radius_x, radius_y) <= 0:
        raise ShapeFault(f"circle or ellipse without area: its radii are {radius_x:g} and {radius_y:g} px")
    return Ellipse(x, y, radius_x, radius_y, theta)


def make_closed_line(xs: Sequence[Any], ys: Sequence[Any]) -> Polygon:
    """Make a polygon from a line that ends where it begins, within a pixel.

    Raises:
        ShapeFault: for an open line, which encloses nothing, and as `make_polygon`.
    """
    polygon = make_polygon(xs, ys)
    if math.dist(polygon.points[0], polygon.points[-1]) > 1.0:
        raise ShapeFault("a line that does not end where it begins encloses nothing; draw a polygon")
    return polygon


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Find the pixels whose centres lie inside a polygon, by the even-odd rule.

    Where an outline passes exactly through a centre, the pixel belongs to what lies to its right, and on a horizontal
    line to what lies below: polygons that share an edge share no pixel and leave none out.

    Args:
        points: float array of shape (num_points, 2), corners `(x, y)`; they may lie outside the image.
        height: of the image.
        width: of the image.

    Returns:
        bool array of shape (height, width).

    Raises:
        ShapeFault: if it crosses more than `MAX_CROSSINGS` rows, as a zigzag over the whole image does.
    """
    mask = np.zeros((height, width), bool)
    xs, ys = np.asarray(points, np.float64).T
    left, right = _pixel_range(xs.min(), xs.max(), width)
    top, bottom = _pixel_range(ys.min(), ys.max(), height)
    if left >= right or top >= bottom:
        return mask
    # Each edge runs from its upper end (x0, y0) down, so that it crosses at the same x from whichever side it is drawn.
    next_xs, next_ys = np.roll(xs, -1), np.roll(ys, -1)
    down = ys <= next_ys
    x0, y0 = np.where(down, xs, next_xs), np.where(down, ys, next_ys)
    x1, y1 = np.where(down, next_xs, xs), np.where(down, next_ys, ys)
    # Rows whose centres lie in [y0, y1): horizontal edges have none, and a corner counts for one of its two edges.
    first = np.clip(np.ceil(y0 - 0.5), top, bottom).astype(np.int64)
    num_rows = np.clip(np.ceil(y1 - 0.5), top, bottom).astype(np.int64) - first
    if num_rows.sum() > MAX_CROSSINGS:
        raise ShapeFault(f"polygon that crosses {num_rows.sum()} rows of pixels, too many to fill")
    turns = np.zeros((bottom - top, right - left + 1), bool)
    groups = np.split(np.arange(len(xs)), _group_starts(num_rows))
    for group in groups:
        edge = np.repeat(group, num_rows[group])
        starts = np.cumsum(num_rows[group]) - num_rows[group] - first[group]
        rows = np.arange(len(edge)) - np.repeat(starts, num_rows[group])
        crossing = x0[edge] + (rows + 0.5 - y0[edge]) * ((x1[edge] - x0[edge]) / (y1[edge] - y0[edge]))
        columns = np.clip(np.ceil(crossing - 0.5), left, right).astype(np.int64)
        np.logical_xor.at(turns, (rows - top, columns - left), True)
    mask[top:bottom, left:right] = np.logical_xor.accumulate(turns[:, :-1], axis=1)
    return mask


def as_number(value: Any, what: str) -> float:
    """Return a number of a JSON file as float.

    Raises:
        ShapeFault: naming `what`, if it is no number, infinite, NaN, or beyond `MAX_COORDINATE`.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value or abs(value) == math.inf:
        raise ShapeFault(f"{what} is {shorten(value)}, not a finite number")
    if abs(value) > MAX_COORDINATE:
        raise ShapeFault(f"{what} is {shorten(value)}, beyond any image")
    return float(value)


def as_list(value: Any, what: str) -> list:
    """Return `value` if it is a list.

    Raises:
        ShapeFault: naming `what`, otherwise.
    """
    if not isinstance(value, list):
        raise ShapeFault(f"{what} is {shorten(value)}, not a list")
    return value


def shorten(value: Any, length: int = 40) -> str:
    """Write a value of unknown origin on one line of at most `length` characters."""
    if isinstance(value, (dict, list)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = "missing" if value is None else repr(value) if isinstance(value, (str, float, bool)) else format(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def _group_starts(num_rows: np.ndarray) -> np.ndarray:
    """Where to cut a list of edges so that each part but for its last edge has at most `_ROWS_AT_ONCE` rows."""
    return np.flatnonzero(np.diff(np.cumsum(num_rows) // _ROWS_AT_ONCE)) + 1


def _pixel_range(low: float, high: float, size: int) -> tuple[int, int]:
    """First pixel whose centre is at least `low`, and the one after the last whose centre is at most `high`."""
    first, last = (min(max(value, -1.0), size + 1.0) for value in (low, high))
    return max(math.ceil(first - 0.5), 0), min(math.floor(last - 0.5) + 1, size)


def _check_point(what: str, x: float, y: float, height: int, width: int) -> None:
    near = -EDGE_TOLERANCE <= x <= width + EDGE_TOLERANCE and -EDGE_TOLERANCE <= y <= height + EDGE_TOLERANCE
    if not near:
        raise ShapeFault(f"{what} ({x:g}, {y:g}) is outside the image of {width}x{height} px")


@dataclass(frozen=True, eq=False)
class OutlinedObject:
    """One object of an image.

    Attributes:
        name: what a message calls it, such as "annotation 17" or "region 2".
        label: its class in the file's own words, "" if it has none; None if the file's class cannot be told.
        shapes: it is their union; empty if it has a fault.
        is_crowd: it stands for a group of objects that nobody took apart.
        fault: why it cannot be used, or "".
    """

    name: str
    label: str | None
    shapes: tuple[Shape, ...] = ()
    is_crowd: bool = False
    fault: str = ""

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the object's pixels, bool of shape (height, width).

        Raises:
            ShapeFault: if it has a fault, does not belong into an image of this size, or covers no pixel of it.
        """
        if self.fault:
            raise ShapeFault(self.fault)
        mask = np.zeros((height, width), bool)
        for shape in self.shapes:
            shape.check(height, width)
            mask |= shape.draw(height, width)
        if not mask.any():
            raise ShapeFault("covers no pixel of the image")
        return mask


@dataclass
class OutlinedImage:
    """One image of an annotation file.

    Attributes:
        file_name: the image's name or path as the file has it.
        source: the annotation file; relative names are relative to its folder, among other places.
        objects: what is outlined, in the file's order.
        width: of the image in pixels, or None if the file does not say.
        height: the same.
        faults: what is wrong with the entry as a whole.
    """

    file_name: str
    source: Path
    objects: list[OutlinedObject] = field(default_factory=list)
    width: int | None = None
    height: int | None = None
    faults: list[str] = field(default_factory=list)


@dataclass
class Annotations:
    """All that was read from an annotation file, or from a folder of them.

    Attributes:
        kind: "coco", "via" or "labelme".
        sources: the files.
        images: in the files' order.
        faults: (file or image, reason) of what belongs to no image of `images`.
        num_lost_objects: how many of these faults are objects, of which nobody knows the image.
    """

    kind: str
    sources: list[Path]
    images: list[OutlinedImage] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    num_lost_objects: int = 0

    @property
    def labels(self) -> dict[str, int]:
        """Number of objects with each label, sorted by label."""
        counts = Counter(thing.label for image in self.images for thing in image.objects if thing.label is not None)
        return dict(sorted(counts.items()))


def make_object(
    name: str, label: str | None, make_shapes: Callable[[], tuple[Shape, ...]], *, is_crowd: bool = False
) -> OutlinedObject:
    """Make an `OutlinedObject`; if `make_shapes` raises `ShapeFault`, one with that fault."""
    try:
        return OutlinedObject(name, label, make_shapes(), is_crowd)
    except ShapeFault as error:
        return OutlinedObject(name, label, is_crowd=is_crowd, fault=str(error))


def read_size(
    entry: dict[str, Any], width_key: str, height_key: str, faults: list[str]
) -> tuple[int | None, int | None]:
    """Return width and height of an image as its entry has them, None where it does not say; faults are added."""
    size = []
    for key in (width_key, height_key):
        value = entry.get(key)
        # Some exporters know no whole numbers and write 640.0.
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_whole = is_whole or (isinstance(value, float) and value.is_integer())
        if value is not None and (not is_whole or value <= 0):
            faults.append(f"{key} is {shorten(value)}, not a number of pixels")
            value = None
        size.append(None if value is None else int(value))
    return size[0], size[1]
