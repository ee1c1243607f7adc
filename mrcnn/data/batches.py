"""Batches of fixed shape from a Dataset, in an order that a seed fixes."""

import logging
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import (
    AnyAugmentation,
    Augmentation,
    StrongAugmentation,
    WideAugmentation,
    thesis_augmentation,
)
from mrcnn.data.dataset import Dataset
from mrcnn.data.ground_truth import largest_instances, load_ground_truth
from mrcnn.data.masks import minimize_mask
from mrcnn.data.molding import META_FIELDS
from mrcnn.files.errors import InputError, one_line

log = logging.getLogger(__name__)

Example = dict[str, np.ndarray]

SEEDS_OF_SAMPLE = 8
BATCHES_AHEAD = 3
# Images that cannot be loaded, as in Matterport's.
MOST_PASSED_OVER = 5
# Set the seeds of an image's substitutes and of those laid beside it apart from that of its augmentation.
SUBSTITUTES, MOSAIC = 2, 3


def make_augmentation(config: Config) -> Augmentation | None:
    """The augmentation that `config` names, or None."""
    if config.AUGMENTATION == "none":
        return None
    if config.AUGMENTATION == "thesis":
        return thesis_augmentation(config.AUGMENTATION_SHARE)
    # The other modes have no padding, or want images of a certain size.
    least_ratio = config.AUGMENTATION_LEAST_RATIO if config.IMAGE_RESIZE_MODE == "square" else 1.0
    kind = WideAugmentation if config.AUGMENTATION == "wide" else StrongAugmentation
    return kind(config.AUGMENTATION_SHARE, config.AUGMENTATION_ZOOM, least_ratio)


def load_example(
    dataset: Dataset,
    image_id: int,
    config: Config,
    augmentation: AnyAugmentation | None,
    seed: Sequence[int],
    beside: Sequence[tuple[Dataset, int]] = (),
) -> Example:
    """Load one training sample; `seed`, two whole numbers, is for augmentation, crop, and sampling of anchors and RoIs.

    Three images `beside` it make a mosaic, see `load_ground_truth`.

    Returns:
        "images" float32 (H, W, channels); "gt_class_ids" int32 (max_gt,), below 0 for crowds; "gt_boxes" float32
        (max_gt, 4) in pixels; "gt_masks" bool (max_gt, h, w, parts); "active_class_ids" int32 (classes,); "seeds" int32
        (2,). Unused rows are zero. More cells than MAX_GT_INSTANCES lose their smallest.
    """
    truth = load_ground_truth(dataset, image_id, config, augmentation, seed, beside)
    rows = config.MAX_GT_INSTANCES
    kept = largest_instances(truth.boxes, rows)
    boxes, masks, class_ids = truth.boxes[kept], truth.parts[:, :, kept], truth.class_ids[kept]
    if config.USE_MINI_MASK:
        parts = [minimize_mask(boxes, part, config.MINI_MASK_SHAPE) for part in np.moveaxis(masks, -1, 0)]
        masks = np.stack(parts, axis=-1)
    unused = (0, rows - len(kept))
    return {
        "images": truth.image.astype(np.float32),
        "gt_class_ids": np.pad(class_ids, unused),
        "gt_boxes": np.pad(boxes.astype(np.float32), (unused, (0, 0))),
        "gt_masks": np.pad(masks.transpose(2, 0, 1, 3), (unused, (0, 0), (0, 0), (0, 0))),
        "active_class_ids": truth.meta[META_FIELDS:].astype(np.int32),
        "seeds": np.array(seed, np.int32),
    }


class TrainingImages(keras.utils.PyDataset):
    """Batches of `load_example`, each a function of the seed and its number alone.

    A value has a leading axis of `global_batch_size`. Where IMAGE_RESIZE_MODE lets sizes differ, images are padded at
    the bottom and right to the largest of the batch. In the place of an image that cannot be loaded, or has no instance
    to learn from, stands another. The former is told once, and the sixth such image ends the training.

    Args:
        datasets: one or more; their images are mixed.
        config: sizes and seed.
        global_batch_size: samples in a batch over all devices.
        augmentation: or None.
        shuffle: False goes through the images in order.
        num_batches: None for batches without end.
        no_augmentation_sources: sources whose images are not augmented.

    Raises:
        InputError: if `config` has USE_RPN_ROIS False.
    """

    num_batches: int | None = None

    def __init__(
        self,
        datasets: Sequence[Dataset],
        config: Config,
        global_batch_size: int,
        augmentation: AnyAugmentation | None = None,
        *,
        shuffle: bool = True,
        num_batches: int | None = None,
        no_augmentation_sources: Collection[str] = (),
    ):
        super().__init__(workers=1, max_queue_size=BATCHES_AHEAD)
        if not config.USE_RPN_ROIS:
            raise InputError("USE_RPN_ROIS False (training on random boxes) is gone; leave it True")
        self.samples = [(dataset, image_id) for dataset in datasets for image_id in dataset.image_ids]
        self.config, self.global_batch_size, self.augmentation = config, global_batch_size, augmentation
        self.shuffle, self.num_batches, self.no_augmentation_sources = shuffle, num_batches, no_augmentation_sources
        self._order = lru_cache(2)(lambda epoch: self._permutation(config.SEED, epoch))
        self._passed_over: set[int] = set()

    def __getitem__(self, number: int) -> Example:
        """Batch `number`, counted from 0.

        Raises:
            InputError: if no image has an instance, or six images cannot be loaded; it names the sixth.
        """
        first = number * self.global_batch_size
        examples = [self._example(serial) for serial in range(first, first + self.global_batch_size)]
        return {name: _stack([example[name] for example in examples]) for name in examples[0]}

    def _permutation(self, *seed: int) -> np.ndarray:
        return np.random.default_rng(seed).permutation(len(self.samples))

    def _example(self, serial: int) -> Example:
        """A sample, or in its place another, which the number alone decides."""
        # Sampling adds small numbers to the second seed: neighbours are kept apart.
        seed = (self.config.SEED % 2**31, serial * SEEDS_OF_SAMPLE % 2**31)
        epoch, place = divmod(serial, len(self.samples))
        for index in self._candidates(int(self._order(epoch)[place]) if self.shuffle else place, seed):
            example = self._load(index, seed)
            if example is not None and (self.config.TRAIN_ON_EMPTY_IMAGES or np.any(example["gt_class_ids"] > 0)):
                return example
        raise InputError("no image has an instance to learn from; check what load_mask returns")

    def _candidates(self, index: int, seed: tuple[int, int]) -> Iterator[int]:
        yield index
        yield from self._permutation(*seed, SUBSTITUTES).tolist()

    def _beside(self, seed: tuple[int, int]) -> list[tuple[Dataset, int]]:
        """The images that a sample is laid together with, none for most."""
        rng = np.random.default_rng((*seed, MOSAIC))
        is_mosaic = rng.random() < self.config.AUGMENTATION_MOSAIC_SHARE and self.config.IMAGE_RESIZE_MODE == "square"
        return [self.samples[i] for i in rng.integers(len(self.samples), size=3)] if is_mosaic else []

    def _load(self, index: int, seed: tuple[int, int]) -> Example | None:
        dataset, image_id = self.samples[index]
        info = dataset.image_info[image_id]
        augmentation = None if info["source"] in self.no_augmentation_sources else self.augmentation
        try:
            beside = [] if augmentation is None else self._beside(seed)
            return load_example(dataset, image_id, self.config, augmentation, seed, beside)
        except Exception as error:  # whatever a Dataset of others does
            if index not in self._passed_over:
                self._passed_over.add(index)
                message = f"image {info.get('path') or info['id']}: {one_line(error)}"
                if len(self._passed_over) > min(MOST_PASSED_OVER, len(self.samples) - 1):
                    raise InputError(f"{message}; correct its annotation, or leave it out") from error
                log.warning("%s; passed over (%d of at most %d)", message, len(self._passed_over), MOST_PASSED_OVER)
            return None


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays, with zeros after the end of those that are smaller than the largest."""
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    return np.stack([np.pad(array, [(0, more) for more in shape - array.shape]) for array in arrays])
