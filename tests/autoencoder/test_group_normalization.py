import keras
import numpy as np
import pytest
import tensorflow as tf

from autoencoder.layers import GroupNormalization
from autoencoder.network import build_encoder
from tests.autoencoder.compare_layers import assert_alike, give_same_weights, outputs_and_gradients


def pair_of_layers(shape, groups, **settings):
    """Keras' layer and ours with the same random weights."""
    pair = [layer(groups, **settings) for layer in (keras.layers.GroupNormalization, GroupNormalization)]
    give_same_weights(pair, shape)
    return pair


@pytest.mark.parametrize(("shape", "groups"), [((4, 3, 6), 2), ((5, 5, 6), 6), ((3, 3, 6), 1), ((1, 1, 8), 2)])
def test_group_normalization_equals_keras_in_outputs_and_gradients(shape, groups):
    theirs, ours = pair_of_layers(shape, groups, epsilon=1e-2)
    inputs = tf.constant(np.random.default_rng(1).normal(3.0, 2.0, (4, *shape)), tf.float32)
    assert not ours.uses_plain_form(inputs)
    assert_alike(outputs_and_gradients(ours, inputs), outputs_and_gradients(theirs, inputs), 2e-5)


def test_group_normalization_of_a_worked_example():
    layer = GroupNormalization(2, epsilon=0.0)
    values = np.array([[[[1, 3, 0, 8], [5, 7, 4, 4]]]], np.float32)  # means 4 and 4, variances 5 and 8
    expected = np.array([[-3, -1, -4, 4], [1, 3, 0, 0]]) / np.sqrt([5, 5, 8, 8])
    np.testing.assert_allclose(layer(values)[0, 0], expected, atol=1e-6)


def test_group_normalization_of_a_constant_sample_is_its_shift():
    _, ours = pair_of_layers((3, 3, 4), 2)
    outputs = ours(tf.fill((2, 3, 3, 4), 7.0)).numpy()
    np.testing.assert_allclose(outputs, np.broadcast_to(ours.beta.numpy(), outputs.shape), atol=1e-5)


@pytest.mark.parametrize("settings", [{"dtype": "mixed_float16"}, {"scale": False}, {"axis": 1}], ids=str)
def test_group_normalization_is_plain_under_other_settings(settings):
    theirs, ours = pair_of_layers((4, 4, 4), 2, **settings)
    inputs = tf.constant(np.random.default_rng(1).normal(size=(2, 4, 4, 4)), tf.float32)
    assert ours.uses_plain_form(inputs)
    assert_alike(outputs_and_gradients(ours, inputs), outputs_and_gradients(theirs, inputs), 2e-5)


def test_group_normalization_is_plain_on_a_gpu_and_for_inputs_of_unknown_size(monkeypatch):
    _, ours = pair_of_layers((4, 4, 4), 2)
    assert ours.uses_plain_form(tf.zeros((2, 5, 4)))
    assert ours.uses_plain_form(keras.KerasTensor((None, None, 4, 4)))
    assert not ours.uses_plain_form(tf.zeros((2, 4, 4, 4)))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    assert ours.uses_plain_form(tf.zeros((2, 4, 4, 4)))


def test_encoder_normalises_in_the_fast_form_and_loads_weight_files_of_keras_layers(tmp_path):
    encoder = build_encoder(5, seed=2)
    norms = [layer for layer in encoder.layers if isinstance(layer, keras.layers.GroupNormalization)]
    assert len(norms) == 5
    assert not any(layer.uses_plain_form(layer.input) for layer in norms)

    def keras_own(layer):
        is_norm = isinstance(layer, keras.layers.GroupNormalization)
        return (keras.layers.GroupNormalization if is_norm else type(layer)).from_config(layer.get_config())

    plain = keras.models.clone_model(encoder, clone_function=keras_own)
    assert {type(plain.get_layer(layer.name)) for layer in norms} == {keras.layers.GroupNormalization}
    random = np.random.default_rng(0)
    plain.set_weights([value + random.normal(0, 0.1, value.shape) for value in encoder.get_weights()])
    plain.save_weights(tmp_path / "plain.weights.h5")
    encoder.load_weights(tmp_path / "plain.weights.h5")
    features = random.uniform(-1, 1, (3, 14, 14, 256)).astype(np.float32)
    np.testing.assert_allclose(encoder(features), plain(features), atol=1e-4)


def test_group_normalization_survives_a_keras_file(tmp_path):
    inputs = keras.Input((4, 4, 6))
    model = keras.Model(inputs, GroupNormalization(3, name="norm")(inputs))
    values = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("norm")) is GroupNormalization
    np.testing.assert_array_equal(loaded(values), model(values))
