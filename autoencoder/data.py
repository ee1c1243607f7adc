"""Batches from feature stores as a tf.data dataset: read ahead of the training, scaled and resized in the graph.

`sampling` decides which cells come when and `reading` reads them. An element of the dataset is a function of its
number alone, so that a resumed training gets the batches that would have come next.
"""

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from autoencoder.cell_counts import count_cells
from autoencoder.config import AutoencoderConfig
from autoencoder.reading import ROW_BYTES, read_batches
from autoencoder.sampling import batch_shares, rows_by_type
from autoencoder.scaling import FeatureScaling
from mrcnn.errors import InputError
from mrcnn.feature_store import ARRAY_FIELDS, StorePath, open_store

logger = logging.getLogger(__name__)

STORED_IMAGE_SIZE = 128
# Read ahead, before scaling: it hides that a window of rows is read at one go, every few steps.
READ_AHEAD_BYTES = 64 * 2**20


def prepare_images(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Bring stored images to the size and range of the image decoder, by area average.

    Args:
        images: uint8 tensor `(batch, 128, 128, 3)`.
        image_size: side of the result in pixels, a divisor of 128.

    Returns:
        float32 tensor `(batch, image_size, image_size, 3)` in [0, 1].
    """
    images = tf.cast(images, tf.float32)
    factor = STORED_IMAGE_SIZE // image_size
    if factor > 1:
        images = tf.nn.avg_pool2d(images, factor, factor, "VALID")
    return images / 255.0


def make_dataset(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    scaling: FeatureScaling,
    *,
    source: int = 0,
    start_step: int = 0,
    num_replicas: int = 1,
    num_pipelines: int = 1,
    pipeline: int = 0,
) -> tf.data.Dataset:
    """Make the endless dataset of training batches.

    Args:
        config: gives batch size, balance, image source and size, and seed.
        stores: feature store by centre, or the shards of one, in the order of `scaling.centres`.
        scaling: applied to the features.
        source: number of the source centre, for balance "type".
        start_step: the step, counted from 0, to begin with.
        num_replicas: each batch is cut into this many elements, one per replica of all processes.
        num_pipelines: processes that train together; each has a dataset of its own.
        pipeline: which of them this is, counted from 0: its dataset has the elements of its own replicas only.

    Returns:
        Dataset of dicts of `features` float32 `(n, 14, 14, 256)`, scaled; `images` float32 `(n, image_size,
        image_size, 3)` in [0, 1]; `centre_id` int32 `(n,)`; with n = global_batch_size / num_replicas.

    Raises:
        InputError: if a store is empty or unreadable, the batch cannot be divided among centres or replicas, or the
            source has no labels that the balance needs.
        ValueError: if the replicas cannot be divided among the pipelines.
    """
    if config.global_batch_size % num_replicas:
        raise InputError(
            f"global_batch_size is {config.global_batch_size}, which {num_replicas} devices cannot share; "
            f"choose a multiple of {num_replicas}"
        )
    if num_replicas % num_pipelines:
        raise ValueError(f"{num_replicas} replicas cannot be divided among {num_pipelines} pipelines")
    counts = count_cells(stores)
    shares = batch_shares(list(counts.values()), config.global_batch_size, config.balance)
    logger.info("samples per batch: %s", dict(zip(stores, shares, strict=True)))
    if config.balance == "type":
        with open_store(list(stores.values())[source]) as store:
            logger.info("types of the source that come equally often: %s", ", ".join(map(repr, rows_by_type(store))))
    own_replicas = num_replicas // num_pipelines
    size = config.global_batch_size // num_replicas

    def read_from(number: int) -> Iterator[dict[str, np.ndarray]]:
        steps, part = divmod(number, own_replicas)
        parts = read_batches(
            stores,
            shares,
            image_source=config.image_source,
            balance=config.balance,
            source=source,
            seed=config.seed,
            start_step=start_step + steps,
            num_parts=num_replicas,
            num_pipelines=num_pipelines,
            pipeline=pipeline,
        )
        for _ in range(part):
            next(parts)
        return parts

    reader = _NumberedReader(read_from)
    shapes = {name: (size, *ARRAY_FIELDS[field][1]) for name, field in _FIELDS.items()} | {"centre_id": (size,)}

    def read(number: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.numpy_function(reader, [number], list(_DTYPES.values()))
        return {name: tf.ensure_shape(value, shapes[name]) for name, value in zip(_DTYPES, values, strict=True)}

    def prepare(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            "features": scaling.apply_tensor(batch["features"], batch["centre_id"]),
            "images": prepare_images(batch["images"], config.image_size),
            "centre_id": batch["centre_id"],
        }

    # At least a batch per replica; of 500 cells each, one has 75 MB, and 0.2 GB once prepared.
    ahead = max(own_replicas, READ_AHEAD_BYTES // (size * ROW_BYTES))
    return tf.data.Dataset.counter().map(read).prefetch(ahead).map(prepare).prefetch(own_replicas)


_FIELDS = {"features": "features", "images": "image"}
_DTYPES = {"features": tf.float16, "images": tf.uint8, "centre_id": tf.int32}


class _NumberedReader:
    """Elements by number: the next one is read on from the last, any other one makes a new beginning.

    Unlike `Dataset.from_generator` it leaves nothing to be finished in Python when an iterator goes. That would be
    waited for without end where an iterator lives until the interpreter exits, as it does in the traceback of an
    error that nobody catches.

    Args:
        read_from: gives the elements from a number on.
    """

    def __init__(self, read_from: Callable[[int], Iterator[dict[str, np.ndarray]]]):
        self._read_from = read_from
        self._elements: Iterator[dict[str, np.ndarray]] = iter(())
        self._next_number = -1
        self._lock = threading.Lock()
        self._num_calls = 0
        self._stopped = False
        _READERS.add(self)

    def __call__(self, number: np.ndarray) -> tuple[np.ndarray, ...]:
        """Read one element; called by the threads of tf.data."""
        self._num_calls += 1
        with self._lock:
            if self._stopped:
                raise RuntimeError("the program is ending")
            if number != self._next_number:
                self._elements = self._read_from(int(number))
            self._next_number = -1  # after a fault a new beginning is made
            element = next(self._elements)
            self._next_number = int(number) + 1
        return tuple(element[name] for name in _DTYPES)

    def stop(self) -> None:
        """Refuse further calls and wait until none is under way."""
        self._stopped = True
        num_calls = -1
        while num_calls != self._num_calls:
            num_calls = self._num_calls
            time.sleep(0.02)
            with self._lock:
                pass


_READERS: "weakref.WeakSet[_NumberedReader]" = weakref.WeakSet()


@atexit.register
def _stop_readers() -> None:
    """Let no thread of tf.data call Python once the interpreter has ended; it would never come back."""
    for reader in list(_READERS):
        reader.stop()
