"""Which pixels lie inside a shape: known answers, slow references, pycocotools, and what is refused."""

import math
import tracemalloc

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn.annotations import shapes
from mrcnn.annotations.shapes import (
    Bitmap,
    ShapeFault,
    as_number,
    fill_polygon,
    make_closed_line,
    make_ellipse,
    make_polygon,
    make_rectangle,
    shorten,
)
from mrcnn.data.masks import mask_polygons


def is_inside(points, x, y):
    """Even-odd rule for one point: count the edges that a ray to the left crosses."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            crossings += 1
    return crossings % 2 == 1


def star(rng, height, width):
    """A polygon round the middle of an image, with corners at random distances."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 25)))
    reach = rng.uniform(0.4, 1.0, len(angles)) * min(height, width) / 2
    return np.stack([width / 2 + reach * np.cos(angles), height / 2 + reach * np.sin(angles)], axis=1)


def test_fill_polygon_counts_centres_inside():
    square = np.array([(2, 3), (6, 3), (6, 8), (2, 8)], float)
    expected = np.zeros((10, 10), bool)
    expected[3:8, 2:6] = True
    np.testing.assert_array_equal(fill_polygon(square, 10, 10), expected)
    # Half a pixel farther its edges run through centres; left and upper ones count as inside.
    np.testing.assert_array_equal(fill_polygon(square + 0.5, 10, 10), expected)
    np.testing.assert_array_equal(fill_polygon(square + 0.51, 10, 10), np.roll(expected, 1, axis=(0, 1)))


def test_fill_polygon_agrees_with_a_slow_reference():
    rng = np.random.default_rng(0)
    for _ in range(20):
        # Random corners in any order cross themselves, and some lie outside the image.
        points = rng.uniform(-5, 25, (rng.integers(3, 9), 2))
        expected = [[is_inside(points, c + 0.5, r + 0.5) for c in range(21)] for r in range(17)]
        np.testing.assert_array_equal(fill_polygon(points, 17, 21), expected)


def test_fill_polygon_parts_share_no_pixel_and_leave_none_out():
    # Spokes and rim run through many pixel centres.
    corners = np.array([(20.5, 9.5), (16.5, 13.5), (12.5, 18.5), (8.5, 13.5), (3.5, 9.5), (8, 6), (12.5, 1.5), (17, 5)])
    middle = np.array([12.5, 9.5])
    rim = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    fans = [fill_polygon(np.array([middle, a, b]), 20, 25) for a, b in rim]
    whole = fill_polygon(corners, 20, 25)
    assert whole.sum() > 100
    np.testing.assert_array_equal(np.sum(fans, axis=0), whole)


def test_fill_polygon_does_not_mind_where_the_outline_starts_or_how_it_turns():
    points = star(np.random.default_rng(2), 60, 50)
    expected = fill_polygon(points, 60, 50)
    np.testing.assert_array_equal(fill_polygon(points[::-1], 60, 50), expected)
    np.testing.assert_array_equal(fill_polygon(np.roll(points, 3, axis=0), 60, 50), expected)


def test_fill_polygon_agrees_with_pycocotools_but_for_pixels_on_the_outline():
    rng = np.random.default_rng(3)
    for _ in range(40):
        height, width = (int(v) for v in rng.integers(60, 160, 2))
        points = star(rng, height, width)
        ours = fill_polygon(points, height, width)
        run_lengths = coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist()], height, width))
        theirs = coco_mask.decode(run_lengths).astype(bool)
        # pycocotools rounds to a fifth of a pixel, which can only matter beside the outline.
        line = np.zeros((height, width), np.uint8)
        cv2.polylines(line, [np.round((points - 0.5) * 16).astype(np.int32)], True, 1, thickness=2, shift=4)
        assert not (ours ^ theirs)[line == 0].any()
        assert (ours ^ theirs).sum() <= 0.15 * line.sum()


def test_fill_polygon_undoes_mask_polygons():
    mask = np.random.default_rng(4).random((24, 30)) < 0.6
    filled = np.zeros_like(mask)
    for polygon in mask_polygons(mask):
        for ring in polygon:
            filled ^= fill_polygon(np.array(ring, float), 24, 30)
    np.testing.assert_array_equal(filled, mask)


def test_ellipse_agrees_with_its_equation():
    ellipse = make_ellipse(20, 15, 12, 6, math.pi / 6)
    mask = ellipse.draw(30, 40)
    assert abs(mask.sum() - math.pi * 12 * 6) < 6
    for row, column in [(15, 20), (18, 28), (11, 12)]:
        assert mask[row, column]
    # Clockwise as seen: the long axis falls to the right, so these mirror images are outside.
    assert not mask[18, 11] and not mask[11, 28]
    ys, xs = np.mgrid[:30, :40] + 0.5
    turn = np.exp(-1j * math.pi / 6) * ((xs - 20) + 1j * (ys - 15))
    np.testing.assert_array_equal(mask, (turn.real / 12) ** 2 + (turn.imag / 6) ** 2 <= 1)


def test_circle_may_reach_over_the_edge():
    circle = make_ellipse(0, 10, 5, 5)
    circle.check(20, 20)
    assert abs(circle.draw(20, 20).sum() - math.pi * 25 / 2) < 3
    with pytest.raises(ShapeFault, match=r"centre \(-3, 10\) is outside the image of 20x20 px"):
        make_ellipse(-3, 10, 5, 5).check(20, 20)


def test_rectangle_takes_corners_in_any_order():
    expected = np.zeros((9, 9), bool)
    expected[2:5, 1:7] = True
    for corners in [(1, 2, 7, 5), (7, 5, 1, 2), (7, 2, 1, 5)]:
        np.testing.assert_array_equal(make_rectangle(*corners).draw(9, 9), expected)


def test_bitmap_is_set_in_at_its_place_and_cut_at_the_edge():
    pixels = np.array([[1, 0, 1], [1, 1, 0]], bool)
    np.testing.assert_array_equal(np.argwhere(Bitmap(2, 1, pixels).draw(4, 6)), [(1, 2), (1, 4), (2, 2), (2, 3)])
    np.testing.assert_array_equal(np.argwhere(Bitmap(-1, -1, pixels).draw(4, 6)), [(0, 0)])
    with pytest.raises(ShapeFault, match="outside"):
        Bitmap(7, 1, pixels).check(4, 6)


def test_closed_line_is_filled_and_open_line_refused():
    xs, ys = [1, 8, 8, 1, 1.5], [1, 1, 6, 6, 1]
    assert make_closed_line(xs, ys).draw(9, 9).sum() == fill_polygon(np.stack([xs, ys], 1), 9, 9).sum() > 30
    with pytest.raises(ShapeFault, match="does not end where it begins"):
        make_closed_line(xs[:-1], ys[:-1])


def test_polygon_corner_outside_is_named_with_some_leeway():
    polygon = make_polygon([-1.5, 21, 10], [0, 5, 21.9])
    polygon.check(20, 20)
    with pytest.raises(ShapeFault, match=r"corner \(21, 5\) is outside the image of 18x30 px"):
        polygon.check(30, 18)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_polygon([], []), "polygon with 0 different points"),
        (lambda: make_polygon([1, 2, 1], [1, 2, 1]), "polygon with 2 different points, of at least 3"),
        (lambda: make_polygon([1, 2, 3.5, 9], [1, 2, 3.5, 9]), "lie on one line"),
        (lambda: make_polygon([1, 2], [1, 2, 3]), "2 x and 3 y coordinates"),
        (lambda: make_polygon([1, math.nan, 3], [1, 2, 1]), "x is nan, not a finite number"),
        (lambda: make_polygon([1, 2, 3], [1, math.inf, 1]), "y is inf"),
        (lambda: make_polygon([1, "2", 3], [1, 5, 1]), "x is '2'"),
        (lambda: make_polygon([1, True, 3], [1, 5, 1]), "x is True"),
        (lambda: make_polygon([1, None, 3], [1, 5, 1]), "x is missing"),
        (lambda: make_polygon([1, 10**400, 3], [1, 5, 1]), r"x is 1000.*\.\.\., beyond any image"),
        (lambda: make_polygon([1e308, 1e308, -1e308], [1e308, 1e308, 5]), r"x is 1e\+308, beyond any image"),
        (lambda: make_rectangle(1, 2, 1, 5), "rectangle without area: 0 by 3 px"),
        (lambda: make_ellipse(1, 2, 3, 0), "without area: its radii are 3 and 0 px"),
        (lambda: make_ellipse(1, 2, -3, 3), "without area"),
    ],
)
def test_faulty_shapes_are_refused(make, message):
    with pytest.raises(ShapeFault, match=message):
        make()


def test_shorten_keeps_messages_on_one_short_line():
    assert shorten([1, 2]) == "a list of 2" and shorten({}) == "a mapping of 0"
    assert "\n" not in shorten("a\nb") and len(shorten("x" * 500)) == 40
    assert as_number(3, "x") == 3.0


def test_fill_polygon_is_the_same_in_parts(monkeypatch):
    points = np.random.default_rng(0).uniform(-5, 45, (200, 2))
    whole = fill_polygon(points, 40, 30)
    monkeypatch.setattr(shapes, "_ROWS_AT_ONCE", 50)
    np.testing.assert_array_equal(fill_polygon(points, 40, 30), whole)
    assert 0 < whole.sum() < whole.size


def test_a_zigzag_of_many_corners_fills_neither_time_nor_memory():
    corners = shapes.MAX_CORNERS
    points = np.stack([np.arange(corners) % 400, np.arange(corners) % 2 * 400], axis=-1)
    zigzag = make_polygon(*points.T.tolist())
    tracemalloc.start()
    zigzag.draw(60, 400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000_000
    with pytest.raises(ShapeFault, match="crosses 40000000 rows of pixels, too many to fill"):
        zigzag.draw(400, 400)
    with pytest.raises(ShapeFault, match="of at most 100000"):
        make_polygon([0] * (corners + 1), [0] * (corners + 1))
