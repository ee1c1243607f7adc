"""VGG Image Annotator (VIA), versions 1 and 2: exported JSON annotations, and the project files of version 2.

An export maps a key of each image (name and bytes) to `filename`, `regions` and more; a project holds the same mapping
as `_via_img_metadata`. `regions` is a mapping "0", "1", ... in version 1 and a list in version 2. A region has
`shape_attributes`, with the kind of the shape as `name`, and `region_attributes`, whatever the annotator defined.

Reference:
    https://www.robots.ox.ac.uk/~vgg/software/via/ (version 2 documentation, annotation format)
"""

import os
from pathlib import Path
from typing import Any

from mrcnn.annotations.shapes import (
    Annotations,
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
    shorten,
)
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json

PROJECT_KEY = "_via_img_metadata"
# Attributes that annotators commonly call a class by, in the order of preference.
LABEL_ATTRIBUTES = ("label", "class", "name", "type", "category")


def read_via(path: str | os.PathLike, label_attribute: str | None = None) -> Annotations:
    """Read a VIA file.

    Args:
        path: JSON export or project.
        label_attribute: the region attribute that holds the label; None takes the only one, or else the first of
            `LABEL_ATTRIBUTES` that is there, in upper or lower case.

    Raises:
        InputError: if it is no VIA file. What is wrong with single images or regions is noted with them.
    """
    return parse_via(read_json(path), Path(path), label_attribute)


def is_via(value: Any) -> bool:
    """Whether a JSON value looks like a VIA export or project."""
    if not isinstance(value, dict):
        return False
    if PROJECT_KEY in value:
        return True
    return any(isinstance(e, dict) and "filename" in e and "regions" in e for e in value.values())


def parse_via(value: Any, source: Path, label_attribute: str | None = None) -> Annotations:
    """Turn the JSON value of a VIA file into annotations; see `read_via`."""
    if not is_via(value):
        raise InputError(f"{source}: not a VIA file: neither {PROJECT_KEY} nor images with filename and regions in it")
    entries = value.get(PROJECT_KEY, value)
    if not isinstance(entries, dict):
        raise InputError(f"{source}: not a VIA project: {PROJECT_KEY} is {shorten(entries)}")
    result = Annotations("via", [source])
    for key, entry in entries.items():
        file_name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(file_name, str) or not file_name:
            result.faults.append((source.name, f"image {shorten(key)} has no filename"))
            continue
        image = OutlinedImage(file_name, source)
        regions = entry.get("regions")
        if isinstance(regions, dict):
            regions = list(regions.values())
        if isinstance(regions, list):
            image.objects = [_read_region(f"region {n}", r, label_attribute) for n, r in enumerate(regions, 1)]
        else:
            image.faults.append(f"regions are {shorten(regions)}, neither a list nor a mapping")
        result.images.append(image)
    return result


def _read_region(name: str, region: Any, label_attribute: str | None) -> OutlinedObject:
    if not isinstance(region, dict):
        return OutlinedObject(name, None, fault=f"is {shorten(region)}, not a mapping")
    attributes = region.get("region_attributes")
    label = _read_label(attributes if isinstance(attributes, dict) else {}, label_attribute)
    return make_object(name, label, lambda: (_read_shape(region.get("shape_attributes")),))


def _read_label(attributes: dict[str, Any], label_attribute: str | None) -> str:
    if label_attribute is not None:
        return _as_label(attributes.get(label_attribute))
    if len(attributes) == 1:
        return _as_label(next(iter(attributes.values())))
    folded = {key.casefold(): value for key, value in attributes.items()}
    return _as_label(next((folded[key] for key in LABEL_ATTRIBUTES if key in folded), None))


def _as_label(value: Any) -> str:
    """Text of an attribute; of checkboxes, which are a mapping, the ticked ones."""
    if isinstance(value, dict):
        return ",".join(sorted(key for key, ticked in value.items() if ticked in (True, "true")))
    return "" if value is None or isinstance(value, (list, bool)) else str(value).strip()


def _read_shape(shape: Any) -> Shape:
    if not isinstance(shape, dict):
        raise ShapeFault(f"shape_attributes are {shorten(shape)}")
    kind = shape.get("name")
    if kind in ("polygon", "polyline"):
        make = make_polygon if kind == "polygon" else make_closed_line
        return make(*(as_list(shape.get(key), key) for key in ("all_points_x", "all_points_y")))
    if kind == "rect":
        x, y, width, height = (as_number(shape.get(key), key) for key in ("x", "y", "width", "height"))
        return make_rectangle(x, y, x + width, y + height)
    if kind == "circle":
        return make_ellipse(shape.get("cx"), shape.get("cy"), shape.get("r"), shape.get("r"))
    if kind == "ellipse":
        theta = shape.get("theta")  # version 1 has none
        return make_ellipse(*(shape.get(key) for key in ("cx", "cy", "rx", "ry")), 0.0 if theta is None else theta)
    if kind == "point":
        raise ShapeFault("a point encloses nothing; draw a polygon")
    raise ShapeFault(f"unknown shape {shorten(kind)}")
