"""Reading batches of cells from feature stores, in memory that does not grow with the stores or their number.

Each centre is an endless stream of its own, whose order `sampling` decides, and a window of it is in memory at a
time. A batch has a fixed number of rows per centre and is dealt out in parts, one per replica. Where several
processes train together, each reads the rows of its own parts and no others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from autoencoder.sampling import BLOCK_ROWS, WINDOW_ROWS, Order, RowOrder, TypeOrder, rows_by_type
from mrcnn.errors import InputError
from mrcnn.feature_store import ARRAY_FIELDS, StorePath, StoreReader, open_store

ALL_WINDOWS_ROWS = 4 * WINDOW_ROWS  # rows of all centres together in memory, about: 150 MB
ROW_BYTES = 2 * 14 * 14 * 256 + 128 * 128 * 3  # features and one image of a cell

# As integers, float16 numbers from this one on are infinite or NaN; with the sign bit set, from the second on.
_INFINITY, _MINUS_INFINITY = 0x7C00, 0xFC00


def read_batches(
    stores: Mapping[str, StorePath],
    shares: Sequence[int],
    *,
    image_source: str = "crop",
    balance: str = "none",
    source: int = 0,
    seed: int = 0,
    start_step: int = 0,
    num_parts: int = 1,
    num_pipelines: int = 1,
    pipeline: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches from a step on, without end.

    Args:
        stores: feature store by centre, or the shards of one; no store may be empty.
        shares: samples of each centre in a batch.
        image_source: "crop" or "image".
        balance: "type" gives out every cell type of the source centre equally often; with another value each cell
            of a centre comes once in each pass.
        source: number of the source centre, whose labels are the only ones that are looked at.
        seed: of the order.
        start_step: the step, counted from 0, to begin with.
        num_parts: number of equal parts, one per replica, in which each batch is given out.
        num_pipelines: number of processes that share the parts equally.
        pipeline: which of them this is, counted from 0: the first one has the first parts.

    Yields:
        The parts of this pipeline, step by step: dicts of `features` float16 (n, 14, 14, 256), `images` uint8
        (n, 128, 128, 3) and `centre_id` int32 (n,), n being the batch size divided by `num_parts`.

    Raises:
        InputError: if a store cannot be read, has features that are not finite, or the source has no labels that
            `balance` needs.
        ValueError: if the batch cannot be divided by `num_parts`, or these by `num_pipelines`.
    """
    batch_size = sum(shares)
    if batch_size % num_parts:
        raise ValueError(f"a batch of {batch_size} cannot be divided by {num_parts}")
    if num_parts % num_pipelines or not 0 <= pipeline < num_pipelines:
        raise ValueError(f"{num_parts} parts cannot be shared by pipeline {pipeline} of {num_pipelines}")
    own_parts, part_size = num_parts // num_pipelines, batch_size // num_parts
    # Dealt out in turns, so that every replica has rows of every centre.
    turn, part = np.divmod(np.arange(batch_size), num_parts)
    part = part - pipeline * own_parts
    is_own = (0 <= part) & (part < own_parts)
    places = np.where(is_own, part * part_size + turn, -1)  # in what is given out; -1 for rows of other pipelines
    centre_id = np.zeros(own_parts * part_size, np.int32)
    window_rows = max(min(WINDOW_ROWS, ALL_WINDOWS_ROWS // len(shares)), BLOCK_ROWS)
    with ExitStack() as stack:
        streams = []
        edges = np.cumsum([0, *shares])
        for k, path in enumerate(stores.values()):
            share_places = places[edges[k] : edges[k + 1]]
            wanted = share_places >= 0
            if not wanted.any():
                continue
            store = stack.enter_context(open_store(path))
            by_type = balance == "type" and k == source
            order = _make_order(store, by_type, (seed, k), window_rows)
            centre_id[share_places[wanted]] = k
            cells = _read_cells(store, order, image_source, start_step * len(wanted), wanted)
            streams.append((cells, share_places[wanted].tolist()))
        while True:
            features, images = (_make_rows(len(centre_id), field) for field in ("features", image_source))
            for cells, own_places in streams:
                for place in own_places:
                    features[place], images[place] = next(cells)
            for start in range(0, len(centre_id), part_size):
                rows = slice(start, start + part_size)
                yield {"features": features[rows], "images": images[rows], "centre_id": centre_id[rows]}


def check_finite(store: StoreReader, rows: Sequence[int] | np.ndarray, features: np.ndarray) -> None:
    """Refuse features that are NaN or infinite.

    Args:
        store: where they come from.
        rows: int array of shape (n,), the rows that they are.
        features: float16 array of shape (n, 14, 14, 256).

    Raises:
        InputError: naming the first such cell.
    """
    # Two maxima over integers take a fifth of the time of `isfinite`, which is half that of reading.
    if not features.size or (
        features.view(np.int16).max() < _INFINITY and features.view(np.uint16).max() < _MINUS_INFINITY
    ):
        return
    first = int(rows[np.argmin(np.isfinite(features).all(axis=(1, 2, 3)))])
    key = store.read("key", first, first + 1)[0]
    files = ", ".join(map(str, store.paths))
    raise InputError(f"{files}: features of cell {first} ({key}) hold NaN or Inf; extract this centre again")


def _make_rows(num_rows: int, field: str) -> np.ndarray:
    dtype, shape = ARRAY_FIELDS[field]
    return np.empty((num_rows, *shape), dtype)


def _make_order(store: StoreReader, by_type: bool, seed: tuple[int, ...], window_rows: int) -> Order:
    if by_type:
        return TypeOrder(list(rows_by_type(store).values()), seed, window_rows=window_rows)
    return RowOrder(len(store), seed, window_rows=window_rows)


def _read_cells(
    store: StoreReader, order: Order, image_source: str, position: int, wanted: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield one cell after the other, as (features, image), from a position of the order on.

    Args:
        store: opened.
        order: of its rows.
        image_source: "crop" or "image".
        position: a multiple of the centre's share.
        wanted: bool array of shape (share,), which rows of each share to give out; one at least.
    """
    for rows in order.windows(position):
        own = rows[wanted[np.arange(position, position + len(rows)) % len(wanted)]]
        position += len(rows)
        if not len(own):
            continue
        stored, numbers = np.unique(own, return_inverse=True)
        features = store.read_rows("features", stored)
        check_finite(store, stored, features)
        images = store.read_rows(image_source, stored)
        for number in numbers:
            yield features[number], images[number]
        del features, images  # before the next window is read
