"""COCO annotations: one JSON file with `images`, `annotations` and `categories`.

An object's `segmentation` is a list of polygons `[x1, y1, x2, y2, ...]`, whose union it is, or a run-length encoding
`{"size": [height, width], "counts": ...}`, uncompressed or compressed. `iscrowd: 1` marks a group.

Reference:
    https://cocodataset.org/#format-data
"""

from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.faults import Fault, expect, shorten
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject, Shape, make_polygon
from mrcnn.files.errors import InputError


def make_run_lengths(size: Any, counts: Any) -> Shape:
    """Read an RLE as JSON holds it: [height, width], and whole numbers or text in the compressed form.

    pycocotools does so too, but returns uninitialised memory where the counts do not add up: that is a `Fault` here.
    """
    if not (isinstance(size, list) and len(size) == 2 and all(type(v) is int and 0 < v < 2**31 for v in size)):
        raise Fault(f"RLE size is {shorten(size)}, not [height, width] of an image")
    values = decode_counts(counts) if isinstance(counts, str) else expect(counts, list, "RLE counts")
    if not all(type(v) is int and v >= 0 for v in values) or sum(values) != size[0] * size[1]:
        raise Fault(f"RLE counts are no lengths that add up to {size[0]} * {size[1]}")
    lengths = np.array(values, np.int64)  # of zeros and ones by turns, column by column

    def fill(height: int, width: int) -> np.ndarray:
        if size != [height, width]:
            raise Fault(f"RLE is {size[1]}x{size[0]} px, image is {width}x{height} px")
        is_inside = np.arange(len(lengths)) % 2 == 1
        return np.ascontiguousarray(np.repeat(is_inside, lengths).reshape(width, height).T)

    return Shape(np.zeros((0, 2)), fill)


def decode_counts(text: str) -> list[int]:
    """Decode COCO's compressed counts, or raise `Fault`; their sign and sum are not checked.

    A count has digits of 5 bits, the lowest first; bit 5 says that more follow, bit 4 of the last is the sign (two's
    complement). From the fourth on, what is written is the difference to the count two before.
    """
    counts, value, shift = [], 0, 0
    for code in text.encode("utf-8", "replace"):
        digit = code - 48
        if not 0 <= digit < 64 or shift > 60:
            raise Fault("RLE counts are not in COCO's compressed form")
        value += (digit & 31) << shift
        shift += 5
        if digit < 32:
            counts.append(value - ((digit & 16) << (shift - 4)) + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise Fault("RLE counts are cut off")
    return counts


def parse_coco(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a COCO file into annotations; InputError if it is none."""
    entries = {}
    for key in ("images", "annotations", "categories"):
        if not (isinstance(value, dict) and isinstance(value.get(key), list)):
            raise InputError(f"{source}: not a COCO file: no list {key!r} in it (results of a detection have none)")
        # What an entry lacks is its fault, and one that is no mapping lacks everything.
        entries[key] = [entry if isinstance(entry, dict) else {} for entry in value[key]]
    result = Annotations("coco", [source])
    where, names = source.name, {}
    for number, entry in enumerate(entries["categories"], 1):
        category, name = _as_id(entry, "id"), entry.get("name")
        if category is None or not isinstance(name, str):
            result.faults.append((where, f"category no. {number} lacks an id or a name"))
        elif names.setdefault(category, name) != name:
            result.faults.append((where, f"category id {category} is both {names[category]} and {name}"))

    def read_label(entry: dict[str, Any]) -> str:
        category = _as_id(entry, "category_id")
        if category not in names:
            raise Fault(f"category_id {shorten(entry.get('category_id'))} is none of the categories")
        return names[category]

    images = _read_images(entries["images"], result)
    for number, entry in enumerate(entries["annotations"], 1):
        given, image_id = _as_id(entry, "id"), _as_id(entry, "image_id")
        name = f"annotation no. {number}" if given is None else f"annotation {given}"
        thing = OutlinedObject.read(name, entry, read_label, _read_shapes, is_crowd=entry.get("iscrowd", 0) == 1)
        for image in images.get(image_id, ()):
            image.objects.append(thing)
        if image_id not in images:
            result.num_lost_objects += 1
            result.faults.append((where, f"{name}: image_id {shorten(entry.get('image_id'))} is none of the images"))
    return result


def _read_images(entries: list[dict], result: Annotations) -> dict[Any, list[OutlinedImage]]:
    """Images by id; those of one id all carry its objects and a fault, since nobody knows whose the objects are."""
    images: dict[Any, list[OutlinedImage]] = {}
    for number, entry in enumerate(entries, 1):
        image = OutlinedImage.read(f"image no. {number}", entry, "file_name", result)
        if image is None:
            continue
        image_id = _as_id(entry, "id")
        if image_id is None:
            image.faults.append(f"its id is {shorten(entry.get('id'))}, neither a whole number nor text")
        else:
            images.setdefault(image_id, []).append(image)
    for image_id, same in images.items():
        for image in same if len(same) > 1 else ():
            image.faults.append(f"its id {image_id} is that of {len(same)} images")
    return images


def _read_shapes(entry: dict[str, Any]) -> tuple[Shape, ...]:
    if entry.get("iscrowd", 0) not in (0, 1):
        raise Fault(f"iscrowd is {shorten(entry['iscrowd'])}, not 0 or 1")
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict):
        return (make_run_lengths(segmentation.get("size"), segmentation.get("counts")),)
    if segmentation in (None, []):
        raise Fault("no segmentation; a box alone gives no mask")
    parts = expect(segmentation, list, "segmentation")
    # Some exporters leave out the brackets around a single polygon.
    parts = parts if isinstance(parts[0], list) else [parts]
    return tuple(make_polygon(expect(part, list, "polygon")[0::2], part[1::2]) for part in parts)


def _as_id(entry: dict[str, Any], name: str) -> int | str | None:
    """COCO counts with numbers; some exporters write them as text, in part of the file only. None for anything else."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else value
