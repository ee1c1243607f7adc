"""Matterport's batches of arrays, for notebooks that look at what a network would be trained on.

Training itself takes `mrcnn.data.batches.TrainingImages`.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import AnyAugmentation
from mrcnn.data.dataset import Dataset
from mrcnn.data.ground_truth import largest_instances, load_image_gt
from mrcnn.data.molding import mold_image
from mrcnn.files.errors import InputError
from mrcnn.network.anchors import pixel_anchors
from mrcnn.network.boxes import encode, pairwise_iou
from mrcnn.network.targets import CROWD_IOU_THRESHOLD, ROI_POSITIVE_IOU, assign_anchor_targets, crop_masks


def compute_backbone_shapes(config: Config, image_shape: Sequence[int]) -> np.ndarray:
    """Height and width of each level of the pyramid, int array of shape (num_levels, 2)."""
    return np.array([[math.ceil(side / stride) for side in image_shape[:2]] for stride in config.BACKBONE_STRIDES])


def build_rpn_targets(
    image_shape: Sequence[int], anchors: np.ndarray, gt_class_ids: np.ndarray, gt_boxes: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Match anchors (num_anchors, 4) to the ground truth of one image, in pixels; crowds have class ids below 0.

    Returns:
        rpn_match: int32 (num_anchors,): 1 object, -1 background, 0 not used.
        rpn_bbox: float64 (RPN_TRAIN_ANCHORS_PER_IMAGE, 4): deltas of the objects, in their order, then zeros.
    """
    boxes, class_ids = _at_least_one(gt_boxes, gt_class_ids)
    targets = assign_anchor_targets(
        np.asarray(anchors, np.float32), boxes[np.newaxis], class_ids[np.newaxis], _fresh_seeds(), config
    )
    match = targets.match[0].numpy()
    objects = targets.deltas[0].numpy()[match == 1].astype(np.float64)
    return match, np.pad(objects, [(0, config.RPN_TRAIN_ANCHORS_PER_IMAGE - len(objects)), (0, 0)])


def build_detection_targets(
    rpn_rois: np.ndarray, gt_class_ids: np.ndarray, gt_boxes: np.ndarray, gt_masks: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sample RoIs (num_rois, 4), in pixels, of one image and give them their targets, as Matterport's function does.

    At most `int(TRAIN_ROIS_PER_IMAGE * ROI_POSITIVE_RATIO)` are positives; negatives fill the rest, repeated where
    there are too few. Training itself keeps the ratio instead, and pads. Masks are bool (height, width,
    num_instances), mini-masks if `config.USE_MINI_MASK`; an image without instances gives negatives alone.

    Returns:
        rois: array of the type of `rpn_rois` (TRAIN_ROIS_PER_IMAGE, 4), pixels, positives first; zeros where there is
            no negative to fill up with.
        roi_gt_class_ids: int32 (TRAIN_ROIS_PER_IMAGE,).
        bboxes: float32 (TRAIN_ROIS_PER_IMAGE, NUM_CLASSES, 4): deltas, in the row of the class.
        masks: float32 (TRAIN_ROIS_PER_IMAGE, height, width, NUM_CLASSES) of 0 and 1, likewise.
    """
    boxes, class_ids = _at_least_one(gt_boxes, gt_class_ids)
    rois, rows = np.asarray(rpn_rois).reshape(-1, 4), config.TRAIN_ROIS_PER_IMAGE
    iou = pairwise_iou(rois.astype(np.float32), boxes).numpy()
    near_crowd = np.max(iou, axis=1, where=class_ids < 0, initial=0) >= CROWD_IOU_THRESHOLD
    iou[:, class_ids <= 0] = 0
    is_positive = iou.max(axis=1) >= ROI_POSITIVE_IOU
    is_negative = ~is_positive & ~near_crowd & (rois[:, 2:] > rois[:, :2]).all(axis=1)
    rng = np.random.default_rng()
    positive = rng.permutation(np.flatnonzero(is_positive))[: int(rows * config.ROI_POSITIVE_RATIO)]
    negative = rng.permutation(np.flatnonzero(is_negative))[: rows - len(positive)]
    again = rng.choice(negative, rows - len(positive) - len(negative)) if len(negative) else negative
    keep, matched = np.concatenate([positive, negative, again]), iou[positive].argmax(axis=1)
    kept = np.pad(rois[keep], [(0, rows - len(keep)), (0, 0)])
    roi_class_ids = np.pad(class_ids[matched], (0, rows - len(positive)))

    bboxes = np.zeros((rows, config.NUM_CLASSES, 4), np.float32)
    roi_masks = np.zeros((rows, *config.MASK_SHAPE, config.NUM_CLASSES), np.float32)
    if len(positive):
        found, places = rois[positive].astype(np.float32), (np.arange(len(positive)), class_ids[matched])
        bboxes[places] = encode(found, boxes[matched]) / config.BBOX_STD_DEV
        masks = np.pad(gt_masks, [(0, 0), (0, 0), (0, 1)]).transpose(2, 0, 1)
        frames = boxes if config.USE_MINI_MASK else np.float32([[0, 0, *masks.shape[1:]]] * len(boxes))
        crops = crop_masks(found[None], masks[None, ..., None], frames[None], matched[None], config.MASK_SHAPE[0])
        roi_masks[places[0], :, :, places[1]] = crops[0, ..., 0].numpy()
    return kept, roi_class_ids, bboxes, roi_masks


def data_generator(
    dataset: Dataset,
    config: Config,
    shuffle: bool = True,
    augment: bool = False,
    augmentation: AnyAugmentation | None = None,
    random_rois: int = 0,
    batch_size: int = 1,
    detection_targets: bool = False,
    no_augmentation_sources: Collection[str] | None = None,
) -> Iterator[tuple[list[np.ndarray], list[Any]]]:
    """Endless batches as Matterport's generator gives them; images without an instance are left out.

    Args:
        augment, augmentation: see `load_image_gt`.
        random_rois: so many boxes of `generate_random_rois` for each image.
        detection_targets: with `random_rois`, also give the targets of the heads.
        no_augmentation_sources: sources whose images are not augmented.

    Yields:
        inputs: [images (mean subtracted), image_meta, rpn_match (batch, anchors, 1), rpn_bbox, gt_class_ids, gt_boxes,
            gt_masks (batch, h, w, max_gt)], with `random_rois` also [rpn_rois], with `detection_targets` also [rois].
        outputs: [] or, with `detection_targets`, [class ids (batch, rois, 1), deltas, masks].

    Raises:
        InputError: if no image has an instance.
    """
    rng = np.random.default_rng()
    rows: list[dict[str, np.ndarray]] = []
    while True:
        any_taken = False
        for image_id in rng.permutation(dataset.image_ids) if shuffle else dataset.image_ids:
            plain = dataset.image_info[image_id]["source"] in (no_augmentation_sources or ())
            changes = (False, None) if plain else (augment, augmentation)
            truth = load_image_gt(dataset, config, int(image_id), *changes, config.USE_MINI_MASK)
            if not np.any(truth[2] > 0):
                continue  # nothing to learn the heads from
            any_taken = True
            rows.append(_sample_arrays(config, *truth, random_rois, detection_targets))
            if len(rows) == batch_size:
                batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
                targets = [batch.pop(name) for name in ("class_ids", "bboxes", "masks") if name in batch]
                yield list(batch.values()), targets
                rows = []
        if not any_taken:
            raise InputError("no image has an instance to learn from; check what load_mask returns")


def _sample_arrays(config, image, meta, class_ids, boxes, masks, random_rois, detection_targets):
    """One row of each array of `data_generator`, by name, in its order."""
    anchors = pixel_anchors(config, image.shape)
    match, deltas = build_rpn_targets(image.shape, anchors, class_ids, boxes, config)
    keep = largest_instances(boxes, config.MAX_GT_INSTANCES)
    unused = (0, config.MAX_GT_INSTANCES - len(keep))
    sample = {
        "images": mold_image(image, config),
        "image_meta": meta,
        "rpn_match": match[:, np.newaxis],
        "rpn_bbox": deltas,
        "gt_class_ids": np.pad(class_ids[keep], unused),
        "gt_boxes": np.pad(boxes[keep], [unused, (0, 0)]),
        "gt_masks": np.pad(masks[..., keep], [(0, 0), (0, 0), unused]),
    }
    if random_rois:
        sample["rpn_rois"] = generate_random_rois(image.shape, random_rois, class_ids, boxes)
        if detection_targets:
            targets = build_detection_targets(sample["rpn_rois"], class_ids, boxes, masks, config)
            sample |= zip(("rois", "class_ids", "bboxes", "masks"), targets, strict=True)
            sample["class_ids"] = sample["class_ids"][:, np.newaxis]
    return sample


def _at_least_one(boxes: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth with a row of padding, so that an image without cells is no special case."""
    boxes = np.pad(np.asarray(boxes, np.float32).reshape(-1, 4), [(0, 1), (0, 0)])
    return boxes, np.append(np.asarray(class_ids, np.int32), np.int32(0))


def _fresh_seeds() -> np.ndarray:
    return np.random.default_rng().integers(0, 2**31 - 8, (1, 2)).astype(np.int32)


def generate_random_rois(
    image_shape: Sequence[int],
    count: int,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Draw boxes with area, int32 (count, 4) in pixels, nine tenths around the ground truth, the others anywhere.

    Both corners of the former are drawn uniformly within one box size of their true place, cut at the image's border.
    Padding and crowds are left out.
    """
    rng = np.random.default_rng() if rng is None else rng
    height, width = int(image_shape[0]), int(image_shape[1])
    boxes = np.asarray(gt_boxes, np.float64).reshape(-1, 4)[np.asarray(gt_class_ids) > 0]
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    around = round(0.9 * count) if len(boxes) else 0
    cells = boxes[np.arange(around) % len(boxes)] if around else boxes[:0]
    near = cells + rng.uniform(-1.0, 1.0, cells.shape) * np.tile(cells[:, 2:] - cells[:, :2], 2)
    far = rng.uniform(0.0, 1.0, (count - around, 4)) * [height, width, height, width]
    corners = np.rint(np.concatenate([near, far])).reshape(-1, 2, 2)
    corners = np.sort(np.clip(corners, 0, [height, width]), axis=1).astype(np.int32)
    corners[:, 0] = np.minimum(corners[:, 0], [height - 1, width - 1])
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 1)
    return corners.reshape(-1, 4)
