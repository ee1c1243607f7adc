"""Images of every kind are read as people see them, and damaged ones are refused."""

import io
import itertools
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data import images
from mrcnn.data.images import image_size, list_images, read_image, read_values
from mrcnn.files.errors import InputError


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_read_image_gives_lossless_colours_back_and_repeats_grey(tmp_path, colours, suffix):
    for pixels in (colours, colours[..., 0]):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
        image = read_image(tmp_path / f"a.{suffix}")
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1))


@pytest.mark.parametrize("values", [[0, 65535, 32768], [0, 4095, 2048], [0, 255, 128]], ids=["16", "12", "8 bits"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_image_scales_deep_grey_by_the_bits_in_use(tmp_path, values, suffix):
    Image.fromarray(np.array([values], np.uint16)).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}")[0, :, 1].tolist() == [0, 255, 128]


def test_read_image_resolves_transparency_palettes_and_prints(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0], [[10, 20, 30], [255] * 3, [127] * 3], atol=1)
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255, 0, 0], [0, 0, 255]]])
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), [[0, 1]])
    Image.new("CMYK", (2, 1), (0, 255, 255, 0)).save(tmp_path / "print.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "print.tif"), [[[255, 0, 0]] * 2])


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.05, 70_000.0])
def test_read_image_refuses_floats_that_are_no_brightness(tmp_path, value):
    values = np.full((5, 6), 0.5, np.float32)
    values[2, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    with pytest.raises(InputError, match=r"a\.tif: .* no brightness"):
        read_image(tmp_path / "a.tif")


# By EXIF's numbers from 1 on: quarter turns that set the stored picture upright, before some are mirrored.
TURNS, MIRRORED = (0, 0, 2, 2, 3, 3, 1, 1), (2, 4, 5, 7)


def write(path, pixels, orientation=1):
    """Write pixels of 8 or 16 bits, (height, width, 3 or 4); the name says how."""
    kind, exif = path.stem, Image.Exif()
    exif[0x0112] = orientation
    if pixels.dtype == np.uint8:
        more = {"deflated": {"compression": "tiff_adobe_deflate"}, "fine": {"quality": 95, "subsampling": 0}}
        Image.fromarray(pixels).save(path, exif=exif, **more.get(kind, {}))
    elif path.suffix == ".png" or kind == "lzw":
        bgr = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]]
        options = [cv2.IMWRITE_TIFF_COMPRESSION, 5] if kind == "lzw" else []
        content = cv2.imencode(path.suffix, bgr, options)[1].tobytes()
        data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        # After the signature and the first chunk of a PNG file.
        path.write_bytes(content if kind == "lzw" else content[:33] + chunk + content[33:])
    else:
        more = {"planar": {"planarconfig": "separate"}, "big": {"byteorder": ">"}}
        more |= {"deflated": {"compression": "zlib", "predictor": True}, "alpha": {"extrasamples": ["unassalpha"]}}
        pixels = np.moveaxis(pixels, -1, 0) if kind == "planar" else pixels
        tag = (274, 3, 1, orientation, True)
        tifffile.imwrite(path, pixels, photometric="rgb", extratags=[tag], **more.get(kind, {}))


@pytest.mark.parametrize("name", ["a.png", "deflated.tif", "fine.jpg", "deep.png", "deep.tif", "planar.tif"])
def test_read_image_is_upright(tmp_path, colours, name):
    path, is_jpeg, is_deep = tmp_path / name, name == "fine.jpg", name in ("deep.png", "deep.tif", "planar.tif")
    pixels = cv2.GaussianBlur(colours, (0, 0), 5) if is_jpeg else colours
    for orientation, turns in enumerate(TURNS, 1):
        write(path, pixels.astype(np.uint16) * 256 if is_deep else pixels, orientation)
        expected, image = np.rot90(pixels, turns), read_image(path)
        expected = np.fliplr(expected) if orientation in MIRRORED else expected
        assert image.shape == expected.shape and image_size(path) == expected.shape[:2]
        np.testing.assert_allclose(image.astype(int), expected, atol=12 if is_jpeg else 0)
        np.testing.assert_array_equal(read_values(path) >> (8 if is_deep else 0), image)
        stored = read_image(path, upright=False)
        np.testing.assert_allclose(stored.astype(int), pixels, atol=12 if is_jpeg else 0)


@pytest.mark.parametrize("name", ["plain.tif", "planar.tif", "big.tif", "deflated.tif", "lzw.tif", "plain.png"])
@pytest.mark.parametrize("bits", [12, 16])
def test_read_image_scales_deep_colours_as_deep_grey(tmp_path, name, bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, (30, 40, 3), dtype=np.uint16)
    values[0, 0, 1] = 2**bits - 1
    write(tmp_path / name, values)
    np.testing.assert_array_equal(read_image(tmp_path / name), values >> (bits - 8))
    np.testing.assert_array_equal(read_values(tmp_path / name), values)


@pytest.mark.parametrize("name", ["alpha.tif", "alpha.png"])
def test_read_image_lays_deep_transparency_over_white(tmp_path, name):
    write(tmp_path / name, np.array([[[65535, 0, 32768, 65535], [0, 0, 0, 0], [0, 0, 0, 32768]]], np.uint16))
    np.testing.assert_array_equal(read_image(tmp_path / name), [[[255, 0, 128], [255, 255, 255], [127, 127, 127]]])


def test_read_image_refuses_a_tiff_of_several_pages_but_not_one_with_a_thumbnail(tmp_path, colours):
    with tifffile.TiffWriter(tmp_path / "stack.tif") as file:
        for _ in range(3):
            file.write(colours, photometric="rgb")
    with pytest.raises(InputError, match=r"stack\.tif: 3 pages in one TIFF file"):
        read_image(tmp_path / "stack.tif")
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(colours, photometric="rgb")
        file.write(colours[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "preview.tif"), colours)


def test_the_content_counts_and_not_the_suffix_and_other_things_are_refused(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), colours)
    Image.fromarray(colours).save(tmp_path / "a.png", "EPS")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    told = dict.fromkeys(("a.png", "empty.png"), "not an image")
    told |= dict.fromkeys(("gone.png", "pipe.png", "."), "no such image file")
    for read, (name, message) in itertools.product((read_image, image_size), told.items()):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_images_of_too_many_pixels_are_refused_by_their_header(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 1_000_000)
    for side in (1001, 20_000):
        Image.new("1", (side, side)).save(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"a\.png: more than 1 million pixels; cut the image into tiles"):
            image_size(tmp_path / "a.png")


@pytest.mark.parametrize("options", [{"rowsperstrip": 10}, {"tile": (16, 16)}])
def test_read_image_refuses_a_tiff_that_lacks_strips_or_tiles(tmp_path, colours, options):
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", **options)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(60)
    with pytest.raises(InputError, match=r"a\.tif: cannot be read \(part of the image is missing\)"):
        read_image(tmp_path / "a.tif")


def encoded(file_format, **options):
    data, y = io.BytesIO(), np.mgrid[:120, :160, :3][0].astype(np.uint8)
    pixels = y + np.random.default_rng(0).integers(0, 40, y.shape, dtype=np.uint8)
    Image.fromarray(pixels).save(data, file_format, **options)
    return data.getvalue()


FILES = {name: encoded(name) for name in ("png", "jpeg", "tiff", "bmp")}
FILES["deflated tiff"] = encoded("tiff", compression="tiff_adobe_deflate")


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4), near=st.booleans())
def test_damaged_files_are_refused_or_read(tmp_path_factory, name, changes, near):
    """Damage of the header may change the size, damage of the pixels may not."""
    path, content = tmp_path_factory.getbasetemp() / "damaged.png", bytearray(FILES[name])
    for place, value in changes:
        content[int(place * (200 if near else len(content) - 1))] = value
    path.write_bytes(content)
    for read in (read_image, read_values):
        try:
            image = read(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert near or name not in ("png", "jpeg") or image.shape[:2] == (120, 160)


def test_any_damage_of_a_png_and_a_cut_of_any_file_are_found(tmp_path):
    for content in FILES.values():
        (tmp_path / "cut.png").write_bytes(content[: int(len(content) * 0.9)])
        with pytest.raises(InputError, match=r"cut\.png"):
            read_image(tmp_path / "cut.png")
    for place in range(40, len(FILES["png"]) - 12, 997):
        content = bytearray(FILES["png"])
        content[place] ^= 4
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.png"):
            read_image(tmp_path / "a.png")


def test_list_images_sorts_and_leaves_out_hidden_and_other_files(tmp_path):
    for name in ("b.PNG", "a.jpeg", ".a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG"]
    with pytest.raises(InputError, match="nowhere: no such folder"):
        list_images(tmp_path / "nowhere")
