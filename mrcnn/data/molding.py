"""From images to what the network takes, and Matterport's functions for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from mrcnn.config import Config
from mrcnn.data.resizing import resize_image
from mrcnn.errors import InputError

# 1 image id, 3 original shape, 3 shape, 4 window, 1 scale, then one flag for each class.
META_FIELDS = 12


class MoldedImage(NamedTuple):
    """An image as the network takes it, save for the mean colour.

    Attributes:
        image: uint8 array of shape (height, width, channels).
        window: `(y1, x1, y2, x2)` pixels, where the real image lies in it.
        scale: factor that the image was resized by.
    """

    image: np.ndarray
    window: tuple[int, int, int, int]
    scale: float


def fit_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Bring an image to 1 or 3 channels: grey is repeated, colour is weighted to grey, transparency dropped.

    Args:
        image: uint8 array of shape (height, width) or (height, width, 1, 3 or 4).
        channels: 1 or 3.

    Returns:
        uint8 array of shape (height, width, channels); the input itself where nothing is to do.

    Raises:
        InputError: for another shape or type.
    """
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise InputError(f"an image must have shape (height, width, 1 or 3); got {image.shape}")
    if image.dtype != np.uint8:
        raise InputError(f"an image must be of type uint8 with values 0 to 255; got {image.dtype}")
    image = image[..., :3]
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    return np.repeat(image, 3, axis=-1)


def mold_for_detection(image: np.ndarray, config: Config) -> MoldedImage:
    """Resize and pad an image for detection; see `Config.IMAGE_RESIZE_MODE`.

    Raises:
        InputError: if the mode is "none" and a side is not a multiple of 64.
    """
    mode = "pad64" if config.IMAGE_RESIZE_MODE == "crop" else config.IMAGE_RESIZE_MODE
    image = fit_channels(np.asarray(image), config.IMAGE_CHANNEL_COUNT)
    check_sides(image.shape, mode)
    resized, window, scale, _, _ = resize_image(
        image, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, mode
    )
    return MoldedImage(resized, window, scale)


def check_sides(image_shape: Sequence[int], mode: str) -> None:
    """Refuse an image that mode "none" cannot take.

    Raises:
        InputError: naming the size.
    """
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
    """Put what is known of an image into one row of numbers (Matterport's name and order).

    Args:
        image_id: its number in the data set.
        original_image_shape: (height, width, channels) before resizing.
        image_shape: the same after resizing and padding.
        window: `(y1, x1, y2, x2)` pixels, where the real image lies.
        scale: factor that it was resized by.
        active_class_ids: one flag for each class: whether the image's data set annotates it.

    Returns:
        float64 array of shape (12 + num_classes,).
    """
    parts = [[image_id], list(original_image_shape), list(image_shape), list(window), [scale], list(active_class_ids)]
    return np.array([value for part in parts for value in part], np.float64)


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
