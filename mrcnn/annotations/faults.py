"""Faults of annotations: each is noted with its object or image, so that all of a file are listed in one go.

Whatever reads a part of a file raises `Fault`; `OutlinedObject.read` keeps it with the object, lists keep those of
images and files, and `AnnotationCheck` holds the outcome for the images of a centre.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import escape_unprintable

# Small enough that no sum or product of coordinates overflows.
MAX_COORDINATE = 1e9


class Fault(ValueError):
    """Why an object or shape cannot be used; the message says it in a few words."""


@dataclass
class AnnotationCheck:
    """The outcome of `check_annotations` or `check_outlines`; unpacks as `faults, good`."""

    faults: list[tuple[str, str]] = field(default_factory=list)  # (key, reason); an image may have several
    good: list[ImageRecord] = field(default_factory=list)  # to learn from, those without an object among them
    num_objects: dict[str, int] = field(default_factory=dict)  # of each of these, by key

    def __iter__(self) -> Iterator[list]:
        yield self.faults
        yield self.good

    def add_faults(self, key: str, reasons: Sequence[str]) -> None:
        """Note faults of an image or a file; names and ids in them may hold anything."""
        self.faults.extend((one_line(key), one_line(reason)) for reason in reasons)

    def accept(self, record: ImageRecord, num_objects: int) -> None:
        """Note a good image."""
        self.good.append(record)
        self.num_objects[record.key] = num_objects


def as_number(value: Any, what: str) -> float:
    """Return a number of a JSON file as float, or raise a `Fault` that names `what`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= MAX_COORDINATE:
        raise Fault(f"{what} is {shorten(value)}, not a finite number of pixels")
    return float(value)


def as_list(value: Any, what: str) -> list:
    """Return `value` if it is a list, or raise a `Fault` that names `what`."""
    if not isinstance(value, list):
        raise Fault(f"{what} is {shorten(value)}, not a list")
    return value


def as_size(entry: dict[str, Any], name: str, faults: list[str]) -> int | None:
    """Width or height of an image as its entry has it, 640.0 included; None if it does not say; a fault is added."""
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0 or value % 1 != 0:
        faults.append(f"{name} is {shorten(value)}, not a number of pixels")
        return None
    return int(value)


def shorten(value: Any, length: int = 40) -> str:
    """Write a value of unknown origin on one line of at most `length` characters."""
    if isinstance(value, (dict, list)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = "missing" if value is None else repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def one_line(text: str) -> str:
    """Write text of unknown origin on one line of at most 300 characters."""
    text = escape_unprintable(" ".join(text.split()))
    return text if len(text) <= 300 else text[:297] + "..."
