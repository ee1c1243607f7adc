"""COCO annotations: one JSON file with `images`, `annotations` and `categories`.

An object's `segmentation` is a list of polygons `[x1, y1, x2, y2, ...]`, whose union it is, or a run-length encoding
`{"size": [height, width], "counts": ...}`, uncompressed or compressed. `iscrowd: 1` marks a group.

Reference:
    https://cocodataset.org/#format-data
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.shapes import (
    Annotations,
    OutlinedImage,
    OutlinedObject,
    Shape,
    ShapeFault,
    as_list,
    make_object,
    make_polygon,
    read_size,
    shorten,
)
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json

# Far beyond any smear, and small enough that 64 bits hold every sum.
MAX_PIXELS = 2**31
# 7 digits of 5 bits hold any count up to it; a longer number is damage.
_MAX_DIGITS = 7


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A mask as run lengths, a shape like those of `mrcnn.annotations.shapes`.

    Attributes:
        height: of the mask.
        width: of the mask.
        counts: int64 array, lengths of the runs of zeros and ones by turns; they add up to height * width.
    """

    height: int
    width: int
    counts: np.ndarray

    def check(self, height: int, width: int) -> None:
        """Raise `ShapeFault` if the mask has another size than the image."""
        if (self.height, self.width) != (height, width):
            raise ShapeFault(f"RLE is {self.width}x{self.height} px, image is {width}x{height} px")

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the mask, bool of shape (height, width)."""
        self.check(height, width)
        values = np.arange(len(self.counts)) % 2 == 1
        return np.ascontiguousarray(np.repeat(values, self.counts).reshape(width, height).T)


def make_run_lengths(size: Any, counts: Any) -> RunLengths:
    """Read an RLE as JSON holds it.

    Args:
        size: list of height and width.
        counts: list of whole numbers, or text in COCO's compressed form.

    Raises:
        ShapeFault: if it is malformed or the counts do not add up to height * width.
    """
    if not (isinstance(size, list) and len(size) == 2 and all(_is_whole(v) and v > 0 for v in size)):
        raise ShapeFault(f"RLE size is {size if size and len(str(size)) < 40 else shorten(size)}, not [height, width]")
    height, width = size
    num_pixels = height * width
    if num_pixels > MAX_PIXELS:
        raise ShapeFault(f"RLE size {size} is beyond any image")
    if isinstance(counts, str):
        values = decode_counts(counts)
    else:
        wrong = [v for v in as_list(counts, "RLE counts") if not _is_whole(v)]
        if wrong:
            raise ShapeFault(f"RLE counts hold {shorten(wrong[0])}, not a whole number")
        # Longer runs than the image has pixels are refused below; cut here, so that 64 bits hold them all.
        values = np.array([min(max(v, -1), num_pixels + 1) for v in counts], np.int64)
    if (values < 0).any():
        raise ShapeFault("RLE counts hold a negative number")
    total = int(values.sum()) if values.max(initial=0) <= num_pixels else f"more than {num_pixels}"
    if total != num_pixels:
        raise ShapeFault(f"RLE counts add up to {total}, not to {height} * {width} = {num_pixels}")
    return RunLengths(height, width, values)


def decode_counts(text: str) -> np.ndarray:
    """Decode COCO's compressed counts.

    Args:
        text: characters "0" to "o".

    Returns:
        int64 array of counts; not checked for their sign or sum.

    Raises:
        ShapeFault: if the text is empty, cut off, or has other characters.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not codes.size:
        raise ShapeFault("RLE counts are empty")
    if codes.min() < 0 or codes.max() > 63:
        raise ShapeFault("RLE counts hold characters that are not of COCO's compressed form")
    is_last = codes < 32
    ends = np.flatnonzero(is_last)
    if not is_last[-1]:
        raise ShapeFault("RLE counts are cut off")
    starts = np.concatenate(([0], ends[:-1] + 1))
    num_digits = ends - starts + 1
    if num_digits.max() > _MAX_DIGITS:
        raise ShapeFault("RLE counts hold a number beyond any image")
    place = np.arange(codes.size) - np.repeat(starts, num_digits)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    # Bit 16 of the highest digit is the sign (two's complement over as many bits as were written).
    values -= ((codes[ends] & 16) > 0) * (np.int64(1) << (5 * num_digits))
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
