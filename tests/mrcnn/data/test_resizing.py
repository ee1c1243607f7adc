"""`resize` alone; `resize_image` and `resize_mask` are tested by their public names in test_utils."""

import numpy as np
import pytest

from mrcnn.data.resizing import resize


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


@pytest.mark.parametrize("shape", [(64, 64, 3), (300, 200, 3), (5, 300, 3), (1, 1, 3)])
def test_resize_keeps_a_flat_colour(shape):
    small = resize(np.full(shape, (10, 200, 30), np.uint8), (128, 128))
    assert small.shape == (128, 128, 3) and (small == [10, 200, 30]).all()
