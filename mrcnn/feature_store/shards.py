"""Shards of a centre: parts of it in stores of their own, read or joined as one store.

Shard I of N has the images at positions I - 1, I - 1 + N, I - 1 + 2N ... of the centre's list, so that all shards are
alike in size and, where the list is sorted by class, in classes.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrcnn.feature_store.layout import MERGE_ROWS, new_store
from mrcnn.feature_store.reader import FeatureStore, StoreReader, check_same_origin
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


def open_store(path: StorePath) -> StoreReader:
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
    found: dict[str, list[Path]] = {}
    whole: set[str] = set()
    for path in map(Path, paths):
        with FeatureStore(path) as store:
            there = found.setdefault(store.centre, [])
            if there and (store.centre in whole or SHARD not in store.settings):
                raise InputError(f"{path}: {there[0]} already holds centre {store.centre}")
            there.append(path)
            if SHARD not in store.settings:
                whole.add(store.centre)
    for centre in found.keys() - whole:
        ShardedStore(found[centre]).close()
    return {centre: there[0] if centre in whole else tuple(there) for centre, there in found.items()}


class ShardedStore(StoreReader):
    """Read several stores of one centre as one, without copying.

    Shards are put in the order of the centre's list of images; stores that are no shards follow each other as given.
    All files stay open.

    Args:
        paths: all shards of a centre in any order, or stores of different images of it.

    Raises:
        InputError: if they differ in centre, detector or settings, share an image, or a shard is missing or doubled.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        if not paths:
            raise InputError("no shards are given; name every shard of the centre")
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
        stated = [store.settings.get(SHARD) for store in self._stores]
        shards = [None if text is None else Shard.parse(str(text)) for text in stated]
        is_sharded = any(shards)
        if is_sharded:
            self._check_complete(shards)
            self._stores = [self._stores[i] for i in sorted(range(len(shards)), key=shards.__getitem__)]
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

    def _check_complete(self, shards: list[Shard | None]) -> None:
        count = next(shard.count for shard in shards if shard)
        seen: dict[Shard | None, Path] = {Shard(number, count): None for number in range(1, count + 1)}
        for shard, store in zip(shards, self._stores, strict=True):
            if seen.get(shard, "none of these") is not None:
                what = f"shard {shard}" if shard else "no shard"
                raise InputError(f"{store.path}: is {what}; give each of the {count} shards once, and nothing else")
            seen[shard] = store.path
        missing = ", ".join(str(shard) for shard, path in seen.items() if path is None)
        if missing:
            store = self._stores[0]
            raise InputError(f"{store.path}: shard {missing} of centre {store.centre} must be given too")

    def _check_images(self, is_sharded: bool) -> None:
        image_ids = self.all_image_ids
        ordered = np.argsort(image_ids, kind="stable")
        twice = np.flatnonzero(image_ids[ordered][1:] == image_ids[ordered][:-1])
        if len(twice):
            one, other = (self._stores[self._images[ordered[twice[0] + i]]].path for i in (0, 1))
            raise InputError(f"{other}: image {image_ids[ordered[twice[0]]]} is in {one} too; give every shard once")
        stated = self._stores[0].settings.get(CENTRE_IMAGES)
        if is_sharded and describe_images(image_ids.tolist()) != stated:
            what = f"the shards do not hold the images of the centre ({stated})"
            raise InputError(f"{self.path}: {what}; extract them again")


def merge_stores(paths: Sequence[str | os.PathLike], path: str | os.PathLike) -> None:
    """Join stores as `ShardedStore` reads them into one, atomically: shards into that of an extraction in one go.

    Raises:
        InputError: as `ShardedStore` raises it, if another run is writing `path`, or nothing can be written there.
    """
    with ShardedStore(paths) as source, OutputLock(path):
        sizes = len(source), len(source.all_image_ids)
        with new_store(path, source.header, *sizes, source.text_widths()) as file:
            for name, dataset in file["cells"].items():
                for start in range(0, len(source), MERGE_ROWS):
                    stop = min(start + MERGE_ROWS, len(source))
                    dataset[start:stop] = _encode(source.read(name, start, stop), dataset.dtype)
                dataset.flush()
            for name, dataset in file["images"].items():
                if len(dataset):
                    dataset[...] = _encode(source.image_column(name), dataset.dtype)


def join_shards(
    paths: Sequence[str | os.PathLike], path: str | os.PathLike, *, overwrite: bool = False
) -> dict[str, int]:
    """Do as `merge_stores`, but keep a store that is what would be made, and refuse another, without `overwrite`.

    Returns:
        The store's counts.
    """
    if os.path.exists(path) and not overwrite:
        with FeatureStore(path) as there, ShardedStore(paths) as source:
            advice = "choose another output or give --overwrite"
            check_same_origin(there, source.header, advice)
            if not np.array_equal(there.all_image_ids, source.all_image_ids):
                raise InputError(f"{path}: holds other images than {source.path} and its like; {advice}")
        log.info("%s: reused", path)
    else:
        merge_stores(paths, path)
    with FeatureStore(path) as store:
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


def _encode(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.char.encode(values, "utf-8").astype(dtype) if values.dtype.kind == "U" else values
