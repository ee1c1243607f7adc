"""labelme annotations: one JSON file for each image, with `imagePath` and `shapes`.

Shapes of one label and the same `group_id` are parts of one object, as labelme's own converters take them.

Reference:
    https://github.com/wkentaro/labelme (README and labelme/utils/shape.py, which define the shapes)
"""

import base64
import binascii
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn.annotations.shapes import (
    Annotations,
    Bitmap,
    OutlinedImage,
    OutlinedObject,
    Shape,
    ShapeFault,
    as_list,
    as_number,
    make_closed_line,
    make_ellipse,
    make_object,
    make_polygon,
    make_rectangle,
    read_size,
    shorten,
)
from mrcnn.data.images import DAMAGES, MAX_PIXELS
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json

_LINES = ("line", "point", "points")


def read_labelme(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> Annotations:
    """Read labelme files.

    Args:
        paths: a file, a folder whose .json files are all read, with those of its folders, or several files.

    Raises:
        InputError: if there is no file, or a single one that was named is no labelme file. Of several files the faulty
            ones are noted in `faults`.
    """
    if isinstance(paths, (str, os.PathLike)):
        path = Path(paths)
        if not path.is_dir():
            return Annotations("labelme", [path], [parse_labelme(read_json(path), path)])
        files = sorted(path.rglob("*.json"))
    else:
        files = [Path(path) for path in paths]
    if not files:
        raise InputError(f"{paths}: no .json file of labelme in it")
    result = Annotations("labelme", files)
    for file in files:
        try:
            result.images.append(parse_labelme(read_json(file), file))
        except InputError as error:
            result.faults.append((file.name, str(error).removeprefix(f"{file}: ")))
    return result


def is_labelme(value: Any) -> bool:
    """Whether a JSON value looks like a labelme file."""
    return isinstance(value, dict) and "shapes" in value and "imagePath" in value


def parse_labelme(value: Any, source: Path) -> OutlinedImage:
    """Turn the JSON value of a labelme file into an image with its objects.

    Raises:
        InputError: if it is no labelme file.
    """
    file_name, shapes = (value.get("imagePath"), value.get("shapes")) if isinstance(value, dict) else (None, None)
    if not isinstance(file_name, str) or not file_name or not isinstance(shapes, list):
        raise InputError(f"{source}: not a labelme file: no imagePath or no list of shapes in it")
    image = OutlinedImage(file_name, source)
    image.width, image.height = read_size(value, "imageWidth", "imageHeight", image.faults)
    groups: dict[Any, list[OutlinedObject]] = {}
    for number, entry in enumerate(shapes, 1):
        group = entry.get("group_id") if isinstance(entry, dict) else None
        thing = _read_object(f"shape {number}", entry)
        is_alone = group is None or isinstance(group, (dict, list))
        groups.setdefault(number if is_alone else (thing.label, group), []).append(thing)
    image.objects = [_join(parts) for parts in groups.values()]
    return image


def _read_object(name: str, entry: Any) -> OutlinedObject:
    if not isinstance(entry, dict):
        return OutlinedObject(name, None, fault=f"is {shorten(entry)}, not a mapping")
    label = entry.get("label")
    if not isinstance(label, str):
        return OutlinedObject(name, None, fault=f"label is {shorten(label)}, not text")
    return make_object(name, label, lambda: (_read_shape(entry),))


def _join(parts: list[OutlinedObject]) -> OutlinedObject:
    if len(parts) == 1:
        return parts[0]
    faults = "; ".join(f"{part.name}: {part.fault}" for part in parts if part.fault)
    name = "shapes " + " + ".join(part.name.removeprefix("shape ") for part in parts)
    shapes = () if faults else tuple(shape for part in parts for shape in part.shapes)
    return OutlinedObject(name, parts[0].label, shapes, fault=faults)


def _read_shape(entry: dict[str, Any]) -> Shape:
    # Files of before shape_type held nothing but polygons.
    kind = entry.get("shape_type") or "polygon"
    points = as_list(entry.get("points"), "points")
    for point in points:
        if len(as_list(point, "a point")) != 2:
            raise ShapeFault(f"a point has {len(point)} coordinates instead of 2")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if kind == "polygon" or (kind in ("rectangle", "oriented_rectangle") and len(points) == 4):
        return make_polygon(xs, ys)
    if kind == "linestrip":
        return make_closed_line(xs, ys)
    if kind in ("rectangle", "circle", "mask"):
        if len(points) != 2:
            raise ShapeFault(f"{kind} of {len(points)} points instead of 2")
        if kind == "mask":
            return _read_bitmap(entry.get("mask"), xs, ys)
        (x1, y1), (x2, y2) = ((as_number(x, "x"), as_number(y, "y")) for x, y in points)
        if kind == "rectangle":
            return make_rectangle(x1, y1, x2, y2)
        radius = math.hypot(x2 - x1, y2 - y1)
        return make_ellipse(x1, y1, radius, radius)
    if kind in _LINES:
        raise ShapeFault(f"a {kind} encloses nothing; draw a polygon")
    raise ShapeFault(f"unknown shape_type {shorten(kind)}")


def _read_bitmap(encoded: Any, xs: list, ys: list) -> Bitmap:
    """Read a "mask": a PNG as base64 text over the box whose first and last pixels are the two points."""
    left, right = (int(as_number(x, "x")) for x in xs)
    top, bottom = (int(as_number(y, "y")) for y in ys)
    if not isinstance(encoded, str):
        raise ShapeFault(f"mask is {shorten(encoded)}, not a PNG as base64 text")
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"]) as image:
            width, height = image.size
            # Some exporters give the corner after the last pixel. Looked at before anything is unpacked.
            if (right - left + 1 - width, bottom - top + 1 - height) not in ((0, 0), (1, 1)):
                raise ShapeFault(f"mask of {width}x{height} px for a box of {right - left + 1}x{bottom - top + 1} px")
            if width * height > MAX_PIXELS:
                raise ShapeFault(f"mask of {width}x{height} px, which is beyond any image")
            pixels = np.asarray(image)
    except (binascii.Error, *DAMAGES) as error:
        if isinstance(error, ShapeFault):
            raise
        raise ShapeFault("mask is not a readable PNG as base64 text") from None
    if pixels.ndim != 2:
        raise ShapeFault("mask has colours; it must be black and white")
    return Bitmap(left, top, pixels != 0)
