"""Malformed label images: masks with a value for each cell."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from case import Case, files_of
from image_bytes import png, png_chunk, saved, tiff
from outline_files import HEIGHT, IMAGE, WIDTH, areas, refuse_faults
from PIL import Image

from mrcnn.data.annotations import CellMaskDataset, check_annotations, read_label_mask
from mrcnn.data.records import ImageRecord

AT_LEAST = 150


def read_masks(folder: Path) -> np.ndarray:
    """Masks of the image in `folder` by the label image in `masks/`, each value an instance."""
    records = [ImageRecord("a.png", folder / "a.png")]
    check = check_annotations(records, folder / "masks", semantics="instances")
    refuse_faults(check.faults)
    return CellMaskDataset(check.good, folder / "masks", semantics="instances").load_mask(0)[0]


READERS = {"label masks": read_masks, "read_label_mask": read_label_mask}


def cases(reader: str, seed: int) -> Iterator[Case]:
    """All cases of a reader."""
    yield from (_masks if reader == "label masks" else _mask_files)(seed)


def _label_files() -> Iterator[tuple[str, str, bytes, str, list[int] | None]]:
    """Name, file name, content, what has to come of it, and the areas of the values from 1 on."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[3:13, 2:12] = 1
    labels[3:8, 20:25] = 2
    two = [100, 25]
    rgba = np.dstack([labels] * 3 + [np.full_like(labels, 255)])
    clear = np.dstack([labels] * 3 + [np.where(labels > 0, 255, 0).astype(np.uint8)])
    palette = Image.fromarray(labels)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    cmyk = Image.merge("CMYK", [Image.fromarray(c) for c in (labels * 0, labels * 0, labels * 0, labels * 100)])
    negative, huge = labels.astype(np.int32), labels.astype(np.uint32)
    huge[3:13, 2:12] = 4_000_000_000
    negative[3:13, 2:12] = -1
    half, nan, wide = (labels.astype(np.float32) for _ in range(3))
    half[0, 0], nan[0, 0], wide[3:13, 2:12] = 0.5, np.nan, 1e20
    grey = {"photometric": "minisblack"}
    yield "png", "a.png", saved(labels, "PNG"), "accepted", two
    yield "palette", "a.png", saved(palette, "PNG"), "accepted", two
    yield "palette with transparency", "a.png", saved(palette, "PNG", transparency=0), "accepted", two
    yield "1 bit", "a.png", saved(labels > 0, "PNG"), "accepted", [125]
    yield "16 bit png", "a.png", saved(Image.fromarray(labels.astype(np.uint16)), "PNG"), "accepted", two
    yield "tiff", "a.tif", tiff(labels, **grey), "accepted", two
    for kind in (np.uint16, np.int32, np.float32):
        yield f"tiff of {kind.__name__}", "a.tif", tiff(labels.astype(kind), **grey), "accepted", two
    yield "bmp", "a.bmp", saved(labels, "BMP"), "accepted", two
    yield "grey as rgb", "a.png", saved(rgba[..., :3], "PNG"), "accepted", two
    yield "grey with full opacity", "a.png", saved(rgba, "PNG"), "accepted", two
    yield "values beneath transparency", "a.png", saved(clear, "PNG"), "refused", None
    yield (
        "shape in the transparency alone",
        "a.png",
        saved(clear * np.array([0, 0, 0, 1], np.uint8), "PNG"),
        "refused",
        None,
    )
    yield "grey with transparency", "a.png", saved(Image.fromarray(clear[..., 2:], "LA"), "PNG"), "refused", None
    yield "colours", "a.png", saved(rgba[..., :3] * np.array([90, 50, 10], np.uint8), "PNG"), "refused", None
    yield "cmyk", "a.tif", saved(cmyk, "TIFF"), "refused", None
    yield "negative", "a.tif", tiff(negative, **grey), "either", [0, 25]
    yield "beyond 31 bits", "a.tif", tiff(huge, **grey), "refused", None
    yield "fraction", "a.tif", tiff(half, **grey), "refused", None
    yield "nan", "a.tif", tiff(nan, **grey), "refused", None
    yield "1e20", "a.tif", tiff(wide, **grey), "refused", None
    yield "several pages", "a.tif", tiff([labels, labels], **grey), "refused", None
    for kind in (np.int8, np.int16, np.uint32, np.float64, np.int64, np.uint64):
        yield f"tiff of {kind.__name__}", "a.tif", tiff(labels.astype(kind), **grey), "either", two
    content = saved(labels, "PNG")
    for length in (0, 7, 20, 33, 45, len(content) // 2, len(content) - 30):
        yield f"cut after {length} bytes", "a.png", content[:length], "refused", None
    for file_format in ("GIF", "WEBP", "PPM"):
        yield f"{file_format} called png", "a.png", saved(labels, file_format), "refused", None
    yield "text", "a.png", b"0 0 1 1", "refused", None
    for width, height in ((30_000, 30_000), (2**31 - 1, 2**31 - 1), (0, 20), (30, 21)):
        yield f"{width}x{height} in its header", "a.png", png(labels, width, height, 8, 0), "refused", None
    palette_bomb = png(b"", 30_000, 30_000, 8, 3, more=png_chunk(b"PLTE", bytes(6)))
    yield "palette bomb", "a.png", palette_bomb, "refused", None


def _mask_files(seed: int) -> Iterator[Case]:
    for name, file_name, content, expect, expected in _label_files():

        def check(labels: np.ndarray, expected: list[int] | None = expected) -> None:
            assert labels.dtype == np.int32 and labels.shape == (HEIGHT, WIDTH), f"{labels.dtype} {labels.shape}"
            found = [int((labels == i + 1).sum()) for i in range(len(expected))]
            is_mask = expected == [125] or found == expected
            assert is_mask and (labels > 0).sum() == sum(expected), f"areas {found}"

        yield Case(name, files_of({file_name: content}, file_name), expect, check)
    random = np.random.default_rng(seed)
    for name, file_name, content, _, expected in list(_label_files())[:8]:
        for number in range(8):
            changed = bytearray(content)
            bit = int(random.integers(8 * len(changed)))
            changed[bit // 8] ^= 1 << bit % 8

            def check(labels: np.ndarray, exact: bool = file_name == "a.png", expected: list = expected) -> None:
                assert labels.dtype == np.int32 and labels.ndim == 2, f"{labels.dtype} {labels.shape}"
                assert not exact or (labels > 0).sum() == sum(expected), "another mask"

            yield Case(f"{name} flipped {number}", files_of({file_name: bytes(changed)}, file_name), "either", check)


def _masks(seed: int) -> Iterator[Case]:
    for name, file_name, content, expect, expected in _label_files():
        files = {"a.png": IMAGE, f"masks/{file_name}": content}
        wanted = [area for area in expected or () if area]
        yield Case(name, files_of(files), expect, areas(*wanted), mentions="a.png")
    labels = np.zeros((HEIGHT + 1, WIDTH), np.uint8)
    labels[3:13, 2:12] = 1
    for name, mask in (("larger", labels), ("turned", labels[:-1].T), ("of one pixel", labels[:1, :1])):
        files = files_of({"a.png": IMAGE, "masks/a.png": saved(np.ascontiguousarray(mask), "PNG")})
        yield Case(f"mask {name}", files, "refused", mentions="a.png")
    empty = saved(np.zeros((HEIGHT, WIDTH), np.uint8), "PNG")
    yield Case("mask of zeros", files_of({"a.png": IMAGE, "masks/a.png": empty}), "accepted", areas())
    yield Case("no mask", files_of({"a.png": IMAGE, "masks/b.png": empty}), "refused", mentions="a.png")
    yield Case("no folder", files_of({"a.png": IMAGE}), "refused", mentions="masks")
    yield Case("damaged image", files_of({"a.png": IMAGE[:40], "masks/a.png": empty}), "refused", mentions="a.png")
    # A photograph in place of a mask: every value would be an instance, of 2 MB each.
    random = np.random.default_rng(seed)
    noise = random.permutation(1400 * 1400).reshape(1400, 1400).astype(np.int32)
    large = saved(np.zeros((1400, 1400, 3), np.uint8), "PNG")
    files = {"a.png": large, "masks/a.tif": tiff(noise, photometric="minisblack")}
    yield Case("a value for each pixel", files_of(files), "refused", mentions="a.png")

    def linked(folder: Path) -> Path:
        files_of({"a.png": IMAGE, "elsewhere/a.png": empty})(folder)
        (folder / "masks").symlink_to("elsewhere")
        return folder

    yield Case("folder is a link", linked, "accepted", areas())

    def loop(folder: Path) -> Path:
        (folder / "a.png").write_bytes(IMAGE)
        (folder / "masks").symlink_to("masks")
        return folder

    yield Case("folder is a link to itself", loop, "refused", mentions="masks")
    for name, make in (
        ("a pipe", os.mkfifo),
        ("a folder", lambda path: path.mkdir()),
        ("a link to endless zeros", lambda path: path.symlink_to("/dev/zero")),
        ("a link to itself", lambda path: path.symlink_to(path.name)),
    ):

        def odd(folder: Path, make: Callable = make) -> Path:
            files_of({"a.png": IMAGE, "masks/b.png": empty})(folder)
            make(folder / "masks" / "a.png")
            return folder

        yield Case(f"mask is {name}", odd, "refused", mentions="a.png")
