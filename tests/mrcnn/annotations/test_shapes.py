"""Pixels inside of a shape: known answers, a slow reference, and what is refused."""

import math

import numpy as np
import pytest

from mrcnn.annotations.faults import Fault
from mrcnn.annotations.shapes import OutlinedObject, fill_polygon, make_ellipse, make_polygon


def is_inside(points, x, y):
    """Even-odd rule for one point: count the edges that a ray to the left crosses."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            crossings += 1
    return crossings % 2 == 1


def test_fill_polygon_counts_centres_inside():
    square = np.array([(2, 3), (6, 3), (6, 8), (2, 8)], float)
    expected = np.zeros((10, 10), bool)
    expected[3:8, 2:6] = True
    np.testing.assert_array_equal(fill_polygon(square, 10, 10), expected)
    # Half a pixel farther its edges run through centres; left and upper ones count as inside.
    np.testing.assert_array_equal(fill_polygon(square + 0.5, 10, 10), expected)
    np.testing.assert_array_equal(fill_polygon(square + 0.51, 10, 10), np.roll(expected, 1, axis=(0, 1)))
    assert not fill_polygon(square + 20, 10, 10).any() and not fill_polygon(square - 20, 10, 10).any()


@pytest.mark.parametrize("digits", [0, 8])
def test_fill_polygon_agrees_with_a_slow_reference(digits):
    rng = np.random.default_rng(0)
    for _ in range(15):
        # Random corners in any order cross themselves, and some lie outside the image.
        points = rng.uniform(-5, 25, (rng.integers(3, 9), 2)).round(digits) + 0.5
        expected = [[is_inside(points, c + 0.5, r + 0.5) for c in range(21)] for r in range(17)]
        np.testing.assert_array_equal(fill_polygon(points, 17, 21), expected)
        np.testing.assert_array_equal(fill_polygon(np.roll(points[::-1], 2, axis=0), 17, 21), expected)


def test_ellipse_agrees_with_its_equation():
    mask = make_ellipse(20, 15, 12, 6, math.pi / 6).draw(30, 40)
    ys, xs = np.mgrid[:30, :40] + 0.5
    turn = np.exp(-1j * math.pi / 6) * ((xs - 20) + 1j * (ys - 15))  # clockwise as seen
    np.testing.assert_array_equal(mask, (turn.real / 12) ** 2 + (turn.imag / 6) ** 2 <= 1)


ZIGZAG = [[0, 17] * 50_000, [0, 30] * 50_000]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_polygon([1, 2], [1, 2]), "2 points"),
        (lambda: make_polygon([1, math.nan, 3], [1, 2, 1]), "x is nan"),
        (lambda: make_polygon([1, 10**400, 3], [1, 5, 1]), r"x is 1000.*\.\.\."),
        (lambda: make_ellipse(1, 2, 3, 0), "without area"),
        (lambda: make_polygon([-1.5, 21, 10], [0, 5, 31.9]), r"\(21, 5\) is outside the image of 18x30 px"),
        (lambda: make_polygon([1, 2, 3.5], [1, 2, 3.5]), "covers no pixel"),
        (lambda: make_polygon(*ZIGZAG), "crosses .* rows of pixels"),
    ],
)
def test_faulty_shapes_and_objects_without_a_pixel_are_refused(make, message):
    with pytest.raises(Fault, match=message):
        OutlinedObject("1", "cell", (make(),)).draw(30, 18)
