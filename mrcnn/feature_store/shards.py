"""Shards of a centre: parts of it in stores of their own, read or joined as one store.

Shard I of N has the images at positions I - 1, I - 1 + N, I - 1 + 2N ... of the centre's list, so that all shards are
alike in size and, where the list is sorted by class, in classes.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrcnn.feature_store.reader import FeatureStore, check_same_origin
from mrcnn.feature_store.writer import write_merged
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError

log = logging.getLogger(__name__)

# Settings that only a shard's store has.
SHARD, CENTRE_IMAGES = "shard", "centre_images"
StorePath = str | os.PathLike | Sequence[str | os.PathLike]


class Shard(NamedTuple):
    """Part `number`, from 1 to `count`, of a centre that is divided into `count` parts."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "I/N", with I from 1 to N."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"shard {text!r}: give I/N with I from 1 to N, for example 1/4")
        return cls(int(match[1]), int(match[2]))


def shard_path(path: str | os.PathLike, shard: Shard) -> Path:
    """Name of a shard's store: `north.shard-1-of-4.h5` for `north.h5`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.shard-{shard.number}-of-{shard.count}{path.suffix}")


def shard_settings(shard: Shard, image_ids: Sequence[str]) -> dict[str, str]:
    """Settings of a shard's store, given the image_ids of all images of the centre in order.

    They name that list, since shards of different lists would overlap or leave gaps.
    """
    return {SHARD: str(shard), CENTRE_IMAGES: describe_images(image_ids)}


def describe_images(image_ids: Sequence[str]) -> str:
    """Name a list of images: their number and a hash of their image_ids, in order."""
    digest = hashlib.sha256("\0".join(image_ids).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{len(image_ids)} images, list {digest[:16]}"


def open_store(path: StorePath) -> FeatureStore:
    """Open a store, or all shards of a centre, in any order, as if they were one store.

    Raises:
        InputError: if a file cannot be used, or the shards are not all those of one centre.
    """
    if not isinstance(path, (str, os.PathLike)):
        return ShardedStore(path)
    store = FeatureStore(path)
    if SHARD not in store.settings:
        return store
    store.close()
    return ShardedStore([path])


def stores_by_centre(paths: Iterable[str | os.PathLike]) -> dict[str, Path | tuple[Path, ...]]:
    """Sort stores by the centre that each holds; several shards of a centre belong together.

    Returns:
        By centre, in order of first appearance, what `open_store` takes.

    Raises:
        InputError: if a store cannot be read, a shard is missing or doubled, or two whole stores hold one centre.
    """
    found: dict[str, Path | tuple[Path, ...]] = {}
    for path in map(Path, paths):
        with FeatureStore(path) as store:
            there, is_shard = found.get(store.centre, ()), SHARD in store.settings
        if there and not (is_shard and isinstance(there, tuple)):
            first = there[0] if isinstance(there, tuple) else there
            raise InputError(f"{path}: {first} already holds centre {store.centre}")
        found[store.centre] = (*there, path) if is_shard else path
    for place in found.values():
        if isinstance(place, tuple):
            ShardedStore(place).close()
    return found


class ShardedStore(FeatureStore):
    """Read several stores of one centre as one, without copying.

    Shards are put in the order of the centre's list of images; stores that are no shards follow each other as given.
    All files stay open.

    Args:
        paths: all shards of a centre in any order, or stores of different images of it.

    Raises:
        InputError: if they differ in centre, detector or settings, share an image, or a shard is missing or doubled.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        with ExitStack() as stack:
            self._stores = [stack.enter_context(FeatureStore(path)) for path in paths]
            is_sharded = self._sort_and_check()
            sizes = [len(store.all_image_ids) for store in self._stores]
            # For each image and each cell the store that holds it, and for each cell its row there.
            self._images = _deal(sizes) if is_sharded else np.repeat(np.arange(len(sizes)), sizes)
            self._cells = np.repeat(self._images, self.image_column("num_cells"))
            self._cell_rows = _rows_within(self._cells)
            self._check_images(is_sharded)
            self._closing = stack.pop_all()

    def __len__(self) -> int:
        return len(self._cells)

    def close(self) -> None:
        self._closing.close()

    def image_column(self, name: str) -> np.ndarray:
        return _interleave([store.image_column(name) for store in self._stores], self._images)

    def text_widths(self) -> dict[str, int]:
        widths = [store.text_widths() for store in self._stores]
        return {name: max(each[name] for each in widths) for name in widths[0]}

    def _read_rows(self, field: str, indices: np.ndarray) -> np.ndarray:
        source, rows = self._cells[indices], self._cell_rows[indices]
        # Rows that increase over all shards increase within each: neighbours are neighbours there too.
        return _interleave([store.read_rows(field, rows[source == s]) for s, store in enumerate(self._stores)], source)

    def _sort_and_check(self) -> bool:
        """Put the shards in order and take over what they have in common; says whether they are shards."""
        stated = [str(store.settings.get(SHARD, "")) for store in self._stores]
        is_sharded = any(stated)
        if is_sharded:
            self._stores = self._complete(stated)
        first = self._stores[0]
        for store in self._stores[1:]:
            shard = {SHARD: store.settings[SHARD]} if is_sharded else {}
            header = {**first.header, "settings": {**first.settings, **shard}}
            check_same_origin(store, header, f"it cannot be joined with {first.path}")
        self.path, self.paths, self.centre = first.path, tuple(store.path for store in self._stores), first.centre
        self.settings, self.attributes = (
            {name: value for name, value in values.items() if name not in (SHARD, CENTRE_IMAGES)}
            for values in (first.settings, first.attributes)
        )
        return is_sharded

    def _complete(self, stated: list[str]) -> list[FeatureStore]:
        """The shards in their order; each must be there once."""
        count = next(Shard.parse(text).count for text in stated if text)
        wanted = [str(Shard(number, count)) for number in range(1, count + 1)]
        first = self._stores[0]
        if missing := ", ".join(shard for shard in wanted if shard not in stated):
            raise InputError(f"{first.path}: shard {missing} of centre {first.centre} must be given too")
        if len(stated) > count:
            found = ", ".join(text or "no shard" for text in stated)
            raise InputError(f"{first.path}: give each of {count} shards once and nothing else, not {found}")
        return [self._stores[stated.index(shard)] for shard in wanted]

    def _check_images(self, is_sharded: bool) -> None:
        image_ids = self.all_image_ids.tolist()
        image_id, times = Counter(image_ids).most_common(1)[0] if image_ids else ("", 0)
        if times > 1:
            raise InputError(f"{', '.join(map(str, self.paths))}: image {image_id} is in two of them; give each once")
        stated = self._stores[0].settings.get(CENTRE_IMAGES)
        if is_sharded and describe_images(image_ids) != stated:
            what = f"the shards do not hold the images of the centre ({stated})"
            raise InputError(f"{self.path}: {what}; extract them again")


def merge_stores(paths: Sequence[str | os.PathLike], path: str | os.PathLike) -> None:
    """Join stores as `ShardedStore` reads them into one, atomically: shards into that of an extraction in one go.

    Raises:
        InputError: as `ShardedStore` raises it, or if another run is writing `path`.
    """
    with ShardedStore(paths) as source, OutputLock(path):
        write_merged(Path(path), source.header, [lambda: nullcontext(source)])


def join_shards(
    paths: Sequence[str | os.PathLike], path: str | os.PathLike, *, overwrite: bool = False
) -> dict[str, int]:
    """Do as `merge_stores`, but keep a store that is what would be made, and refuse another, without `overwrite`.

    Returns:
        The store's counts.
    """
    if overwrite or not os.path.exists(path):
        merge_stores(paths, path)
        with FeatureStore(path) as store:
            return store.counts
    with FeatureStore(path) as store, ShardedStore(paths) as source:
        advice = "choose another output or give --overwrite"
        check_same_origin(store, source.header, advice)
        if not np.array_equal(store.all_image_ids, source.all_image_ids):
            raise InputError(f"{path}: holds other images than {source.path} and its like; {advice}")
        log.info("%s: reused", path)
        return store.counts


def _deal(sizes: Sequence[int]) -> np.ndarray:
    """For each image of a centre the shard that holds it, given the number of images of each shard."""
    # Shards that do not fit give a list of images that is not the stated one, which is refused later.
    turns = np.arange(max(sizes))[:, np.newaxis] < np.array(sizes)
    return np.nonzero(turns)[1]


def _rows_within(source: np.ndarray) -> np.ndarray:
    """For each row the number of rows of the same source before it."""
    rows = np.zeros(len(source), np.int64)
    for s in np.unique(source):
        rows[source == s] = np.arange(np.sum(source == s))
    return rows


def _interleave(pieces: Sequence[np.ndarray], source: np.ndarray) -> np.ndarray:
    """Put the rows of several stores together, `source` telling for each row which piece the next one comes from."""
    values = np.empty((len(source), *pieces[0].shape[1:]), np.result_type(*pieces))
    for s, piece in enumerate(pieces):
        values[source == s] = piece
    return values
