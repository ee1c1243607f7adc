"""labelme annotations: one JSON file for each image, with `imagePath` and `shapes`.

Shapes of one label and the same `group_id` are parts of one object, as labelme's own converters take them.

Reference:
    https://github.com/wkentaro/labelme (README and labelme/utils/shape.py, which define the shapes)
"""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn.annotations.faults import Fault, as_number, expect, shorten
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject, Shape, make_ellipse, make_polygon
from mrcnn.data.images import DAMAGES
from mrcnn.files.errors import InputError


def parse_labelme(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a labelme file into annotations of one image; InputError if it is none."""
    result = Annotations("labelme", [source])
    image = OutlinedImage.read("image", value, "imagePath", result, ("imageWidth", "imageHeight"))
    if image is None or not isinstance(value.get("shapes"), list):
        raise InputError(f"{source}: not a labelme file: no imagePath or no list of shapes in it")
    groups: dict[Any, list[OutlinedObject]] = {}
    for number, entry in enumerate(value["shapes"], 1):
        group = entry.get("group_id") if isinstance(entry, dict) else None
        thing = OutlinedObject.read(f"shape {number}", entry, _read_label, _read_shapes)
        is_alone = group is None or isinstance(group, (dict, list))
        groups.setdefault(number if is_alone else (thing.label, group), []).append(thing)
    image.objects = [_merge(parts) for parts in groups.values()]
    return result


def _merge(parts: list[OutlinedObject]) -> OutlinedObject:
    if len(parts) == 1:
        return parts[0]
    faults = "; ".join(f"{part.name}: {part.fault}" for part in parts if part.fault)
    name = "shapes " + " + ".join(part.name.removeprefix("shape ") for part in parts)
    shapes = () if faults else tuple(shape for part in parts for shape in part.shapes)
    return OutlinedObject(name, parts[0].label, shapes, fault=faults)


def _read_label(entry: dict[str, Any]) -> str:
    return expect(entry.get("label"), str, "label")


def _read_shapes(entry: dict[str, Any]) -> tuple[Shape, ...]:
    # Files of before shape_type held nothing but polygons.
    kind = entry.get("shape_type") or "polygon"
    points = expect(entry.get("points"), list, "points")
    if any(len(expect(point, list, "a point")) != 2 for point in points):
        raise Fault("a point has not 2 coordinates")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if kind in ("polygon", "linestrip") or (kind in ("rectangle", "oriented_rectangle") and len(points) == 4):
        return (make_polygon(xs, ys, is_line=kind == "linestrip"),)
    if kind in ("rectangle", "circle", "mask"):
        if len(points) != 2:
            raise Fault(f"{kind} of {len(points)} points instead of 2")
        x1, y1, x2, y2 = (as_number(v, "a coordinate") for point in points for v in point)
        if kind == "mask":
            return (_read_bitmap(entry.get("mask"), *(int(v) for v in (x1, y1, x2, y2))),)
        if kind == "rectangle":
            return (make_polygon([x1, x2, x2, x1], [y1, y1, y2, y2]),)
        radius = math.hypot(x2 - x1, y2 - y1)
        return (make_ellipse(x1, y1, radius, radius),)
    raise Fault(f"shape_type {shorten(kind)} is unknown or encloses nothing; draw a polygon")


def _read_bitmap(encoded: Any, left: int, top: int, right: int, bottom: int) -> Shape:
    """Read a "mask": a PNG as base64 text over the box whose first and last pixels are the two points."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"]) as image:
            pixels = np.asarray(image) != 0
    except DAMAGES:
        raise Fault("mask is not a readable PNG as base64 text") from None
    if pixels.ndim != 2:
        raise Fault("mask has colours; it must be black and white")
    rows, columns = pixels.shape
    # Some exporters give the corner after the last pixel.
    if (right - left + 1 - columns, bottom - top + 1 - rows) not in ((0, 0), (1, 1)):
        raise Fault(f"mask of {columns}x{rows} px for a box of {right - left + 1}x{bottom - top + 1} px")

    def fill(height: int, width: int) -> np.ndarray:
        """The pixels, set into the image and cut at its edge."""
        y, x = max(top, 0), max(left, 0)
        part = pixels[y - top :, x - left :][: max(height - y, 0), : max(width - x, 0)]
        mask = np.zeros((height, width), bool)
        mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        return mask

    return Shape(np.array([(left, top), (left + columns, top + rows)]), fill)
