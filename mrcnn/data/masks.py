"""Instance masks: their boxes, mini-masks, and pasting back into the image."""

from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.errors import InputError

# Of all masks of an image together, a byte for each pixel and instance.
MAX_MASK_BYTES = 1 << 30


def check_mask_memory(source: object, num_instances: int, height: int, width: int) -> None:
    """Refuse an image of which the masks would fill the memory, such as a photograph that was taken for a mask.

    Args:
        source: what the masks are made from, for the message.
        num_instances: how many there are.
        height: of the image.
        width: of the image.

    Raises:
        InputError: if they take more than `MAX_MASK_BYTES`.
    """
    if num_instances * height * width > MAX_MASK_BYTES:
        raise InputError(
            f"{source}: {num_instances} objects on {width}x{height} px, whose masks take more than "
            f"{MAX_MASK_BYTES >> 30} GiB; see whether these are objects, or cut the image into tiles"
        )


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """Return the tight box of each instance mask.

    Args:
        mask: array of shape (height, width, num_instances), non-zero inside.

    Returns:
        int32 array of shape (num_instances, 4), `(y1, x1, y2, x2)` in pixels, y2 and x2 exclusive; zeros for
        an empty mask.
    """
    num_instances = mask.shape[-1]
    boxes = np.zeros((num_instances, 4), np.int32)
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    for i in range(num_instances):
        ys, xs = np.flatnonzero(rows[:, i]), np.flatnonzero(columns[:, i])
        if ys.size:
            boxes[i] = ys[0], xs[0], ys[-1] + 1, xs[-1] + 1
    return boxes


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: Sequence[int]) -> np.ndarray:
    """Crop each mask to its box and resize it to `mini_shape`, which saves memory and host-to-device traffic.

    Args:
        bbox: array of shape (num_instances, 4), `(y1, x1, y2, x2)` pixels.
        mask: bool array of shape (height, width, num_instances).
        mini_shape: (height, width) of the mini-masks.

    Returns:
        bool array of shape (mini_height, mini_width, num_instances).

    Raises:
        ValueError: if a box has no area.
    """
    mini_height, mini_width = int(mini_shape[0]), int(mini_shape[1])
    mini_masks = np.zeros((mini_height, mini_width, mask.shape[-1]), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4].astype(int)):
        crop = mask[y1:y2, x1:x2, i]
        if crop.size == 0:
            raise ValueError(f"box {i} has no area: {(y1, x1, y2, x2)}")
        mini_masks[..., i] = _resize_probability(crop, (mini_height, mini_width)) >= 0.5
    return mini_masks


def expand_mask(bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Undo `minimize_mask` up to resampling: paste mini-masks into full-size masks.

    Args:
        bbox: array of shape (num_instances, 4), pixels.
        mini_mask: array of shape (mini_height, mini_width, num_instances).
        image_shape: (height, width, ...) of the image.

    Returns:
        bool array of shape (height, width, num_instances).
    """
    masks = np.zeros((*image_shape[:2], mini_mask.shape[-1]), bool)
    for i in range(mini_mask.shape[-1]):
        masks[..., i] = unmold_mask(mini_mask[..., i], bbox[i][:4], image_shape)
    return masks


def unmold_mask(mask: np.ndarray, bbox: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Turn the network's small mask of a box into a full-size binary mask.

    Args:
        mask: float array of shape (mask_height, mask_width), probabilities in [0, 1].
        bbox: `(y1, x1, y2, x2)` pixels; the parts outside the image are cut off.
        image_shape: (height, width, ...) of the image.

    Returns:
        bool array of shape (height, width), true where the resized probability is at least 0.5.
    """
    height, width = int(image_shape[0]), int(image_shape[1])
    y1, x1, y2, x2 = (int(v) for v in bbox)
    full = np.zeros((height, width), bool)
    if y2 <= y1 or x2 <= x1:
        return full
    inside = _resize_probability(mask, (y2 - y1, x2 - x1)) >= 0.5
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2, height), min(x2, width)
    if top < bottom and left < right:
        full[top:bottom, left:right] = inside[top - y1 : bottom - y1, left - x1 : right - x1]
    return full


def _resize_probability(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a mask linearly as float32."""
    return cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
