"""Batches from feature stores: shuffled, stratified by centre, in memory that does not grow with the stores.

Each centre is an endless stream of its own. A pass over a centre puts blocks of neighbouring rows in random
order, so that the disk sees long reads, and then shuffles the rows of each window of blocks. Which rows make
the batch of a step follows from (seed, step) alone: a resumed run starts a stream in the middle without
reading what came before. A batch has a fixed number of rows per centre, and a centre that runs out starts its
next pass.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from autoencoder.config import AutoencoderConfig
from autoencoder.network import FEATURE_SHAPE
from autoencoder.scaling import FeatureScaling
from mrcnn.errors import InputError
from mrcnn.feature_store import StorePath, StoreReader, open_store

logger = logging.getLogger(__name__)

STORED_IMAGE_SIZE = 128
BLOCK_ROWS = 8  # rows read at one go: 1.2 MB
WINDOW_ROWS = 256  # rows shuffled together, per centre: 38 MB
_LEAST_SHARE = 2  # fewer samples of a centre have no covariance


def batch_shares(counts: Sequence[int], global_batch_size: int, balance: str = "none") -> tuple[int, ...]:
    """Divide a batch among the centres.

    Args:
        counts: number of cells of each centre.
        global_batch_size: samples in a batch.
        balance: "none" for shares in proportion to `counts`, "centre" for equal ones.

    Returns:
        Samples of each centre in every batch, summing to `global_batch_size`: at least two where that fits,
        else at least one.

    Raises:
        InputError: if there are fewer samples than centres.
        ValueError: if a centre has no cells, or `balance` is unknown.
    """
    if balance not in ("none", "centre"):
        raise ValueError(f"balance must be 'none' or 'centre', got {balance!r}")
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


class RowOrder:
    """The endless, shuffled order of the rows of one store, in windows that are read together.

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

    def windows(self, position: int = 0) -> Iterator[tuple[list[tuple[int, int]], np.ndarray]]:
        """Yield the windows from a position on.

        Args:
            position: number of rows, over all passes, that were given out before.

        Yields:
            The (start, stop) of each block of a window, and int array of the order in which the rows of the
            blocks, one block after the other, are given out. The first window lacks the rows before
            `position`.
        """
        epoch, skip = divmod(position, self.num_rows)
        while True:
            random = np.random.default_rng((*self.seed, epoch))
            starts = random.permutation(np.arange(0, self.num_rows, self.block_rows))
            for first in range(0, len(starts), self.blocks_per_window):
                window = starts[first : first + self.blocks_per_window]
                blocks = [(int(s), min(int(s) + self.block_rows, self.num_rows)) for s in window]
                order = random.permutation(sum(stop - start for start, stop in blocks))
                if skip >= len(order):
                    skip -= len(order)
                    continue
                yield blocks, order[skip:]
                skip = 0
            epoch += 1


def read_batches(
    stores: Mapping[str, StorePath],
    shares: Sequence[int],
    *,
    image_source: str = "crop",
    seed: int = 0,
    start_step: int = 0,
    num_parts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches from a step on, without end.

    Args:
        stores: feature store by centre, or the shards of one; no store may be empty.
        shares: samples of each centre in a batch.
        image_source: "crop" or "image".
        seed: of the order.
        start_step: the step, counted from 0, to begin with.
        num_parts: number of equal parts, one per replica, in which each batch is given out.

    Yields:
        Dicts of `features` float16 (n, 14, 14, 256), `images` uint8 (n, 128, 128, 3) and `centre_id` int32
        (n,), n being the batch size divided by `num_parts`.

    Raises:
        InputError: if a store cannot be read.
        ValueError: if the batch cannot be divided by `num_parts`.
    """
    batch_size = sum(shares)
    if batch_size % num_parts:
        raise ValueError(f"a batch of {batch_size} cannot be divided by {num_parts}")
    opened = [open_store(path) for path in stores.values()]
    try:
        streams = [
            _centre_rows(store, image_source, (seed, k), start_step * share, share)
            for k, (store, share) in enumerate(zip(opened, shares, strict=True))
        ]
        centre_id = np.repeat(np.arange(len(shares), dtype=np.int32), shares)
        while True:
            chunks = [next(stream) for stream in streams]
            batch = {
                "features": np.concatenate([features for features, _ in chunks]),
                "images": np.concatenate([images for _, images in chunks]),
                "centre_id": centre_id,
            }
            # Dealt out in turns, so that every replica has rows of every centre.
            for part in range(num_parts):
                yield {name: values[part::num_parts] for name, values in batch.items()}
    finally:
        for store in opened:
            store.close()


def _centre_rows(
    store: StoreReader, image_source: str, seed: tuple[int, ...], position: int, share: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `share` rows of one store at a time, as (features, images), from a position of its order on."""
    windows = RowOrder(len(store), seed).windows(position)
    order = np.zeros(0, np.int64)
    data: tuple[np.ndarray, ...] = ()
    while True:
        pieces = []
        missing = share
        while missing:
            if not len(order):
                blocks, order = next(windows)
                data = ()  # frees the last window before the next is read
                data = tuple(
                    np.concatenate([store.read(field, start, stop) for start, stop in blocks])
                    for field in ("features", image_source)
                )
            rows, order = order[:missing], order[missing:]
            pieces.append(tuple(values[rows] for values in data))
            missing -= len(rows)
        yield tuple(np.concatenate(values) for values in zip(*pieces, strict=True))


def prepare_images(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Bring stored images to the size and range of the image decoder, by area average.

    Args:
        images: uint8 tensor `(batch, 128, 128, 3)`.
        image_size: side of the result in pixels, a divisor of 128.

    Returns:
        float32 tensor `(batch, image_size, image_size, 3)` in [0, 1].
    """
    images = tf.cast(images, tf.float32) / 255.0
    factor = STORED_IMAGE_SIZE // image_size
    return images if factor == 1 else tf.nn.avg_pool2d(images, factor, factor, "VALID")


def make_dataset(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    scaling: FeatureScaling,
    *,
    start_step: int = 0,
    num_replicas: int = 1,
) -> tf.data.Dataset:
    """Make the endless dataset of training batches.

    Args:
        config: gives batch size, balance, image source and size, and seed.
        stores: feature store by centre, or the shards of one, in the order of `scaling.centres`.
        scaling: applied to the features.
        start_step: the step, counted from 0, to begin with.
        num_replicas: each batch comes as this many elements, one per replica.

    Returns:
        Dataset of dicts of `features` float32 `(n, 14, 14, 256)`, scaled; `images` float32 `(n, image_size,
        image_size, 3)` in [0, 1]; `centre_id` int32 `(n,)`; with n = global_batch_size / num_replicas.

    Raises:
        InputError: if a store is empty or unreadable, or the batch cannot be divided among centres or
            replicas.
    """
    if config.global_batch_size % num_replicas:
        raise InputError(
            f"global_batch_size is {config.global_batch_size}, which {num_replicas} devices cannot share; "
            f"choose a multiple of {num_replicas}"
        )
    counts = count_cells(stores)
    shares = batch_shares(list(counts.values()), config.global_batch_size, config.balance)
    logger.info("samples per batch: %s", dict(zip(stores, shares, strict=True)))
    size = config.global_batch_size // num_replicas
    image_shape = (STORED_IMAGE_SIZE, STORED_IMAGE_SIZE, 3)
    signature = {
        "features": tf.TensorSpec((size, *FEATURE_SHAPE), tf.float16),
        "images": tf.TensorSpec((size, *image_shape), tf.uint8),
        "centre_id": tf.TensorSpec((size,), tf.int32),
    }

    def generate():
        return read_batches(
            stores,
            shares,
            image_source=config.image_source,
            seed=config.seed,
            start_step=start_step,
            num_parts=num_replicas,
        )

    def prepare(batch):
        return {
            "features": scaling.apply_tensor(batch["features"], batch["centre_id"]),
            "images": prepare_images(batch["images"], config.image_size),
            "centre_id": batch["centre_id"],
        }

    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    # One batch per replica ahead hides the reading; a batch of 1,500 is 0.6 GB, so more would not be free.
    return dataset.map(prepare).prefetch(num_replicas)


def count_cells(stores: Mapping[str, StorePath]) -> dict[str, int]:
    """Number of cells by centre.

    Raises:
        InputError: if a store cannot be read or has no cells.
    """
    counts = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            counts[centre] = len(store)
        if not counts[centre]:
            raise InputError(f"{store.path}: holds no cells; leave this centre out")
    return counts
