"""Batches from feature stores: read, scaled and resized ahead of the training.

`sampling` decides which cells come when and `reading` reads them. A batch is a function of its number alone, so that
a resumed training gets the batches that would have come next.

A Python thread reads ahead, and not tf.data: the end of a tf.data iterator waits for its threads, and the garbage
collector may bring that end about in one of these threads, or in a thread with HDF5's lock, which they need too.
"""

import logging
from collections.abc import Generator, Mapping
from itertools import repeat

import tensorflow as tf

from autoencoder.cell_counts import count_cells
from autoencoder.config import AutoencoderConfig
from autoencoder.reading import ROW_BYTES, read_batches
from autoencoder.sampling import batch_shares, rows_by_type
from autoencoder.scaling import FeatureScaling
from mrcnn.errors import InputError
from mrcnn.feature_store import StorePath, open_store
from mrcnn.overlap import read_ahead

logger = logging.getLogger(__name__)

STORED_IMAGE_SIZE = 128
STANDARD_MEAN, STANDARD_DEVIATION = 0.6, 0.2
LEAST_DEVIATION = 0.01  # two to three grey levels
# Read ahead, as stored: it hides that a window of rows is read at one go, every few steps.
READ_AHEAD_BYTES = 64 * 2**20


def prepare_images(images: tf.Tensor, image_size: int, colours: str = "stored") -> tf.Tensor:
    """Bring stored images to the size and range of the image decoder, by area average.

    Args:
        images: uint8 tensor `(batch, 128, 128, 3)`.
        image_size: side of the result in pixels, a divisor of 128.
        colours: "stored" leaves them; "standardised" gives each channel of each image the mean 0.6 and the deviation
            0.2, about those of a stained cell on its background, and clips what lies outside [0, 1]. It is the colour
            transfer of Reinhard et al. 2001 to one target, in RGB and not in their l-alpha-beta.

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


def make_batches(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    scaling: FeatureScaling,
    *,
    source: int = 0,
    start_step: int = 0,
    num_replicas: int = 1,
    num_pipelines: int = 1,
    pipeline: int = 0,
) -> Generator[dict[str, tf.Tensor], None, None]:
    """Make the endless training batches.

    Args:
        config: gives batch size, balance, image source and size, and seed.
        stores: feature store by centre, or the shards of one, in the order of `scaling.centres`.
        scaling: applied to the features.
        source: number of the source centre, for balance "type".
        start_step: the step, counted from 0, to begin with.
        num_replicas: each batch is cut into this many parts, one per replica of all processes.
        num_pipelines: processes that train together, with the same number of replicas each.
        pipeline: which of them this is, counted from 0: it gets the parts of its own replicas only.

    Returns:
        Generator of the parts, to be closed after use: dicts of `features` float32 `(n, 14, 14, 256)`, scaled; `images`
        float32 `(n, image_size, image_size, 3)` in [0, 1]; `centre_id` int32 `(n,)`; with n = global_batch_size /
        num_replicas. It raises InputError where a store is found damaged or has features that are not finite.

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
    parts = read_batches(
        stores,
        shares,
        image_source=config.image_source,
        balance=config.balance,
        source=source,
        seed=config.seed,
        start_step=start_step,
        num_parts=num_replicas,
        num_pipelines=num_pipelines,
        pipeline=pipeline,
    )

    @tf.function
    def prepare(features: tf.Tensor, images: tf.Tensor, centre_id: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "features": scaling.apply_tensor(features, centre_id),
            "images": prepare_images(images, config.image_size, config.image_colours),
            "centre_id": centre_id,
        }

    def read(_: None) -> dict[str, tf.Tensor]:
        part = next(parts)
        with tf.device("CPU"):  # what waits takes no memory of a GPU
            return prepare(*(tf.constant(part[name]) for name in ("features", "images", "centre_id")))

    # At least a part per replica; of 500 cells each, one has 75 MB as stored and 0.2 GB once prepared.
    part_bytes = config.global_batch_size // num_replicas * ROW_BYTES
    num_ahead = max(num_replicas // num_pipelines, READ_AHEAD_BYTES // part_bytes)
    return read_ahead(read, repeat(None), num_ahead=num_ahead + 1, num_threads=1)
