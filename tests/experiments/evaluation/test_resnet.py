"""The features are those of keras.applications' ResNet-101, and no other network is taken for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.evaluation.resnet import build_resnet101, resnet_vectors
from mrcnn.feature_store import Cell, FeatureStoreWriter, open_store
from mrcnn.files.errors import InputError
from mrcnn.training.weights import save_matterport

SIZE = 32


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Five cells with crops of their own."""
    path = tmp_path_factory.mktemp("store") / "anna.h5"
    random = np.random.default_rng(0)
    with FeatureStoreWriter(path, centre="anna", detector={"hash": "x"}) as writer:
        for number in range(5):
            blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            cell = Cell(
                features=np.zeros((14, 14, 256)),
                crop=np.kron(blocks, np.ones((32, 32, 1), np.uint8)),
                image=np.zeros((128, 128, 3), np.uint8),
                box=np.array([1, 2, 30, 40], np.float32),
                score=0.9,
                class_id=1,
                image_shape=(64, 64),
            )
            writer.add(f"{number}.png", [cell], label="a", cell_type="a")
    with open_store(path) as store:
        yield store


def small_network(**settings) -> keras.Model:
    """A network of two layers under the names of ResNet-101's, which takes no seconds to build."""
    images = keras.Input(settings["input_shape"])
    x = keras.layers.Conv2D(2048, 3, strides=8, name="conv1_conv")(images)
    x = keras.layers.BatchNormalization(epsilon=1.001e-5, name="conv1_bn")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="avg_pool")(x))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(keras.applications, "ResNet101", small_network)


def randomise_statistics(model: keras.Model) -> None:
    """Give batch normalisation and biases the values that a trained network might have."""
    random = np.random.default_rng(4)
    for variable in model.weights:
        if variable.name != "kernel":
            low, high = (-0.1, 0.1) if variable.name in ("beta", "bias", "moving_mean") else (0.8, 1.2)
            variable.assign(random.uniform(low, high, variable.shape))


def plain_features(model: keras.Model, crops: np.ndarray) -> np.ndarray:
    """What somebody without this module would compute."""
    resized = tf.image.resize(crops, (SIZE, SIZE), antialias=True).numpy()
    blue_green_red = resized[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    return model(blue_green_red, training=False).numpy()


def test_vectors_of_an_untrained_network_follow_the_seed(store, small):
    first, same, other = (resnet_vectors(store, "random", image_size=SIZE, seed=s) for s in (1, 1, 2))
    assert np.all(np.isfinite(first)) and first.std(axis=0).min() > 0
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_imagenet_takes_the_file_that_is_fetched(store, small, tmp_path, monkeypatch):
    model = small_network(input_shape=(SIZE, SIZE, 3))
    randomise_statistics(model)
    save_matterport(model.layers, tmp_path / "fetched.h5")
    asked = []
    monkeypatch.setattr(
        "experiments.evaluation.resnet.imagenet_weights_path",
        lambda name: asked.append(name) or tmp_path / "fetched.h5",
    )
    vectors = resnet_vectors(store, "imagenet", image_size=SIZE, batch_size=2)
    assert asked == ["resnet101"] and vectors.dtype == np.float32
    expected = plain_features(model, store.read("crop", 0, 5))
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def layer_with_weights(name: str) -> keras.layers.Layer:
    layer = keras.layers.Dense(2, name=name)
    layer.build((None, 3))
    return layer


def test_files_of_other_networks_are_refused(small, tmp_path):
    path = tmp_path / "weights.h5"
    layers = small_network(input_shape=(SIZE, SIZE, 3)).layers
    save_matterport([*layers, layer_with_weights("predictions")], path)
    build_resnet101(path, image_size=SIZE)  # with the classifier, which is left out
    save_matterport([layers[1]], path)
    with pytest.raises(InputError, match="1 layers are not those of ResNet-101, as conv1_bn"):
        build_resnet101(path, image_size=SIZE)
    save_matterport([*layers, layer_with_weights("conv4_block36_1_conv")], path)
    with pytest.raises(InputError, match="1 layers are not those of ResNet-101, as conv4_block36_1_conv"):
        build_resnet101(path, image_size=SIZE)


def test_damaged_files_and_unfit_settings_are_refused(small, tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match=str(path)):
        build_resnet101(path, image_size=SIZE)
    with pytest.raises(InputError, match="no such file"):
        build_resnet101(tmp_path / "absent.h5", image_size=SIZE)
    with pytest.raises(InputError, match="image_size must be 32 or more"):
        build_resnet101("random", image_size=31)
