"""Matterport's metrics of a single image, matching by mask and class; `metrics.py` does whole data sets."""

from collections.abc import Sequence

import numpy as np

from mrcnn.metrics import COCO_IOU_THRESHOLDS, box_iou_matrix, mask_iou_matrix


def compute_matches(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match the detections of one image by mask overlap and class (Matterport's name, arguments and results).

    From the best score down, a detection takes the free instance of its class that it overlaps most. Rows of
    zeros at the end of the boxes are padding and left out.

    Args:
        gt_boxes: array of shape (num_instances, 4).
        gt_class_ids: array of shape (num_instances,).
        gt_masks: array of shape (height, width, num_instances).
        pred_boxes, pred_class_ids, pred_masks: the same of the detections.
        pred_scores: array of shape (num_detections,).
        iou_threshold: least mask overlap of a match.
        score_threshold: kept for compatibility with Matterport: an overlap below it is never a match.

    Returns:
        gt_match: float array of shape (num_instances,), index of the matched detection or -1.
        pred_match: float array of shape (num_detections,), index of the matched instance or -1.
        overlaps: array of shape (num_detections, num_instances).
        Detections are in the order of falling scores in all three.
    """
    num_gt, num_pred = (int(np.any(boxes != 0, axis=-1).sum()) for boxes in (gt_boxes, pred_boxes))
    order = np.argsort(-np.asarray(pred_scores)[:num_pred], kind="stable")
    overlaps = mask_iou_matrix(pred_masks[..., order], gt_masks[..., :num_gt])
    gt_match, pred_match = np.full(num_gt, -1.0), np.full(num_pred, -1.0)
    least = max(iou_threshold, score_threshold)
    for detection in range(num_pred if num_gt else 0):
        same_class = np.asarray(gt_class_ids)[:num_gt] == pred_class_ids[order[detection]]
        usable = np.where(same_class & (gt_match < 0), overlaps[detection], -1.0)
        instance = int(np.argmax(usable))
        if usable[instance] >= least:
            gt_match[instance], pred_match[detection] = detection, instance
    return gt_match, pred_match, overlaps


def compute_ap(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Average precision of one image: area under its precision-recall curve (Matterport's name and results).

    Args:
        gt_boxes ... pred_masks: as in `compute_matches`.
        iou_threshold: least mask overlap of a match.

    Returns:
        mAP: the value in [0, 1]; 0 for an image without instances.
        precisions: array of shape (num_detections + 2,), non-increasing.
        recalls: array of shape (num_detections + 2,), from 0 to 1.
        overlaps: array of shape (num_detections, num_instances).
    """
    gt_match, pred_match, overlaps = compute_matches(
        gt_boxes,
        gt_class_ids,
        gt_masks,
        pred_boxes,
        pred_class_ids,
        pred_scores,
        pred_masks,
        iou_threshold,
    )
    true_positives = np.cumsum(pred_match > -1)
    precisions = true_positives / np.arange(1, len(pred_match) + 1)
    recalls = true_positives / max(1, len(gt_match))
    precisions = np.concatenate([[0.0], precisions, [0.0]])
    recalls = np.concatenate([[0.0], recalls, [1.0]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    return float(np.sum(np.diff(recalls) * precisions[1:])), precisions, recalls, overlaps


def compute_ap_range(
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    iou_thresholds: Sequence[float] | None = None,
    verbose: int = 1,
) -> float:
    """Mean of `compute_ap` over IoU thresholds, by default 0.5 to 0.95 in steps of 0.05 (Matterport's name).

    Args:
        gt_box ... pred_mask: as in `compute_matches`.
        iou_thresholds: the thresholds.
        verbose: 1 prints each value and their mean.
    """
    thresholds = COCO_IOU_THRESHOLDS if iou_thresholds is None else iou_thresholds
    truth, predicted = (gt_box, gt_class_id, gt_mask), (pred_box, pred_class_id, pred_score, pred_mask)
    values = [compute_ap(*truth, *predicted, iou_threshold=t)[0] for t in thresholds]
    if verbose:
        for threshold, value in zip(thresholds, values, strict=True):
            print(f"AP @{threshold:.2f}:\t {value:.3f}")
        print(f"AP @{thresholds[0]:.2f}-{thresholds[-1]:.2f}:\t {np.mean(values):.3f}")
    return float(np.mean(values))


def compute_recall(pred_boxes: np.ndarray, gt_boxes: np.ndarray, iou: float) -> tuple[float, np.ndarray]:
    """Share of boxes that proposals cover (Matterport's name and results).

    Args:
        pred_boxes: array of shape (num_predictions, 4), for example RPN proposals.
        gt_boxes: array of shape (num_instances, 4), same frame.
        iou: least overlap.

    Returns:
        recall: share in [0, 1] of ground-truth boxes that are the best overlap of some prediction.
        positive_ids: indices of the predictions that overlap a box by `iou` or more.
    """
    overlaps = box_iou_matrix(pred_boxes, gt_boxes)
    if overlaps.size == 0:
        return 0.0, np.zeros(0, np.int64)
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    covered = np.unique(overlaps[positive_ids].argmax(axis=1))
    return len(covered) / len(gt_boxes), positive_ids
