"""Batches of fixed shape from a Dataset, in an order that a seed fixes."""

from collections.abc import Collection, Generator, Iterator, Sequence
from itertools import count, islice, repeat

import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import AnyAugmentation, Augmentation, StrongAugmentation, thesis_augmentation
from mrcnn.data.dataset import Dataset
from mrcnn.data.ground_truth import largest_instances, load_ground_truth
from mrcnn.data.masks import minimize_mask
from mrcnn.data.molding import META_FIELDS
from mrcnn.files.errors import InputError
from mrcnn.files.read_ahead import read_ahead

Example = dict[str, np.ndarray]

SEEDS_OF_SAMPLE = 8
BATCHES_AHEAD = 2
# Sets the seed of an image's substitutes apart from that of its augmentation.
SUBSTITUTES = 2


def make_augmentation(config: Config) -> Augmentation | None:
    """The augmentation that `config` names, or None."""
    if config.AUGMENTATION == "none":
        return None
    if config.AUGMENTATION == "thesis":
        return thesis_augmentation(config.AUGMENTATION_SHARE)
    # The other modes have no padding, or want images of a certain size.
    least_ratio = config.AUGMENTATION_LEAST_RATIO if config.IMAGE_RESIZE_MODE == "square" else 1.0
    return StrongAugmentation(config.AUGMENTATION_SHARE, config.AUGMENTATION_ZOOM, least_ratio)


def load_example(
    dataset: Dataset, image_id: int, config: Config, augmentation: AnyAugmentation | None, seed: Sequence[int]
) -> Example:
    """Load one training sample; `seed`, two whole numbers, is for augmentation, crop, and sampling of anchors and RoIs.

    Returns:
        "images" float32 (H, W, channels); "gt_class_ids" int32 (max_gt,), below 0 for crowds; "gt_boxes" float32
        (max_gt, 4) in pixels; "gt_masks" bool (max_gt, h, w); "active_class_ids" int32 (classes,); "seeds" int32 (2,).
        Unused rows are zero. More cells than MAX_GT_INSTANCES lose their smallest.
    """
    truth = load_ground_truth(dataset, image_id, config, augmentation, seed)
    rows = config.MAX_GT_INSTANCES
    kept = largest_instances(truth.boxes, rows)
    boxes, masks, class_ids = truth.boxes[kept], truth.masks[..., kept], truth.class_ids[kept]
    if config.USE_MINI_MASK:
        masks = minimize_mask(boxes, masks, config.MINI_MASK_SHAPE)
    unused = (0, rows - len(kept))
    return {
        "images": truth.image.astype(np.float32),
        "gt_class_ids": np.pad(class_ids, unused),
        "gt_boxes": np.pad(boxes.astype(np.float32), (unused, (0, 0))),
        "gt_masks": np.pad(masks.transpose(2, 0, 1), (unused, (0, 0), (0, 0))),
        "active_class_ids": truth.meta[META_FIELDS:].astype(np.int32),
        "seeds": np.array(seed, np.int32),
    }


def sample_order(num_samples: int, seed: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Endless (serial number, index) pairs from `start` on: a new permutation in every epoch, by the seed."""
    serial = start
    while True:
        order = np.random.default_rng((seed, serial // num_samples)).permutation(num_samples)
        for index in order[serial % num_samples :]:
            yield serial, int(index)
            serial += 1


def training_batches(
    datasets: Sequence[Dataset],
    config: Config,
    global_batch_size: int,
    augmentation: AnyAugmentation | None = None,
    start_step: int = 0,
    shuffle: bool = True,
    no_augmentation_sources: Collection[str] = (),
) -> Generator[Example, None, None]:
    """Endless batches of `load_example`, of which a thread reads the next ones.

    Args:
        datasets: one or more; their images are mixed.
        config: sizes and seed.
        global_batch_size: samples in a batch over all devices.
        augmentation: or None.
        start_step: number of the first batch; batches depend on the seed and their number alone.
        shuffle: False goes through the images in order.
        no_augmentation_sources: sources whose images are not augmented.

    Returns:
        Generator of the batches, to be closed after use; each value has a leading axis of `global_batch_size`. Where
        IMAGE_RESIZE_MODE lets sizes differ, images are padded at the bottom and right to the largest of the batch.

    Raises:
        InputError: if `config` has USE_RPN_ROIS False.
    """
    if not config.USE_RPN_ROIS:
        raise InputError("USE_RPN_ROIS False (training on random boxes) is gone; leave it True, see TRAIN_ON_GT_BOXES")
    samples = [(dataset, image_id) for dataset in datasets for image_id in dataset.image_ids]

    def load(index: int, seed: tuple[int, int]) -> Example:
        dataset, image_id = samples[index]
        plain = dataset.image_info[image_id]["source"] in no_augmentation_sources
        return load_example(dataset, image_id, config, None if plain else augmentation, seed)

    def load_or_substitute(index: int, seed: tuple[int, int]) -> Example:
        """The sample, or in place of one without instances another, which its number alone decides."""
        example = load(index, seed)
        if config.TRAIN_ON_EMPTY_IMAGES or np.any(example["gt_class_ids"] > 0):
            return example
        for other in np.random.default_rng((*seed, SUBSTITUTES)).permutation(len(samples)):
            example = load(int(other), seed)
            if np.any(example["gt_class_ids"] > 0):
                return example
        raise InputError("no image has an instance to learn from; check what load_mask returns")

    def examples() -> Iterator[Example]:
        size, start = len(samples), start_step * global_batch_size
        order = sample_order(size, config.SEED, start) if shuffle else ((i, i % size) for i in count(start))
        for serial, index in order:
            # Sampling adds small numbers to the second seed: neighbours are kept apart.
            seed = (config.SEED % 2**31, serial * SEEDS_OF_SAMPLE % 2**31)
            yield load_or_substitute(index, seed)

    stream = examples()

    def read(_: None) -> Example:
        batch = list(islice(stream, global_batch_size))
        return {name: _stack([example[name] for example in batch]) for name in batch[0]}

    return read_ahead(read, repeat(None), num_ahead=BATCHES_AHEAD + 1, num_threads=1)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays, with zeros after the end of those that are smaller than the largest."""
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    return np.stack([np.pad(array, [(0, more) for more in shape - array.shape]) for array in arrays])
