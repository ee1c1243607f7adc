"""Resizing by averages or between pixels, and what each mode needs; masks are tested with ground truth."""

import numpy as np
import pytest

from mrcnn.data.resizing import resize, resize_image


def test_resize_keeps_type_range_and_a_single_channel():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 1), np.uint8)
    assert resize(image, (7, 9)).shape == (7, 9, 1)
    assert resize(image, (40, 50)).dtype == np.uint8
    assert resize(image.astype(np.int64), (40, 50)).max() <= 255


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64", "float64"])
def test_resize_averages_where_it_shrinks_and_interpolates_where_it_grows(dtype):
    image = np.array([[0, 100, 0, 100], [100, 200, 100, 200]], dtype)
    np.testing.assert_array_equal(resize(image, (1, 2)), [[100, 100]])
    np.testing.assert_allclose(resize(image[:1, :2], (1, 4)), [[0, 25, 75, 100]], atol=0.5)


def test_resize_image_never_shrinks_for_min_dim():
    image = np.zeros((80, 90, 3), np.uint8)
    new, _, scale, _, _ = resize_image(image, min_dim=40, max_dim=100, mode="square")
    assert scale == 1 and new.shape == (100, 100, 3)
    _, _, scale, _, _ = resize_image(image, min_dim=40, max_dim=300, min_scale=2.0, mode="square")
    assert scale == 2


def test_resize_image_refuses_what_the_mode_cannot_do():
    for options in ({"mode": "oval"}, {"mode": "square"}, {"mode": "crop"}, {"mode": "pad64", "min_dim": 100}):
        with pytest.raises(ValueError, match="mode"):
            resize_image(np.zeros((20, 20, 3), np.uint8), **options)
