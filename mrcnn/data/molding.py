"""From images to what the network takes, and Matterport's functions for it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from mrcnn.config import Config
from mrcnn.data.masks import unmold_mask
from mrcnn.data.resizing import resize_image
from mrcnn.files.errors import InputError

# 1 image id, 3 original shape, 3 shape, 4 window, 1 scale, then one flag for each class.
META_FIELDS = 12


class MoldedImage(NamedTuple):
    """An image as the network takes it, save for the mean colour."""

    image: np.ndarray  # uint8 or float32 of shape (height, width, channels)
    window: tuple[int, int, int, int]  # `(y1, x1, y2, x2)` pixels, where the real image lies in it
    scale: float  # factor that the image was resized by


def fit_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Bring an image to the channels of the network.

    For 1 or 3, grey is repeated, colour is weighted to grey and transparency dropped; other numbers must be there.
    The image holds numbers, best 0 to 255, of shape (height, width) or (height, width, channels).

    Returns:
        Array of shape (height, width, channels), uint8 if the image is, else float32.

    Raises:
        InputError: for another shape or type, or a value that is not finite.
    """
    if image.ndim == 2:
        image = image[..., np.newaxis]
    known = (1, 3, 4) if channels in (1, 3) else (channels,)
    if image.ndim != 3 or image.shape[-1] not in known or 0 in image.shape:
        wanted = "1 or 3" if channels in (1, 3) else channels
        raise InputError(f"an image must have shape (height, width, {wanted}); got {image.shape}")
    if image.dtype != np.uint8:
        if image.dtype.kind not in "buif" or not np.isfinite(image.astype(np.float32)).all():
            raise InputError(f"an image must be an array of finite numbers, best of type uint8; got {image.dtype}")
        image = image.astype(np.float32)
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def mold_for_detection(image: np.ndarray, config: Config) -> MoldedImage:
    """Resize and pad an image for detection; see `Config.IMAGE_RESIZE_MODE`."""
    mode = "pad64" if config.IMAGE_RESIZE_MODE == "crop" else config.IMAGE_RESIZE_MODE
    image = fit_channels(np.asarray(image), config.IMAGE_CHANNEL_COUNT)
    check_sides(image.shape, mode)
    resized, window, scale, _, _ = resize_image(
        image, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, mode
    )
    return MoldedImage(resized, window, scale)


def check_sides(image_shape: Sequence[int], mode: str) -> None:
    """Refuse, with an InputError, an image that mode "none" cannot take."""
    if mode == "none" and (image_shape[0] % 64 or image_shape[1] % 64):
        raise InputError(
            f"IMAGE_RESIZE_MODE 'none' takes images whose sides are multiples of 64; got {image_shape[1]}x"
            f"{image_shape[0]} px; use 'pad64'"
        )


def mold_image(images: np.ndarray, config: Config) -> np.ndarray:
    """Subtract the mean colour: float32 of the shape of `images` (Matterport's name)."""
    return np.asarray(images).astype(np.float32) - np.asarray(config.MEAN_PIXEL, np.float32)


def unmold_image(normalized_images: np.ndarray, config: Config) -> np.ndarray:
    """Undo `mold_image`: uint8 (Matterport's name)."""
    restored = np.asarray(normalized_images) + np.asarray(config.MEAN_PIXEL, np.float32)
    return np.clip(np.rint(restored), 0, 255).astype(np.uint8)


def compose_image_meta(
    image_id: int,
    original_image_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    scale: float,
    active_class_ids: Sequence[int],
) -> np.ndarray:
    """Put what is known of an image into one row, float64 (12 + num_classes,) (Matterport's name and order).

    Shapes are (height, width, channels), before and after resizing and padding; `window` and `scale` are those of
    `MoldedImage`; `active_class_ids` has a flag for each class: whether the image's data set annotates it.
    """
    return np.concatenate(
        [[image_id], original_image_shape, image_shape, window, [scale], active_class_ids], dtype=np.float64
    )


def parse_image_meta(meta: np.ndarray) -> dict[str, Any]:
    """Undo `compose_image_meta` for rows of shape (batch, 12 + num_classes): arrays by name (Matterport's keys)."""
    meta = np.asarray(meta)
    return {
        "image_id": meta[:, 0].astype(np.int32),
        "original_image_shape": meta[:, 1:4].astype(np.int32),
        "image_shape": meta[:, 4:7].astype(np.int32),
        "window": meta[:, 7:11].astype(np.int32),
        "scale": meta[:, 11].astype(np.float32),
        "active_class_ids": meta[:, META_FIELDS:].astype(np.int32),
    }


class DetectionFrame(NamedTuple):
    """Where an image lies in the network's input, in pixels."""

    network_shape: tuple[int, int]  # (height, width) of the input
    window: tuple[float, float, float, float]  # `(y1, x1, y2, x2)` of the input that show the image
    image_shape: tuple[int, int]  # (height, width) of the image


def unmold_detections(
    rows: np.ndarray,
    frame: DetectionFrame,
    features: np.ndarray | None,
    small_masks: Mapping[str, np.ndarray],
    *,
    paste: bool = True,
) -> dict[str, np.ndarray]:
    """Bring the detections on one image to its pixels; those without a whole pixel are dropped.

    Args:
        rows: float array of shape (n, 6): normalised box, class id, score.
        frame: where the image lies.
        features: array of shape (n, 14, 14, channels), or None.
        small_masks: "masks", and `PART_masks` of further parts -> array of shape (n, h, w), probabilities over the box;
            empty for none.
        paste: also make masks of the image's size.

    Returns:
        "rois" int32 (m, 4), "class_ids" int32 (m,), "scores" float32 (m,); "feats" where features are given; "masks"
        bool (height, width, m), if pasted, and "small_masks" where masks are given, and so for each part.
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
    for name, masks in small_masks.items():
        result[f"small_{name}"] = masks[keep]
        if paste:
            whole = [unmold_mask(m, b, frame.image_shape) for m, b in zip(masks[keep], boxes, strict=True)]
            result[name] = np.stack(whole, axis=-1) if whole else np.zeros((height, width, 0), bool)
    return result
