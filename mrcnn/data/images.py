"""Any image file as 8-bit RGB."""

import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image, UnidentifiedImageError

from mrcnn.files.errors import InputError, one_line

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
# Their kinds by content. Pillow knows dozens more, some of which start other programs (EPS) or hold films (GIF).
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# About 8,900 x 8,900. Unpacked such an image takes a few hundred MB; larger ones are whole slides, or damage.
MAX_PIXELS = 80_000_000
# What decoders raise for files that they cannot read.
DAMAGES = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, EOFError, MemoryError),
    *(struct.error, zlib.error, cv2.error, tifffile.TiffFileError, Image.DecompressionBombError),
)
# Pillow warns of images that are larger than this module takes.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_PLANES = 2  # TIFF's number for one plane after the other
# TIFF's marks of a page that is a smaller copy of another, or its transparency.
_COPY_OF_A_PAGE = 1 | 4
# Two of EXIF's orientations are undone by each other, the others by themselves.
_UNDONE_BY = {6: 8, 8: 6}


def read_image(path: str | os.PathLike, *, upright: bool = True) -> np.ndarray:
    """Read an image file as RGB, upright as viewers show it (EXIF).

    Grey is repeated over the channels, transparency is laid over white (a slide's empty background). 16-bit values are
    divided by 256, or by 16 where a 12-bit camera filled only the lower part. Floats up to 1 are fractions of white.

    Args:
        path: a PNG, JPEG, TIFF or BMP file of at most `MAX_PIXELS`; its content counts and not its suffix.
        upright: False leaves rows and columns as they are stored, whatever orientation the file notes.

    Returns:
        uint8 array of shape (height, width, 3).

    Raises:
        InputError: if the file cannot be read, is too large, a TIFF of several pages, or has values that are no
            brightness: negative, above 16 bits, or no number.
    """
    with _opened(path) as image:
        turned = _tiff_orientation(image)
        deep = _load(path, image)
        if deep is None:
            pixels = turn(_to_rgb(image), _orientation(image))
        else:
            pixels, opacity = _to_eight_bits(deep[..., :3]), deep[..., 3:] / np.float32(65535)
            if opacity.size:
                pixels = np.rint(pixels * opacity + 255 * (1 - opacity)).astype(np.uint8)
        turned = turned or _orientation(image)
        return pixels if upright else turn(pixels, _UNDONE_BY.get(turned, turned))


def read_values(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as `read_image` does, but with its values as stored: those of 16 bits, palette indices.

    The array is of shape (height, width) or (height, width, channels).
    """
    with _opened(path) as image:
        deep = _load(path, image)
        return turn(np.asarray(image), _orientation(image)) if deep is None else deep


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, read from its header alone."""
    with _opened(path) as image:
        if image.format != "TIFF":
            (width, height), orientation = image.size, _orientation(image)
        else:  # whether Pillow has turned the size already depends on its version
            width, height = (int(image.tag_v2[tag]) for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength))
            orientation = _tiff_orientation(image)
        return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Return the image files directly inside `folder`, sorted by name; hidden files are left out."""
    if not os.path.isdir(folder):  # of Path it would fail for a name that is too long
        raise InputError(f"{folder}: no such folder")
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn or mirror an array of shape (height, width, ...) by EXIF's number for its orientation, 1 to 8.

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


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong with it is an InputError."""
    if not os.path.isfile(path):  # reading a pipe may never end
        raise InputError(f"{path}: no such image file")
    too_large = InputError(f"{path}: more than {MAX_PIXELS // 10**6} million pixels; cut the image into tiles")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if math.prod(image.size) > MAX_PIXELS:
                raise too_large
            if min(image.size) < 1:
                raise ValueError("no pixels")
            yield image
    except InputError:
        raise  # is a ValueError
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image (PNG, JPEG, TIFF or BMP expected)") from None
    except Image.DecompressionBombError:
        raise too_large from None
    except DAMAGES as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); copy the file again") from None


def _load(path: str | os.PathLike, image: Image.Image) -> np.ndarray | None:
    """Load an opened image; of colours of 16 bits, of which Pillow drops the lower eight, return the true values.

    They are uint16 (height, width, 3), or 4 with transparency, upright.
    """
    is_planar = False
    if image.format == "TIFF":
        if getattr(image, "n_frames", 1) > 1:  # which of them is meant cannot be known
            with tifffile.TiffFile(path) as file:
                count = sum(not page.subfiletype & _COPY_OF_A_PAGE for page in file.pages)
            if count > 1:
                raise InputError(f"{path}: {count} pages in one TIFF file; save each as a file of its own")
        is_deep = 16 in np.atleast_1d(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1))
        is_planar = image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == _PLANES
        orientation = _tiff_orientation(image)
    else:  # told by what is to be decoded, which loading forgets
        is_deep = any(";16" in str(tile[3]) for tile in image.tile)
    if image.format == "PNG":  # loading looks at no checksum
        with Image.open(path) as copy:
            copy.verify()
    # Of a file with fewer strips or tiles than its size takes Pillow leaves the rest black.
    areas = ((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in image.tile)
    if sum(areas) < math.prod(image.size):
        raise ValueError("part of the image is missing")
    image.load()
    if not is_deep or image.mode not in ("RGB", "RGBA", "RGBX", "LA"):
        return None
    if is_planar:  # which OpenCV takes for colours side by side
        values = turn(np.moveaxis(tifffile.imread(path, key=0), 0, -1), orientation)
    else:
        values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None or values.ndim != 3:
            raise ValueError("16-bit colours in a form that is not supported")
        values = values[..., [2, 1, 0, *range(3, values.shape[-1])]]
        values = turn(values, _orientation(image))
    return values[..., : 4 if image.mode in ("RGBA", "LA") else 3]


def _orientation(image: Image.Image) -> int:
    """EXIF's number for how to turn the pixels; 1 for TIFF files, which Pillow and OpenCV turn while loading.

    It is 1 too where the notes are damaged: pixels that can be read count for more.
    """
    try:
        return 1 if image.format == "TIFF" else int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises a dozen kinds of errors for damaged notes
        return 1


def _tiff_orientation(image: Image.Image) -> int:
    """The same of a TIFF file, which has it until it is loaded; 0 for other files."""
    return image.tag_v2.get(ExifTags.Base.Orientation, 1) if image.format == "TIFF" else 0


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_to_eight_bits(np.asarray(image))[..., np.newaxis], 3, axis=-1)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Bring values of more than 8 bits to uint8, all channels alike."""
    low, top = float(values.min()), float(values.max())
    is_float = np.issubdtype(values.dtype, np.floating)
    # Floats just above 1 are fractions that were sharpened or scaled; taken for values up to 255 they would be black.
    if not (0 <= low and top <= 65535) or (is_float and 1.0 < top < 2.0):
        raise ValueError(f"values from {low:g} to {top:g}, which are no brightness; save it with 8 or 16 bits")
    shift = 8 if top > 4095 else 4 if top > 255 else 0
    if not is_float:
        return (values >> shift).astype(np.uint8)
    scale = 255.0 if top <= 1.0 else 0.5**shift
    return np.clip(values.astype(np.float64) * scale, 0, 255).astype(np.uint8)
