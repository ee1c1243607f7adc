"""COCO annotations: one JSON file with `images`, `annotations` and `categories`.

An object's `segmentation` is a list of polygons `[x1, y1, x2, y2, ...]`, whose union it is, or a run-length encoding
`{"size": [height, width], "counts": ...}`, uncompressed or compressed. `iscrowd: 1` marks a group.

Reference:
    https://cocodataset.org/#format-data
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from mrcnn.data.json_files import read_json
from mrcnn.data.outlined_images import Annotations, OutlinedImage, OutlinedObject, make_object, read_size
from mrcnn.data.run_lengths import make_run_lengths
from mrcnn.data.shapes import Shape, ShapeFault, as_list, make_polygon, shorten
from mrcnn.errors import InputError


def read_coco(path: str | os.PathLike) -> Annotations:
    """Read a COCO file.

    Raises:
        InputError: if it is no COCO file. What is wrong with single images or objects is noted with them.
    """
    return parse_coco(read_json(path), Path(path))


def is_coco(value: Any) -> bool:
    """Whether a JSON value has the lists of a COCO file."""
    return isinstance(value, dict) and isinstance(value.get("images"), list) and "annotations" in value


def parse_coco(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a COCO file into annotations; see `read_coco`."""
    if isinstance(value, list):
        raise InputError(f"{source}: a list, as of COCO detection results; give the file with images and annotations")
    for key in ("images", "annotations", "categories"):
        if not (isinstance(value, dict) and isinstance(value.get(key), list)):
            raise InputError(f"{source}: not a COCO file: no list {key!r} in it")
    result = Annotations("coco", [source])
    categories = _read_categories(value["categories"], result)
    images = _read_images(value["images"], result)
    for number, entry in enumerate(value["annotations"], 1):
        if not isinstance(entry, dict):
            result.faults.append((source.name, f"annotation no. {number} is {shorten(entry)}, not a mapping"))
            result.num_lost_objects += 1
            continue
        given, image_id = _as_id(entry.get("id")), _as_id(entry.get("image_id"))
        name = f"annotation no. {number}" if given is None else f"annotation {given}"
        if image_id not in images:
            wanted = shorten(entry.get("image_id"))
            result.faults.append((source.name, f"{name}: image_id {wanted} is none of the images"))
            result.num_lost_objects += 1
            continue
        thing = _read_object(name, entry, categories)
        for image in images[image_id]:
            image.objects.append(thing)
    return result


def _read_categories(entries: list, result: Annotations) -> dict[Any, str]:
    names: dict[Any, str] = {}
    where = result.sources[0].name
    for number, entry in enumerate(entries, 1):
        category, name = (_as_id(entry.get("id")), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if category is None or not isinstance(name, str):
            result.faults.append((where, f"category no. {number} lacks an id or a name"))
        elif category in names and names[category] != name:
            result.faults.append((where, f"category id {category} is both {names[category]} and {name}"))
        else:
            names[category] = name
    return names


def _read_images(entries: list, result: Annotations) -> dict[Any, list[OutlinedImage]]:
    """Images by id; those of one id all carry its objects and a fault, since nobody knows whose the objects are."""
    source = result.sources[0]
    images: dict[Any, list[OutlinedImage]] = {}
    uses = Counter(_as_id(entry.get("id")) for entry in entries if isinstance(entry, dict))
    for number, entry in enumerate(entries, 1):
        file_name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(file_name, str) or not file_name:
            result.faults.append((source.name, f"image no. {number} has no file_name"))
            continue
        image = OutlinedImage(file_name, source)
        image.width, image.height = read_size(entry, "width", "height", image.faults)
        image_id = _as_id(entry.get("id"))
        if image_id is None:
            image.faults.append(f"its id is {shorten(entry.get('id'))}, neither a whole number nor text")
        else:
            images.setdefault(image_id, []).append(image)
            if uses[image_id] > 1:
                image.faults.append(f"its id {image_id} is that of {uses[image_id]} images")
        result.images.append(image)
    return images


def _read_object(name: str, entry: dict[str, Any], categories: dict[Any, str]) -> OutlinedObject:
    category, crowd = _as_id(entry.get("category_id")), entry.get("iscrowd", 0)
    if category not in categories:
        given = shorten(entry.get("category_id"))
        return OutlinedObject(name, None, fault=f"category_id {given} is none of the categories")
    if crowd not in (0, 1):
        return OutlinedObject(name, categories[category], fault=f"iscrowd is {shorten(crowd)}, not 0 or 1")
    segmentation = entry.get("segmentation")
    return make_object(name, categories[category], lambda: _read_shapes(segmentation), is_crowd=crowd == 1)


def _read_shapes(segmentation: Any) -> tuple[Shape, ...]:
    if isinstance(segmentation, dict):
        return (make_run_lengths(segmentation.get("size"), segmentation.get("counts")),)
    if segmentation in (None, []):
        raise ShapeFault("no segmentation; a box alone gives no mask")
    parts = as_list(segmentation, "segmentation")
    # Some exporters leave out the brackets around a single polygon.
    if not isinstance(parts[0], list):
        parts = [parts]
    shapes = []
    for part in parts:
        numbers = as_list(part, "polygon")
        if len(numbers) % 2:
            raise ShapeFault(f"polygon of {len(numbers)} coordinates, which is odd")
        shapes.append(make_polygon(numbers[0::2], numbers[1::2]))
    return tuple(shapes)


def _as_id(value: Any) -> int | str | None:
    """COCO counts with numbers; some exporters write them as text, in part of the file only. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else value
