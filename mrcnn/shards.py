"""Shards of a centre: which images each has, and what its store is called and says of itself.

Shard I of N has the images at positions I - 1, I - 1 + N, I - 1 + 2N ... of the centre's list, so that all shards are
alike in size and, where the list is sorted by class, in classes. `store_shards` reads and joins what they give.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mrcnn.errors import InputError
from mrcnn.store_reader import StoreReader

# Settings that only a shard's store has.
SHARD, CENTRE_IMAGES = "shard", "centre_images"


class Shard(NamedTuple):
    """Part `number`, from 1 to `count`, of a centre that is divided into `count` parts."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "I/N".

        Raises:
            InputError: if it is something else, or I is not from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"shard {text!r}: give I/N with I from 1 to N, for example 1/4")
        return cls(int(match[1]), int(match[2]))


def shard_path(path: str | os.PathLike, shard: Shard) -> Path:
    """Name of a shard's store: `north.shard-1-of-4.h5` for `north.h5`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.shard-{shard.number}-of-{shard.count}{path.suffix}")


def shard_settings(shard: Shard, keys: Sequence[str]) -> dict[str, str]:
    """What the store of a shard says of itself.

    Args:
        shard: which.
        keys: of all images of the centre, in order.

    Returns:
        Dict of `shard` and `centre_images`. The latter names the list of images: shards that were cut from different
        lists would overlap or leave gaps.
    """
    return {SHARD: str(shard), CENTRE_IMAGES: describe_images(keys)}


def describe_images(keys: Sequence[str]) -> str:
    """Name a list of images: their number and a hash of their keys, in order."""
    digest = hashlib.sha256("\0".join(keys).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{len(keys)} images, list {digest[:16]}"


def shard_of(store: StoreReader) -> Shard | None:
    """Which shard a store is; None for a whole centre.

    Raises:
        InputError: if the store says something odd.
    """
    text = store.settings.get(SHARD)
    if text is None:
        return None
    try:
        return Shard.parse(str(text))
    except InputError:
        raise InputError(f"{store.path}: its shard is {text!r}, which is none; extract it again") from None


def check_shard_count(path: str | os.PathLike, shard: Shard) -> None:
    """Refuse to begin a shard beside shards of the same store that divide the centre otherwise.

    Args:
        path: name of the whole store, from which `shard_path` derives those of the shards.
        shard: the one to be made.

    Raises:
        InputError: if a store of another number of shards, finished or begun, is there.
    """
    path = Path(path)
    pattern = re.compile(rf"{re.escape(path.stem)}\.shard-\d+-of-(\d+){re.escape(path.suffix)}(\.parts)?")
    for other in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        match = pattern.fullmatch(other.name)
        if match and int(match[1]) != shard.count:
            raise InputError(
                f"{other}: is one of {match[1]} shards, not of {shard.count}; go on with --shard I/{match[1]}, "
                "remove it or choose another output"
            )
