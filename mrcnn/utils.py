"""Matterport's public helpers for boxes, masks and scores, on arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import expand_mask, extract_bboxes, minimize_mask, unmold_mask
from mrcnn.data.resizing import resize_image, resize_mask
from mrcnn.network.anchors import level_anchors
from mrcnn.network.anchors import pyramid_anchors as generate_pyramid_anchors
from mrcnn.network.boxes import decode, encode, normalized_boxes, pairwise_iou, pixel_boxes
from mrcnn.training.imagenet import COCO_MODEL_URL, download_trained_weights

__all__ = ["COCO_MODEL_URL", "Dataset", "batch_slice", "download_trained_weights", "resize", "resize_image"]
__all__ += ["apply_box_deltas", "box_refinement", "box_refinement_graph", "compute_iou", "compute_overlaps"]
__all__ += ["denorm_boxes", "norm_boxes", "non_max_suppression", "generate_anchors", "generate_pyramid_anchors"]
__all__ += ["compute_overlaps_masks", "expand_mask", "extract_bboxes", "minimize_mask", "resize_mask", "unmold_mask"]
__all__ += ["compute_ap", "compute_ap_range", "compute_matches", "compute_recall", "trim_zeros"]


def compute_iou(
    box: np.ndarray, boxes: np.ndarray, box_area: float | None = None, boxes_area: np.ndarray | None = None
) -> np.ndarray:
    """Intersection over union of one box with many `(num_boxes, 4)`: float64 (num_boxes,); the areas are not needed."""
    return compute_overlaps([box], boxes)[0]


def compute_overlaps(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other: float64 (n, m) of boxes (n, 4) and (m, 4)."""
    return pairwise_iou(np.reshape(boxes1, (-1, 4)).astype(float), np.reshape(boxes2, (-1, 4)).astype(float)).numpy()


def compute_overlaps_masks(masks1: np.ndarray, masks2: np.ndarray) -> np.ndarray:
    """Intersection over union of every mask with every other: float64 (n, m), 0 where both are empty.

    Masks are of shape (height, width, n) and (height, width, m); above 0.5 is inside.
    """
    count1, count2 = masks1.shape[-1], masks2.shape[-1]
    if not count1 or not count2:
        return np.zeros((count1, count2))
    # float32 counts exactly up to 2^24 px and multiplies far faster than integers do.
    flat1, flat2 = ((masks.reshape(-1, masks.shape[-1]) > 0.5).astype(np.float32) for masks in (masks1, masks2))
    intersection = (flat1.T @ flat2).astype(np.float64)
    union = flat1.sum(axis=0)[:, np.newaxis] + flat2.sum(axis=0) - intersection
    return intersection / np.maximum(union, 1)


def non_max_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices, by falling score, of the boxes `(num_boxes, 4)` that overlap no better one by more than `threshold`."""
    return tf.image.non_max_suppression(np.float32(boxes), np.float32(scores), len(boxes), threshold).numpy()


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
    """Match the detections of one image by mask overlap and class.

    From the best score down, a detection takes the free instance of its class that it overlaps most. Rows of zeros at
    the end of the boxes are padding and left out.

    Args:
        gt_boxes, gt_class_ids, gt_masks: arrays of shape (num_instances, 4), (num_instances,) and (height, width,
            num_instances).
        pred_boxes, pred_class_ids, pred_scores, pred_masks: the same of the detections.
        iou_threshold: least mask overlap of a match.
        score_threshold: as in Matterport's code, an overlap below it is no match either.

    Returns:
        gt_match: float array of shape (num_instances,), index of the matched detection or -1.
        pred_match: float array of shape (num_detections,), index of the matched instance or -1.
        overlaps: array of shape (num_detections, num_instances).
        Detections are in the order of falling scores in all three.
    """
    num_gt, num_pred = len(trim_zeros(gt_boxes)), len(trim_zeros(pred_boxes))
    order = np.argsort(-np.asarray(pred_scores)[:num_pred], kind="stable")
    overlaps = compute_overlaps_masks(pred_masks[..., order], gt_masks[..., :num_gt])
    gt_match, pred_match = np.full(num_gt, -1.0), np.full(num_pred, -1.0)
    for detection in range(num_pred if num_gt else 0):
        same_class = np.asarray(gt_class_ids)[:num_gt] == pred_class_ids[order[detection]]
        usable = np.where(same_class & (gt_match < 0), overlaps[detection], -1.0)
        instance = int(np.argmax(usable))
        if usable[instance] >= max(iou_threshold, score_threshold):
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
    """Average precision of one image: the area under its precision-recall curve. Arguments as of `compute_matches`.

    Returns:
        The value in [0, 1]; as by Matterport NaN for detections on an image without instances, and 0 for neither;
        precisions and recalls of shape (num_detections + 2,); overlaps of shape (num_detections, num_instances).
    """
    truth, predicted = (gt_boxes, gt_class_ids, gt_masks), (pred_boxes, pred_class_ids, pred_scores, pred_masks)
    gt_match, pred_match, overlaps = compute_matches(*truth, *predicted, iou_threshold)
    true_positives = np.cumsum(pred_match > -1)
    precisions = np.concatenate([[0.0], true_positives / np.arange(1, len(pred_match) + 1), [0.0]])
    with np.errstate(invalid="ignore"):  # without instances
        recalls = np.concatenate([[0.0], true_positives / np.float64(len(gt_match)), [1.0]])
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
    """Mean of `compute_ap` over IoU thresholds, by default 0.5 to 0.95 in steps of 0.05; `verbose` prints each.

    It is NaN where that is.
    """
    thresholds = np.linspace(0.5, 0.95, 10).round(2) if iou_thresholds is None else iou_thresholds
    truth, predicted = (gt_box, gt_class_id, gt_mask), (pred_box, pred_class_id, pred_score, pred_mask)
    values = [compute_ap(*truth, *predicted, iou_threshold=t)[0] for t in thresholds]
    if verbose:
        for threshold, value in zip(thresholds, values, strict=True):
            print(f"AP @{threshold:.2f}:\t {value:.3f}")
        print(f"AP @{thresholds[0]:.2f}-{thresholds[-1]:.2f}:\t {np.mean(values):.3f}")
    return float(np.mean(values))


def compute_recall(pred_boxes: np.ndarray, gt_boxes: np.ndarray, iou: float) -> tuple[float, np.ndarray]:
    """Share in [0, 1] of the true boxes `(n, 4)` that are the best overlap of some prediction `(m, 4)`; NaN of none.

    Also indices of the predictions that overlap a box by `iou` or more.
    """
    overlaps = compute_overlaps(pred_boxes, gt_boxes)
    if overlaps.size == 0:
        return 0.0 if len(gt_boxes) else np.nan, np.zeros(0, np.int64)
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    covered = np.unique(overlaps[positive_ids].argmax(axis=1))
    return len(covered) / len(gt_boxes), positive_ids


def norm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Pixel boxes of an image of `shape` (height, width) as float32 (num_boxes, 4); the whole image is (0, 0, 1, 1)."""
    return normalized_boxes(np.float32(boxes), shape).numpy()


def denorm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Undo `norm_boxes`: int32 pixel boxes (num_boxes, 4), rounded."""
    return np.around(pixel_boxes(np.float32(boxes), shape)).astype(np.int32)


def apply_box_deltas(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Move boxes (num_boxes, 4) by deltas `(dy, dx, log dh, log dw)`, the inverse of `box_refinement`: float32."""
    return decode(np.float32(boxes), np.float32(deltas)).numpy()


def box_refinement(box: np.ndarray, gt_box: np.ndarray) -> np.ndarray:
    """The deltas `(dy, dx, log dh, log dw)`, float32 (num_boxes, 4), that move `box` onto `gt_box`."""
    return box_refinement_graph(box, gt_box).numpy()


def box_refinement_graph(box: tf.Tensor, gt_box: tf.Tensor) -> tf.Tensor:
    """`box_refinement` on tensors `(num_boxes, 4)`; gives a float32 tensor of that shape."""
    return encode(tf.cast(box, tf.float32), tf.cast(gt_box, tf.float32))


def generate_anchors(
    scales: float | Sequence[float],
    ratios: Sequence[float],
    shape: Sequence[int],
    feature_stride: int,
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of one feature map, with one scale or several: as of `mrcnn.network.anchors.level_anchors`.

    Gives float32 (num_cells * len(ratios) * num_scales, 4) in pixels, rows of cells first, scales innermost.
    """
    height, width = int(shape[0]), int(shape[1])
    anchors = [level_anchors(s, ratios, (height, width), feature_stride, anchor_stride) for s in np.atleast_1d(scales)]
    return np.stack(anchors, axis=1).reshape(-1, 4)


def batch_slice(
    inputs: Sequence[Any] | Any, graph_fn: Callable[..., Any], batch_size: int, names: Sequence[str] | None = None
) -> Any:
    """Apply `graph_fn`, which knows single samples, to each sample of one or several tensors.

    What it gives is stacked, into a tensor or, where it gives several, a list of tensors.
    """
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    samples = [graph_fn(*(tensor[i] for tensor in inputs)) for i in range(batch_size)]
    if not isinstance(samples[0], (list, tuple)):
        return tf.stack(samples, axis=0, name=names[0] if names else None)
    columns = list(zip(*samples, strict=True))
    return [tf.stack(c, axis=0, name=n) for c, n in zip(columns, names or [None] * len(columns), strict=True)]


def resize(
    image: np.ndarray,
    output_shape: Sequence[int],
    order: int = 1,
    mode: str = "constant",
    cval: float = 0,
    clip: bool = True,
    preserve_range: bool = False,
    anti_aliasing: bool = False,
    anti_aliasing_sigma: float | None = None,
) -> np.ndarray:
    """Resize with `skimage.transform.resize`, whose arguments these are; masks of type bool become float."""
    from skimage.transform import resize as resize_with_skimage

    if image.dtype == bool:  # interpolation is not defined for them, and scripts threshold the result
        image = image.astype(np.float64)
    filters = {"anti_aliasing": anti_aliasing, "anti_aliasing_sigma": anti_aliasing_sigma}
    return resize_with_skimage(image, output_shape, order, mode, cval, clip, preserve_range, **filters)


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """`x`, of shape (rows, columns), without its rows of zeros, the padding of box arrays."""
    return x[np.any(x != 0, axis=1)]
