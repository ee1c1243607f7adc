import keras
import numpy as np
import pytest
import tensorflow as tf

from autoencoder import layers as transposed_convolution
from autoencoder.layers import Conv2DTranspose
from autoencoder.network import build_image_decoder
from tests.autoencoder.compare_layers import assert_alike, give_same_weights, outputs_and_gradients

# (input side, channels, filters, kernel, stride): the padded form, a k1 and a k2 one; then the transposed form, with
# stride 2, kernels that overlap or just meet, and a rim too wide to be padded.
SHAPES = [(40, 5, 4, 2, 1), (9, 6, 3, 1, 1), (7, 5, 4, 3, 2), (6, 4, 5, 2, 2), (3, 6, 5, 5, 2), (1, 4, 3, 5, 1)]
SHAPE = (5, 4, 3, 3, 2)


def pair_of_layers(shape, activation="relu", **settings):
    """Keras' layer and ours with the same random weights."""
    side, channels, filters, kernel, stride = shape
    pair = []
    for layer in (keras.layers.Conv2DTranspose, Conv2DTranspose):
        pair.append(layer(filters, kernel, strides=stride, activation=activation, name="same", **settings))
    give_same_weights(pair, (side, side, channels))
    return pair


def random_maps(shape, batch=3, seed=1):
    side, channels = shape[:2]
    return tf.constant(np.random.default_rng(seed).normal(size=(batch, side, side, channels)), tf.float32)


@pytest.fixture
def no_plain_form(monkeypatch):
    """Fails a test in which Keras' own form is taken."""

    def call(*_):
        raise AssertionError("the plain form was taken")

    monkeypatch.setattr(keras.layers.Conv2DTranspose, "call", call)


@pytest.mark.parametrize("least_pixels", [1, 10**6], ids=["patches", "convolution"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transposed_convolution_equals_keras_in_outputs_and_gradients(shape, least_pixels, monkeypatch):
    monkeypatch.setattr(transposed_convolution, "LEAST_PIXELS_FOR_PATCHES", least_pixels)
    theirs, ours = pair_of_layers(shape)
    inputs = random_maps(shape)
    assert not ours.uses_plain_form(inputs)
    assert_alike(outputs_and_gradients(ours, inputs), outputs_and_gradients(theirs, inputs))


@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid", "relu"])
def test_transposed_convolution_applies_every_activation(activation):
    theirs, ours = pair_of_layers(SHAPE, activation)
    inputs = random_maps(SHAPE) / 10
    assert_alike(outputs_and_gradients(ours, inputs, compiled=False), outputs_and_gradients(theirs, inputs, False))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_transposed_convolution_gathers_patches_of_any_batch_a_few_samples_at_a_time(batch, monkeypatch):
    monkeypatch.setattr(transposed_convolution, "LEAST_PIXELS_FOR_PATCHES", 1)
    monkeypatch.setattr(transposed_convolution, "PATCH_SAMPLES", 2)
    theirs, ours = pair_of_layers(SHAPE)
    inputs = random_maps(SHAPE, batch)
    assert_alike(outputs_and_gradients(ours, inputs), outputs_and_gradients(theirs, inputs))


def test_transposed_convolution_used_twice_adds_both_gradients():
    shape = (4, 3, 3, 2, 1)
    theirs, ours = pair_of_layers(shape)
    inputs = random_maps(shape)
    twice = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(layer(inputs)) ** 2)
        twice.append([g.numpy() for g in tape.gradient(loss, [v.value for v in layer.trainable_variables])])
    assert_alike(*twice)


def test_transposed_convolution_has_second_derivatives():
    def penalty_gradient(layer, inputs):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                value = tf.reduce_sum(layer(inputs) ** 2)
            penalty = tf.reduce_sum(inner.gradient(value, inputs) ** 2)
        return [g.numpy() for g in outer.gradient(penalty, [v.value for v in layer.trainable_variables])]

    theirs, ours = pair_of_layers(SHAPE, "tanh")
    inputs = random_maps(SHAPE) / 10
    assert_alike(penalty_gradient(ours, inputs), penalty_gradient(theirs, inputs))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_transposed_convolution_is_plain_in_other_precisions(policy):
    theirs, ours = pair_of_layers(SHAPE, dtype=policy)
    inputs = random_maps(SHAPE)
    assert ours.uses_plain_form(inputs)
    for actual, expected in zip(
        outputs_and_gradients(ours, inputs), outputs_and_gradients(theirs, inputs), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


def test_transposed_convolution_in_float16_is_close_to_keras():
    theirs, ours = pair_of_layers(SHAPE, dtype="mixed_float16")
    inputs = random_maps(SHAPE)
    assert not ours.uses_plain_form(inputs)
    for actual, expected in zip(
        outputs_and_gradients(ours, inputs), outputs_and_gradients(theirs, inputs), strict=True
    ):
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=0.02, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        (SHAPE, {"padding": "same"}),
        (SHAPE, {"use_bias": False}),
        (SHAPE, {"output_padding": 1}),
        ((5, 4, 3, 3, 1), {"dilation_rate": 2}),
        ((5, 4, 3, 2, 3), {}),
        ((5, 4, 3, (3, 2), 2), {}),
    ],
    ids=str,
)
def test_transposed_convolution_is_plain_under_unusual_settings(shape, settings):
    theirs, ours = pair_of_layers(shape, **settings)
    inputs = random_maps(shape)
    assert ours.uses_plain_form(inputs)
    assert_alike(outputs_and_gradients(ours, inputs), outputs_and_gradients(theirs, inputs))


def test_transposed_convolution_is_plain_on_a_gpu_and_for_maps_that_are_not_square(monkeypatch):
    _, ours = pair_of_layers(SHAPE)
    assert not ours.uses_plain_form(tf.zeros((1, 5, 5, 4)))
    assert ours.uses_plain_form(tf.zeros((1, 5, 6, 4)))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    assert ours.uses_plain_form(tf.zeros((1, 5, 5, 4)))


def test_image_decoder_takes_the_fast_form_and_agrees_with_keras_layers(no_plain_form, monkeypatch):
    decoder = build_image_decoder(32, seed=4)
    features = np.random.default_rng(2).normal(size=(2, 14, 14, 256)).astype(np.float32)
    images = decoder(features).numpy()
    monkeypatch.undo()
    expected = features
    for layer in decoder.layers[1:]:
        plain = layer
        if layer.weights:
            plain = keras.layers.Conv2DTranspose.from_config(layer.get_config())
            plain.build(layer.input.shape)
            plain.set_weights(layer.get_weights())
        expected = plain(expected)
    np.testing.assert_allclose(images, expected.numpy(), atol=1e-5)


def test_transposed_convolution_survives_a_keras_file(tmp_path):
    inputs = keras.Input((6, 6, 3))
    layer = Conv2DTranspose(4, 3, strides=2, activation="relu", name="up")
    model = keras.Model(inputs, layer(inputs))
    maps = random_maps((6, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("up")) is Conv2DTranspose
    np.testing.assert_array_equal(loaded(maps).numpy(), model(maps).numpy())


def test_transposed_convolution_loads_the_weight_file_of_keras_layer(tmp_path):
    def model_of(layer):
        return keras.Sequential([keras.Input((6, 6, 3)), layer(4, 3, strides=2, name="up")])

    theirs, ours = model_of(keras.layers.Conv2DTranspose), model_of(Conv2DTranspose)
    theirs.save_weights(tmp_path / "a.weights.h5")
    ours.load_weights(tmp_path / "a.weights.h5")
    maps = random_maps((6, 3))
    np.testing.assert_allclose(ours(maps).numpy(), theirs(maps).numpy(), atol=1e-5)


def test_transposed_convolution_survives_a_saved_model(tmp_path):
    inputs = keras.Input((40, 40, 3))
    layer = Conv2DTranspose(4, 2, activation="relu")
    model = keras.Model(inputs, layer(inputs))
    maps = random_maps((40, 3))
    module = tf.Module()
    module.model = model
    serve = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, 40, 40, 3))])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=serve.get_concrete_function())
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    (values,) = served(maps).values()
    np.testing.assert_allclose(values.numpy(), model(maps).numpy(), atol=1e-6)
