import numpy as np
import pytest
import tensorflow as tf

from mrcnn.data.resizing import resize
from mrcnn.network.graph_resizing import linear_positions
from mrcnn.network.graph_resizing import resize as graph_resize

# OpenCV's results are met to the grey level on x86. Elsewhere a fused product and sum may round a half the other way.
RARELY = 1e-4


@pytest.fixture(scope="module")
def in_graph():
    signature = [tf.TensorSpec((None, None, None, None), tf.uint8), tf.TensorSpec((2,), tf.int32)]
    function = tf.function(graph_resize, input_signature=signature)
    return lambda image, shape: function(image[np.newaxis], shape).numpy()[0]


def draw(rng, height, width, channels):
    """Noise, in which every wrong weight shows, or two levels, whose averages are ties more often."""
    levels = rng.integers(0, 256, rng.choice([2, 256]))
    return rng.choice(levels, (height, width, channels)).astype(np.uint8)


def assert_agree(pairs):
    differences = np.concatenate([np.abs(a.astype(int) - b).ravel() for a, b in pairs])
    assert differences.max() <= 1
    assert (differences > 0).mean() <= RARELY


@pytest.mark.parametrize("factors", [(0.06, 0.99), (1.01, 5.0)], ids=["shrink", "enlarge"])
def test_resize_is_opencvs_at_any_factor(in_graph, factors):
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(120):
        image = draw(rng, *rng.integers(1, 90, 2), rng.choice([1, 3]))
        factor = rng.uniform(*factors)
        shape = [max(1, round(side * factor)) for side in image.shape[:2]]
        pairs.append((in_graph(image, shape), resize(image, shape)))
        assert pairs[-1][0].shape == pairs[-1][1].shape
    assert_agree(pairs)


@pytest.mark.parametrize("ratio", [2, 3, 4, 7, 1.5, 1.25, 1.2, 1.6, 2.5, 0.5, 0.25, 0.8, 2 / 3])
def test_resize_is_opencvs_at_simple_ratios(in_graph, ratio):
    rng = np.random.default_rng(2)
    pairs = []
    for height, width in ((60, 90), (120, 30), (1, 60)):
        image = draw(rng, height, width, 3)
        shape = max(1, round(height / ratio)), round(width / ratio)
        pairs.append((in_graph(image, shape), resize(image, shape)))
    assert_agree(pairs)


def test_resize_along_one_side_alone(in_graph):
    rng = np.random.default_rng(3)
    image = draw(rng, 40, 60, 3)
    shapes = [(40, 59), (40, 20), (13, 60), (40, 61), (95, 60)]
    assert_agree([(in_graph(image, shape), resize(image, shape)) for shape in shapes])


def test_resize_to_the_same_size_changes_nothing(in_graph):
    image = draw(np.random.default_rng(4), 17, 23, 3)
    np.testing.assert_array_equal(in_graph(image, (17, 23)), image)


def test_resize_treats_each_image_of_a_batch_alone():
    rng = np.random.default_rng(5)
    images = np.stack([draw(rng, 20, 30, 3) for _ in range(3)])
    for shape in ((8, 12), (50, 75)):
        together = graph_resize(tf.constant(images), tf.constant(shape)).numpy()
        for image, resized in zip(images, together, strict=True):
            np.testing.assert_array_equal(resized, graph_resize(tf.constant(image[np.newaxis]), tf.constant(shape))[0])


def test_resize_averages_whole_blocks_by_hand(in_graph):
    image = np.array([[0, 1, 10, 20], [0, 1, 30, 41]], np.uint8)[..., np.newaxis]
    # (0 + 1 + 0 + 1) / 4 = 0.5 is rounded up, as OpenCV does with 2 x 2; 101 / 4 = 25.25.
    np.testing.assert_array_equal(in_graph(image, (1, 2))[0, :, 0], [1, 25])


def test_linear_positions_by_hand():
    before, share = linear_positions(tf.constant(2), tf.constant(4))
    # The centres of four pixels over two: -0.25, 0.25, 0.75 and 1.25.
    assert before.numpy().tolist() == [-1, 0, 0, 1]
    np.testing.assert_allclose(share, [0.75, 0.25, 0.75, 0.25], atol=1e-6)
