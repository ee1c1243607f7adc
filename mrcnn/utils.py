"""Matterport's public names: the data set, and helpers for boxes, masks and scores, without TensorFlow.

What has a well-named file of its own is handed on from there; here are only the NumPy twins of the network's
arithmetic of boxes, for use on the results of `detect`.
"""

from collections.abc import Sequence

import numpy as np

from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import expand_mask, extract_bboxes, minimize_mask, unmold_mask
from mrcnn.data.resizing import resize, resize_image, resize_mask
from mrcnn.image_metrics import compute_ap, compute_ap_range, compute_matches, compute_recall
from mrcnn.metrics import box_iou_matrix as compute_overlaps
from mrcnn.metrics import mask_iou_matrix as compute_overlaps_masks

__all__ = [
    "Dataset",
    "apply_box_deltas",
    "box_refinement",
    "compute_ap",
    "compute_ap_range",
    "compute_iou",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "denorm_boxes",
    "expand_mask",
    "extract_bboxes",
    "minimize_mask",
    "non_max_suppression",
    "norm_boxes",
    "resize",
    "resize_image",
    "resize_mask",
    "trim_zeros",
    "unmold_mask",
]


def compute_iou(
    box: np.ndarray, boxes: np.ndarray, box_area: float | None = None, boxes_area: np.ndarray | None = None
) -> np.ndarray:
    """Intersection over union of one box with many.

    Args:
        box: `(y1, x1, y2, x2)`.
        boxes: array of shape (num_boxes, 4).
        box_area: area of `box`, if it is known already.
        boxes_area: areas of `boxes`, of shape (num_boxes,), if they are known already.

    Returns:
        float array of shape (num_boxes,); 0 where the union is empty.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if box_area is None:
        box_area = (box[2] - box[0]) * (box[3] - box[1])
    if boxes_area is None:
        boxes_area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    height = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    width = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    intersection = np.maximum(height, 0) * np.maximum(width, 0)
    union = box_area + boxes_area - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def non_max_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Keep the best-scored boxes that overlap no better one by more than `threshold`.

    Args:
        boxes: array of shape (num_boxes, 4), at least one box.
        scores: array of shape (num_boxes,).
        threshold: largest IoU of two boxes that are kept.

    Returns:
        int32 array of indices, by falling score.
    """
    overlaps = compute_overlaps(boxes, boxes)
    order = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlaps[best, order] <= threshold]
    return np.array(kept, np.int32)


def norm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Turn pixel boxes into normalised ones, in which (0, 0, 1, 1) is the whole image.

    Args:
        boxes: array of shape (num_boxes, 4), `(y1, x1, y2, x2)` pixels, y2 and x2 exclusive.
        shape: (height, width) of the image.

    Returns:
        float32 array of shape (num_boxes, 4), y2 and x2 inclusive.
    """
    scale, shift = _scale_and_shift(shape)
    return ((boxes - shift) / scale).astype(np.float32)


def denorm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Undo `norm_boxes`: normalised boxes to int32 pixel boxes of shape (num_boxes, 4), rounded."""
    scale, shift = _scale_and_shift(shape)
    return np.around(boxes * scale + shift).astype(np.int32)


def apply_box_deltas(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Move boxes by deltas: the inverse of `box_refinement`.

    Args:
        boxes: array of shape (num_boxes, 4), `(y1, x1, y2, x2)`.
        deltas: array of shape (num_boxes, 4), `(dy, dx, log dh, log dw)`.

    Returns:
        float32 array of shape (num_boxes, 4).
    """
    boxes, deltas = np.asarray(boxes, np.float64), np.asarray(deltas, np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    size = size * np.exp(deltas[:, 2:])
    return np.concatenate([centre - 0.5 * size, centre + 0.5 * size], axis=1).astype(np.float32)


def box_refinement(box: np.ndarray, gt_box: np.ndarray) -> np.ndarray:
    """Return the deltas `(dy, dx, log dh, log dw)`, float32 (num_boxes, 4), that move `box` onto `gt_box`."""
    box, gt_box = np.asarray(box, np.float64), np.asarray(gt_box, np.float64)
    size, gt_size = box[:, 2:] - box[:, :2], gt_box[:, 2:] - gt_box[:, :2]
    shift = (gt_box[:, :2] + 0.5 * gt_size - box[:, :2] - 0.5 * size) / size
    return np.concatenate([shift, np.log(gt_size / size)], axis=1).astype(np.float32)


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """Return `x`, of shape (rows, columns), without its rows of zeros, the padding of box arrays."""
    return x[np.any(x != 0, axis=1)]


def _scale_and_shift(shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape[:2]
    return np.array([height - 1, width - 1, height - 1, width - 1]), np.array([0, 0, 1, 1])
