"""Random boxes to train the heads on while there are no good proposals."""

from collections.abc import Sequence

import numpy as np

MIN_SIDE = 1
# Share of the boxes that lie around ground truth; the others lie anywhere.
SHARE_AROUND_TRUTH = 0.9


def generate_random_rois(
    image_shape: Sequence[int],
    count: int,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Draw boxes, most of them around the ground truth (Matterport's name).

    Around a ground-truth box, both corners are drawn uniformly within one box size of their true place, cut at the
    image's border.

    Args:
        image_shape: (height, width, ...) in pixels.
        count: how many boxes.
        gt_class_ids: array of shape (num_instances,).
        gt_boxes: array of shape (num_instances, 4), pixels; rows of zeros are left out.
        rng: source of randomness; None draws fresh entropy.

    Returns:
        int32 array of shape (count, 4), pixels, every box with area.
    """
    rng = np.random.default_rng() if rng is None else rng
    height, width = int(image_shape[0]), int(image_shape[1])
    boxes = np.asarray(gt_boxes, np.float64).reshape(-1, 4)[np.asarray(gt_class_ids) > 0]
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    around = round(count * SHARE_AROUND_TRUTH) if len(boxes) else 0
    centres = boxes[np.arange(around) % len(boxes)] if around else boxes[:0]
    sizes = np.tile(centres[:, 2:] - centres[:, :2], 2)
    near = centres + rng.uniform(-1.0, 1.0, centres.shape) * sizes
    far = rng.uniform(0.0, 1.0, (count - around, 4)) * [height, width, height, width]
    return _valid(np.concatenate([near, far]), height, width)


def _valid(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Whole-pixel boxes inside the image from pairs of corners in any order."""
    result = np.zeros(corners.shape, np.int32)
    for axis, length in enumerate((height, width)):
        ends = np.sort(np.clip(np.rint(corners[:, axis::2]), 0, length), axis=1).astype(np.int32)
        low = np.minimum(ends[:, 0], length - MIN_SIDE)
        result[:, axis], result[:, axis + 2] = low, np.maximum(ends[:, 1], low + MIN_SIDE)
    return result
