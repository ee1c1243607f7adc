"""Faults of annotations: each is noted with its object or image, so that all of a file are listed in one go."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError

# Small enough that no sum or product of coordinates overflows.
MAX_COORDINATE = 1e9
_KINDS = {list: "a list", dict: "a mapping", str: "text"}


class Fault(ValueError):
    """Why an object, a shape or an image cannot be used; the message says it in a few words."""


@dataclass
class AnnotationCheck:
    """The outcome of `check_annotations` or `check_outlines`."""

    faults: list[tuple[str, str]] = field(default_factory=list)  # (image_id, reason); an image may have several
    good: list[ImageRecord] = field(default_factory=list)  # to learn from, those without an object among them
    num_objects: dict[str, int] = field(default_factory=dict)  # of each of these, by image_id

    def add_faults(self, image_id: str, reasons: Sequence[str]) -> None:
        """Note faults of an image or a file; what names and ids in them hold is told as an InputError tells it."""
        self.faults.extend((str(InputError(image_id)), str(InputError(reason))) for reason in reasons)

    def accept(self, record: ImageRecord, num_objects: int) -> None:
        """Note a good image."""
        self.good.append(record)
        self.num_objects[record.image_id] = num_objects


def expect(value: Any, kind: type, what: str) -> Any:
    """Return `value` if it is a list, dict or str as `kind` says, or raise a `Fault` that names `what`."""
    if not isinstance(value, kind):
        raise Fault(f"{what} is {shorten(value)}, not {_KINDS[kind]}")
    return value


def as_number(value: Any, what: str) -> float:
    """Return a number of a JSON file as float, or raise a `Fault` that names `what`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= MAX_COORDINATE:
        raise Fault(f"{what} is {shorten(value)}, not a finite number of pixels")
    return float(value)


def shorten(value: Any, length: int = 40) -> str:
    """Write a value of unknown origin on one line of at most `length` characters."""
    if isinstance(value, (dict, list)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = "missing" if value is None else repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
