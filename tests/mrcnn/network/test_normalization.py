import keras
import numpy as np
import pytest

from mrcnn.network.normalization import NORMALIZATIONS, FrozenBatchNormalization, normalization


def model_of(kind: str) -> keras.Model:
    images = keras.Input((4, 4, 32))
    return keras.Model(images, normalization(kind, "norm")(images))


@pytest.fixture
def activations():
    return np.random.default_rng(0).normal(3, 2, (2, 4, 4, 32)).astype(np.float32)


def test_frozen_batch_uses_stored_statistics_in_training_too(activations):
    model = model_of("frozen_batch")  # a functional model passes its own mode on to the layer
    before = [np.array(w) for w in model.get_weights()]
    np.testing.assert_allclose(model(activations, training=True), activations / np.sqrt(1 + 1e-3), rtol=1e-5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_batch_learns_its_statistics(activations):
    model = model_of("batch")
    out = np.array(model(activations, training=True))
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    assert not np.allclose(model.get_layer("norm").moving_mean, 0)


def test_group_normalises_each_sample_by_itself(activations):
    model = model_of("group")
    out = np.array(model(activations, training=True))
    np.testing.assert_allclose(out.mean(axis=(1, 2)), 0, atol=1e-4)  # 32 channels in 32 groups
    np.testing.assert_allclose(model(activations[:1]), out[:1], atol=1e-5)


def test_frozen_batch_round_trip():
    layer = normalization("frozen_batch", "norm")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is FrozenBatchNormalization and again.get_config() == layer.get_config()


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_normalization_layer_keeps_its_name(kind):
    assert model_of(kind).get_layer("norm").gamma.shape == (32,)


def test_normalization_refuses_another_kind():
    with pytest.raises(ValueError, match="frozen_batch, batch, group; got 'layer'"):
        normalization("layer", "norm")
