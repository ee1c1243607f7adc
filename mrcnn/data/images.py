"""Reading images of any common kind as 8-bit RGB."""

import os
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image, UnidentifiedImageError

from mrcnn.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
# TIFF's marks of a page that is a smaller copy of another, or its transparency.
_COPY_OF_A_PAGE = 1 | 4


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as RGB, upright as viewers show it.

    Grey images are repeated over the three channels, transparency is laid over white (as a slide's empty
    background), and 16-bit values are divided by 256 (65535 -> 255), or by 16 when a 12-bit camera filled only
    the lower part. Floats that do not exceed 1 are fractions of white. An orientation that the file notes (EXIF) is
    applied.

    Args:
        path: a PNG, JPEG, TIFF or BMP file.

    Returns:
        uint8 array of shape (height, width, 3).

    Raises:
        InputError: if the file is missing, truncated, not an image, or a TIFF of several pages.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            deep = _load(path, image)
            return _turned_upright(_to_rgb(image), image) if deep is None else _deep_to_rgb(deep)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image (PNG, JPEG, TIFF or BMP expected)") from None
    except InputError:
        raise  # is a ValueError
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read ({_first_line(error)}); copy the file again") from None


def read_values(path: str | os.PathLike) -> np.ndarray:
    """Read an image file with its values as stored (palette indices for palette images), upright.

    Returns:
        Array of shape (height, width) or (height, width, channels).

    Raises:
        InputError: if it is a TIFF of several pages.
        OSError, SyntaxError, ValueError, DecompressionBombError: of Pillow, for any other file that cannot be read.
    """
    with Image.open(path) as image:
        deep = _load(path, image)
        return _turned_upright(np.asarray(image), image) if deep is None else deep


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, read from its header alone.

    Raises:
        InputError: if the file is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            if image.format == "TIFF":
                # Whether Pillow has turned the size already depends on its version.
                tags = (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength)
                width, height = (int(image.tag_v2[tag]) for tag in tags)
                orientation = image.tag_v2.get(ExifTags.Base.Orientation)
            else:
                (width, height), orientation = image.size, _orientation(image)
            return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError):
        raise InputError(f"{path}: not an image that can be read") from None


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


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn or mirror an array of shape (height, width, ...) by EXIF's number for its orientation, 1 to 8.

    Returns:
        Contiguous array, of shape (width, height, ...) for 5 to 8; the input itself for 1 and unknown numbers.

    Reference:
        Exif 2.32, tag 274, which is TIFF 6.0's: where the first row and the first column of the stored image belong.
    """
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _turned_upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Turn the pixels of a loaded image as its file says; of TIFF files Pillow has done so while loading."""
    return pixels if image.format == "TIFF" else turn(pixels, _orientation(image))


def _orientation(image: Image.Image) -> int:
    """EXIF's number, 1 where there is none or the notes are damaged: pixels that can be read count for more."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises a dozen kinds of errors for damaged notes
        return 1


def _load(path: str | os.PathLike, image: Image.Image) -> np.ndarray | None:
    """Load an opened image.

    Returns:
        Where the image has colours of 16 bits, of which Pillow drops the lower eight, its true values: uint16 array of
        shape (height, width, 3), or 4 with transparency, upright. None for any other image.
    """
    is_deep = False
    if image.format == "TIFF":
        _check_single_page(path, image)
        is_deep = 16 in np.atleast_1d(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1))
    elif image.format == "PNG":
        # Told by what is to be decoded, which loading forgets.
        is_deep = any(";16" in str(tile[3]) for tile in image.tile)
    image.load()
    if not is_deep or image.mode not in ("RGB", "RGBA", "RGBX", "LA"):
        return None
    values = _deep_tiff(path) if image.format == "TIFF" else turn(_decode(path), _orientation(image))
    return None if values is None else values[..., : 4 if image.mode in ("RGBA", "LA") else 3]


def _check_single_page(path: str | os.PathLike, image: Image.Image) -> None:
    """Refuse a TIFF of several images: which of them is meant cannot be known."""
    if getattr(image, "n_frames", 1) == 1:
        return
    with tifffile.TiffFile(path) as file:
        count = sum(not page.subfiletype & _COPY_OF_A_PAGE for page in file.pages)
    if count > 1:
        raise InputError(f"{path}: {count} pages in one TIFF file; save each as a file of its own")


def _deep_tiff(path: str | os.PathLike) -> np.ndarray | None:
    """The first page of a TIFF if it has colours of 16 bits, upright, channels last."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if page.dtype != np.uint16 or page.photometric != tifffile.PHOTOMETRIC.RGB:
            return None
        is_planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        try:
            values = page.asarray()
        except ValueError as error:  # a compression that it lacks; OpenCV has most, but takes planes for colours
            if is_planar:
                raise ValueError(f"16-bit colours in planes, {_first_line(error)}") from None
            return _decode(path)  # turns TIFF files by itself
        tag = page.tags.get(int(ExifTags.Base.Orientation))
    return turn(np.moveaxis(values, 0, -1) if is_planar else values, 1 if tag is None else int(tag.value))


def _decode(path: str | os.PathLike) -> np.ndarray:
    """Decode an image file of 16-bit colours with OpenCV; shape (height, width, 3 or 4)."""
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise ValueError("16-bit colours in a form that is not supported")
    return values[..., [2, 1, 0, *range(3, values.shape[-1])]]


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_to_eight_bits(np.asarray(image))[..., np.newaxis], 3, axis=-1)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _deep_to_rgb(values: np.ndarray) -> np.ndarray:
    colours = _to_eight_bits(values[..., :3])
    if values.shape[-1] == 3:
        return colours
    opacity = values[..., 3:] / 65535.0
    return np.round(colours * opacity + 255.0 * (1.0 - opacity)).astype(np.uint8)


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Bring values of more than 8 bits to uint8, all channels alike."""
    is_fraction = np.issubdtype(values.dtype, np.floating) and values.max(initial=0.0) <= 1.0
    values = values.astype(np.float64)
    top = values.max(initial=0.0)
    if is_fraction:
        values = values * 255.0
    elif top > 4095:
        values = values / 256.0
    elif top > 255:
        values = values / 16.0
    return np.clip(values, 0, 255).astype(np.uint8)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
