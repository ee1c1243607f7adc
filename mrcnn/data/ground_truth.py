"""One image of a Dataset with its instances, resized for the network."""

from collections.abc import Sequence
from typing import NamedTuple

import imgaug.augmenters as iaa
import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import AnyAugmentation, apply_augmenter, augment_instances
from mrcnn.data.dataset import Dataset, image_name
from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.data.molding import check_sides, compose_image_meta, fit_channels
from mrcnn.data.resizing import resize_image, resize_mask
from mrcnn.files.errors import InputError


class GroundTruth(NamedTuple):
    """An image with its instances, in the order of its Dataset."""

    image: np.ndarray  # (height, width, channels), resized and padded; uint8, or float32 where the Dataset gives others
    masks: np.ndarray  # bool (height, width, num_instances)
    boxes: np.ndarray  # int32 (num_instances, 4), pixels, each with area
    class_ids: np.ndarray  # int32 (num_instances,); below 0 for crowds
    meta: np.ndarray  # see `compose_image_meta`


def load_ground_truth(
    dataset: Dataset,
    image_id: int,
    config: Config,
    augmentation: AnyAugmentation | None = None,
    seed: int | Sequence[int] | None = None,
) -> GroundTruth:
    """Load an image and its masks, augment and resize both.

    An imgaug augmenter is applied after resizing and padding, as Matterport's does; what `data.augmentation` makes is
    applied before. `seed` is that of augmentation and random crop; None draws fresh entropy.

    Raises:
        InputError: if image and masks do not fit together, a class id is none of NUM_CLASSES, or the image has not the
            size that IMAGE_RESIZE_MODE "none" wants.
    """
    image = np.asarray(dataset.load_image(image_id))
    masks, class_ids = dataset.load_mask(image_id)
    masks, class_ids = np.asarray(masks), np.asarray(class_ids).astype(np.int32).reshape(-1)
    original_shape = fit_channels(image, config.IMAGE_CHANNEL_COUNT).shape
    if masks.size == 0 and len(class_ids) == 0:
        masks = np.zeros((*original_shape[:2], 0), bool)  # Matterport's base class gives an array of shape (0, 0, 0)
    active = _active_class_ids(dataset, image_id, config.NUM_CLASSES)
    where = f"{image_name(dataset, image_id)}: load_mask of {type(dataset).__name__} gives"
    if masks.shape != (*original_shape[:2], len(class_ids)):
        raise InputError(
            f"{where} masks of shape {masks.shape} and {len(class_ids)} class ids for an image of "
            f"{original_shape[0]}x{original_shape[1]} px (height x width)"
        )
    if class_ids.max(initial=0) >= config.NUM_CLASSES:
        raise InputError(
            f"{where} class id {class_ids.max()}, but NUM_CLASSES is {config.NUM_CLASSES}, the background included; "
            "number the classes from 1 or set NUM_CLASSES higher"
        )
    rng = np.random.default_rng(seed)
    late = isinstance(augmentation, iaa.Augmenter)
    if augmentation is not None and not late:
        sample = augment_instances(fit_channels(image, 3), masks, augmentation, rng)
        image, masks, class_ids = sample.image, sample.masks, class_ids[sample.sources]
    image = fit_channels(image, config.IMAGE_CHANNEL_COUNT)
    check_sides(image.shape, config.IMAGE_RESIZE_MODE)
    image, window, scale, padding, crop = resize_image(
        image, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, config.IMAGE_RESIZE_MODE, rng
    )
    masks = resize_mask(masks, scale, padding, crop).astype(bool, copy=False)
    if late:
        resized_shape = image.shape
        image, masks = apply_augmenter(image, masks, augmentation, rng)
        if image.shape != resized_shape:
            raise InputError("the augmentation changed the size of an image; give its augmenters keep_size=True")
    boxes = extract_bboxes(masks)
    seen = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    meta = compose_image_meta(image_id, original_shape, image.shape, window, scale, active)
    return GroundTruth(image, masks[..., seen], boxes[seen], class_ids[seen], meta)


def largest_instances(boxes: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the `limit` instances with the largest boxes `(num_instances, 4)`, in the order they have."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.sort(np.argsort(-area, kind="stable")[:limit])


def _active_class_ids(dataset: Dataset, image_id: int, num_classes: int) -> np.ndarray:
    """One flag for each class, int32 (num_classes,): whether the data set that the image comes from annotates it."""
    if dataset.num_classes > num_classes:
        raise InputError(
            f"NUM_CLASSES is {num_classes}, but {type(dataset).__name__} has {dataset.num_classes} classes with the "
            "background; set NUM_CLASSES to that"
        )
    active = np.zeros(num_classes, np.int32)
    source = dataset.image_info[image_id]["source"]
    # An image of a source without classes of its own may show any of them.
    active[dataset.source_class_ids.get(source, dataset.class_ids)] = 1
    return active


def load_image_gt(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augment: bool = False,
    augmentation: AnyAugmentation | None = None,
    use_mini_mask: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load an image with its ground truth (Matterport's name, arguments and results).

    `augment` flips every second image left to right; `augmentation` is the better way. With `use_mini_mask` masks are
    cropped to their boxes and resized to MINI_MASK_SHAPE. Gives image, meta, class_ids, boxes and masks.
    """
    if augment and augmentation is None:
        augmentation = iaa.Fliplr(0.5)
    truth = load_ground_truth(dataset, image_id, config, augmentation)
    masks = minimize_mask(truth.boxes, truth.masks, config.MINI_MASK_SHAPE) if use_mini_mask else truth.masks
    return truth.image, truth.meta, truth.class_ids, truth.boxes, masks
