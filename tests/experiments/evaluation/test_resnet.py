"""The features are those of keras.applications' ResNet-101, and no other network is taken for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.evaluation import resnet
from experiments.evaluation.resnet import resnet_vectors
from mrcnn.files.errors import InputError
from mrcnn.training.weights import save_matterport

SIZE = 32


@pytest.fixture
def store(make_store):
    """Five cells with crops of their own."""
    blocks = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    return make_store(blocks.repeat(32, axis=1).repeat(32, axis=2))


def small_network(**settings) -> keras.Model:
    """A network of two layers under the names of ResNet-101's, which takes no seconds to build."""
    images = keras.Input(settings["input_shape"])
    x = keras.layers.Conv2D(2048, 3, strides=8, name="conv1_conv")(images)
    x = keras.layers.BatchNormalization(epsilon=1.001e-5, name="conv1_bn")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="avg_pool")(x))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(keras.applications, "ResNet101", small_network)


def test_vectors_of_an_untrained_network_follow_the_seed(store):
    first, same, other = (resnet_vectors(store, "random", image_size=SIZE, seed=s) for s in (1, 1, 2))
    assert np.all(np.isfinite(first)) and first.std(axis=0).min() > 0
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_imagenet_takes_the_file_that_is_fetched(store, tmp_path, monkeypatch):
    model, random = small_network(input_shape=(SIZE, SIZE, 3)), np.random.default_rng(0)
    for variable in model.get_layer("conv1_bn").weights:
        variable.assign(random.uniform(0.8, 1.2, variable.shape))
    save_matterport(model.layers, tmp_path / "fetched.h5")
    monkeypatch.setattr(resnet, "imagenet_weights_path", lambda name: tmp_path / {"resnet101": "fetched.h5"}[name])
    vectors = resnet_vectors(store, "imagenet", image_size=SIZE, batch_size=2)
    # What somebody without this module would compute.
    resized = tf.image.resize(store.read("crop", 0, 5), (SIZE, SIZE), antialias=True).numpy()
    blue_green_red = resized[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    expected = model(blue_green_red, training=False).numpy()
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_files_of_other_networks_and_damaged_ones_are_refused(store, tmp_path):
    path = tmp_path / "weights.h5"
    further = keras.layers.Dense(2, name="conv4_block36_1_conv")
    further.build((None, 3))
    layers = small_network(input_shape=(SIZE, SIZE, 3)).layers
    for others in ([layers[1]], [*layers, further]):
        save_matterport(others, path)
        with pytest.raises(InputError, match=f"{path}: damaged, or of another network .* give imagenet, random or"):
            resnet_vectors(store, path, image_size=SIZE)
    path.write_bytes(b"<html>")
    for each in (path, tmp_path / "absent.h5"):
        with pytest.raises(InputError, match=str(each)):
            resnet_vectors(store, each, image_size=SIZE)
