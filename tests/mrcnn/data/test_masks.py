"""Masks: pasted as SciPy interpolates, laid into label images, outlined exactly."""

import numpy as np
import pytest
import shapely
import tifffile
from scipy.ndimage import map_coordinates

from mrcnn.annotations.shapes import fill_polygon
from mrcnn.data.masks import (
    expand_mask,
    extract_bboxes,
    label_image,
    mask_polygons,
    minimize_mask,
    unmold_mask,
    write_label_image,
)


def paste(mask, box, shape):
    """The probabilities of a small mask at the centres of the box's pixels, bilinear between those of its own cells."""
    y1, x1, y2, x2 = box
    places = [(np.arange(n) + 0.5) / n * m - 0.5 for n, m in zip((y2 - y1, x2 - x1), mask.shape, strict=True)]
    values = map_coordinates(mask, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    room = np.zeros((200, 200))  # around the image
    room[50 + y1 : 50 + y2, 50 + x1 : 50 + x2] = values
    return room[50 : 50 + shape[0], 50 : 50 + shape[1]]


# Inside, larger than the mask, smaller than it, uneven, beyond each border, a single pixel.
BOXES = [(5, 7, 33, 35), (2, 3, 58, 70), (10, 10, 21, 17), (-9, -4, 25, 30), (40, 50, 75, 99), (11, 12, 12, 13)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("mask_shape", [(28, 28), (14, 20)])
def test_unmold_mask_equals_a_reference_of_scipy(box, mask_shape):
    mask = np.random.default_rng(0).random(mask_shape).astype(np.float32)
    expected = paste(mask, box, (60, 80))
    found, clear = unmold_mask(mask, np.array(box), (60, 80, 3)), abs(expected - 0.5) > 1e-4
    assert found.dtype == bool and clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear] >= 0.5)
    assert unmold_mask(np.full((28, 28), 0.5), np.array([1, 1, 4, 5]), (6, 6))[1:4, 1:5].all()  # one half is inside


def test_expand_mask_undoes_minimize_mask_of_the_boxes_own_size():
    masks = np.zeros((60, 80, 2), bool)
    masks[10:38, 20:48, 0], masks[30:58, 3:31, 1] = True, np.random.default_rng(2).random((28, 28)) > 0.5
    masks[30, 3:31, 1] = masks[57, 3:31, 1] = masks[30:58, 3, 1] = masks[30:58, 30, 1] = True
    boxes = extract_bboxes(masks)
    np.testing.assert_array_equal(expand_mask(boxes, minimize_mask(boxes, masks, (28, 28)), (60, 80)), masks)
    with pytest.raises(ValueError, match="box 0 has no area"):
        minimize_mask(np.array([[5, 5, 5, 9]]), masks[..., :1], (28, 28))


@pytest.mark.parametrize(
    ("scores", "winners"), [([0.9, 0.8, 0.7], [1, 1, 2]), ([0.7, 0.8, 0.9], [3, 3, 3]), ([0.8, 0.8, 0.8], [1, 1, 2])]
)
def test_label_image_gives_overlaps_to_the_better_score(scores, winners):
    masks = np.array([[[1, 0, 1], [1, 1, 1], [0, 1, 1]]], bool)
    np.testing.assert_array_equal(label_image(masks, np.array(scores, np.float32)), [winners])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_write_label_image_round_trip(tmp_path, dtype):
    labels = np.zeros((60, 70), dtype)
    labels[10:50, 20:60] = np.iinfo(dtype).max
    write_label_image(tmp_path / "new" / "a.tif", labels, pixel_size=0.25)
    with tifffile.TiffFile(tmp_path / "new" / "a.tif") as tiff:
        (page,) = tiff.pages
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE and page.dtype == dtype
        assert page.tags["XResolution"].value == page.tags["YResolution"].value == (40_000, 1)  # pixels of 0.25 um
        assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        np.testing.assert_array_equal(page.asarray(), labels)


def check(mask):
    """Everything that holds for the outlines of any mask; returns the areas of their rings."""
    polygons, filled = mask_polygons(mask), np.zeros(mask.shape, bool)
    for outer, *holes in polygons:
        assert shapely.Polygon(outer, holes).is_valid
        for ring in (outer, *holes):
            filled ^= fill_polygon(np.array(ring, float), *mask.shape)
            assert shapely.LinearRing(ring).is_simple and shapely.LinearRing(ring).is_ccw == (ring is outer)
            assert all(type(value) is int for corner in ring for value in corner)
            is_step = np.diff(ring, axis=0) != 0
            assert (is_step.sum(axis=1) == 1).all() and (is_step[1:] != is_step[:-1]).all()  # no corner on a line
    np.testing.assert_array_equal(filled, mask)
    return [[shapely.Polygon(ring).area for ring in polygon] for polygon in polygons]


def test_mask_polygons_of_parts_holes_and_islands():
    assert check(np.ones((3, 4), bool)) == [[12]]
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    assert check(mask) == [[49, 25], [1]]
    assert check(np.array([[1, 1, 0], [0, 0, 1]], bool)) == [[2], [1]]  # they touch at a corner alone
    assert check(np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)) == [[8, 1]]  # and so do hole and outside
    assert mask_polygons(np.zeros((4, 5))) == mask_polygons(np.zeros((0, 5))) == []


def test_mask_polygons_hold_for_every_small_mask():
    for bits in range(2**9):
        check(np.array([bits >> i & 1 for i in range(9)], bool).reshape(3, 3))
