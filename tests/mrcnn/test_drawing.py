import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mrcnn import visualize as drawing


def test_random_colors_are_distinct_and_repeatable():
    colors = drawing.random_colors(12)
    assert len(set(colors)) == 12 and colors == drawing.random_colors(12)
    assert all(0 <= v <= 1 for color in colors for v in color)
    assert max(max(color) for color in drawing.random_colors(5, bright=False)) == pytest.approx(0.7)
    assert drawing.random_colors(0) == []


@pytest.mark.parametrize("color", [(1.0, 0.0, 0.5), (1.0, 0.0, 0.5, 0.8)])
def test_apply_mask_blends_in_place(color):
    image, mask = np.full((4, 4, 3), 100, np.uint8), np.eye(4)
    result = drawing.apply_mask(image, mask, color, alpha=0.5)
    assert result is image
    np.testing.assert_array_equal(image[0, 0], [177, 50, 113])
    np.testing.assert_array_equal(image[0, 1], [100, 100, 100])


def test_draw_box_frames_in_place():
    image = np.zeros((12, 14, 3), np.uint8)
    result = drawing.draw_box(image, np.array([2, 3, 8, 10]), [0, 200, 0])
    assert result is image
    rows, columns = np.nonzero(image[..., 1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 9, 3, 11)
    assert (image[..., 1][4:8, 5:10] == 0).all() and not image[..., 0].any()
    assert (image[2:4, 3:10] == [0, 200, 0]).all() and (image[2:8, 3:5] == [0, 200, 0]).all()


def test_add_outline_closes_masks_at_the_border():
    _, ax = plt.subplots()
    drawing.add_outline(ax, np.ones((5, 6), bool), (1.0, 0.0, 0.0))
    points = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [[-0.5, -0.5], [5.5, 4.5]])
    drawing.add_outline(ax, np.zeros((5, 6), bool), (1.0, 0.0, 0.0))
    assert len(ax.collections) == 1
    plt.close("all")
