"""One image of a Dataset with its instances, resized for the network."""

from collections.abc import Sequence
from typing import NamedTuple

import imgaug.augmenters as iaa
import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import (
    AnyAugmentation,
    Augmentation,
    Augmented,
    apply_augmenter,
    augment_instances,
    lay_together,
)
from mrcnn.data.dataset import Dataset, image_name
from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.data.molding import check_sides, compose_image_meta, fit_channels
from mrcnn.data.resizing import resize_image, resize_mask
from mrcnn.files.errors import InputError


class GroundTruth(NamedTuple):
    """An image with its instances, in the order of its Dataset."""

    image: np.ndarray  # (height, width, channels), resized and padded; uint8, or float32 where the Dataset gives others
    parts: np.ndarray  # bool (height, width, num_instances, num_parts), in the order of MASK_PARTS
    boxes: np.ndarray  # int32 (num_instances, 4), pixels, each with area
    class_ids: np.ndarray  # int32 (num_instances,); below 0 for crowds
    meta: np.ndarray  # see `compose_image_meta`

    @property
    def masks(self) -> np.ndarray:
        """Masks of the whole instances, bool (height, width, num_instances)."""
        return self.parts[..., 0]


def load_ground_truth(
    dataset: Dataset,
    image_id: int,
    config: Config,
    augmentation: AnyAugmentation | None = None,
    seed: int | Sequence[int] | None = None,
    beside: Sequence[tuple[Dataset, int]] = (),
) -> GroundTruth:
    """Load an image and its masks, augment and resize both.

    An imgaug augmenter is applied after resizing and padding, as Matterport's does; what `data.augmentation` makes is
    applied before. `seed` is that of augmentation and random crop; None draws fresh entropy. With three images `beside`
    it, each augmented, the four are laid together as by `lay_together`.

    Raises:
        InputError: if image and masks do not fit together, a class id is none of NUM_CLASSES, or the image has not the
            size that IMAGE_RESIZE_MODE "none" wants.
    """
    rng = np.random.default_rng(seed)
    late = isinstance(augmentation, iaa.Augmenter)
    loaded = [_load(*place, config, None if late else augmentation, rng) for place in ((dataset, image_id), *beside)]
    image, masks, class_ids, original_shape = loaded[0]
    if beside:
        samples = [Augmented(image, masks, np.arange(masks.shape[-1])) for image, masks, _, _ in loaded]
        image, masks, sources = lay_together(samples, config.IMAGE_MAX_DIM, rng)
        class_ids = np.concatenate([class_ids for _, _, class_ids, _ in loaded])[sources]
    active = _active_class_ids(dataset, image_id, config.NUM_CLASSES)
    image = fit_channels(image, config.IMAGE_CHANNEL_COUNT)
    check_sides(image.shape, config.IMAGE_RESIZE_MODE)
    image, window, scale, padding, crop = resize_image(
        image, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, config.IMAGE_RESIZE_MODE, rng
    )
    masks = resize_mask(masks, scale, padding, crop)
    if late:
        resized_shape = image.shape
        image, masks = apply_augmenter(image, masks, augmentation, rng)
        if image.shape != resized_shape:
            raise InputError("the augmentation changed the size of an image; give its augmenters keep_size=True")
    boxes = extract_bboxes(masks)
    seen = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    meta = compose_image_meta(image_id, original_shape, image.shape, window, scale, active)
    bits = 1 << np.arange(len(config.MASK_PARTS), dtype=np.uint8)
    parts = (masks[..., seen, np.newaxis] & bits) > 0
    return GroundTruth(image, parts, boxes[seen], class_ids[seen], meta)


def _load(
    dataset: Dataset, image_id: int, config: Config, augmentation: Augmentation | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """An image, its masks as of `_with_parts` and class ids, augmented, and the shape that the image had."""
    image = np.asarray(dataset.load_image(image_id))
    masks, class_ids = dataset.load_mask(image_id)
    masks, class_ids = np.asarray(masks), np.asarray(class_ids).astype(np.int32).reshape(-1)
    original_shape = fit_channels(image, config.IMAGE_CHANNEL_COUNT).shape
    if masks.size == 0 and len(class_ids) == 0:
        masks = np.zeros((*original_shape[:2], 0), bool)  # Matterport's base class gives an array of shape (0, 0, 0)
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
    masks = _with_parts(masks, dataset, image_id, config.MASK_PARTS)
    if augmentation is not None:
        image, masks, sources = augment_instances(fit_channels(image, 3), masks, augmentation, rng)
        class_ids = class_ids[sources]
    return image, masks, class_ids, original_shape


def _with_parts(masks: np.ndarray, dataset: Dataset, image_id: int, names: Sequence[str]) -> np.ndarray:
    """Masks of the instances as uint8, the first bit for the whole instance, the next ones for its parts."""
    coded = (masks != 0).astype(np.uint8)
    known = dataset.load_parts(image_id) if len(names) > 1 else {}
    for bit, name in enumerate(names[1:], 1):
        part = np.asarray(known.get(name, False))
        if name in known and part.shape != masks.shape:
            raise InputError(
                f"{image_name(dataset, image_id)}: load_parts of {type(dataset).__name__} gives {name!r} of shape "
                f"{part.shape}, but load_mask masks of shape {masks.shape}"
            )
        coded |= ((part != 0) & (masks != 0)).astype(np.uint8) << bit
    return coded


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
