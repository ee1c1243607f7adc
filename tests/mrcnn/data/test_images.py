import numpy as np
import pytest
from PIL import Image

from mrcnn.data.images import list_images, read_image
from mrcnn.errors import InputError


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_read_image_gives_lossless_colours_back(tmp_path, colours, suffix):
    Image.fromarray(colours).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, colours)


def test_read_image_repeats_grey(tmp_path, colours):
    Image.fromarray(colours[..., 0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(colours[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 65535, 32768], [0, 255, 128]), ([0, 4095, 2048], [0, 255, 128]), ([0, 255, 128], [0, 255, 128])],
    ids=["16 bit", "12 bit", "8 bit"],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_image_scales_deep_grey_by_the_bits_in_use(tmp_path, values, expected, suffix):
    Image.fromarray(np.array([values], np.uint16)).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}")[0, :, 1], expected)


def test_read_image_lays_transparency_over_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image[0, :2], [[10, 20, 30], [255, 255, 255]])
    assert abs(int(image[0, 2, 0]) - 127) <= 1


def test_read_image_resolves_palettes(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255, 0, 0], [0, 0, 255]]])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_read_image_refuses_a_truncated_file(tmp_path, colours, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.repeat(colours, 8, axis=0)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"cut.{suffix}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"key,label\na,b\n"], ids=["empty", "text"])
def test_read_image_refuses_what_only_has_the_name_of_an_image(tmp_path, content):
    (tmp_path / "notes.png").write_bytes(content)
    with pytest.raises(InputError, match="notes.png: not an image"):
        read_image(tmp_path / "notes.png")


def test_read_image_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="gone.png: no such image file"):
        read_image(tmp_path / "gone.png")


def test_read_image_refuses_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)


def test_list_images_sorts_and_leaves_out_hidden_and_other_files(tmp_path):
    for name in ("b.PNG", "a.jpeg", ".a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG"]


def test_list_images_names_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        list_images(tmp_path / "nowhere")


def test_read_image_takes_floats_up_to_one_as_fractions(tmp_path):
    Image.fromarray(np.full((3, 3), 0.5, np.float32)).save(tmp_path / "float.tif")

    assert (read_image(tmp_path / "float.tif") == 127).all()
