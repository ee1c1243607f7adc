import numpy as np
import pytest

from mrcnn.network.anchors import feature_map_shapes, level_anchors, pyramid_anchors

STRIDES = (4, 8, 16, 32, 64)


def test_level_anchors_known_answer():
    anchors = level_anchors(8, (1, 4), (1, 2), 16)
    # Ratio 4 keeps the area of 64 px at a width of four times the height; columns follow, ratios innermost.
    expected = [[-4, -4, 4, 4], [-2, -8, 2, 8], [-4, 12, 4, 20], [-2, 8, 2, 24]]
    np.testing.assert_allclose(anchors, expected)
    assert anchors.dtype == np.float32


def test_level_anchors_go_through_rows_first():
    anchors = level_anchors(2, (1,), (2, 3), 10)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(centres, [[0, 0], [0, 10], [0, 20], [10, 0], [10, 10], [10, 20]])


def test_level_anchors_with_anchor_stride_two_skip_every_second_position():
    anchors = level_anchors(2, (1,), (3, 3), 10, anchor_stride=2)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(centres, [[0, 0], [0, 20], [20, 0], [20, 20]])


def test_level_anchors_all_have_the_area_of_the_scale():
    anchors = level_anchors(32, (0.5, 1, 2), (2, 2), 8)
    height, width = (anchors[:, 2:] - anchors[:, :2]).T
    np.testing.assert_allclose(height * width, 32**2, rtol=1e-5)
    np.testing.assert_allclose((width / height)[:3], [0.5, 1, 2], rtol=1e-5)


@pytest.mark.parametrize(("size", "sides"), [(64, (16, 8, 4, 2, 1)), (96, (24, 12, 6, 3, 2))])
def test_feature_map_shapes_round_up(size, sides):
    assert feature_map_shapes((size, size, 3), STRIDES) == [(side, side) for side in sides]


def test_pyramid_anchors_start_with_the_finest_level():
    shapes = feature_map_shapes((64, 64), STRIDES)
    anchors = pyramid_anchors((8, 16, 32, 48, 64), (0.5, 1, 2), shapes, STRIDES)
    assert anchors.shape == (3 * (256 + 64 + 16 + 4 + 1), 4)
    np.testing.assert_allclose(anchors[: 3 * 256], level_anchors(8, (0.5, 1, 2), (16, 16), 4))
    np.testing.assert_allclose(anchors[-2], [-32, -32, 32, 32])


def test_pyramid_anchors_need_a_scale_for_each_level():
    with pytest.raises(ValueError, match="2 scales, 5 strides for 5 levels"):
        pyramid_anchors((8, 16), (1,), [(1, 1)] * 5, STRIDES)
