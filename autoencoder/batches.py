"""Batches from feature stores: read, scaled and resized ahead of the training.

A batch is a function of its number alone, so that a resumed training gets the batches that would have come next. Cells
are read in blocks of neighbours and shuffled within windows, so that memory stays constant whatever a store's size.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from threading import Lock

import keras
import numpy as np
import tensorflow as tf

from autoencoder.config import AutoencoderConfig
from autoencoder.scaling import FeatureScaling
from mrcnn.feature_store import ARRAY_FIELDS, FeatureStore, StorePath, open_store
from mrcnn.feature_store.reader import check_finite
from mrcnn.files.errors import InputError

BLOCK_ROWS = 8  # rows read at one go: 1.2 MB
WINDOW_ROWS = 256  # rows shuffled together, per centre: 38 MB
ALL_WINDOWS_ROWS = 4 * WINDOW_ROWS  # rows of all centres together in memory, about: 150 MB
ROW_BYTES = 2 * 14 * 14 * 256 + 128 * 128 * 3  # features and one image of a cell
# Read ahead, as stored: it hides that a window of rows is read at one go, every few steps.
READ_AHEAD_BYTES = 64 * 2**20
STORED_IMAGE_SIZE = 128
STANDARD_MEAN, STANDARD_DEVIATION = 0.6, 0.2
LEAST_DEVIATION = 0.01  # two to three grey levels
_LEAST_SHARE = 2  # fewer samples of a centre have no covariance

logger = logging.getLogger(__name__)


class CellBatches(keras.utils.PyDataset):
    """Training batches from feature stores, without end; best asked for in the order of their numbers.

    Args:
        config: gives batch size, balance, image source and size, and seed.
        stores: feature store by centre, or the shards of one, in the order of `scaling.centres`.
        scaling: applied to the features.
        source: number of the source centre, for balance "type".
        num_replicas: of all processes; each batch must be divisible by it.
        num_processes: that train together, with as many replicas each.
        process: which of them this is, counted from 0: it gets its own rows of each batch only.

    Raises:
        InputError: if the batch cannot be divided among centres or replicas.
    """

    num_batches = None

    def __init__(
        self,
        config: AutoencoderConfig,
        stores: Mapping[str, StorePath],
        scaling: FeatureScaling,
        *,
        source: int = 0,
        num_replicas: int = 1,
        num_processes: int = 1,
        process: int = 0,
    ):
        # Of 500 cells each, a batch has 75 MB as stored and 0.2 GB once prepared.
        batch_bytes = config.global_batch_size // num_processes * ROW_BYTES
        super().__init__(workers=1, max_queue_size=READ_AHEAD_BYTES // batch_bytes + 2)
        if config.global_batch_size % num_replicas:
            raise InputError(
                f"global_batch_size is {config.global_batch_size}, which {num_replicas} devices cannot share; "
                f"choose a multiple of {num_replicas}"
            )
        with ExitStack() as stack:
            counts = [len(stack.enter_context(open_store(path))) for path in stores.values()]
        shares = batch_shares(counts, config.global_batch_size, config.balance)
        logger.info("samples per batch: %s", dict(zip(stores, shares, strict=True)))
        self._read = partial(
            read_batches,
            stores,
            shares,
            image_source=config.image_source,
            type_source=source if config.balance == "type" else None,
            seed=config.seed,
            num_processes=num_processes,
            process=process,
        )
        self._next, self._stream, self._lock = 0, self._read(), Lock()

        @tf.function
        def prepare(features: tf.Tensor, images: tf.Tensor, centre_id: tf.Tensor) -> dict[str, tf.Tensor]:
            return {
                "features": scaling.apply_tensor(features, centre_id),
                "images": prepare_images(images, config.image_size, config.image_colours),
                "centre_id": centre_id,
            }

        self._prepare = prepare

    def __getitem__(self, number: int) -> dict[str, tf.Tensor]:
        """Batch `number`, counted from 0, or this process's rows of it.

        Returns:
            Dict of `features` float32 `(n, 14, 14, 256)`, scaled; `images` float32 `(n, image_size, image_size, 3)` in
            [0, 1]; `centre_id` int32 `(n,)`.

        Raises:
            InputError: as `read_batches`.
        """
        with self._lock:
            if number != self._next:
                self._stream.close()
                self._stream = self._read(start_step=number)
            batch, self._next = next(self._stream), number + 1
        with tf.device("CPU"):  # what waits takes no memory of a GPU
            return self._prepare(**{name: tf.constant(value) for name, value in batch.items()})

    def close(self) -> None:
        """Close the stores."""
        with self._lock:
            self._stream.close()


def prepare_images(images: tf.Tensor, image_size: int, colours: str = "stored") -> tf.Tensor:
    """Bring stored images, uint8 `(batch, 128, 128, 3)`, to the size and range of the image decoder, by area average.

    Colours "standardised" gives each channel of each image the mean 0.6 and the standard deviation 0.2, about those of
    a stained cell on its background, clipped to [0, 1]: the colour transfer of Reinhard et al. 2001 to one target, in
    RGB and not in their l-alpha-beta. "stored" leaves them.

    Returns:
        float32 tensor `(batch, image_size, image_size, 3)` in [0, 1].
    """
    images = tf.cast(images, tf.float32)
    factor = STORED_IMAGE_SIZE // image_size
    if factor > 1:
        images = tf.nn.avg_pool2d(images, factor, factor, "VALID")
    images = images / 255.0
    if colours == "standardised":
        mean, variance = tf.nn.moments(images, axes=(1, 2), keepdims=True)
        # A channel that is the same everywhere stays so, and is not made of its rounding errors.
        deviation = tf.maximum(tf.sqrt(variance), LEAST_DEVIATION)
        images = tf.clip_by_value(STANDARD_MEAN + STANDARD_DEVIATION * (images - mean) / deviation, 0.0, 1.0)
    return images


def batch_shares(counts: Sequence[int], global_batch_size: int, balance: str = "none") -> tuple[int, ...]:
    """Samples of each centre in every batch: at least two where that fits, else at least one.

    They sum to `global_batch_size`; balance "none" makes them proportional to the `counts` of cells, "centre" and
    "type" equal. An `InputError` says that there are fewer samples than centres.
    """
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
    return tuple(shares.tolist())


def rows_by_type(store: FeatureStore) -> dict[str, np.ndarray]:
    """Increasing rows of an opened store by type, or by label if no cell has a type; "" are those without one.

    Types are in alphabetical order. An `InputError` says that no cell has a type or a label.
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


def row_windows(
    num_rows: int, seed: Sequence[int], position: int = 0, *, window_rows: int = WINDOW_ROWS
) -> Iterator[np.ndarray]:
    """Yield an endless order of rows, window by window: every row once in each epoch, the epochs in different orders.

    Blocks of `BLOCK_ROWS` neighbours stay together until they are shuffled in their window.

    Args:
        num_rows: rows of the store.
        seed: what decides the order, any number of integers of 0 or more.
        position: number of rows, over all epochs, that were given out before; the first window lacks them.
        window_rows: rows of a window, at most.
    """
    epoch, skip = divmod(position, num_rows)
    blocks_per_window = max(window_rows // BLOCK_ROWS, 1)
    while True:
        random = np.random.default_rng((*seed, epoch))
        starts = random.permutation(np.arange(0, num_rows, BLOCK_ROWS))
        for first in range(0, len(starts), blocks_per_window):
            window = starts[first : first + blocks_per_window]
            rows = (window[:, np.newaxis] + np.arange(BLOCK_ROWS)).reshape(-1)
            rows = random.permutation(rows[rows < num_rows])
            if skip < len(rows):
                yield rows[skip:]
            skip = max(skip - len(rows), 0)
        epoch += 1


def type_windows(
    groups: Sequence[np.ndarray], seed: Sequence[int], position: int = 0, *, window_rows: int = WINDOW_ROWS
) -> Iterator[np.ndarray]:
    """Yield an endless order of rows, as `row_windows` does, with every type equally often.

    As many neighbouring samples as there are types hold each type once, in random order. Within a type every row comes
    once in each epoch over the type, so that a row can come twice in one window. `groups` are the increasing rows of
    each type; the rest is as in `row_windows`.
    """
    # Whole blocks of every type are ordered together, and one block of each at least.
    rounds = max(window_rows // len(groups) // BLOCK_ROWS, 1) * BLOCK_ROWS
    number, skip = divmod(position, rounds * len(groups))
    streams = [
        chain.from_iterable(row_windows(len(rows), (*seed, k), number * rounds, window_rows=rounds))
        for k, rows in enumerate(groups)
    ]
    while True:
        # Every row of `rows` is a round with each type once; shuffling its columns keeps it one.
        rows = np.stack([own[list(islice(s, rounds))] for own, s in zip(groups, streams, strict=True)], axis=1)
        random = np.random.default_rng((*seed, len(groups), number))
        rows = random.permuted(rows, axis=1).reshape(-1)[skip:]
        # More than one window only where there are very many types, which must not cost memory.
        for start in range(0, len(rows), window_rows):
            yield rows[start : start + window_rows]
        number, skip = number + 1, 0


def read_batches(
    stores: Mapping[str, StorePath],
    shares: Sequence[int],
    *,
    image_source: str = "crop",
    type_source: int | None = None,
    seed: int = 0,
    start_step: int = 0,
    num_processes: int = 1,
    process: int = 0,
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yield the batches of `CellBatches` as they are stored, without end.

    Args:
        stores: feature store by centre, or the shards of one; no store may be empty.
        shares: samples of each centre in a batch.
        image_source: "crop" or "image".
        type_source: number of the centre of which every cell type comes equally often; of the others, or with None,
            each cell comes once in each epoch, and no labels are looked at.
        seed: of the order.
        start_step: number of the first batch.
        num_processes, process: as in `CellBatches`.

    Yields:
        Dicts of `features` float16 (n, 14, 14, 256), `images` uint8 (n, 128, 128, 3) and `centre_id` int32 (n,).

    Raises:
        InputError: if a store cannot be read, has features that are not finite, or the source has no labels.
    """
    # Dealt out in turns, so that every process has rows of every centre.
    is_own = np.arange(sum(shares)) % num_processes == process
    centres = np.repeat(np.arange(len(shares), dtype=np.int32), shares)
    centre_id = centres[is_own]
    window_rows = max(min(WINDOW_ROWS, ALL_WINDOWS_ROWS // len(shares)), BLOCK_ROWS)
    with ExitStack() as stack:
        streams = []
        for k, path in enumerate(stores.values()):
            wanted = is_own[centres == k]
            if not wanted.any():
                continue
            store = stack.enter_context(open_store(path))
            start = start_step * len(wanted)
            if k == type_source:
                groups = rows_by_type(store)
                logger.info("types of the source that come equally often: %s", ", ".join(map(repr, groups)))
                windows = type_windows(list(groups.values()), (seed, k), start, window_rows=window_rows)
            else:
                windows = row_windows(len(store), (seed, k), start, window_rows=window_rows)
            streams.append((_read_cells(store, windows, image_source, start, wanted), np.count_nonzero(wanted)))
        while True:
            fields = (ARRAY_FIELDS[field] for field in ("features", image_source))
            features, images = (np.empty((len(centre_id), *shape), dtype) for dtype, shape in fields)
            cells = chain.from_iterable(islice(stream, share) for stream, share in streams)
            for position in range(len(centre_id)):
                features[position], images[position] = next(cells)
            yield {"features": features, "images": images, "centre_id": centre_id}


def _read_cells(
    store: FeatureStore, windows: Iterator[np.ndarray], image_source: str, position: int, wanted: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (features, image) of one cell after the other: of each share from `position` on, those that are wanted."""
    for rows in windows:
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
