"""Malformed image files: cut, changed, made up, too large, of another kind, and what is no file at all."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from case import Case, file_of
from image_bytes import (
    HEIGHT,
    WIDTH,
    alike,
    bmp,
    good_files,
    grey_tiff_tags,
    jpeg_markers,
    picture,
    png,
    png_chunk,
    png_chunks,
    raw_tiff,
    saved,
    tiff,
    valid,
)
from PIL import Image

from mrcnn.data.images import image_size, list_images, read_image
from mrcnn.data.label_images import write_label_image
from mrcnn.errors import InputError

AT_LEAST = 800
# Files of these kinds are cut and changed.
DAMAGED = (
    "png rgb",
    "png palette clear",
    "png 16 rgb",
    "png interlaced",
    "jpeg 444",
    "jpeg progressive",
    "jpeg cmyk",
    "tiff raw",
    "tiff tiff_lzw",
    "tiff tiff_adobe_deflate",
    "tiff packbits",
    "tiff jpeg",
    "tiff tiles",
    "tiff 16 rgb",
    "tiff float",
    "bmp 24",
    "bmp rle",
    "bmp palette",
)
SIDE = 30_000


def read_first(folder: Path) -> np.ndarray:
    """Read the one image that a folder is said to hold."""
    found = list_images(folder)
    if not found:
        raise InputError(f"{folder}: no images")
    return read_image(found[0])


READERS = {"read_image": read_image, "image_size": image_size, "list_images": read_first}


def cases(reader: str, seed: int) -> Iterator[Case]:
    """All cases of a reader."""
    if reader == "read_image":
        yield from _good()
        yield from _cut()
        yield from _changed(seed)
        yield from _numbers()
        yield from _made_up()
        yield from _other_kinds()
        yield from _several_pages()
    elif reader == "image_size":
        yield from _sizes()
    if reader in ("read_image", "image_size"):
        is_size = reader == "image_size"
        yield from _bombs()
        yield from _no_files()
        yield from _names((lambda value: _same_size(value)) if is_size else alike(picture()))
    if reader == "list_images":
        yield from _folders()


def _good() -> Iterator[Case]:
    for name, (file_name, content, expected, tolerance) in good_files().items():
        check = alike(expected, tolerance)
        yield Case(name, file_of(file_name, content), "accepted", check)
        for suffix in ("png", "jpg"):
            wrong = "bmp" if file_name.endswith(suffix) else suffix
            yield Case(f"{name} called {wrong}", file_of(f"a.{wrong}", content), "accepted", check)
        yield Case(f"{name} and more", file_of(file_name, content + b"\0more" * 50), "accepted", check)
    for file_format in ("PNG", "JPEG", "TIFF", "BMP"):
        for height, width in ((1, 1), (1, 9), (9, 1), (1, 5000), (5000, 1)):
            pixels = np.full((height, width, 3), (200, 100, 50), np.uint8)
            content = saved(pixels, file_format, **({"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}))
            file_name = f"a.{file_format.lower()}"
            yield Case(f"{file_format} {width}x{height}", file_of(file_name, content), "accepted", alike(pixels, 3))


def _cut() -> Iterator[Case]:
    for name in DAMAGED:
        file_name, content, expected, tolerance = good_files()[name]
        cuts = {0, 1, 2, 4, 8, 9, 16, 30, len(content) // 4, len(content) // 2, len(content) * 3 // 4, len(content) - 1}
        if file_name.endswith("png"):
            for start, _, length in png_chunks(content):
                cuts |= {start, start + 4, start + 8, start + 8 + length // 2, start + 8 + length}
        elif name.startswith("jpeg"):
            for start in jpeg_markers(content):
                cuts |= {start, start + 1, start + 2, start + 4}
        elif file_name.endswith("tif"):
            (directory,) = struct.unpack_from("<I", content, 4)
            cuts |= {directory, directory + 2, directory + 7, directory + 30}
        for length in sorted(cut for cut in cuts if 0 <= cut < len(content)):
            # What stands at the end of these files may be dispensable: checksums, marks of the end, tags.
            is_whole = length > len(content) - 20 or (file_name.endswith("tif") and length > len(content) // 2)
            expect = "either" if is_whole else "refused"
            check = alike(expected, tolerance)
            yield Case(f"{name} cut after {length} bytes", file_of(file_name, content[:length]), expect, check)


def _changed(seed: int) -> Iterator[Case]:
    random = np.random.default_rng(seed)
    for name in DAMAGED:
        file_name, content, expected, tolerance = good_files()[name]
        # PNG has checksums: what is accepted all the same is the picture.
        check = alike(expected, tolerance) if file_name.endswith("png") else valid
        for number in range(14):
            changed = bytearray(content)
            # Half of the flips in the header, where they do most.
            for _ in range(1 + number % 3):
                bit = int(random.integers(8 * (min(200, len(content)) if number % 2 else len(content))))
                changed[bit // 8] ^= 1 << bit % 8
            yield Case(f"{name} flipped {number}", file_of(file_name, bytes(changed)), "either", check)
        for number, value in enumerate((0x00, 0xFF)):
            changed = bytearray(content)
            start = int(random.integers(len(content) // 4, len(content) // 2))
            changed[start : start + 40] = bytes([value]) * len(changed[start : start + 40])
            yield Case(f"{name} overwritten {number}", file_of(file_name, bytes(changed)), "either", check)
        yield Case(f"{name} behind 3 bytes", file_of(file_name, b"abc" + content), "refused")
        reversed_ = content[: len(content) // 2] + content[: len(content) // 2]
        yield Case(f"{name} first half twice", file_of(file_name, reversed_), "either", check)


def _numbers() -> Iterator[Case]:
    """Values that have no place between 0 and 255."""
    level = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("negative", -0.1), ("above white", 1.05), ("huge", 1e30)):
        values = level.copy()
        values[3, 4] = value
        yield Case(f"float {name}", file_of("a.tif", tiff(values, photometric="minisblack")), "refused")
    for name, value in (("negative", -5), ("huge", 2**30)):
        values = np.full((HEIGHT, WIDTH), 100, np.int32)
        values[3, 4] = value
        yield Case(f"int32 {name}", file_of("a.tif", tiff(values, photometric="minisblack")), "refused")
    for kind in (np.int16, np.uint32, np.float64, np.float16, np.int8, np.uint64, np.complex64):
        values = np.full((HEIGHT, WIDTH), 100, kind)
        content = tiff(values, photometric="minisblack")
        hundred = alike(np.full((HEIGHT, WIDTH, 3), 100, np.uint8))
        yield Case(f"tiff of {kind.__name__}", file_of("a.tif", content), "either", hundred)
    for channels in (2, 5, 6, 9):
        values = np.full((HEIGHT, WIDTH, channels), 100, np.uint8)
        extra = {"extrasamples": ["unspecified"] * (channels - 1)}
        content = tiff(values, photometric="minisblack", planarconfig="contig", **extra)
        yield Case(f"tiff of {channels} channels", file_of("a.tif", content), "either", valid)
    negative = tiff(np.full((HEIGHT, WIDTH), -5, np.int16), photometric="minisblack")
    yield Case("tiff of negative int16", file_of("a.tif", negative), "refused")


def _made_up() -> Iterator[Case]:
    rows = picture().reshape(HEIGHT, -1)
    for name, width, height, depth, colour in (
        ("no width", 0, HEIGHT, 8, 2),
        ("no height", WIDTH, 0, 8, 2),
        ("depth 3", WIDTH, HEIGHT, 3, 2),
        ("depth 0", WIDTH, HEIGHT, 0, 2),
        ("colour 7", WIDTH, HEIGHT, 8, 7),
        ("taller", WIDTH, HEIGHT + 1, 8, 2),
        ("much taller", WIDTH, 3000, 8, 2),
        ("palette without one", WIDTH * 3, HEIGHT, 8, 3),
        ("width of 31 bits", 2**31 - 1, 1, 8, 2),
        ("width of 32 bits", 2**32 - 1, 1, 8, 2),
    ):
        is_free = name == "palette without one"
        content = png(rows, width, height, depth, colour)
        yield Case(f"png {name}", file_of("a.png", content), "either" if is_free else "refused", valid)
    for field in ("method", "filter", "interlace"):
        content = png(rows, WIDTH, HEIGHT, **{field: 9})
        yield Case(f"png {field} 9", file_of("a.png", content), "either", alike(picture()))
    yield Case("png wrong filter type", file_of("a.png", png(zlib.compress(b"\x09" * 2400), WIDTH, HEIGHT)), "refused")
    yield Case("png data is no zlib", file_of("a.png", png(b"abc" * 500, WIDTH, HEIGHT)), "refused")
    yield Case("png empty data", file_of("a.png", png(b"", WIDTH, HEIGHT)), "refused")
    yield Case("png shorter", file_of("a.png", png(rows, WIDTH, 5)), "either", alike(picture()[:5]))
    bomb = zlib.compress(bytes(200_000_000), 9)
    for name, more in (
        ("text", png_chunk(b"zTXt", b"a\0\0" + bomb)),
        ("international text", png_chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)),
        ("colour profile", png_chunk(b"iCCP", b"a\0\0" + bomb)),
        ("many texts", png_chunk(b"tEXt", b"a\0" + b"b" * 1000) * 20_000),
    ):
        content = png(rows, WIDTH, HEIGHT, more=more)
        yield Case(f"png {name} that unpacks to much", file_of("a.png", content), "either", alike(picture()))
    long = png(rows, WIDTH, HEIGHT)[:33] + struct.pack(">I4s", 2**31 - 1, b"tEXt") + b"abc"
    yield Case("png chunk of 2 GiB", file_of("a.png", long), "refused")
    stored = png(zlib.compress(bytes(500_000_000), 9), WIDTH, HEIGHT)
    yield Case("png data that unpacks to much", file_of("a.png", stored), "either", valid)
    jpeg = good_files()["jpeg 444"][1]
    start = next(i for i in jpeg_markers(jpeg) if jpeg[i + 1] == 0xC0)
    for name, height, width in (("no height", 0, 256), ("no width", 192, 0), ("much taller", 9000, 256)):
        changed = jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]
        # JPEG does not say how much data there is; its decoder fills up what is missing.
        is_free = name == "much taller"
        yield Case(f"jpeg {name}", file_of("a.jpg", changed), "either" if is_free else "refused", valid)
    for name, offset, value in (("precision 12", 4, 12), ("precision 16", 4, 16), ("no components", 9, 0)):
        changed = jpeg[: start + offset] + bytes([value]) + jpeg[start + offset + 1 :]
        yield Case(f"jpeg {name}", file_of("a.jpg", changed), "refused")
    yield Case("jpeg marks alone", file_of("a.jpg", b"\xff\xd8\xff\xd9"), "refused")
    yield Case("jpeg fill bytes", file_of("a.jpg", b"\xff\xd8" + b"\xff" * 100_000), "refused")
    yield from _made_up_tiffs()
    data = picture()[::-1, :, ::-1].tobytes()
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, content, expect, check in (
        ("no width", bmp(0, HEIGHT, data), "refused", None),
        ("no height", bmp(WIDTH, 0, data), "refused", None),
        ("negative width", bmp(-WIDTH, HEIGHT, data), "refused", None),
        ("7 bits", bmp(WIDTH, HEIGHT, data, 7), "refused", None),
        ("compression 99", bmp(WIDTH, HEIGHT, data, compression=99), "refused", None),
        ("taller", bmp(WIDTH, HEIGHT + 1, data), "refused", None),
        ("lowest height", bmp(WIDTH, -(2**31), data), "refused", None),
        ("index without colour", bmp(WIDTH, HEIGHT, b"\xff" * black.size, 8, 0, bytes(8)), "either", valid),
        ("rle over the edge", bmp(WIDTH, HEIGHT, b"\xff\x05" * 3000, 8, 1, bytes(1024)), "either", valid),
        ("rle jumps", bmp(WIDTH, HEIGHT, b"\0\2\xff\xff" * 3000, 8, 1, bytes(1024)), "either", valid),
    ):
        yield Case(f"bmp {name}", file_of("a.bmp", content), expect, check)


def _made_up_tiffs() -> Iterator[Case]:
    data = picture()[..., 0].tobytes()
    good = grey_tiff_tags(WIDTH, HEIGHT, len(data))
    levels = np.repeat(picture()[..., :1], 3, axis=-1)
    yield Case("tiff of tags", file_of("a.tif", raw_tiff(good, data)), "accepted", alike(levels))
    for name, tag, value, expect in (
        ("no width", 256, (4, 1, 0), "refused"),
        ("no height", 257, (4, 1, 0), "refused"),
        ("taller", 257, (4, 1, HEIGHT * 2), "refused"),
        ("width of 32 bits", 256, (4, 1, 2**32 - 1), "refused"),
        ("64 bits", 258, (3, 1, 64), "refused"),
        ("no bits", 258, (3, 1, 0), "refused"),
        ("compression 65000", 259, (3, 1, 65000), "refused"),
        ("photometric 99", 262, (3, 1, 99), "refused"),
        ("strip behind the end", 273, (4, 1, 2**31), "refused"),
        ("strip at the last byte", 273, (4, 1, 8 + len(data) - 1), "either"),
        ("a billion strips", 273, (4, 2**30, 8), "refused"),
        ("65535 samples", 277, (3, 1, 65535), "refused"),
        ("no samples", 277, (3, 1, 0), "either"),
        ("rows per strip 0", 278, (4, 1, 0), "either"),
        ("strip of 4 GiB", 279, (4, 1, 2**32 - 1), "either"),
        ("strip of nothing", 279, (4, 1, 0), "either"),
        ("text of 4 GiB", 270, (2, 2**32 - 1, 8), "either"),
        ("planes 7", 284, (3, 1, 7), "either"),
        ("orientation 99", 274, (3, 1, 99), "either"),
        ("sample format 99", 339, (3, 1, 99), "refused"),
        ("predictor 99", 317, (3, 1, 99), "either"),
        ("tile of 2 GiB", 322, (4, 1, 2**31 - 1), "either"),
        ("tag type 200", 256, (200, 1, WIDTH), "refused"),
        ("width of text", 256, (2, 4, WIDTH), "refused"),
    ):
        check = valid if expect == "either" else None
        yield Case(f"tiff {name}", file_of("a.tif", raw_tiff(good | {tag: value}, data)), expect, check)
    for tag in good:
        lacking = {key: value for key, value in good.items() if key != tag}
        yield Case(f"tiff without tag {tag}", file_of("a.tif", raw_tiff(lacking, data)), "either", valid)
    yield Case("tiff that goes round", file_of("a.tif", raw_tiff(good, data, next_ifd=-1)), "either", alike(levels))
    yield Case("tiff without tags", file_of("a.tif", raw_tiff({}, data)), "refused")
    yield Case("tiff directory far off", file_of("a.tif", b"II*\0" + struct.pack("<I", 2**32 - 1)), "refused")
    yield Case("tiff directory in its header", file_of("a.tif", b"II*\0" + bytes(4)), "refused")
    many = struct.pack("<H", 65535) + bytes(12 * 65535)
    yield Case("tiff of 65535 tags", file_of("a.tif", b"II*\0" + struct.pack("<I", 8) + many), "refused")
    chain = b"II*\0" + struct.pack("<I", 8)
    for number in range(50_000):
        chain += struct.pack("<HHHII", 1, 254, 4, 1, 0) + struct.pack("<I", 8 + 18 * (number + 1))
    yield Case("tiff of 50,000 directories", file_of("a.tif", chain), "refused")


def _other_kinds() -> Iterator[Case]:
    image = Image.fromarray(picture())
    for file_format in ("GIF", "WEBP", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "PDF", "EPS", "DDS", "AVIF"):
        try:
            content = saved(image, file_format)
        except (OSError, KeyError):
            continue  # a Pillow without this kind
        for suffix in ("png", "tif"):
            yield Case(f"{file_format} called {suffix}", file_of(f"a.{suffix}", content), "refused")
    for name, content in (
        ("text", b"image,label\na.png,BAS\n"),
        ("html", b"<!DOCTYPE html><html><body>404 not found</body></html>"),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'),
        ("json", b'{"a": 1}'),
        ("zip", b"PK\3\4" + bytes(60)),
        ("gzip", b"\x1f\x8b\x08" + bytes(60)),
        ("lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
        ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
        ("zeros", bytes(1000)),
        ("ones", b"\xff" * 1000),
    ):
        for suffix in ("png", "jpg", "tif", "bmp"):
            yield Case(f"{name} called {suffix}", file_of(f"a.{suffix}", content), "refused")


def _several_pages() -> Iterator[Case]:
    rgb = picture()
    for count in (2, 3, 40):
        yield Case(f"tiff of {count} pages", file_of("a.tif", tiff([rgb] * count, photometric="rgb")), "refused")
    stack = tiff(np.stack([rgb[..., 0]] * 4), photometric="minisblack")
    yield Case("tiff stack", file_of("a.tif", stack), "refused")
    yield Case("big tiff of pages", file_of("a.tif", tiff([rgb] * 2, photometric="rgb", bigtiff=True)), "refused")
    frames = [Image.fromarray(255 - rgb)]
    moving = saved(Image.fromarray(rgb), "PNG", save_all=True, append_images=frames)
    yield Case("moving png", file_of("a.png", moving), "accepted", alike(rgb))
    big = good_files()["jpeg 444"][2]
    stream = io.BytesIO()
    Image.fromarray(big).save(
        stream, "MPO", save_all=True, append_images=[Image.fromarray(255 - big)], quality=95, subsampling=0
    )
    yield Case("jpeg with a second picture", file_of("a.jpg", stream.getvalue()), "accepted", alike(big, 10))


def _bombs() -> Iterator[Case]:
    """Images of hundreds of millions of pixels, in a few kB; all are refused by their headers."""
    says = "pixels"
    for name, content in (
        ("png", png(zlib.compress(bytes(5_000_000), 9), SIDE, SIDE)),
        ("png 1 bit", png(zlib.compress(bytes((SIDE // 8 + 1) * SIDE), 9), SIDE, SIDE, 1, 0)),
        ("png 16 bit", png(zlib.compress(bytes(1000)), SIDE, SIDE, 16, 6)),
        ("png palette", png(b"", SIDE, SIDE, 8, 3, more=png_chunk(b"PLTE", bytes(6)))),
        ("png of 9,200", png(b"", 9200, 9200)),
        ("png of 12,000", png(b"", 12_000, 12_000)),
        ("tiff", raw_tiff(grey_tiff_tags(SIDE, SIDE, 8), bytes(8))),
        ("tiff deflate", raw_tiff(grey_tiff_tags(SIDE, SIDE, 1000, 8), zlib.compress(bytes(10**6)))),
        ("tiff lzw", raw_tiff(grey_tiff_tags(SIDE, SIDE, 1000, 5), bytes(1000))),
        ("tiff 16 bit", raw_tiff(grey_tiff_tags(SIDE, SIDE, 8) | {258: (3, 1, 16)}, bytes(8))),
        ("bmp", bmp(SIDE, SIDE, bytes(100))),
        ("bmp rle", bmp(SIDE, SIDE, b"\0\1", 8, 1, bytes(1024))),
        ("jpeg", _large_jpeg(SIDE, SIDE)),
        ("jpeg of 65,500", _large_jpeg(65_500, 65_500)),
    ):
        yield Case(f"bomb {name}", file_of(f"a.{name.split()[0]}", content), "refused", says=says)


def _large_jpeg(height: int, width: int) -> bytes:
    jpeg = good_files()["jpeg 444"][1]
    start = next(i for i in jpeg_markers(jpeg) if jpeg[i + 1] == 0xC0)
    return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]


def _no_files() -> Iterator[Case]:
    def linked(target: str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            (folder / "a.png").symlink_to(target)
            return folder / "a.png"

        return make

    def folder(parent: Path) -> Path:
        (parent / "a.png").mkdir()
        return parent / "a.png"

    def fifo(parent: Path) -> Path:
        os.mkfifo(parent / "a.png")
        return parent / "a.png"

    def open_socket(parent: Path) -> Path:
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.getcwd()
            os.chdir(parent)  # a socket's path may have 100 bytes only
            listener.bind("a.png")
            os.chdir(here)
        return parent / "a.png"

    def loop(parent: Path) -> Path:
        (parent / "a.png").symlink_to("b.png")
        (parent / "b.png").symlink_to("a.png")
        return parent / "a.png"

    yield Case("folder", folder, "refused")
    yield Case("pipe", fifo, "refused")
    yield Case("socket", open_socket, "refused")
    yield Case("links in a circle", loop, "refused")
    yield Case("link to itself", linked("a.png"), "refused")
    yield Case("link to nothing", linked("gone.png"), "refused")
    yield Case("link to endless zeros", linked("/dev/zero"), "refused")
    yield Case("link to null", linked("/dev/null"), "refused")
    yield Case("link to a folder", linked("."), "refused")
    yield Case("missing", lambda parent: parent / "a.png", "refused")
    yield Case("below a file", lambda parent: file_of("a.png", b"")(parent) / "b.png", "refused")
    yield Case("empty", file_of("a.png", b""), "refused")
    yield Case("name too long", lambda parent: parent / ("a" * 300 + ".png"), "refused", mentions="aaaa")
    yield Case("path too long", lambda parent: parent.joinpath(*["a" * 200] * 30), "refused", mentions="")
    yield Case("zero byte in the name", lambda parent: parent / "a\0b.png", "refused", mentions="a")


NAMES = {
    "blanks": "my cell no 1 .png",
    "accents composed": "zelle \u00e4\u00f6.png",
    "accents apart": "zelle a\u0308o\u0308.png",
    "other scripts": "\u7ec6\u80de \u043a\u043b\u0435\u0442\u043a\u0430 \u062e\u0644\u064a\u0629.png",
    "emoji": "\U0001f9a0.png",
    "line break": "a\nb.png",
    "carriage return": "a\rb.png",
    "tab": "a\tb.png",
    "escape": "a\x1b[31mb.png",
    "right to left": "a\u202egnp.b.png",
    "separator": "a\u2028b.png",
    "dash": "-rf.png",
    "dashes": "--overwrite.png",
    "percent": "a%sb%d.png",
    "braces": "a{0}{b}.png",
    "quotes": "a'b\"c`d.png",
    "dollar": "$(touch stray).png",
    "backslash": "a\\b.png",
    "colon": "c:a.png",
    "star": "a*?[b].png",
    "255 bytes": "a" * 251 + ".png",
    "no UTF-8": os.fsdecode(b"a\xff\xfeb.png"),
    "many dots": "a...png",
    "comma": "a,b;c.png",
}


def _names(check: Callable[[object], None]) -> Iterator[Case]:
    content = saved(picture(), "PNG")
    for kind, name in NAMES.items():
        yield Case(f"name with {kind}", file_of(name, content), "accepted", check)
        yield Case(f"name with {kind}, damaged", file_of(name, content[:20]), "refused")
        yield Case(f"name with {kind}, missing", lambda folder, name=name: folder / name, "refused")


def _folders() -> Iterator[Case]:
    content = saved(picture(), "PNG")
    for kind, name in NAMES.items():

        def make(parent: Path, name: str = name) -> Path:
            inner = parent / name.removesuffix(".png")
            inner.mkdir()
            (inner / name).write_bytes(content)
            return inner

        yield Case(f"folder with {kind}", make, "accepted", alike(picture()))

    def mixed(parent: Path) -> Path:
        (parent / "a.png").mkdir()
        os.mkfifo(parent / "b.png")
        (parent / "c.png").symlink_to("c.png")
        (parent / "d.png").symlink_to("/dev/zero")
        (parent / "e.png").symlink_to(".")
        (parent / "f.png").write_bytes(content)
        return parent

    yield Case("what is no file is left out", mixed, "accepted", alike(picture()))
    yield Case("missing folder", lambda parent: parent / "gone", "refused")
    yield Case("folder is a file", file_of("a.png", content), "refused")

    def loop(parent: Path) -> Path:
        (parent / "a").symlink_to("a")
        return parent / "a"

    yield Case("folder is a link to itself", loop, "refused")

    def label(parent: Path) -> Path:
        write_label_image(parent / "a.tif", np.zeros((HEIGHT, WIDTH), np.uint16))
        return parent

    yield Case("label image", label, "accepted", alike(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))


def _sizes() -> Iterator[Case]:
    for name, (file_name, content, expected, _) in good_files().items():
        size = expected.shape[:2]
        yield Case(name, file_of(file_name, content), "accepted", lambda value, size=size: _same_size(value, size))
        for length in sorted({0, 5, 12, 25, 60, len(content) // 2}):
            check = lambda value, size=size: _same_size(value, size)  # noqa: E731
            yield Case(f"{name} cut after {length} bytes", file_of(file_name, content[:length]), "either", check)


def _same_size(value: object, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    assert value == size, f"{value} instead of {size}"
