"""What a case of malformed input is; the modules `*_cases.py` beside this file make them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPECTATIONS = ("refused", "accepted", "either")


@dataclass(frozen=True)
class Case:
    """One input for one reader, and what has to come of it.

    Attributes:
        name: unique among the cases of its reader.
        make: is given an empty folder, puts the input there and returns what the reader is to be called with: as a
            rule the path of a file. `file_of` and `files_of` make such functions.
        expect: "refused", "accepted", or "either" where the format cannot tell (a flipped bit may give another
            picture, and no longer the right one).
        check: is given what the reader returned, and raises AssertionError if that is wrong. An accepted case needs
            one: a known answer; "either" needs one too, that the value is valid.
        mentions: text that the message of a refusal has to contain; None stands for the name of the path that `make`
            returned.
        says: text that the refusal, or something logged while reading, has to contain; "" asks for nothing.
    """

    name: str
    make: Callable[[Path], Any]
    expect: str
    check: Callable[[Any], None] | None = None
    mentions: str | None = None
    says: str = ""

    def __post_init__(self):
        if self.expect not in EXPECTATIONS:
            raise ValueError(f"{self.name}: expect must be one of {', '.join(EXPECTATIONS)}; got {self.expect!r}")
        if self.expect != "refused" and self.check is None:
            raise ValueError(f"{self.name}: what may be accepted needs a check")


def file_of(name: str, content: bytes | str) -> Callable[[Path], Path]:
    """A `make` that writes one file and returns its path."""
    return files_of({name: content}, name)


def files_of(contents: dict[str, bytes | str], given: str = "") -> Callable[[Path], Path]:
    """A `make` that writes several files, in folders where their names have any.

    Args:
        contents: what is in each file; text is written as UTF-8.
        given: the path below the folder that is returned, "" for the folder itself.
    """

    def make(folder: Path) -> Path:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / given

    return make
