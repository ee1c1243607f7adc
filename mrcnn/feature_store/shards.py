"""Shards of a centre: which images each has, and what its store is called and says of itself.

Shard I of N has the images at positions I - 1, I - 1 + N, I - 1 + 2N ... of the centre's list, so that all shards are
alike in size and, where the list is sorted by class, in classes. `store_shards` reads and joins what they give.
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

from mrcnn.feature_store.layout import MERGE_ROWS, create_file
from mrcnn.feature_store.reader import FeatureStore, StoreReader, check_same_origin
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import atomic_hdf5

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


log = logging.getLogger(__name__)

StorePath = str | os.PathLike | Sequence[str | os.PathLike]


def open_store(path: StorePath) -> StoreReader:
    """Open a store, or the shards of one centre as if they were one store.

    Args:
        path: a store, or all shards of a centre in any order.

    Raises:
        InputError: if a file cannot be used, or the shards are not all those of one centre.
    """
    if isinstance(path, (str, os.PathLike)):
        store = FeatureStore(path)
        try:
            if shard_of(store) is None:
                return store
        except BaseException:
            store.close()
            raise
        store.close()
        path = [path]
    return ShardedStore(path)


def stores_by_centre(paths: Iterable[str | os.PathLike]) -> dict[str, Path | tuple[Path, ...]]:
    """Sort stores by the centre that each holds; several shards of a centre belong together.

    Returns:
        By centre, in order of first appearance, what `open_store` takes.

    Raises:
        InputError: if a store cannot be read, a shard is missing or doubled, or two whole stores hold one centre.
    """
    found: dict[str, list[Path]] = {}
    whole: dict[str, Path] = {}
    for path in map(Path, paths):
        with FeatureStore(path) as store:
            there = found.setdefault(store.centre, [])
            if there and (store.centre in whole or shard_of(store) is None):
                raise InputError(f"{path}: {there[0]} already holds centre {store.centre}")
            if shard_of(store) is None:
                whole[store.centre] = path
            there.append(path)
    for centre, shards in found.items():
        if centre not in whole:
            ShardedStore(shards).close()
    return {centre: whole.get(centre) or tuple(shards) for centre, shards in found.items()}


class ShardedStore(StoreReader):
    """Read several stores of one centre as one, without copying.

    Shards are put in the order of the centre's list of images; stores that are no shards follow each other as given.
    All files stay open.

    Args:
        paths: all shards of a centre in any order, or stores of different images of it.

    Raises:
        InputError: if no path is given, a file cannot be used, they differ in centre, detector or settings, share an
            image, or a shard is missing or doubled.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        if not paths:
            raise InputError("no shards are given; name every shard of the centre")
        with ExitStack() as stack:
            self._stores = [stack.enter_context(FeatureStore(path)) for path in paths]
            is_sharded = self._sort_and_check()
            counts = [store.image_column("num_cells") for store in self._stores]
            self._images = _deal(counts) if is_sharded else np.repeat(np.arange(len(counts)), [len(c) for c in counts])
            self._image_rows = _rows_within(self._images)
            self._cells = np.repeat(self._images, self._gather(counts, self._images, self._image_rows))
            self._cell_rows = _rows_within(self._cells)
            self._check_images(is_sharded)
            self._closing = stack.pop_all()

    def __len__(self) -> int:
        return len(self._cells)

    def close(self) -> None:
        self._closing.close()

    def image_column(self, name: str) -> np.ndarray:
        return self._gather([store.image_column(name) for store in self._stores], self._images, self._image_rows)

    def text_widths(self) -> dict[str, int]:
        """Bytes that each string dataset needs, by its path in the file."""
        widths: dict[str, int] = {}
        for store in self._stores:
            for name, width in store.text_widths().items():
                widths[name] = max(widths.get(name, 1), width)
        return widths

    def _read_range(self, field: str, start: int, stop: int) -> np.ndarray:
        if start == stop:
            return self._stores[0].read(field, 0, 0)
        return self._read_rows(field, np.arange(start, stop))

    def _read_rows(self, field: str, indices: np.ndarray) -> np.ndarray:
        source, rows = self._cells[indices], self._cell_rows[indices]
        # Rows that increase over all shards increase within each: neighbours are neighbours there too.
        pieces = {s: self._stores[s].read_rows(field, rows[source == s]) for s in np.unique(source).tolist()}
        first = next(iter(pieces.values()))
        values = np.empty((len(indices), *first.shape[1:]), np.result_type(*(p.dtype for p in pieces.values())))
        for s, piece in pieces.items():
            values[source == s] = piece
        return values

    @staticmethod
    def _gather(columns: list[np.ndarray], source: np.ndarray, rows: np.ndarray) -> np.ndarray:
        values = np.empty(len(source), np.result_type(*(column.dtype for column in columns)))
        for s, column in enumerate(columns):
            values[source == s] = column[rows[source == s]]
        return values

    def _sort_and_check(self) -> bool:
        """Put the shards in order and take over what they have in common; says whether they are shards."""
        shards = [shard_of(store) for store in self._stores]
        if any(shards) and not all(shards):
            odd, even = shards.index(None), next(i for i, shard in enumerate(shards) if shard)
            raise InputError(
                f"{self._stores[odd].path}: is no shard, unlike {self._stores[even].path}; give shards alone"
            )
        if all(shards):
            self._check_complete(shards)
            self._stores = [store for _, store in sorted(zip(shards, self._stores, strict=True), key=lambda p: p[0])]
        first = self._stores[0]
        for store in self._stores[1:]:
            wanted = {**first.settings, **({SHARD: store.settings[SHARD]} if all(shards) else {})}
            header = {**first.attributes, "settings": wanted}
            check_same_origin(store, header, f"it cannot be joined with {first.path}")
        self.path, self.paths, self.centre = first.path, tuple(store.path for store in self._stores), first.centre
        self.settings = {name: v for name, v in first.settings.items() if name not in (SHARD, CENTRE_IMAGES)}
        self.attributes = {name: v for name, v in first.attributes.items() if name not in (SHARD, CENTRE_IMAGES)}
        return all(shards)

    def _check_complete(self, shards: list[Shard]) -> None:
        first, count = self._stores[0], shards[0].count
        seen: dict[int, Path] = {}
        for shard, store in zip(shards, self._stores, strict=True):
            if shard.count != count:
                raise InputError(f"{store.path}: is shard {shard}, but {first.path} is shard {shards[0]}")
            if shard.number in seen:
                raise InputError(f"{store.path}: is shard {shard}, and so is {seen[shard.number]}; give it once")
            seen[shard.number] = store.path
        missing = [str(Shard(number, count)) for number in range(1, count + 1) if number not in seen]
        if missing:
            number = f"shard {missing[0]}" if len(missing) == 1 else f"shards {', '.join(missing)}"
            raise InputError(f"{first.path}: {number} of centre {first.centre} must be given too")

    def _check_images(self, is_sharded: bool) -> None:
        keys = self.image_keys
        ordered = np.argsort(keys, kind="stable")
        twice = np.flatnonzero(keys[ordered][1:] == keys[ordered][:-1])
        if len(twice):
            one, other = (self._stores[self._images[ordered[twice[0] + i]]].path for i in (0, 1))
            raise InputError(f"{other}: image {keys[ordered[twice[0]]]} is in {one} too; give every shard once")
        stated = self._stores[0].settings.get(CENTRE_IMAGES)
        if is_sharded and describe_images(keys.tolist()) != stated:
            raise InputError(
                f"{self.path}: the shards do not hold the images of the centre ({stated}); extract them again"
            )


def merge_stores(paths: Sequence[str | os.PathLike], path: str | os.PathLike) -> None:
    """Join the stores of several shards of one centre into one, row block by row block.

    Args:
        paths: all shards in any order, which become the store that an extraction in one go would give; or stores of
            different images of a centre that are no shards, whose rows follow each other as given.
        path: final name, written atomically.

    Raises:
        InputError: as `ShardedStore` raises it, if another run is writing `path`, or nothing can be written there.
    """
    with ShardedStore(paths) as source, OutputLock(path):
        _merge(source, path)


def _merge(source: ShardedStore, path: str | os.PathLike) -> None:
    with atomic_hdf5(path) as file:
        header = {**source.attributes, "settings": source.settings}
        create_file(file, header, len(source), len(source.image_keys), source.text_widths())
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
    """As `merge_stores`, but a store that is there already is kept if it is what would be made.

    Args:
        paths: as in `merge_stores`.
        path: the store to write.
        overwrite: join again although a store is there.

    Returns:
        The store's counts.

    Raises:
        InputError: as `ShardedStore` raises it, or if another store is there and `overwrite` is False.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        with FeatureStore(path) as there, ShardedStore(paths) as source:
            advice = "choose another output or give --overwrite"
            check_same_origin(there, {**source.attributes, "settings": source.settings}, advice)
            if not np.array_equal(there.image_keys, source.image_keys):
                raise InputError(f"{path}: holds other images than {source.path} and its like; {advice}")
        log.info("%s: reused", path)
    else:
        merge_stores(paths, path)
    with FeatureStore(path) as store:
        return store.counts


def _deal(counts: Sequence[np.ndarray]) -> np.ndarray:
    """For each image of a centre the shard that holds it, given a column of each shard's image table."""
    sizes = np.array([len(column) for column in counts])
    # Shards that do not fit give a list of images that is not the stated one, which is refused later.
    turns = np.tile(np.arange(len(sizes)), sizes.max(initial=0))
    return turns[np.repeat(np.arange(sizes.max(initial=0)), len(sizes)) < sizes[turns]]


def _rows_within(source: np.ndarray) -> np.ndarray:
    """For each row the number of rows of the same source before it."""
    rows = np.zeros(len(source), np.int64)
    for s in np.unique(source):
        rows[source == s] = np.arange(np.sum(source == s))
    return rows


def _encode(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.char.encode(values, "utf-8").astype(dtype) if values.dtype.kind == "U" else values
