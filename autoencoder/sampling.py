"""Which cells make which batch: the shares of the centres, and the order of the rows within each.

An order is endless and follows from the seed and the position alone, so that a resumed training starts it in the
middle without reading what came before. It comes in windows of rows that are read together: blocks of neighbouring
rows, so that the disk sees long reads, shuffled within the window.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from autoencoder.config import CHOICES
from mrcnn.errors import InputError
from mrcnn.feature_store import StoreReader

BLOCK_ROWS = 8  # rows read at one go: 1.2 MB
WINDOW_ROWS = 256  # rows shuffled together, per centre: 38 MB
_LEAST_SHARE = 2  # fewer samples of a centre have no covariance


def batch_shares(counts: Sequence[int], global_batch_size: int, balance: str = "none") -> tuple[int, ...]:
    """Divide a batch among the centres.

    Args:
        counts: number of cells of each centre.
        global_batch_size: samples in a batch.
        balance: "none" for shares in proportion to `counts`, "centre" and "type" for equal ones.

    Returns:
        Samples of each centre in every batch, summing to `global_batch_size`: at least two where that fits, else at
        least one.

    Raises:
        InputError: if there are fewer samples than centres.
        ValueError: if a centre has no cells, or `balance` is unknown.
    """
    if balance not in CHOICES["balance"]:
        raise ValueError(f"balance must be one of {', '.join(CHOICES['balance'])}, got {balance!r}")
    if not counts or min(counts) < 1:
        raise ValueError(f"every centre needs a cell, got counts {list(counts)}")
    least = min(_LEAST_SHARE, global_batch_size // len(counts))
    if least == 0:
        raise InputError(f"global_batch_size is {global_batch_size} for {len(counts)} centres; raise it")
    weights = np.asarray(counts, np.float64) if balance == "none" else np.ones(len(counts))
    wanted = weights / weights.sum() * global_batch_size
    shares = np.maximum(np.floor(wanted).astype(int), least)
    while shares.sum() != global_batch_size:
        # One sample at a time to whoever is furthest below what is due, or from whoever is furthest above.
        if shares.sum() < global_batch_size:
            shares[np.argmax(wanted - shares)] += 1
        else:
            shares[np.argmax(np.where(shares > least, shares - wanted, -np.inf))] -= 1
    return tuple(int(share) for share in shares)


def rows_by_type(store: StoreReader) -> dict[str, np.ndarray]:
    """Sort the cells of a store by type.

    Args:
        store: opened; its cell types count, or its labels if no cell has a type.

    Returns:
        By type, in alphabetical order, the int array of its rows, increasing. Cells without a type are a further
        group, named "", if there are any.

    Raises:
        InputError: if no cell has a type or a label.
    """
    # Read, not taken from the store's properties, which would keep the texts as long as the store is open.
    for field in ("cell_type", "label"):
        names, codes = np.unique(store.read(field, 0, len(store)), return_inverse=True)
        if np.any(names != ""):
            return {str(name): np.flatnonzero(codes == code) for code, name in enumerate(names)}
    raise InputError(
        f"{store.path}: no cell has a type or label, which balance 'type' needs of the source centre; "
        "choose balance 'none' or 'centre', or another source centre"
    )


class Order(Protocol):
    """An endless order of the rows of one store."""

    def windows(self, position: int = 0) -> Iterator[np.ndarray]:
        """Yield the rows from a position on, window by window."""


class RowOrder:
    """Every row once in each pass, the passes in different orders.

    Args:
        num_rows: rows of the store.
        seed: what decides the order, any number of integers of 0 or more.
        block_rows: neighbouring rows that stay together until they are shuffled in their window.
        window_rows: rows of a window, at most.
    """

    def __init__(
        self,
        num_rows: int,
        seed: Sequence[int],
        *,
        block_rows: int = BLOCK_ROWS,
        window_rows: int = WINDOW_ROWS,
    ):
        self.num_rows = num_rows
        self.seed = tuple(seed)
        self.block_rows = block_rows
        self.blocks_per_window = max(window_rows // block_rows, 1)

    def windows(self, position: int = 0) -> Iterator[np.ndarray]:
        """Yield the windows from a position on.

        Args:
            position: number of rows, over all passes, that were given out before.

        Yields:
            int array of the rows of a window, in the order in which they are given out. The first window lacks the
            rows before `position`.
        """
        epoch, skip = divmod(position, self.num_rows)
        while True:
            random = np.random.default_rng((*self.seed, epoch))
            starts = random.permutation(np.arange(0, self.num_rows, self.block_rows))
            for first in range(0, len(starts), self.blocks_per_window):
                window = starts[first : first + self.blocks_per_window]
                rows = (window[:, np.newaxis] + np.arange(self.block_rows)).reshape(-1)
                rows = rows[rows < self.num_rows]
                order = random.permutation(len(rows))
                if skip < len(rows):
                    yield rows[order[skip:]]
                skip = max(skip - len(rows), 0)
            epoch += 1


class TypeOrder:
    """Every type equally often, and within a type every row once in each pass over the type.

    As many neighbouring samples as there are types hold each type once, in random order.

    Args:
        groups: rows of each type, increasing.
        seed: as in `RowOrder`.
        block_rows: neighbouring rows of a type that are likely to be read together.
        window_rows: rows of a window, at most.
    """

    def __init__(
        self,
        groups: Sequence[np.ndarray],
        seed: Sequence[int],
        *,
        block_rows: int = BLOCK_ROWS,
        window_rows: int = WINDOW_ROWS,
    ):
        self.groups = list(groups)
        self.seed = tuple(seed)
        self.window_rows = window_rows
        # Whole blocks of every type are ordered together, and one block of each at least.
        self.rounds = max(window_rows // len(self.groups) // block_rows, 1) * block_rows
        self._orders = [
            RowOrder(len(rows), (*self.seed, number), block_rows=block_rows, window_rows=self.rounds)
            for number, rows in enumerate(self.groups)
        ]

    def windows(self, position: int = 0) -> Iterator[np.ndarray]:
        """Yield the windows from a position on, as `RowOrder.windows` does; a row can come twice in one."""
        number, skip = divmod(position, self.rounds * len(self.groups))
        streams = [_in_pieces(order, number * self.rounds, self.rounds) for order in self._orders]
        while True:
            # Every row of `rows` is a round with each type once; shuffling its columns keeps it one.
            rows = np.stack([group[next(s)] for group, s in zip(self.groups, streams, strict=True)], axis=1)
            random = np.random.default_rng((*self.seed, len(self.groups), number))
            rows = random.permuted(rows, axis=1).reshape(-1)[skip:]
            # More than one window only where there are very many types, which must not cost memory.
            for start in range(0, len(rows), self.window_rows):
                yield rows[start : start + self.window_rows]
            number, skip = number + 1, 0


def _in_pieces(order: Order, position: int, size: int) -> Iterator[np.ndarray]:
    """Yield an order from a position on in pieces of one size."""
    waiting = np.zeros(0, np.int64)
    windows = order.windows(position)
    while True:
        parts, missing = [], size
        while missing:
            if not len(waiting):
                waiting = next(windows)
            parts.append(waiting[:missing])
            waiting = waiting[missing:]
            missing -= len(parts[-1])
        yield np.concatenate(parts)
