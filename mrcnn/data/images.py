"""Reading images of any common kind as 8-bit RGB."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mrcnn.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as RGB.

    Grey images are repeated over the three channels, transparency is laid over white (as a slide's empty
    background), and 16-bit values are divided by 256 (65535 -> 255), or by 16 when a 12-bit camera filled only
    the lower part. Floats that do not exceed 1 are fractions of white.

    Args:
        path: a PNG, JPEG, TIFF or BMP file.

    Returns:
        uint8 array of shape (height, width, 3).

    Raises:
        InputError: if the file is missing, truncated or not an image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(image)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image (PNG, JPEG, TIFF or BMP expected)") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read ({_first_line(error)}); copy the file again") from None


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Return the image files directly inside `folder`, sorted by name; hidden files are left out.

    Raises:
        InputError: if `folder` is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _grey_to_rgb(values: np.ndarray) -> np.ndarray:
    """Bring a grey image with more than 8 bits to uint8 and repeat it over three channels."""
    is_fraction = np.issubdtype(values.dtype, np.floating) and values.max(initial=0.0) <= 1.0
    values = values.astype(np.float64)
    top = values.max(initial=0.0)
    if is_fraction:
        values = values * 255.0
    elif top > 4095:
        values = values / 256.0
    elif top > 255:
        values = values / 16.0
    grey = np.clip(values, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
