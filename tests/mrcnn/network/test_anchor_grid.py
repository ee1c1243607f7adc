import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import Config, make_config
from mrcnn.network.anchors import LEVEL_NAMES, AnchorGrid, feature_map_shapes, pyramid_anchors
from mrcnn.utils import norm_boxes

SCALES, RATIOS, STRIDES = (8, 16, 32, 48, 64), (0.5, 1, 2), (4, 8, 16, 32, 64)
# Square, wide, high, and sides that no stride divides.
SHAPES = [(64, 64), (96, 160), (128, 64), (70, 101)]


def expected_anchors(shape, levels=LEVEL_NAMES, anchor_stride=1) -> np.ndarray:
    """The anchors in pixels, as NumPy lays them, then normalised."""
    used = [LEVEL_NAMES.index(name) for name in levels]
    shapes = feature_map_shapes(shape, STRIDES)
    pixels = pyramid_anchors(
        [SCALES[i] for i in used], RATIOS, [shapes[i] for i in used], [STRIDES[i] for i in used], anchor_stride
    )
    return norm_boxes(pixels, shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("anchor_stride", [1, 2])
def test_anchor_grid_is_the_pyramid_of_anchors(shape, anchor_stride):
    anchors = AnchorGrid(SCALES, RATIOS, STRIDES, anchor_stride, LEVEL_NAMES)(image_shape=shape)
    np.testing.assert_allclose(anchors, expected_anchors(shape, anchor_stride=anchor_stride), atol=1e-5)


@pytest.mark.parametrize("levels", [("P2",), ("P6",), ("P3", "P4"), ("P2", "P5", "P6")])
def test_anchor_grid_lays_the_named_levels_alone(levels):
    anchors = AnchorGrid(SCALES, RATIOS, STRIDES, 1, levels)(image_shape=(96, 160))
    np.testing.assert_allclose(anchors, expected_anchors((96, 160), levels), atol=1e-5)


def test_anchor_grid_follows_a_size_that_is_known_at_run_time_only():
    grid = AnchorGrid(SCALES, RATIOS, STRIDES, 1, LEVEL_NAMES)
    lay = tf.function(lambda shape: grid(shape), input_signature=[tf.TensorSpec((2,), tf.int32)])
    for shape in SHAPES:
        np.testing.assert_allclose(lay(tf.constant(shape)), expected_anchors(shape), atol=1e-5)


def test_anchor_grid_from_settings_takes_those_of_the_configuration():
    config = make_config({"RPN_LEVELS": ["P3", "P5"], "RPN_ANCHOR_SCALES": SCALES, "RPN_ANCHOR_STRIDE": 2}, Config)
    anchors = AnchorGrid.from_settings(config, name="anchors")(image_shape=(96, 160))
    np.testing.assert_allclose(anchors, expected_anchors((96, 160), ("P3", "P5"), 2), atol=1e-5)


def test_anchor_grid_round_trip():
    grid = AnchorGrid(SCALES, RATIOS, STRIDES, 2, ("P3", "P4"), name="anchors")
    again = AnchorGrid.from_config(grid.get_config())
    assert again.get_config() == grid.get_config()
    np.testing.assert_array_equal(again(image_shape=(64, 96)), grid(image_shape=(64, 96)))
    assert tuple(grid.compute_output_spec((64, 64)).shape) == (None, 4)
