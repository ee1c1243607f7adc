"""Bringing images and their masks to the size that the network takes, with Matterport's conventions."""

from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.config import RESIZE_MODES

Window = tuple[int, int, int, int]


def resize_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, Window, float, list[tuple[int, int]], Window | None]:
    """Resize an image with its aspect ratio kept, then pad or crop it.

    The image grows until its shorter side is `min_dim` (it never shrinks for that) and by at least `min_scale`; in
    "square" mode it shrinks where its longer side would pass `max_dim`.

    Args:
        image: array of shape (height, width, channels).
        min_dim: wanted length of the shorter side in pixels; the size of the crop in "crop" mode.
        max_dim: side of the square in "square" mode.
        min_scale: least factor to resize by, even if `min_dim` asks for less.
        mode: "none" (leave the image), "square" (zero-pad to max_dim x max_dim), "pad64" (zero-pad both sides to
            multiples of 64, for the pyramid) or "crop" (random crop of min_dim x min_dim; training only).
        rng: where "crop" draws its position from; None draws fresh entropy.

    Returns:
        image: the resized image, in the type of the input.
        window: `(y1, x1, y2, x2)`, where the real image lies in it.
        scale: the factor that the image was resized by.
        padding: [(top, bottom), (left, right), (0, 0)] in pixels.
        crop: `(y, x, height, width)` in the resized image, or None.

    Raises:
        ValueError: for an unknown mode or a dimension that the mode needs and lacks.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"mode must be one of {', '.join(RESIZE_MODES)}, got {mode!r}")
    height, width = image.shape[:2]
    padding = [(0, 0), (0, 0), (0, 0)]
    if mode == "none":
        return image, (0, 0, height, width), 1.0, padding, None
    if not {"square": max_dim, "crop": min_dim}.get(mode, True) or (mode == "pad64" and (min_dim or 0) % 64):
        raise ValueError(f"mode {mode!r} cannot have min_dim {min_dim} and max_dim {max_dim}")

    scale = max(1.0, (min_dim or 0) / min(height, width), float(min_scale or 0))
    if mode == "square" and round(max(height, width) * scale) > max_dim:
        scale = max_dim / max(height, width)
    if scale != 1:
        height, width = _scaled_shape(height, width, scale)
        image = resize(image, (height, width))
    if mode == "crop":
        rng = np.random.default_rng() if rng is None else rng
        y, x = (int(rng.integers(0, side - min_dim + 1)) for side in (height, width))
        window = (0, 0, min_dim, min_dim)
        return image[y : y + min_dim, x : x + min_dim], window, scale, padding, (y, x, min_dim, min_dim)

    target = (max_dim, max_dim) if mode == "square" else (-(-height // 64) * 64, -(-width // 64) * 64)
    top, left = (target[0] - height) // 2, (target[1] - width) // 2
    padding = [(top, target[0] - height - top), (left, target[1] - width - left), (0, 0)]
    return np.pad(image, padding[: image.ndim]), (top, left, top + height, left + width), scale, padding, None


def resize_mask(
    mask: np.ndarray, scale: float, padding: Sequence[tuple[int, int]], crop: Window | None = None
) -> np.ndarray:
    """Do to masks (height, width, num_instances) of any type what `resize_image` did to their image: nearest pixels."""
    if scale != 1:
        mask = resize_nearest(mask, _scaled_shape(*mask.shape[:2], scale))
    if crop is not None:
        y, x, height, width = crop
        return mask[y : y + height, x : x + width]
    return np.pad(mask, list(padding))


def resize_nearest(mask: np.ndarray, output_shape: Sequence[int]) -> np.ndarray:
    """Resize masks (height, width, num_instances) of any type to `output_shape`, (height, width): nearest pixels."""
    rows, columns = (  # the source of each new pixel, by their centres
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(int), old - 1)
        for old, new in zip(mask.shape[:2], output_shape, strict=True)
    )
    return mask[rows][:, columns]


def resize(image: np.ndarray, output_shape: Sequence[int]) -> np.ndarray:
    """Resize an image: area averages where both sides shrink, so that fine texture does not alias, else bilinear.

    Sums are float32 and rounded once, as in an exported model (`mrcnn.network.in_graph`). `image` is (height, width) or
    (height, width, channels), of any number type and range, which the result keeps; `output_shape` is (height, width).
    """
    height, width = int(output_shape[0]), int(output_shape[1])
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image.astype(np.float32), (width, height), interpolation=interpolation)
    resized = resized.reshape((height, width, *image.shape[2:]))  # OpenCV drops a channel axis of length 1
    if image.dtype.kind in "iu":
        resized = np.rint(resized)
    return resized.astype(image.dtype, copy=False)


def _scaled_shape(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, round(height * scale)), max(1, round(width * scale))
