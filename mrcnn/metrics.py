"""How good detections are: overlaps, matching, average precision, detection rate.

The functions over a data set take one entry per image: boxes of shape (n, 4), scores of shape (n,), and
masks, bool of shape (height, width, n), or None to compare boxes. There is one class; Matterport's functions
for a single image, which know classes, are in `image_metrics.py`.
"""

from collections.abc import Sequence

import numpy as np

COCO_IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
Arrays = Sequence[np.ndarray]


def box_iou_matrix(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other.

    Args:
        boxes: array of shape (n, 4), `(y1, x1, y2, x2)`.
        others: array of shape (m, 4), in the same frame.

    Returns:
        float64 array of shape (n, m) in [0, 1]; 0 where a union is empty.

    Example:
        Boxes (0, 0, 2, 2) and (0, 1, 2, 3) share 2 of 6 px: IoU 1/3.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    others = np.asarray(others, np.float64).reshape(-1, 4)
    top_left = np.maximum(boxes[:, np.newaxis, :2], others[np.newaxis, :, :2])
    bottom_right = np.minimum(boxes[:, np.newaxis, 2:], others[np.newaxis, :, 2:])
    intersection = np.maximum(bottom_right - top_left, 0).prod(axis=-1)
    areas, other_areas = (np.maximum(b[:, 2:] - b[:, :2], 0).prod(axis=-1) for b in (boxes, others))
    return _divide(intersection, areas[:, np.newaxis] + other_areas - intersection)


def mask_iou_matrix(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every mask with every other.

    Args:
        masks: array of shape (height, width, n); above 0.5 is inside.
        others: array of shape (height, width, m).

    Returns:
        float64 array of shape (n, m) in [0, 1]; 0 where both masks are empty.

    Raises:
        ValueError: if both hold masks, of different image sizes.
    """
    num_masks, num_others = masks.shape[-1], others.shape[-1]
    if num_masks == 0 or num_others == 0:
        return np.zeros((num_masks, num_others))
    if masks.shape[:2] != others.shape[:2]:
        raise ValueError(f"masks are of images of {masks.shape[:2]} and {others.shape[:2]} px")
    # float32 counts exactly up to 2^24 px and multiplies far faster than integers do.
    flat = (masks.reshape(-1, num_masks) > 0.5).astype(np.float32)
    flat_others = (others.reshape(-1, num_others) > 0.5).astype(np.float32)
    intersection = (flat.T @ flat_others).astype(np.float64)
    union = flat.sum(axis=0)[:, np.newaxis] + flat_others.sum(axis=0) - intersection
    return _divide(intersection, union)


def match_detections(ious: np.ndarray, scores: np.ndarray, iou_threshold: float = 0.5) -> np.ndarray:
    """Assign detections to ground-truth cells, each cell at most once.

    From the best score down, a detection takes the free cell that it overlaps most, if by `iou_threshold` or
    more.

    Args:
        ious: array of shape (num_detections, num_cells).
        scores: array of shape (num_detections,).
        iou_threshold: least overlap of a match.

    Returns:
        int64 array of shape (num_detections,), in the order of the input: index of the cell, or -1.

    Reference:
        Lin et al. 2014, Microsoft COCO (the matching of its evaluation code).
    """
    matches = np.full(len(scores), -1)
    if ious.size == 0:
        return matches
    free = np.ones(ious.shape[1], bool)
    for detection in np.argsort(-np.asarray(scores), kind="stable"):
        overlaps = np.where(free, ious[detection], -1.0)
        cell = int(np.argmax(overlaps))
        if overlaps[cell] >= iou_threshold:
            matches[detection] = cell
            free[cell] = False
    return matches


def average_precision(
    gt_boxes: Arrays,
    pred_boxes: Arrays,
    scores: Arrays,
    *,
    iou_threshold: float = 0.5,
    gt_masks: Arrays | None = None,
    pred_masks: Arrays | None = None,
) -> float:
    """Average precision over a set of images at one IoU threshold, as COCO computes it.

    Precision is made non-increasing and averaged at the recalls 0, 0.01, ..., 1.

    Args:
        gt_boxes: per image, array of shape (num_cells, 4).
        pred_boxes: per image, array of shape (num_detections, 4).
        scores: per image, array of shape (num_detections,).
        iou_threshold: least overlap of a true positive.
        gt_masks: per image, bool array of shape (height, width, num_cells); None compares boxes.
        pred_masks: per image, bool array of shape (height, width, num_detections).

    Returns:
        A value in [0, 1]; nan if there is no cell in any image.

    Raises:
        ValueError: if the lists do not fit together.

    Example:
        Two cells; detections with scores 0.9 (right), 0.8 (wrong), 0.7 (right). Precision is 1 up to recall
        1/2 and 2/3 up to 1: (51 * 1 + 50 * 2/3) / 101 = 0.835.
    """
    ious = _image_ious(gt_boxes, pred_boxes, scores, gt_masks, pred_masks)
    return _interpolated_precision(ious, scores, iou_threshold)


def mean_average_precision(
    gt_boxes: Arrays,
    pred_boxes: Arrays,
    scores: Arrays,
    *,
    gt_masks: Arrays | None = None,
    pred_masks: Arrays | None = None,
    iou_thresholds: Sequence[float] = COCO_IOU_THRESHOLDS,
) -> dict[str, float]:
    """Average precision at each IoU threshold, by default 0.5 to 0.95 in steps of 0.05, and their mean.

    Args:
        gt_boxes, pred_boxes, scores, gt_masks, pred_masks: as in `average_precision`.
        iou_thresholds: the thresholds to average over.

    Returns:
        A dict with "mAP" and, for each threshold, its "AP50", "AP55" and so on.

    Raises:
        ValueError: if the lists do not fit together.
    """
    ious = _image_ious(gt_boxes, pred_boxes, scores, gt_masks, pred_masks)
    values = {f"AP{round(100 * t)}": _interpolated_precision(ious, scores, t) for t in iou_thresholds}
    return {"mAP": float(np.mean(list(values.values()))), **values}


def precision_recall_at_score(
    gt_boxes: Arrays,
    pred_boxes: Arrays,
    scores: Arrays,
    *,
    score_threshold: float = 0.7,
    iou_threshold: float = 0.5,
    gt_masks: Arrays | None = None,
    pred_masks: Arrays | None = None,
) -> dict[str, float]:
    """Precision and recall of the detections that a user sees, those of at least `score_threshold`.

    Returns:
        A dict with "precision" (0 without detections) and "recall" (0 without cells), both in [0, 1], and the
        counts "num_true_positives", "num_detections" and "num_cells".

    Raises:
        ValueError: if the lists do not fit together.
    """
    ious = _image_ious(gt_boxes, pred_boxes, scores, gt_masks, pred_masks)
    num_true, num_detections = 0, 0
    for overlaps, image_scores in zip(ious, scores, strict=True):
        seen = np.asarray(image_scores) >= score_threshold
        matches = match_detections(overlaps[seen], np.asarray(image_scores)[seen], iou_threshold)
        num_true += int((matches >= 0).sum())
        num_detections += int(seen.sum())
    num_cells = sum(overlaps.shape[1] for overlaps in ious)
    return {
        "precision": num_true / num_detections if num_detections else 0.0,
        "recall": num_true / num_cells if num_cells else 0.0,
        "num_true_positives": num_true,
        "num_detections": num_detections,
        "num_cells": num_cells,
    }


def detection_rate(
    gt_boxes: Arrays | None,
    pred_boxes: Arrays,
    scores: Arrays,
    *,
    score_threshold: float = 0.7,
    iou_threshold: float = 0.5,
    gt_masks: Arrays | None = None,
    pred_masks: Arrays | None = None,
) -> dict[str, float]:
    """How much the detector finds (thesis 3.2.2 counts images of one cell).

    Args:
        gt_boxes: as in `average_precision`, or None for images without annotation.
        pred_boxes, scores, gt_masks, pred_masks: as in `average_precision`.
        score_threshold: detections below it do not count.
        iou_threshold: least overlap of a found cell.

    Returns:
        A dict with "images", the share of images with a detection, and, where `gt_boxes` is given, "cells",
        the share of cells that are found; 0 without images or cells. With `gt_boxes` images without a cell do not
        count for "images": a detection on them is no success, and precision tells of it.

    Raises:
        ValueError: if the lists do not fit together.
    """
    has_cell = [True] * len(scores) if gt_boxes is None else [len(boxes) > 0 for boxes in gt_boxes]
    if len(has_cell) != len(scores):
        raise ValueError(f"the lists must have one entry per image, got lengths {sorted((len(has_cell), len(scores)))}")
    found = [
        bool(np.any(np.asarray(image_scores) >= score_threshold))
        for image_scores, counts in zip(scores, has_cell, strict=True)
        if counts
    ]
    rates = {"images": float(np.mean(found)) if found else 0.0}
    if gt_boxes is not None:
        counts = precision_recall_at_score(
            gt_boxes,
            pred_boxes,
            scores,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            gt_masks=gt_masks,
            pred_masks=pred_masks,
        )
        rates["cells"] = counts["recall"]
    return rates


def _image_ious(
    gt_boxes: Arrays, pred_boxes: Arrays, scores: Arrays, gt_masks: Arrays | None, pred_masks: Arrays | None
) -> list[np.ndarray]:
    """Overlaps of each image, float64 (num_detections, num_cells), of masks where both are given."""
    if (gt_masks is None) != (pred_masks is None):
        raise ValueError("give both gt_masks and pred_masks, or neither")
    if gt_masks is None:
        pairs, overlap = (pred_boxes, gt_boxes), box_iou_matrix
    else:
        pairs, overlap = (pred_masks, gt_masks), mask_iou_matrix
    lengths = {len(values) for values in (gt_boxes, pred_boxes, scores, *pairs)}
    if len(lengths) != 1:
        raise ValueError(f"the lists must have one entry per image, got lengths {sorted(lengths)}")
    ious = [overlap(predicted, truth) for predicted, truth in zip(*pairs, strict=True)]
    for index, (overlaps, image_scores) in enumerate(zip(ious, scores, strict=True)):
        if overlaps.shape[0] != len(image_scores):
            raise ValueError(f"image {index} has {overlaps.shape[0]} detections and {len(image_scores)} scores")
    return ious


def _interpolated_precision(ious: Sequence[np.ndarray], scores: Arrays, iou_threshold: float) -> float:
    num_cells = sum(overlaps.shape[1] for overlaps in ious)
    if num_cells == 0:
        return float("nan")
    hits = [match_detections(o, s, iou_threshold) >= 0 for o, s in zip(ious, scores, strict=True)]
    order = np.argsort(-np.concatenate([np.asarray(s, np.float64) for s in scores]), kind="stable")
    true_positives = np.cumsum(np.concatenate(hits)[order])
    precisions = true_positives / np.arange(1, len(order) + 1)
    recalls = true_positives / num_cells
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    # Recalls that are never reached have precision 0. The tolerance keeps 0.7 reached by a recall of 7 / 10.
    index = np.searchsorted(recalls, np.linspace(0, 1, 101) - 1e-9, side="left")
    return float(np.append(envelope, 0.0)[index].mean())


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
