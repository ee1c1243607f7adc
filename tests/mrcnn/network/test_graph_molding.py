import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.data.molding import mold_for_detection
from mrcnn.files.errors import InputError
from mrcnn.network.in_graph import mold

GREY = {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": [120.0]}
MODES = {
    "square": {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 96},
    "square without least side": {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 0, "IMAGE_MAX_DIM": 96},
    "square, least factor": {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_SCALE": 1.3, "IMAGE_MIN_DIM": 0},
    "pad64": {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 64},
    "pad64 without least side": {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 0, "IMAGE_MIN_SCALE": 0.7},
    "crop": {"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 64},
    "grey": {"IMAGE_RESIZE_MODE": "square", **GREY},
}


@pytest.fixture(scope="module")
def random_images():
    rng = np.random.default_rng(0)
    shapes = [(64, 64, 3), (96, 96, 3), (1, 5, 3), (40, 70, 1), (131, 77, 4), (70, 40, 3), (200, 33, 1), (128, 64, 4)]
    return [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]


def molded(image, config):
    function = tf.function(lambda images: mold(images, config), autograph=False)
    return function(tf.constant(image[np.newaxis]))


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES.keys())
def test_mold_is_that_of_detect(tiny_config_class, random_images, settings):
    config = make_config(settings, tiny_config_class)
    signature = [tf.TensorSpec((None, None, None, None), tf.uint8)]
    function = tf.function(lambda images: mold(images, config), input_signature=signature, autograph=False)
    for image in random_images:
        expected, batch = mold_for_detection(image, config), function(image[np.newaxis])
        assert batch.images.shape[1:] == expected.image.shape
        assert np.abs(batch.images[0].numpy().astype(int) - expected.image).max() <= 1
        assert batch.window.numpy().tolist() == list(expected.window)
        assert batch.image_shape.numpy().tolist() == list(image.shape[:2])
        assert batch.network_shape.numpy().tolist() == list(expected.image.shape[:2])


def test_mold_knows_the_square_when_the_graph_is_built(tiny_config_class):
    images = tf.TensorSpec((None, None, None, None), tf.uint8)
    function = tf.function(lambda images: mold(images, tiny_config_class()).images, autograph=False)
    assert function.get_concrete_function(images).structured_outputs.shape.as_list() == [None, 64, 64, 3]


def test_mold_mode_none_takes_multiples_of_64_alone(tiny_config_class):
    config = make_config({"IMAGE_RESIZE_MODE": "none"}, tiny_config_class)
    image = np.random.default_rng(1).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    batch = molded(image, config)
    np.testing.assert_array_equal(batch.images[0], image)
    assert batch.window.numpy().tolist() == [0, 0, 64, 128]
    with pytest.raises(tf.errors.InvalidArgumentError, match="multiples of 64"):
        molded(image[:60], config)
    with pytest.raises(InputError, match="multiples of 64"):
        mold_for_detection(image[:60], config)


def test_mold_refuses_two_channels(tiny_config_class):
    with pytest.raises(tf.errors.InvalidArgumentError, match="1, 3 or 4 channels"):
        molded(np.zeros((64, 64, 2), np.uint8), tiny_config_class())
