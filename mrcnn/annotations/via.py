"""VGG Image Annotator (VIA), versions 1 and 2: exported JSON annotations, and the project files of version 2.

An export maps a key of each image (name and bytes) to `filename`, `regions` and more; a project holds the same mapping
as `_via_img_metadata`. `regions` is a mapping "0", "1", ... in version 1 and a list in version 2. A region has
`shape_attributes`, with the kind of the shape as `name`, and `region_attributes`, whatever the annotator defined.

Reference:
    https://www.robots.ox.ac.uk/~vgg/software/via/ (version 2 documentation, annotation format)
"""

from pathlib import Path
from typing import Any

from mrcnn.annotations.faults import Fault, as_number, expect, shorten
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject, Shape, make_ellipse, make_polygon
from mrcnn.files.errors import InputError

PROJECT_KEY = "_via_img_metadata"
# Attributes that annotators commonly call a class by, in the order of preference.
LABEL_ATTRIBUTES = ("label", "class", "name", "type", "category")


def is_via(value: dict) -> bool:
    """Whether a mapping of a JSON file looks like a VIA export or project."""
    entries = (entry for entry in value.values() if isinstance(entry, dict))
    return PROJECT_KEY in value or any({"filename", "regions"} <= entry.keys() for entry in entries)


def parse_via(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a VIA file into annotations; InputError if it is none.

    The label of a region is its only attribute, or else the first of `LABEL_ATTRIBUTES` that is there.
    """
    entries = value.get(PROJECT_KEY, value) if isinstance(value, dict) and is_via(value) else None
    if not isinstance(entries, dict):
        raise InputError(f"{source}: not a VIA file: neither {PROJECT_KEY} nor images with filename and regions in it")
    result = Annotations("via", [source])
    for key, entry in entries.items():
        image = OutlinedImage.read(f"image {shorten(key)}", entry, "filename", result)
        if image is None:
            continue
        regions = entry.get("regions")
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if not isinstance(regions, list):
            image.faults.append(f"regions are {shorten(regions)}, neither a list nor a mapping")
            continue
        image.objects = [
            OutlinedObject.read(f"region {number}", region, _read_label, _read_shapes)
            for number, region in enumerate(regions, 1)
        ]
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
    shape = expect(region.get("shape_attributes"), dict, "shape_attributes")
    kind = shape.get("name")
    if kind in ("polygon", "polyline"):
        xs, ys = (expect(shape.get(key), list, key) for key in ("all_points_x", "all_points_y"))
        return (make_polygon(xs, ys, is_line=kind == "polyline"),)
    if kind == "rect":
        x, y, width, height = (as_number(shape.get(key), key) for key in ("x", "y", "width", "height"))
        return (make_polygon([x, x + width, x + width, x], [y, y, y + height, y + height]),)
    if kind == "circle":
        return (make_ellipse(shape.get("cx"), shape.get("cy"), shape.get("r"), shape.get("r")),)
    if kind == "ellipse":
        *numbers, theta = (shape.get(key) for key in ("cx", "cy", "rx", "ry", "theta"))
        return (make_ellipse(*numbers, 0.0 if theta is None else theta),)  # version 1 has no theta
    raise Fault(f"shape {shorten(kind)} is unknown or encloses nothing; draw a polygon")
