"""From a Dataset to batches of fixed shape, in an order that a seed fixes."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.data.augmentation import Augmentation, augment_instances, strong_augmentation, thesis_augmentation
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.data.resizing import resize_image, resize_mask
from mrcnn.utils import norm_boxes

Example = dict[str, np.ndarray]


def make_augmentation(config: Config) -> Augmentation | None:
    """The augmentation that `config` names, or None."""
    if config.AUGMENTATION == "none":
        return None
    if config.AUGMENTATION == "thesis":
        return thesis_augmentation(config.AUGMENTATION_SHARE)
    return strong_augmentation(config.AUGMENTATION_SHARE, config.AUGMENTATION_ZOOM)


def mold_inputs(images: Sequence[np.ndarray], config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resize and pad images for detection.

    Args:
        images: uint8 arrays of shape (height, width, 3), of any sizes.
        config: gives the input size.

    Returns:
        uint8 images (batch, H, W, 3); windows (batch, 4), pixels of the input that show the image; float scales
        (batch,).
    """
    molded, windows, scales = [], [], []
    for image in images:
        resized, window, scale, _, _ = resize_image(
            image,
            config.IMAGE_MIN_DIM,
            config.IMAGE_MAX_DIM,
            config.IMAGE_MIN_SCALE,
            config.IMAGE_RESIZE_MODE,
        )
        molded.append(resized)
        windows.append(window)
        scales.append(scale)
    return np.stack(molded), np.asarray(windows, np.float32), np.asarray(scales, np.float32)


def load_example(
    dataset: Dataset, image_id: int, config: Config, augmentation: Augmentation | None, seed: Sequence[int]
) -> Example:
    """Load one training sample.

    Args:
        dataset: where from.
        image_id: which image.
        config: sizes.
        augmentation: applied before resizing, or None.
        seed: of the augmentation.

    Returns:
        "images" uint8 (H, W, 3); "gt_class_ids" int32 (max_gt,); "gt_boxes" float32 (max_gt, 4) normalised;
        "gt_masks" bool (max_gt, h, w). Unused rows are zero. More cells than MAX_GT_INSTANCES lose their smallest.
    """
    image = dataset.load_image(image_id)
    masks, class_ids = dataset.load_mask(image_id)
    if augmentation is not None:
        sample = augment_instances(image, masks, augmentation, seed)
        image, masks, class_ids = sample.image, sample.masks, class_ids[sample.sources]
    image, _, scale, padding, crop = resize_image(
        image, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, config.IMAGE_RESIZE_MODE
    )
    masks = resize_mask(masks, scale, padding, crop)
    boxes = extract_bboxes(masks)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    keep = np.argsort(-area, kind="stable")[: config.MAX_GT_INSTANCES]
    keep = keep[area[keep] > 0]
    boxes, masks, class_ids = boxes[keep], masks[..., keep], class_ids[keep]
    if config.USE_MINI_MASK:
        masks = minimize_mask(boxes, masks, config.MINI_MASK_SHAPE)
    rows, count = config.MAX_GT_INSTANCES, len(boxes)
    example = {
        "images": image,
        "gt_class_ids": np.zeros(rows, np.int32),
        "gt_boxes": np.zeros((rows, 4), np.float32),
        "gt_masks": np.zeros((rows, *masks.shape[:2]), bool),
    }
    example["gt_class_ids"][:count] = class_ids
    example["gt_boxes"][:count] = norm_boxes(boxes, image.shape)
    example["gt_masks"][:count] = masks.transpose(2, 0, 1)
    return example


def sample_order(num_samples: int, seed: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Endless (serial number, index) pairs: a new permutation on every pass, the same for the same seed.

    Starting at `start` gives what would have come there, so that a resumed run sees the same samples.
    """
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
    augmentation: Augmentation | None = None,
    start_step: int = 0,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """Endless batches of `load_example`.

    Args:
        datasets: one or more; their images are mixed.
        config: sizes and seed.
        global_batch_size: samples in a batch over all devices.
        augmentation: or None.
        start_step: number of the first batch; batches depend on the seed and their number alone.
        shuffle: False goes through the images in order.

    Returns:
        A tf.data.Dataset of dictionaries, each value with a leading axis of `global_batch_size`.
    """
    samples = [(dataset, image_id) for dataset in datasets for image_id in dataset.image_ids]
    start = start_step * global_batch_size

    def examples() -> Iterator[Example]:
        count = len(samples)
        order = sample_order(count, config.SEED, start) if shuffle else ((i, i % count) for i in _count(start))
        for serial, index in order:
            dataset, image_id = samples[index]
            yield load_example(dataset, image_id, config, augmentation, (config.SEED, serial))

    signature = _signature(config)
    batches = tf.data.Dataset.from_generator(examples, output_signature=signature)
    return batches.batch(global_batch_size, drop_remainder=True).prefetch(2)


def _count(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


def _signature(config: Config) -> dict[str, tf.TensorSpec]:
    rows = config.MAX_GT_INSTANCES
    image_shape = tuple(int(v) for v in config.IMAGE_SHAPE)
    mask_shape = tuple(config.MINI_MASK_SHAPE) if config.USE_MINI_MASK else image_shape[:2]
    return {
        "images": tf.TensorSpec(image_shape, tf.uint8),
        "gt_class_ids": tf.TensorSpec((rows,), tf.int32),
        "gt_boxes": tf.TensorSpec((rows, 4), tf.float32),
        "gt_masks": tf.TensorSpec((rows, *mask_shape), tf.bool),
    }
