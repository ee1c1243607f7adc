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


def draw_statistics(model: keras.Model) -> None:
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


def test_vectors_are_the_features_of_keras_network_with_the_files_weights(store, tmp_path, monkeypatch):
    model = build_resnet101("random", image_size=SIZE, seed=1)
    assert model.count_params() == 42_658_176  # keras.applications, without the classifier
    draw_statistics(model)
    expected = plain_features(model, store.read("crop", 0, 5))
    assert expected.std(axis=0).max() > 1e-3
    path = tmp_path / "resnet101_notop.h5"
    save_matterport(model.layers, path)
    # The same object serves again, since another one takes seconds; nothing of its weights is left.
    for variable in model.weights:
        variable.assign(np.ones(variable.shape))
    monkeypatch.setattr(keras.applications, "ResNet101", lambda **_: model)
    vectors = resnet_vectors(store, path, image_size=SIZE, batch_size=2)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 2048)
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_vectors_of_an_untrained_network_follow_the_seed(store, small):
    first, same, other = (resnet_vectors(store, "random", image_size=SIZE, seed=s) for s in (1, 1, 2))
    assert np.all(np.isfinite(first)) and first.std(axis=0).min() > 0
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_imagenet_takes_the_file_that_is_fetched(store, small, tmp_path, monkeypatch):
    model = small_network(input_shape=(SIZE, SIZE, 3))
    save_matterport(model.layers, tmp_path / "fetched.h5")
    asked = []
    monkeypatch.setattr(
        "experiments.evaluation.resnet.imagenet_weights_path",
        lambda name: asked.append(name) or tmp_path / "fetched.h5",
    )
    vectors = resnet_vectors(store, "imagenet", image_size=SIZE)
    assert asked == ["resnet101"]
    np.testing.assert_allclose(vectors, plain_features(model, store.read("crop", 0, 5)), atol=1e-3)


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
    with pytest.raises(InputError, match="1 of 2 layers are missing or of another shape, as conv1_bn"):
        build_resnet101(path, image_size=SIZE)
    save_matterport([*layers, layer_with_weights("conv4_block36_1_conv")], path)
    with pytest.raises(InputError, match="1 layers that ResNet-101 lacks, as conv4_block36_1_conv"):
        build_resnet101(path, image_size=SIZE)
    narrow = keras.layers.Conv2D(64, 7, name="conv1_conv")
    narrow.build((None, SIZE, SIZE, 3))
    save_matterport([narrow, layers[2]], path)
    with pytest.raises(InputError, match="of another shape, as conv1_conv"):
        build_resnet101(path, image_size=SIZE)


def test_damaged_files_and_unfit_settings_are_refused(small, tmp_path):
    path = tmp_path / "weights.h5"
    layers = small_network(input_shape=(SIZE, SIZE, 3)).layers
    save_matterport(layers, path)
    whole = path.read_bytes()
    for content, message in [(whole[: len(whole) // 2], "download it again"), (b"<html>", "download it again")]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            build_resnet101(path, image_size=SIZE)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    layers[1].kernel.assign(np.full(layers[1].kernel.shape, np.nan))
    save_matterport(layers, path)
    with pytest.raises(InputError, match="NaN"):
        build_resnet101(path, image_size=SIZE)
    with pytest.raises(InputError, match="no such file"):
        build_resnet101(tmp_path / "absent.h5", image_size=SIZE)
    with pytest.raises(InputError, match="image_size must be 32 or more"):
        build_resnet101("random", image_size=31)
