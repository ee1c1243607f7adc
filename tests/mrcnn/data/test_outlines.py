"""Outlines of masks, held against the pixels they came from."""

import itertools

import numpy as np
import pytest

from mrcnn.data.masks import mask_polygons


def area(ring):
    """Signed area by the shoelace formula."""
    x, y = np.array(ring, float).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def fill(polygons, shape):
    """Rasterise by the even-odd rule: a pixel is inside if a line from its centre to -x crosses an odd number of edges.

    Also holds that every edge lies on the grid, without which the count of crossings would be wrong.
    """
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
            assert ring[0] == ring[-1]
            assert len(set(ring)) == len(ring) - 1  # no corner twice: the ring does not touch itself
            directions = [(x1 == x2) for (x1, _), (x2, _) in itertools.pairwise(ring)]
            assert all(one != other for one, other in itertools.pairwise(directions))  # no corner on a line
    return polygons


def test_mask_polygons_of_one_pixel_are_its_four_corners():
    mask = np.zeros((5, 9), bool)
    mask[2, 6] = True
    assert mask_polygons(mask) == [[[(6, 2), (7, 2), (7, 3), (6, 3), (6, 2)]]]


def test_mask_polygons_of_a_full_image_reach_its_edges():
    assert mask_polygons(np.ones((3, 4), np.uint8)) == [[[(0, 0), (4, 0), (4, 3), (0, 3), (0, 0)]]]


def test_mask_polygons_give_holes_as_inner_rings():
    mask = np.ones((5, 5), bool)
    mask[1, 1] = mask[3, 2:4] = False
    (polygon,) = check(mask)
    assert sorted(area(ring) for ring in polygon) == [-2, -1, 25]


def test_mask_polygons_give_an_island_in_a_hole_a_polygon_of_its_own():
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    ring, island = check(mask)
    assert [len(ring), len(island)] == [2, 1]
    assert area(island[0]) == 1


def test_mask_polygons_part_at_a_corner():
    first, second = check(np.array([[1, 1, 0], [0, 0, 1]], bool))
    assert [area(first[0]), area(second[0])] == [2, 1]


def test_mask_polygons_keep_a_hole_that_touches_the_outside_at_a_corner():
    mask = np.ones((3, 3), bool)
    mask[0, 0] = mask[1, 1] = False
    (polygon,) = check(mask)
    assert [area(ring) for ring in polygon] == [8, -1]


def test_mask_polygons_put_the_largest_part_first():
    mask = np.zeros((20, 20), bool)
    mask[0:2, 0:2] = mask[5:9, 5:9] = mask[12, 12] = True
    assert [area(polygon[0]) for polygon in check(mask)] == [16, 4, 1]


def test_mask_polygons_hold_for_every_small_mask():
    for bits in range(2**9):
        check(np.array([bits >> i & 1 for i in range(9)], bool).reshape(3, 3))


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8, 0.95])
def test_mask_polygons_hold_for_random_masks(density):
    rng = np.random.default_rng(0)
    for _ in range(50):
        check(rng.random(rng.integers(1, 15, 2)) < density)


def test_mask_polygons_of_a_disc(draw_cell):
    for seed in range(3):
        (polygon,) = check(draw_cell(seed)[1][..., 0])
        assert len(polygon) == 1


def test_mask_polygons_take_any_memory_layout():
    masks = np.random.default_rng(1).random((9, 8, 3)) < 0.6
    assert mask_polygons(masks[..., 1]) == mask_polygons(masks[..., 1].copy())
    assert mask_polygons(masks[..., 1] * 255.0) == mask_polygons(masks[..., 1])


@pytest.mark.parametrize("shape", [(4, 5), (0, 5), (4, 0)])
def test_mask_polygons_of_an_empty_mask_are_none(shape):
    assert mask_polygons(np.zeros(shape, bool)) == []


def test_mask_polygons_refuse_a_stack():
    with pytest.raises(ValueError, match=r"2 dimensions, got shape \(3, 4, 1\)"):
        mask_polygons(np.zeros((3, 4, 1), bool))
