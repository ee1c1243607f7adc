import numpy as np
import pytest
import tifffile

from mrcnn.data.masks import label_image, write_label_image


def test_label_image_numbers_instances_in_their_order():
    masks = np.zeros((2, 3, 2), bool)
    masks[0, 0, 0] = masks[1, 2, 1] = True
    labels = label_image(masks, np.array([0.5, 0.9]))
    np.testing.assert_array_equal(labels, [[1, 0, 0], [0, 0, 2]])
    assert labels.dtype == np.uint16


@pytest.mark.parametrize(
    ("scores", "winners"), [([0.9, 0.8, 0.7], [1, 1, 2]), ([0.7, 0.8, 0.9], [3, 3, 3]), ([0.8, 0.8, 0.8], [1, 1, 2])]
)
def test_label_image_gives_overlaps_to_the_better_score(scores, winners):
    masks = np.array([[[1, 0, 1], [1, 1, 1], [0, 1, 1]]], bool)
    np.testing.assert_array_equal(label_image(masks, np.array(scores, np.float32)), [winners])


def test_label_image_without_instances_is_background():
    labels = label_image(np.zeros((4, 5, 0), bool), np.zeros(0))
    assert labels.shape == (4, 5) and labels.dtype == np.uint16 and not labels.any()


@pytest.mark.parametrize(("count", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_label_image_takes_wider_numbers_when_it_must(count, dtype):
    masks = np.zeros((1, 1, count), bool)
    masks[0, 0, -1] = True
    labels = label_image(masks, np.linspace(1, 0, count))
    assert labels.dtype == dtype and labels[0, 0] == count


def test_label_image_refuses_other_numbers_of_scores():
    with pytest.raises(ValueError, match="got 2 masks"):
        label_image(np.zeros((2, 2, 2), bool), np.zeros(3))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_write_label_image_round_trip(tmp_path, dtype):
    labels = np.zeros((60, 70), dtype)
    labels[10:50, 20:60] = np.iinfo(dtype).max
    write_label_image(tmp_path / "new" / "a.tif", labels, pixel_size=0.25)
    with tifffile.TiffFile(tmp_path / "new" / "a.tif") as tiff:
        (page,) = tiff.pages
        read = page.asarray()
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.tags["XResolution"].value == page.tags["YResolution"].value == (40_000, 1)  # pixels of 0.25 um
        assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, labels)
    assert (tmp_path / "new" / "a.tif").stat().st_size < labels.nbytes / 4
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.tif"]
