"""Masks: pasted as a slow reference does, laid into label images, outlined exactly."""

import itertools

import numpy as np
import pytest
import tifffile

from mrcnn.data.masks import (
    expand_mask,
    extract_bboxes,
    label_image,
    mask_polygons,
    minimize_mask,
    unmold_mask,
    write_label_image,
)


def slow_paste(mask: np.ndarray, box, shape) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel: is it inside, and is that beyond doubt?

    A pixel of the box takes the value of the small mask at its centre, bilinear between the centres of the mask's
    cells, the outer ones repeated to the border; it is inside from 0.5 on.
    """
    height, width = mask.shape
    y1, x1, y2, x2 = box
    inside, clear = np.zeros(shape, bool), np.ones(shape, bool)
    for y in range(max(y1, 0), min(y2, shape[0])):
        for x in range(max(x1, 0), min(x2, shape[1])):
            row = np.clip((y - y1 + 0.5) / (y2 - y1) * height - 0.5, 0, height - 1)
            column = np.clip((x - x1 + 0.5) / (x2 - x1) * width - 0.5, 0, width - 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = row - top, column - left
            value = (1 - dy) * ((1 - dx) * mask[top, left] + dx * mask[top, right])
            value += dy * ((1 - dx) * mask[bottom, left] + dx * mask[bottom, right])
            inside[y, x], clear[y, x] = value >= 0.5, abs(value - 0.5) > 1e-4
    return inside, clear


# Inside, larger than the mask, smaller than it, uneven, beyond each border, a single pixel.
BOXES = [(5, 7, 33, 35), (2, 3, 58, 70), (10, 10, 21, 17), (-9, -4, 25, 30), (40, 50, 75, 99), (11, 12, 12, 13)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("mask_shape", [(28, 28), (14, 20)])
def test_unmold_mask_equals_a_slow_reference(box, mask_shape):
    mask = np.random.default_rng(0).random(mask_shape).astype(np.float32)
    expected, clear = slow_paste(mask, box, (60, 80))
    found = unmold_mask(mask, np.array(box), (60, 80, 3))
    assert found.dtype == bool and clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_unmold_mask_of_exactly_one_half_is_inside():
    np.testing.assert_array_equal(unmold_mask(np.full((28, 28), 0.5), np.array([1, 1, 4, 5]), (6, 6))[1:4, 1:5], True)


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


def area(ring):
    """Signed area by the shoelace formula."""
    x, y = np.array(ring, float).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def fill(polygons, shape):
    """Rasterise by the even-odd rule, and hold that every edge lies on the grid."""
    crossings = np.zeros(shape, int)
    for ring in itertools.chain.from_iterable(polygons):
        for (x1, y1), (x2, y2) in itertools.pairwise(ring):
            assert (x1 == x2) != (y1 == y2)
            if x1 == x2:
                crossings[min(y1, y2) : max(y1, y2), x1:] += 1
    return crossings % 2 == 1


def check(mask):
    """Everything that holds for the outlines of any mask."""
    polygons = mask_polygons(mask)
    np.testing.assert_array_equal(fill(polygons, mask.shape), mask)
    assert sum(area(ring) for polygon in polygons for ring in polygon) == mask.sum()
    for outer, *holes in polygons:
        assert area(outer) > 0 and all(area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert ring[0] == ring[-1] and all(type(value) is int for corner in ring for value in corner)
            assert len(set(ring)) == len(ring) - 1  # no corner twice: the ring does not touch itself
            directions = [(x1 == x2) for (x1, _), (x2, _) in itertools.pairwise(ring)]
            assert all(one != other for one, other in itertools.pairwise(directions))  # no corner on a line
    return [[area(ring) for ring in polygon] for polygon in polygons]


def test_mask_polygons_of_parts_holes_and_islands():
    assert check(np.ones((3, 4), bool)) == [[12]]
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    assert check(mask) == [[49, -25], [1]]
    assert check(np.array([[1, 1, 0], [0, 0, 1]], bool)) == [[2], [1]]  # they touch at a corner alone
    assert check(np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)) == [[8, -1]]  # and so do hole and outside
    assert mask_polygons(np.zeros((4, 5))) == mask_polygons(np.zeros((0, 5))) == []


def test_mask_polygons_hold_for_every_small_mask():
    for bits in range(2**9):
        check(np.array([bits >> i & 1 for i in range(9)], bool).reshape(3, 3))


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8, 0.95])
def test_mask_polygons_hold_for_random_masks(density):
    rng = np.random.default_rng(0)
    for _ in range(10):
        areas = check(rng.random(rng.integers(1, 15, 2)) < density)
        assert sorted((sum(rings) for rings in areas), reverse=True) == [sum(rings) for rings in areas]
