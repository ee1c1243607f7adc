"""Targets of anchors and RoIs: matching to the ground truth, and sampling of what is matched.

All sampling is stateless and seeded image by image: the same seed gives the same sample, whichever other images are in
the batch and whichever device it lies on.

A ground-truth row with a negative class id is a crowd, a box around many instances (COCO's `iscrowd`): nothing is
matched to it, and what overlaps it is not taken for background.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops
from mrcnn.network.roi_align import sample_bins

# Share of a background RoI that may lie on instances for it to have none of their parts.
MAX_INSTANCE_SHARE = 0.02
# From this IoU with a crowd on, an anchor or RoI is not taken for background.
CROWD_IOU_THRESHOLD = 0.001
# Best IoU with the ground truth from which an anchor or RoI is an object; below the lower, an anchor is background.
ANCHOR_POSITIVE_IOU, ANCHOR_NEGATIVE_IOU, ROI_POSITIVE_IOU = 0.7, 0.3, 0.5


class AnchorTargets(NamedTuple):
    """Targets of the region proposal network."""

    match: tf.Tensor  # int32 (batch, anchors): 1 object, -1 background, 0 not used
    deltas: tf.Tensor  # float (batch, anchors, 4), in units of the standard deviation; zero where match is not 1


class ROITargets(NamedTuple):
    """Targets of the heads, positives first."""

    rois: tf.Tensor  # float (batch, num_rois, 4), normalised; rows of padding are zero
    class_ids: tf.Tensor  # int32 (batch, num_rois); 0 for negatives and padding
    valid: tf.Tensor  # bool (batch, num_rois); False for padding
    deltas: tf.Tensor  # float (batch, num_rois, 4), in units of the standard deviation; zero for negatives
    masks: tf.Tensor  # float (batch, num_masks, height, width, parts), 0 or 1: of the first RoIs
    has_part: tf.Tensor  # bool (batch, num_masks, parts): whether the part is known there


def subsample(candidates: tf.Tensor, num_samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Keep at most `num_samples`, scalar or `(batch, 1)`, True entries of each row `(batch, n)`, chosen at random.

    `seeds`, int `(batch, 2)`, holds a seed for each row.
    """
    length = tf.shape(candidates)[1:]
    order = tf.map_fn(
        lambda seed: tf.random.stateless_uniform(length, seed),
        seeds,
        fn_output_signature=tf.TensorSpec((candidates.shape[1],), tf.float32),
    )
    order = tf.where(candidates, order, 2.0)
    rank = tf.argsort(tf.argsort(order, axis=-1), axis=-1)
    return candidates & (rank < num_samples)


def _match(boxes: tf.Tensor, gt_boxes: tf.Tensor, gt_class_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """IoU `(batch, n, max_gt)` with real ground truth, which of its rows are real, and where no crowd is near."""
    iou = box_ops.pairwise_iou(boxes, gt_boxes)
    real = (gt_class_ids > 0)[:, tf.newaxis, :]
    crowd = (gt_class_ids < 0)[:, tf.newaxis, :]
    free = tf.reduce_max(tf.where(crowd, iou, 0.0), axis=2) < CROWD_IOU_THRESHOLD
    return tf.where(real, iou, 0.0), real, free


def assign_anchor_targets(
    anchors: tf.Tensor, gt_boxes: tf.Tensor, gt_class_ids: tf.Tensor, seeds: tf.Tensor, config: Config
) -> AnchorTargets:
    """Match anchors to ground truth and sample at most half positives.

    1. An anchor whose best IoU is below 0.3 is background, unless a crowd is there.
    2. The best anchors of each ground-truth box are objects, whatever their IoU.
    3. An anchor whose best IoU is at least 0.7 is an object.
    4. Of RPN_TRAIN_ANCHORS_PER_IMAGE at most half are objects; background fills the rest.

    Args:
        anchors: float `(anchors, 4)`, normalised.
        gt_boxes: float `(batch, max_gt, 4)`, normalised, padded with zero rows.
        gt_class_ids: int `(batch, max_gt)`, 0 for padding, below 0 for crowds.
        seeds: int `(batch, 2)`.
        config: numbers of the sample and units of the deltas.

    Reference:
        Ren et al. 2015, section 3.1.2.
    """
    iou, real, free = _match(anchors[tf.newaxis], gt_boxes, gt_class_ids)
    best_iou = tf.reduce_max(iou, axis=2)
    best_gt = tf.argmax(iou, axis=2, output_type=tf.int32)
    best_of_gt = tf.reduce_max(iou, axis=1, keepdims=True)
    is_best = tf.reduce_any(real & (best_of_gt > 0.0) & (iou >= best_of_gt), axis=2)
    positive = is_best | (best_iou >= ANCHOR_POSITIVE_IOU)
    negative = (best_iou < ANCHOR_NEGATIVE_IOU) & ~positive & free

    num_samples = config.RPN_TRAIN_ANCHORS_PER_IMAGE
    positive = subsample(positive, num_samples // 2, seeds)
    num_positive = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1, keepdims=True)
    negative = subsample(negative, num_samples - num_positive, seeds + 1)
    match = tf.cast(positive, tf.int32) - tf.cast(negative, tf.int32)

    matched = tf.gather(gt_boxes, best_gt, batch_dims=1)
    deltas = box_ops.encode(anchors[tf.newaxis], matched) / tf.constant(config.RPN_BBOX_STD_DEV, tf.float32)
    return AnchorTargets(match, tf.where(positive[..., tf.newaxis], deltas, 0.0))


def assign_roi_targets(
    proposals: tf.Tensor,
    gt_boxes: tf.Tensor,
    gt_class_ids: tf.Tensor,
    gt_masks: tf.Tensor,
    seeds: tf.Tensor,
    config: Config,
    image_shape: tf.Tensor,
) -> ROITargets:
    """Sample RoIs for the heads and give each its class, deltas and mask.

    Of TRAIN_ROIS_PER_IMAGE at most ROI_POSITIVE_RATIO are positives; negatives keep this ratio where there are fewer.
    Positives have a mask of each part that is known. Where there are parts, half as many background RoIs learn that
    they have none, so that the part of a detection tells whether it is one.

    Args:
        proposals: float `(batch, n, 4)`, normalised, padded with zero rows.
        gt_boxes: float `(batch, max_gt, 4)`, normalised, padded with zero rows.
        gt_class_ids: int `(batch, max_gt)`, 0 for padding, below 0 for crowds.
        gt_masks: float or bool `(batch, max_gt, mask_height, mask_width, parts)`; with USE_MINI_MASK each spans its own
            box, otherwise the whole image. A part without a pixel is unknown.
        seeds: int `(batch, 2)`.
        config: numbers of the sample, units of the deltas and size of the masks.
        image_shape: (height, width) of the network's input in pixels; numbers or an int tensor.

    Reference:
        He et al. 2017, section 3.1.
    """
    num_rois, positive_ratio = config.TRAIN_ROIS_PER_IMAGE, config.ROI_POSITIVE_RATIO
    # Fewer proposals than rows of the result are filled up with padding.
    proposals = tf.pad(proposals, [[0, 0], [0, max(num_rois - proposals.shape[1], 0)], [0, 0]])
    max_positives = max(int(round(num_rois * positive_ratio)), 1)
    real_roi = box_ops.areas(proposals) > 0.0
    iou, _, free = _match(proposals, gt_boxes, gt_class_ids)
    best_iou = tf.reduce_max(iou, axis=2)
    best_gt = tf.argmax(iou, axis=2, output_type=tf.int32)

    positive = subsample(real_roi & (best_iou >= ROI_POSITIVE_IOU), max_positives, seeds)
    num_positive = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1, keepdims=True)
    wanted = tf.cast(tf.math.ceil(tf.cast(num_positive, tf.float32) / positive_ratio), tf.int32) - num_positive
    # An image without a positive still teaches what background is.
    wanted = tf.where(num_positive > 0, wanted, num_rois)
    wanted = tf.minimum(wanted, num_rois - num_positive)
    negative = subsample(real_roi & free & (best_iou < ROI_POSITIVE_IOU), wanted, seeds + 1)

    priority = 2 * tf.cast(positive, tf.int32) + tf.cast(negative, tf.int32)
    rank, chosen = tf.math.top_k(priority, num_rois, sorted=True)
    valid, is_positive = rank > 0, rank == 2
    keep = valid[..., tf.newaxis]
    rois = tf.where(keep, tf.gather(proposals, chosen, batch_dims=1), 0.0)
    matched = tf.gather(best_gt, chosen, batch_dims=1)
    class_ids = tf.where(is_positive, tf.gather(tf.cast(gt_class_ids, tf.int32), matched, batch_dims=1), 0)
    matched_boxes = tf.gather(gt_boxes, matched, batch_dims=1)
    deltas = box_ops.encode(rois, matched_boxes) / tf.constant(config.BBOX_STD_DEV, tf.float32)
    deltas = tf.where(is_positive[..., tf.newaxis], deltas, 0.0)

    whole_image = tf.broadcast_to(tf.constant([0.0, 0.0, 1.0, 1.0]), tf.shape(gt_boxes))
    frames = gt_boxes if config.USE_MINI_MASK else whole_image
    num_parts = gt_masks.shape[-1]
    num_masks = min(max_positives + max_positives // 2, num_rois) if num_parts > 1 else max_positives
    masks = crop_masks(
        box_ops.pixel_boxes(rois[:, :num_masks], image_shape),
        gt_masks,
        box_ops.pixel_boxes(frames, image_shape),
        matched[:, :num_masks],
        config.MASK_SHAPE[0],
    )
    is_positive = is_positive[:, :num_masks, tf.newaxis]
    masks = tf.where(is_positive[..., tf.newaxis, tf.newaxis], masks, 0.0)
    has_part = tf.concat([is_positive, is_positive & tf.reduce_any(masks[..., 1:] > 0.0, axis=(2, 3))], axis=-1)
    if num_parts > 1:
        share = tf.gather(_share_on_instances(proposals, gt_boxes, iou), chosen[:, :num_masks], batch_dims=1)
        is_empty = (rank[:, :num_masks] == 1) & (share <= MAX_INSTANCE_SHARE)
        has_part |= is_empty[..., tf.newaxis] & (tf.range(num_parts) > 0)
    return ROITargets(*map(tf.stop_gradient, (rois, class_ids, valid, deltas, masks)), has_part)


def _share_on_instances(boxes: tf.Tensor, gt_boxes: tf.Tensor, iou: tf.Tensor) -> tf.Tensor:
    """Largest share `(batch, n)` of each box that one box of the ground truth covers, from their IoU."""
    area, gt_area = box_ops.areas(boxes)[..., tf.newaxis], box_ops.areas(gt_boxes)[:, tf.newaxis]
    intersection = iou * (area + gt_area) / (1.0 + iou)
    return tf.reduce_max(tf.math.divide_no_nan(intersection, area), axis=2)


def crop_masks(
    rois: tf.Tensor, gt_masks: tf.Tensor, mask_frames: tf.Tensor, matched: tf.Tensor, size: int
) -> tf.Tensor:
    """Cut each RoI out of the masks of the cell that it is matched to.

    Args:
        rois: float `(batch, n, 4)`, in pixels.
        gt_masks: `(batch, max_gt, mask_height, mask_width, parts)`.
        mask_frames: float `(batch, max_gt, 4)`, in pixels: the box that each mask's array spans.
        matched: int `(batch, n)`, row of the ground truth.
        size: height and width of the result, float `(batch, n, size, size, parts)` of 0 and 1; 0 outside of the frame.
    """
    batch, num_rois = tf.shape(rois)[0], tf.shape(rois)[1]
    height, width, parts = gt_masks.shape[2:]
    frames = tf.gather(mask_frames, matched, batch_dims=1)
    masks = tf.gather(tf.cast(gt_masks, tf.float32), matched, batch_dims=1)
    masks = tf.reshape(masks, (batch * num_rois, height, width, parts))
    # A ring of zeros makes the outside of the frame empty, where plain resampling would repeat the border.
    masks = tf.pad(masks, [[0, 0], [1, 1], [1, 1], [0, 0]])
    frame_size = tf.maximum(frames[..., 2:] - frames[..., :2], 1e-6)
    to_cells = tf.constant([height, width], tf.float32) / frame_size
    origin = frames[..., :2]
    cells = tf.concat([(rois[..., :2] - origin) * to_cells, (rois[..., 2:] - origin) * to_cells], axis=-1) + 1.0
    crops = sample_bins(masks, tf.reshape(cells, (batch * num_rois, 4)), tf.range(batch * num_rois), size)
    return tf.reshape(tf.round(crops), (batch, num_rois, size, size, parts))
