"""What an annotation file says, whatever its format: images, and the objects that are outlined on them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.shapes import Shape, ShapeFault, shorten


@dataclass(frozen=True, eq=False)
class OutlinedObject:
    """One object of an image.

    Attributes:
        name: what a message calls it, such as "annotation 17" or "region 2".
        label: its class in the file's own words, "" if it has none; None if the file's class cannot be told.
        shapes: it is their union; empty if it has a fault.
        is_crowd: it stands for a group of objects that nobody took apart.
        fault: why it cannot be used, or "".
    """

    name: str
    label: str | None
    shapes: tuple[Shape, ...] = ()
    is_crowd: bool = False
    fault: str = ""

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the object's pixels, bool of shape (height, width).

        Raises:
            ShapeFault: if it has a fault, does not belong into an image of this size, or covers no pixel of it.
        """
        if self.fault:
            raise ShapeFault(self.fault)
        mask = np.zeros((height, width), bool)
        for shape in self.shapes:
            shape.check(height, width)
            mask |= shape.draw(height, width)
        if not mask.any():
            raise ShapeFault("covers no pixel of the image")
        return mask


@dataclass
class OutlinedImage:
    """One image of an annotation file.

    Attributes:
        file_name: the image's name or path as the file has it.
        source: the annotation file; relative names are relative to its folder, among other places.
        objects: what is outlined, in the file's order.
        width: of the image in pixels, or None if the file does not say.
        height: the same.
        faults: what is wrong with the entry as a whole.
    """

    file_name: str
    source: Path
    objects: list[OutlinedObject] = field(default_factory=list)
    width: int | None = None
    height: int | None = None
    faults: list[str] = field(default_factory=list)


@dataclass
class Annotations:
    """All that was read from an annotation file, or from a folder of them.

    Attributes:
        kind: "coco", "via" or "labelme".
        sources: the files.
        images: in the files' order.
        faults: (file or image, reason) of what belongs to no image of `images`.
        num_lost_objects: how many of these faults are objects, of which nobody knows the image.
    """

    kind: str
    sources: list[Path]
    images: list[OutlinedImage] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    num_lost_objects: int = 0

    @property
    def labels(self) -> dict[str, int]:
        """Number of objects with each label, sorted by label."""
        counts = Counter(thing.label for image in self.images for thing in image.objects if thing.label is not None)
        return dict(sorted(counts.items()))


def make_object(
    name: str, label: str | None, make_shapes: Callable[[], tuple[Shape, ...]], *, is_crowd: bool = False
) -> OutlinedObject:
    """Make an `OutlinedObject`; if `make_shapes` raises `ShapeFault`, one with that fault."""
    try:
        return OutlinedObject(name, label, make_shapes(), is_crowd)
    except ShapeFault as error:
        return OutlinedObject(name, label, is_crowd=is_crowd, fault=str(error))


def read_size(
    entry: dict[str, Any], width_key: str, height_key: str, faults: list[str]
) -> tuple[int | None, int | None]:
    """Return width and height of an image as its entry has them, None where it does not say; faults are added."""
    size = []
    for key in (width_key, height_key):
        value = entry.get(key)
        # Some exporters know no whole numbers and write 640.0.
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_whole = is_whole or (isinstance(value, float) and value.is_integer())
        if value is not None and (not is_whole or value <= 0):
            faults.append(f"{key} is {shorten(value)}, not a number of pixels")
            value = None
        size.append(None if value is None else int(value))
    return size[0], size[1]
