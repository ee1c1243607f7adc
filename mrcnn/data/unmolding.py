"""From what the network finds to the pixels of the image."""

from typing import NamedTuple

import numpy as np

from mrcnn.data.masks import unmold_mask


class DetectionFrame(NamedTuple):
    """Where an image lies in the network's input.

    Attributes:
        network_shape: (height, width) of the input in pixels.
        window: `(y1, x1, y2, x2)` pixels of the input that show the image.
        image_shape: (height, width) of the image in pixels.
    """

    network_shape: tuple[int, int]
    window: tuple[float, float, float, float]
    image_shape: tuple[int, int]


def unmold_detections(
    rows: np.ndarray,
    frame: DetectionFrame,
    features: np.ndarray | None,
    small_masks: np.ndarray | None,
    *,
    paste: bool = True,
) -> dict[str, np.ndarray]:
    """Bring the detections on one image to its pixels; those without a whole pixel are dropped.

    Args:
        rows: float array of shape (n, 6): normalised box, class id, score.
        frame: where the image lies.
        features: array of shape (n, 14, 14, channels), or None.
        small_masks: array of shape (n, 28, 28), probabilities over the box, or None.
        paste: also make masks of the image's size.

    Returns:
        "rois" int32 (m, 4), "class_ids" int32 (m,), "scores" float32 (m,); "feats" where features are given; "masks"
        bool (height, width, m), if pasted, and "small_masks" where masks are given.
    """
    height, width = frame.image_shape
    network_height, network_width = frame.network_shape
    y1, x1, y2, x2 = frame.window
    boxes = rows[:, :4] * (np.array([network_height, network_width] * 2, np.float32) - 1.0) + [0, 0, 1, 1]
    scale = np.array([(y2 - y1) / height, (x2 - x1) / width] * 2)
    boxes = (boxes - [y1, x1, y1, x1]) / scale
    boxes = np.clip(np.round(boxes), 0, [height, width, height, width]).astype(np.int32)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes = boxes[keep]
    result = {"rois": boxes, "class_ids": rows[keep, 4].astype(np.int32), "scores": rows[keep, 5].astype(np.float32)}
    if features is not None:
        result["feats"] = features[keep]
    if small_masks is not None:
        result["small_masks"] = small_masks[keep]
    if small_masks is not None and paste:
        whole = [unmold_mask(m, b, frame.image_shape) for m, b in zip(result["small_masks"], boxes, strict=True)]
        result["masks"] = np.stack(whole, axis=-1) if whole else np.zeros((height, width, 0), bool)
    return result
