"""Small images in many forms, as bytes, with what a reader has to make of them; the case modules damage them."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 24, 32


@cache
def picture() -> np.ndarray:
    """A smooth picture, so that JPEG keeps it, of colours that differ from each other and from left to right."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    channels = 40 + 6 * columns, 230 - 7 * rows, 60 + 4 * (rows + columns) // 2
    picture = np.stack(channels, axis=-1).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def grey() -> np.ndarray:
    """The red of the picture."""
    return picture()[..., 0]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: np.ndarray | bytes,
    width: int,
    height: int,
    depth: int = 8,
    colour: int = 2,
    *,
    more: bytes = b"",
    **header: int,
) -> bytes:
    """A PNG file with any header.

    Args:
        rows: uint8 array of packed rows of shape (height, bytes), or the content of IDAT.
        width: as the header has it.
        height: the same.
        depth: bits of a sample.
        colour: type, 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        more: chunks before IDAT.
        header: `method`, `filter` and `interlace`, 0 otherwise.
    """
    if isinstance(rows, np.ndarray):
        rows = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    rest = bytes(header.get(name, 0) for name in ("method", "filter", "interlace"))
    start = png_chunk(b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + rest)
    return b"\x89PNG\r\n\x1a\n" + start + more + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def saved(image: Image.Image | np.ndarray, file_format: str, **options) -> bytes:
    """An image as Pillow writes it."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, file_format, **options)
    return stream.getvalue()


def tiff(values: np.ndarray | Sequence[np.ndarray], **options) -> bytes:
    """An array, or several pages, as tifffile writes them."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(
        stream, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<")
    ) as writer:
        for page in [values] if isinstance(values, np.ndarray) else values:
            writer.write(page, metadata=None, **options)
    return stream.getvalue()


def raw_tiff(tags: dict[int, tuple[int, int, int | bytes]], data: bytes = b"", next_ifd: int = 0) -> bytes:
    """A little-endian TIFF file with any tags.

    Args:
        tags: by number type, count and value; a number of 4 bytes, or bytes that are put behind the directory.
        data: pixels, which begin at byte 8.
        next_ifd: where the next directory is said to be; -1 is this one.
    """
    start = 8 + len(data)
    behind = start + 2 + 12 * len(tags) + 4
    entries, rest = b"", b""
    for tag, (kind, count, value) in sorted(tags.items()):
        if isinstance(value, bytes):
            entries += struct.pack("<HHII", tag, kind, count, behind + len(rest))
            rest += value
        else:
            entries += struct.pack("<HHII", tag, kind, count, value & 0xFFFFFFFF)
    link = struct.pack("<I", start if next_ifd == -1 else next_ifd)
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(tags)) + entries + link + rest


def grey_tiff_tags(width: int, height: int, num_bytes: int, compression: int = 1) -> dict[int, tuple[int, int, int]]:
    """Tags of an 8-bit grey TIFF of one strip at byte 8."""
    values = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: height, 279: num_bytes}
    return {tag: (4 if tag in (256, 257, 273, 278, 279) else 3, 1, value) for tag, value in values.items()}


def bmp(width: int, height: int, pixels: bytes, bits: int = 24, compression: int = 0, palette: bytes = b"") -> bytes:
    """A BMP file with any header."""
    offset = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + palette + pixels


@cache
def good_files() -> dict[str, tuple[str, bytes, np.ndarray, int]]:
    """Files that are as they should be.

    Returns:
        By name: file name, content, uint8 RGB array that they hold, and by how much a value may differ.
    """
    rgb, level = picture(), grey()
    levels = np.repeat(level[..., np.newaxis], 3, axis=-1)
    deep, fine = rgb.astype(np.uint16) * 257, level.astype(np.uint16) * 257
    cyan = 255 - rgb.astype(np.uint8)
    cmyk = Image.merge("CMYK", [Image.fromarray(c) for c in (*np.moveaxis(cyan, -1, 0), np.zeros_like(level))])
    opacity = np.zeros_like(level)
    opacity[:, WIDTH // 2 :] = 255
    half = np.where(opacity[..., np.newaxis] > 0, rgb, 255).astype(np.uint8)
    half_grey = np.where(opacity[..., np.newaxis] > 0, levels, 255).astype(np.uint8)
    rgba, la = np.dstack([rgb, opacity]), np.dstack([level, opacity])
    bits = level > 130
    black_white = np.repeat(np.where(bits, 255, 0).astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    palette = Image.fromarray(level // 32)
    palette.putpalette([v for i in range(8) for v in (i * 30, 255 - i * 20, i * 10)])
    coloured = np.array([(i * 30, 255 - i * 20, i * 10) for i in range(8)], np.uint8)[level // 32]
    clear = coloured.copy()
    clear[level // 32 == 3] = 255
    big = np.kron(rgb, np.ones((8, 8, 1), np.uint8))
    bgr_rows = np.pad(rgb[::-1, :, ::-1].reshape(HEIGHT, -1), ((0, 0), (0, -WIDTH * 3 % 4)))
    rle = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in level[::-1].tolist()) + b"\0\1"
    greys = b"".join(bytes([i, i, i, 0]) for i in range(256))
    files: dict[str, tuple[str, bytes, np.ndarray, int]] = {}

    def add(name: str, suffix: str, content: bytes, expected: np.ndarray, tolerance: int = 0) -> None:
        files[name] = (f"{name.replace(' ', '_')}.{suffix}", content, expected, tolerance)

    add("png rgb", "png", saved(rgb, "PNG"), rgb)
    add("png grey", "png", saved(level, "PNG"), levels)
    add("png 1 bit", "png", saved(bits, "PNG"), black_white)
    add("png 2 bit", "png", png(_packed(level // 64, 2), WIDTH, HEIGHT, 2, 0), levels // 64 * 85)
    add("png 4 bit", "png", png(_packed(level // 16, 4), WIDTH, HEIGHT, 4, 0), levels // 16 * 17)
    add("png palette", "png", saved(palette, "PNG"), coloured)
    add("png palette clear", "png", saved(palette, "PNG", transparency=3), clear)
    add("png alpha", "png", saved(rgba, "PNG"), half)
    add("png grey alpha", "png", saved(Image.fromarray(la, "LA"), "PNG"), half_grey)
    add("png 16 grey", "png", saved(Image.fromarray(fine), "PNG"), levels)
    add("png 16 rgb", "png", png(_big_endian(deep), WIDTH, HEIGHT, 16, 2), rgb)
    deep_half = np.dstack([deep, opacity.astype(np.uint16) * 257])
    add("png 16 alpha", "png", png(_big_endian(deep_half), WIDTH, HEIGHT, 16, 6), half)
    add("png interlaced", "png", png(_interlaced(rgb), WIDTH, HEIGHT, interlace=1), rgb)
    add("png many idat", "png", _split_idat(saved(rgb, "PNG")), rgb)
    add("jpeg 444", "jpg", saved(big, "JPEG", quality=95, subsampling=0), big, 10)
    add("jpeg 420", "jpg", saved(big, "JPEG", quality=95, subsampling=2), big, 24)
    add("jpeg progressive", "jpg", saved(big, "JPEG", quality=95, subsampling=0, progressive=True), big, 10)
    add("jpeg restarts", "jpg", saved(big, "JPEG", quality=95, subsampling=0, restart_marker_blocks=2), big, 10)
    add("jpeg grey", "jpeg", saved(big[..., 0], "JPEG", quality=95), np.repeat(big[..., :1], 3, -1), 10)
    large = cmyk.resize((WIDTH * 8, HEIGHT * 8), Image.Resampling.NEAREST)
    add("jpeg cmyk", "jpg", saved(large, "JPEG", quality=95, subsampling=0), big, 12)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd"):
        content = saved(rgb, "TIFF", compression=compression)
        add(f"tiff {compression}", "tif", content, rgb)
    add("tiff jpeg", "tif", saved(big, "TIFF", compression="jpeg", quality=95), big, 24)
    add("tiff 1 bit", "tif", saved(bits, "TIFF", compression="group4"), black_white)
    add("tiff alpha", "tiff", saved(rgba, "TIFF"), half)
    add("tiff cmyk", "tif", saved(cmyk, "TIFF"), rgb, 2)
    add("tiff palette", "tif", saved(palette, "TIFF"), coloured)
    add("tiff white is zero", "tif", tiff(255 - level, photometric="miniswhite"), levels)
    add("tiff big endian", "tif", tiff(rgb, photometric="rgb", byteorder=">"), rgb)
    add("tiff big", "tif", tiff(rgb, photometric="rgb", bigtiff=True), rgb)
    tiles = np.kron(rgb, np.ones((2, 2, 1), np.uint8))
    add("tiff tiles", "tif", tiff(tiles, photometric="rgb", tile=(16, 16)), tiles)
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    add("tiff planes", "tif", tiff(planes, photometric="rgb", planarconfig="separate"), rgb)
    add("tiff predictor", "tif", tiff(rgb, photometric="rgb", compression="zlib", predictor=True), rgb)
    add("tiff strips", "tif", tiff(rgb, photometric="rgb", rowsperstrip=5), rgb)
    add("tiff 16 grey", "tif", tiff(fine, photometric="minisblack"), levels)
    add("tiff 16 rgb", "tif", tiff(deep, photometric="rgb"), rgb)
    add("tiff 12 in 16", "tif", tiff(fine // 16, photometric="minisblack"), levels)
    add("tiff fractions", "tif", tiff((level / 255).astype(np.float32), photometric="minisblack"), levels, 1)
    add("tiff float", "tif", tiff(level.astype(np.float32), photometric="minisblack"), levels)
    add("tiff int32", "tif", tiff(level.astype(np.int32), photometric="minisblack"), levels)
    add("bmp 24", "bmp", saved(rgb, "BMP"), rgb)
    add("bmp grey", "bmp", saved(level, "BMP"), levels)
    add("bmp palette", "bmp", saved(palette, "BMP"), coloured)
    add("bmp 1 bit", "bmp", saved(bits, "BMP"), black_white)
    add("bmp 32", "bmp", saved(Image.fromarray(rgba).convert("RGB").convert("RGBA"), "BMP"), rgb)
    add("bmp top down", "bmp", bmp(WIDTH, -HEIGHT, np.ascontiguousarray(bgr_rows[::-1]).tobytes()), rgb)
    add("bmp rle", "bmp", bmp(WIDTH, HEIGHT, rle, 8, 1, greys), levels)
    return files


def jpeg_markers(content: bytes) -> list[int]:
    """Where the markers of a JPEG file are, those in the compressed data too."""
    return [i for i in range(len(content) - 1) if content[i] == 0xFF and content[i + 1] not in (0x00, 0xFF)]


def png_chunks(content: bytes) -> list[tuple[int, bytes, int]]:
    """(start, kind, length) of each chunk of a PNG file."""
    found, position = [], 8
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        found.append((position, kind, length))
        position += 12 + length
    return found


def alike(expected: np.ndarray, tolerance: int = 0) -> Callable[[np.ndarray], None]:
    """A check that an image is the expected one."""

    def check(value: np.ndarray) -> None:
        valid(value)
        assert value.shape == expected.shape, f"shape {value.shape} instead of {expected.shape}"
        difference = int(np.abs(value.astype(int) - expected).max(initial=0))
        assert difference <= tolerance, f"differs by up to {difference}"

    return check


def valid(value: np.ndarray) -> None:
    """A check that a value is an image."""
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8, f"{type(value)} of {getattr(value, 'dtype', '')}"
    assert value.ndim == 3 and value.shape[2] == 3 and min(value.shape) > 0, f"shape {value.shape}"


def _packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Rows of samples of a few bits."""
    groups = values.reshape(len(values), -1, 8 // bits).astype(int)
    return (groups << np.arange(8 - bits, -1, -bits)).sum(axis=-1).astype(np.uint8)


def _big_endian(values: np.ndarray) -> np.ndarray:
    return values.astype(">u2").reshape(len(values), -1).view(np.uint8)


def _interlaced(rgb: np.ndarray) -> bytes:
    """The content of IDAT with PNG's seven passes (Adam7)."""
    rows = b""
    for top, left, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)):
        rows += b"".join(b"\0" + row.tobytes() for row in rgb[top::down, left::right])
    return zlib.compress(rows + b"".join(b"\0" + row.tobytes() for row in rgb[1::2]))


def _split_idat(content: bytes) -> bytes:
    """The same PNG file with its data in chunks of 20 bytes."""
    result = content[:8]
    for start, kind, length in png_chunks(content):
        data = content[start + 8 : start + 8 + length]
        parts = [data[i : i + 20] for i in range(0, length, 20)] if kind == b"IDAT" else [data]
        result += b"".join(png_chunk(kind, part) for part in parts)
    return result
