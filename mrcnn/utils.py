"""Matterport's public names: the data set, and helpers for boxes, masks and scores, without TensorFlow.

What has a well-named file of its own is handed on from there; here are the NumPy twins of the network's arithmetic
of boxes, for use on the results of `detect`, and Matterport's names and arguments for what is called otherwise
elsewhere. The two functions on tensors, `box_refinement_graph` and `batch_slice`, load TensorFlow on use.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import expand_mask, extract_bboxes, minimize_mask, unmold_mask
from mrcnn.data.resizing import resize_image, resize_mask
from mrcnn.metrics import COCO_IOU_THRESHOLDS, box_iou_matrix, mask_iou_matrix
from mrcnn.network.anchors import level_anchors, pyramid_anchors
from mrcnn.training.imagenet import COCO_MODEL_URL, download_trained_weights

if TYPE_CHECKING:
    import tensorflow as tf


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


__all__ = [
    "COCO_MODEL_URL",
    "Dataset",
    "apply_box_deltas",
    "batch_slice",
    "box_refinement",
    "box_refinement_graph",
    "compute_ap",
    "compute_ap_range",
    "compute_iou",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "denorm_boxes",
    "download_trained_weights",
    "expand_mask",
    "extract_bboxes",
    "generate_anchors",
    "generate_pyramid_anchors",
    "minimize_mask",
    "non_max_suppression",
    "norm_boxes",
    "resize",
    "resize_image",
    "resize_mask",
    "trim_zeros",
    "unmold_mask",
]


def compute_overlaps(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other: float64 (n, m) of boxes (n, 4) and (m, 4)."""
    return box_iou_matrix(boxes1, boxes2)


def compute_overlaps_masks(masks1: np.ndarray, masks2: np.ndarray) -> np.ndarray:
    """Intersection over union of every mask with every other.

    Args:
        masks1: array of shape (height, width, n); above 0.5 is inside.
        masks2: array of shape (height, width, m).

    Returns:
        float64 array of shape (n, m).
    """
    return mask_iou_matrix(masks1, masks2)


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


def box_refinement_graph(box: "tf.Tensor", gt_box: "tf.Tensor") -> "tf.Tensor":
    """`box_refinement` on tensors `(num_boxes, 4)`; gives a float32 tensor of that shape."""
    import tensorflow as tf

    from mrcnn.network.boxes import encode

    return encode(tf.cast(box, tf.float32), tf.cast(gt_box, tf.float32))


def generate_anchors(
    scales: float | Sequence[float],
    ratios: Sequence[float],
    shape: Sequence[int],
    feature_stride: int,
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of one feature map (Matterport's name and arguments).

    Args:
        scales: sides in pixels of the square anchors, one or several.
        ratios: width / height of each anchor.
        shape: (height, width) of the feature map.
        feature_stride: pixels between neighbouring cells of the feature map.
        anchor_stride: place anchors on every `anchor_stride`-th cell.

    Returns:
        float32 array of shape (num_cells * len(ratios) * num_scales, 4) in pixels, rows of cells first, scales
        innermost.
    """
    height, width = int(shape[0]), int(shape[1])
    anchors = [level_anchors(s, ratios, (height, width), feature_stride, anchor_stride) for s in np.atleast_1d(scales)]
    return np.stack(anchors, axis=1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Sequence[Sequence[int]],
    feature_strides: Sequence[int],
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of all pyramid levels, one scale for each, P2 first: float32 (num_anchors, 4) in pixels.

    Raises:
        ValueError: if the numbers of scales, shapes and strides differ.
    """
    return pyramid_anchors(scales, ratios, feature_shapes, feature_strides, anchor_stride)


def batch_slice(
    inputs: Sequence[Any] | Any,
    graph_fn: Callable[..., Any],
    batch_size: int,
    names: Sequence[str] | None = None,
) -> Any:
    """Apply a function that knows single samples to each sample of a batch, and stack what it gives.

    Args:
        inputs: one tensor or several, each with a leading axis of at least `batch_size`.
        graph_fn: takes as many tensors, without that axis; gives one tensor or several.
        batch_size: number of samples.
        names: name for each output, or None.

    Returns:
        A tensor with a leading axis of `batch_size`, or a list of them where `graph_fn` gives several.
    """
    import tensorflow as tf

    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    samples = []
    for i in range(batch_size):
        outputs = graph_fn(*(tensor[i] for tensor in inputs))
        samples.append(outputs if isinstance(outputs, (list, tuple)) else [outputs])
    columns = list(zip(*samples, strict=True))
    names = [None] * len(columns) if names is None else names
    stacked = [tf.stack(column, axis=0, name=name) for column, name in zip(columns, names, strict=True)]
    return stacked[0] if len(stacked) == 1 else stacked


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
    """Resize with scikit-image, whose `transform.resize` has these arguments (Matterport's name and defaults).

    Returns:
        float array of `output_shape` and the channels of `image`. Integer images are brought to [0, 1] unless
        `preserve_range` is set; masks of type bool become float.
    """
    from skimage.transform import resize as resize_with_skimage

    if image.dtype == bool:  # interpolation is not defined for them, and scripts threshold the result
        image = image.astype(np.float64)
    return resize_with_skimage(
        image,
        output_shape,
        order=order,
        mode=mode,
        cval=cval,
        clip=clip,
        preserve_range=preserve_range,
        anti_aliasing=anti_aliasing,
        anti_aliasing_sigma=anti_aliasing_sigma,
    )


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """Return `x`, of shape (rows, columns), without its rows of zeros, the padding of box arrays."""
    return x[np.any(x != 0, axis=1)]


def _scale_and_shift(shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape[:2]
    return np.array([height - 1, width - 1, height - 1, width - 1]), np.array([0, 0, 1, 1])
