"""labelme annotations: one JSON file for each image, with `imagePath` and `shapes`.

Shapes of one label and the same `group_id` are parts of one object, as labelme's own converters take them.

Reference:
    https://github.com/wkentaro/labelme (README and labelme/utils/shape.py, which define the shapes)
"""

import base64
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn.annotations.faults import Fault, as_number, expect, shorten
from mrcnn.annotations.shapes import (
    Annotations,
    Bitmap,
    OutlinedImage,
    OutlinedObject,
    Shape,
    make_closed_line,
    make_ellipse,
    make_polygon,
    make_rectangle,
)
from mrcnn.data.images import DAMAGES, MAX_PIXELS
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file


def read_labelme(files: Iterable[Path]) -> Annotations:
    """Read labelme files; what is wrong with one of them is noted in `faults`."""
    result = Annotations("labelme", list(files))
    for file in result.sources:
        try:
            result.images += parse_labelme(read_json_file(file), file).images
        except InputError as error:
            result.faults.append((file.name, str(error).removeprefix(f"{file}: ")))
    return result


def is_labelme(value: Any) -> bool:
    """Whether a JSON value looks like a labelme file."""
    return isinstance(value, dict) and "shapes" in value and "imagePath" in value


def parse_labelme(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a labelme file into annotations of one image.

    Raises:
        InputError: if it is no labelme file.
    """
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
    if kind == "polygon" or (kind in ("rectangle", "oriented_rectangle") and len(points) == 4):
        return (make_polygon(xs, ys),)
    if kind == "linestrip":
        return (make_closed_line(xs, ys),)
    if kind in ("rectangle", "circle", "mask"):
        if len(points) != 2:
            raise Fault(f"{kind} of {len(points)} points instead of 2")
        x1, y1, x2, y2 = (as_number(v, "a coordinate") for point in points for v in point)
        if kind == "mask":
            return (_read_bitmap(entry.get("mask"), *(int(v) for v in (x1, y1, x2, y2))),)
        radius = math.hypot(x2 - x1, y2 - y1)
        return (make_rectangle(x1, y1, x2, y2) if kind == "rectangle" else make_ellipse(x1, y1, radius, radius),)
    raise Fault(f"shape_type {shorten(kind)} is unknown or encloses nothing; draw a polygon")


def _read_bitmap(encoded: Any, left: int, top: int, right: int, bottom: int) -> Bitmap:
    """Read a "mask": a PNG as base64 text over the box whose first and last pixels are the two points."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"]) as image:
            width, height = image.size
            # Some exporters give the corner after the last pixel. Looked at before anything is unpacked.
            if (right - left + 1 - width, bottom - top + 1 - height) not in ((0, 0), (1, 1)):
                raise Fault(f"mask of {width}x{height} px for a box of {right - left + 1}x{bottom - top + 1} px")
            if width * height > MAX_PIXELS:
                raise Fault(f"mask of {width}x{height} px, which is beyond any image")
            pixels = np.asarray(image)
    except Fault:
        raise
    except DAMAGES:
        raise Fault("mask is not a readable PNG as base64 text") from None
    if pixels.ndim != 2:
        raise Fault("mask has colours; it must be black and white")
    return Bitmap(np.array([(left, top), (left + width, top + height)]), pixels != 0)
