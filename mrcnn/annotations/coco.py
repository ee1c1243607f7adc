"""COCO annotations: one JSON file with `images`, `annotations` and `categories`.

An object's `segmentation` is a list of polygons `[x1, y1, x2, y2, ...]`, whose union it is, or a run-length encoding
`{"size": [height, width], "counts": ...}`, uncompressed or compressed. `iscrowd: 1` marks a group.

Reference:
    https://cocodataset.org/#format-data
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.faults import Fault, expect, shorten
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject, Shape, make_polygon
from mrcnn.files.errors import InputError

# Far beyond any smear, and small enough that 64 bits hold every sum.
MAX_PIXELS = 2**31
# 7 digits of 5 bits hold any count up to it; a longer number is damage.
_MAX_DIGITS = 7


@dataclass(frozen=True, eq=False)
class RunLengths(Shape):
    """A mask as run lengths; `points` are its width and height."""

    counts: np.ndarray  # int64, lengths of the runs of zeros and ones by turns, column by column

    def check(self, height: int, width: int) -> None:
        """Raise `Fault` if the mask has another size than the image."""
        own_width, own_height = self.points[0]
        if (own_height, own_width) != (height, width):
            raise Fault(f"RLE is {own_width}x{own_height} px, image is {width}x{height} px")

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the mask, bool of shape (height, width)."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.ascontiguousarray(np.repeat(values, self.counts).reshape(width, height).T)


def make_run_lengths(size: Any, counts: Any) -> RunLengths:
    """Read an RLE as JSON holds it: [height, width], and whole numbers or text in the compressed form, or raise.

    pycocotools does so too, but returns uninitialised memory where the counts do not add up.
    """
    is_pair = isinstance(size, list) and len(size) == 2 and all(type(v) is int and v > 0 for v in size)
    if not is_pair or size[0] * size[1] > MAX_PIXELS:
        raise Fault(f"RLE size is {size if is_pair else shorten(size)}, not [height, width] of an image")
    num_pixels = size[0] * size[1]
    if isinstance(counts, str):
        values = decode_counts(counts)
    elif all(type(v) is int and abs(v) <= num_pixels for v in expect(counts, list, "RLE counts")):
        values = np.array(counts, np.int64)
    else:
        raise Fault(f"RLE counts are not all whole numbers up to {num_pixels}")
    if ((values < 0) | (values > num_pixels)).any() or values.sum() != num_pixels:
        raise Fault(f"RLE counts are no lengths that add up to {size[0]} * {size[1]} = {num_pixels}")
    return RunLengths(np.array([size[::-1]]), values)


def decode_counts(text: str) -> np.ndarray:
    """Decode COCO's compressed counts, or raise `Fault`: int64 array, not checked for their sign or sum."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    is_last = codes < 32
    ends = np.flatnonzero(is_last)
    num_digits = np.diff(ends, prepend=-1)
    if not codes.size or codes.min() < 0 or codes.max() > 63 or not is_last[-1] or num_digits.max() > _MAX_DIGITS:
        raise Fault("RLE counts are empty, cut off or not in COCO's compressed form")
    starts = ends - num_digits + 1
    place = np.arange(codes.size) - np.repeat(starts, num_digits)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    # Bit 16 of the highest digit is the sign (two's complement over as many bits as were written).
    values -= ((codes[ends] & 16) > 0) * (np.int64(1) << (5 * num_digits))
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def is_coco(value: Any) -> bool:
    """Whether a JSON value has the lists of a COCO file."""
    return isinstance(value, dict) and isinstance(value.get("images"), list) and "annotations" in value


def parse_coco(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a COCO file into annotations.

    Raises:
        InputError: if it is no COCO file. What is wrong with single images or objects is noted with them.
    """
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
