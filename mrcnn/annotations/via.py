"""VGG Image Annotator (VIA), versions 1 and 2: exported JSON annotations, and the project files of version 2.

An export maps a key of each image (name and bytes) to `filename`, `regions` and more; a project holds the same mapping
as `_via_img_metadata`. `regions` is a mapping "0", "1", ... in version 1 and a list in version 2. A region has
`shape_attributes`, with the kind of the shape as `name`, and `region_attributes`, whatever the annotator defined.

Reference:
    https://www.robots.ox.ac.uk/~vgg/software/via/ (version 2 documentation, annotation format)
"""

from pathlib import Path
from typing import Any

from mrcnn.annotations.faults import Fault, as_list, as_number, shorten
from mrcnn.annotations.shapes import (
    Annotations,
    OutlinedImage,
    OutlinedObject,
    Shape,
    make_closed_line,
    make_ellipse,
    make_polygon,
    make_rectangle,
)
from mrcnn.files.errors import InputError

PROJECT_KEY = "_via_img_metadata"
# Attributes that annotators commonly call a class by, in the order of preference.
LABEL_ATTRIBUTES = ("label", "class", "name", "type", "category")


def is_via(value: Any) -> bool:
    """Whether a JSON value looks like a VIA export or project."""
    if not isinstance(value, dict):
        return False
    return PROJECT_KEY in value or any(
        isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in value.values()
    )


def parse_via(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a VIA file into annotations.

    The label of a region is its only attribute, or else the first of `LABEL_ATTRIBUTES` that is there.

    Raises:
        InputError: if it is no VIA file. What is wrong with single images or regions is noted with them.
    """
    entries = value.get(PROJECT_KEY, value) if is_via(value) else None
    if not isinstance(entries, dict):
        raise InputError(f"{source}: not a VIA file: neither {PROJECT_KEY} nor images with filename and regions in it")
    result = Annotations("via", [source])
    for key, entry in entries.items():
        file_name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(file_name, str) or not file_name:
            result.faults.append((source.name, f"image {shorten(key)} has no filename"))
            continue
        image = OutlinedImage(file_name, source)
        regions = entry.get("regions")
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if isinstance(regions, list):
            image.objects = [
                OutlinedObject.read(f"region {number}", region, _read_label, _read_shapes)
                for number, region in enumerate(regions, 1)
            ]
        else:
            image.faults.append(f"regions are {shorten(regions)}, neither a list nor a mapping")
        result.images.append(image)
    return result


def _read_label(region: dict[str, Any]) -> str:
    attributes = region.get("region_attributes")
    attributes = {key.casefold(): value for key, value in attributes.items()} if isinstance(attributes, dict) else {}
    names = attributes if len(attributes) == 1 else [name for name in LABEL_ATTRIBUTES if name in attributes]
    value = attributes[next(iter(names))] if names else None
    if isinstance(value, dict):  # checkboxes: the ticked ones
        return ",".join(sorted(key for key, ticked in value.items() if ticked in (True, "true")))
    return "" if value is None or isinstance(value, (list, bool)) else str(value).strip()


def _read_shapes(region: dict[str, Any]) -> tuple[Shape, ...]:
    shape = region.get("shape_attributes")
    if not isinstance(shape, dict):
        raise Fault(f"shape_attributes are {shorten(shape)}")
    kind = shape.get("name")
    if kind in ("polygon", "polyline"):
        make = make_polygon if kind == "polygon" else make_closed_line
        return (make(*(as_list(shape.get(key), key) for key in ("all_points_x", "all_points_y"))),)
    if kind == "rect":
        x, y, width, height = (as_number(shape.get(key), key) for key in ("x", "y", "width", "height"))
        return (make_rectangle(x, y, x + width, y + height),)
    if kind == "circle":
        return (make_ellipse(shape.get("cx"), shape.get("cy"), shape.get("r"), shape.get("r")),)
    if kind == "ellipse":
        theta = shape.get("theta")  # version 1 has none
        numbers = (shape.get(key) for key in ("cx", "cy", "rx", "ry"))
        return (make_ellipse(*numbers, 0.0 if theta is None else theta),)
    if kind == "point":
        raise Fault("a point encloses nothing; draw a polygon")
    raise Fault(f"unknown shape {shorten(kind)}")
