import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import Config, make_config
from mrcnn.network.anchors import LEVEL_NAMES, anchor_grid, feature_map_shapes, level_anchors, pyramid_anchors
from mrcnn.utils import norm_boxes

SCALES, RATIOS, STRIDES = (8, 16, 32, 48, 64), (0.5, 1, 2), (4, 8, 16, 32, 64)
# Square, wide, and sides that no stride divides.
SHAPES = [(64, 64), (96, 160), (70, 101)]


def test_level_anchors_known_answer():
    anchors = level_anchors(8, (1, 4), (1, 2), 16)
    # Ratio 4 keeps the area of 64 px at a width of four times the height; columns follow, ratios innermost.
    expected = [[-4, -4, 4, 4], [-2, -8, 2, 8], [-4, 12, 4, 20], [-2, 8, 2, 24]]
    np.testing.assert_allclose(anchors, expected)
    assert anchors.dtype == np.float32


def test_pyramid_anchors_start_with_the_finest_level():
    shapes = feature_map_shapes((64, 64), STRIDES)
    assert shapes == [(side, side) for side in (16, 8, 4, 2, 1)]
    anchors = pyramid_anchors(SCALES, RATIOS, shapes, STRIDES)
    assert anchors.shape == (3 * (256 + 64 + 16 + 4 + 1), 4)
    np.testing.assert_allclose(anchors[: 3 * 256], level_anchors(8, RATIOS, (16, 16), 4))
    np.testing.assert_allclose(anchors[-2], [-32, -32, 32, 32])


@pytest.mark.parametrize("anchor_stride", [1, 2])
@pytest.mark.parametrize("levels", [LEVEL_NAMES, ("P2",), ("P3", "P6")])
def test_anchor_grid_is_the_normalised_pyramid_of_a_size_known_at_run_time(levels, anchor_stride):
    settings = {"RPN_LEVELS": list(levels), "RPN_ANCHOR_SCALES": SCALES, "RPN_ANCHOR_STRIDE": anchor_stride}
    config = make_config(settings, Config)
    lay = tf.function(lambda shape: anchor_grid(config, shape), input_signature=[tf.TensorSpec((2,), tf.int32)])
    used = [LEVEL_NAMES.index(name) for name in levels]
    for shape in SHAPES:
        shapes = feature_map_shapes(shape, STRIDES)
        pixels = pyramid_anchors(
            [SCALES[i] for i in used], RATIOS, [shapes[i] for i in used], [STRIDES[i] for i in used], anchor_stride
        )
        np.testing.assert_allclose(lay(tf.constant(shape)), norm_boxes(pixels, shape), atol=1e-5)
