import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import Config, make_config
from mrcnn.network.anchors import LEVEL_NAMES, anchor_grid, level_anchors, pixel_anchors
from mrcnn.utils import norm_boxes

SCALES = (8, 16, 32, 48, 64)
# Square, wide, and sides that no stride divides.
SHAPES = [(64, 64), (96, 160), (70, 101)]


def test_level_anchors_known_answer():
    anchors = level_anchors(8, (1, 4), (1, 2), 16, 1)
    # Ratio 4 keeps the area of 64 px at a width of four times the height; columns follow, ratios innermost.
    expected = [[-4, -4, 4, 4], [-2, -8, 2, 8], [-4, 12, 4, 20], [-2, 8, 2, 24]]
    np.testing.assert_allclose(anchors, expected)


def slow_anchors(config, shape) -> list[list[float]]:
    anchors = []
    for name, scale, stride in zip(LEVEL_NAMES, config.RPN_ANCHOR_SCALES, config.BACKBONE_STRIDES, strict=True):
        rows, columns = (range(0, math.ceil(side / stride), config.RPN_ANCHOR_STRIDE) for side in shape)
        for i, j, ratio in itertools.product(rows, columns, config.RPN_ANCHOR_RATIOS):
            y, x, height, width = i * stride, j * stride, scale / math.sqrt(ratio), scale * math.sqrt(ratio)
            if name in config.RPN_LEVELS:
                anchors.append([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
    return anchors


@pytest.mark.parametrize("anchor_stride", [1, 2])
@pytest.mark.parametrize("levels", [LEVEL_NAMES, ("P2",), ("P3", "P6")])
def test_anchors_of_a_size_known_at_run_time_equal_a_slow_reference(levels, anchor_stride):
    settings = {"RPN_LEVELS": list(levels), "RPN_ANCHOR_SCALES": SCALES, "RPN_ANCHOR_STRIDE": anchor_stride}
    config = make_config(settings, Config)
    lay = tf.function(lambda shape: anchor_grid(config, shape), input_signature=[tf.TensorSpec((2,), tf.int32)])
    for shape in SHAPES:
        expected = slow_anchors(config, shape)
        np.testing.assert_allclose(pixel_anchors(config, shape), expected, atol=1e-4)
        np.testing.assert_allclose(lay(tf.constant(shape)), norm_boxes(expected, shape), atol=1e-5)
