"""Random boxes to train the heads on while there are no good proposals."""

from collections.abc import Sequence

import numpy as np

# The other boxes lie anywhere.
SHARE_AROUND_TRUTH = 0.9


def generate_random_rois(
    image_shape: Sequence[int],
    count: int,
    gt_class_ids: np.ndarray,
    gt_boxes: np.ndarray,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Draw boxes, most of them around the ground truth (Matterport's name).

    Both corners of those are drawn uniformly within one box size of their true place, cut at the image's border.

    Args:
        image_shape: (height, width, ...) in pixels.
        count: how many boxes.
        gt_class_ids: array of shape (num_instances,); padding and crowds are left out.
        gt_boxes: array of shape (num_instances, 4), pixels.
        rng: source of randomness; None draws fresh entropy.

    Returns:
        int32 array of shape (count, 4), pixels, every box with area.
    """
    rng = np.random.default_rng() if rng is None else rng
    height, width = int(image_shape[0]), int(image_shape[1])
    boxes = np.asarray(gt_boxes, np.float64).reshape(-1, 4)[np.asarray(gt_class_ids) > 0]
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    around = round(count * SHARE_AROUND_TRUTH) if len(boxes) else 0
    cells = boxes[np.arange(around) % len(boxes)] if around else boxes[:0]
    near = cells + rng.uniform(-1.0, 1.0, cells.shape) * np.tile(cells[:, 2:] - cells[:, :2], 2)
    far = rng.uniform(0.0, 1.0, (count - around, 4)) * [height, width, height, width]
    corners = np.rint(np.concatenate([near, far])).reshape(-1, 2, 2)
    corners = np.sort(np.clip(corners, 0, [height, width]), axis=1).astype(np.int32)
    corners[:, 0] = np.minimum(corners[:, 0], [height - 1, width - 1])
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 1)
    return corners.reshape(-1, 4)
