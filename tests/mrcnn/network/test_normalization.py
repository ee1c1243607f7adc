import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.network.normalization import (
    GROUP_NORM_EPSILON,
    NORMALIZATIONS,
    FrozenBatchNormalization,
    GroupNorm,
    normalization,
)


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


def both_group_norms(x, groups, upstream):
    """Results and gradients of ours and Keras' layer with the same random scale and offset."""
    rng = np.random.default_rng(1)
    gamma, beta = rng.uniform(0.5, 1.5, x.shape[-1]), rng.normal(0, 1, x.shape[-1])
    results = []
    for kind in (GroupNorm, keras.layers.GroupNormalization):
        layer = kind(groups, epsilon=GROUP_NORM_EPSILON)
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x)
            loss = tf.reduce_sum(out * upstream)
        results.append((out, *tape.gradient(loss, [x, *layer.trainable_variables])))
    return results


# The least group has one channel; sides are odd, uneven, or a single pixel.
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 7, 5, 64), 32), ((3, 1, 9, 32), 32), ((1, 13, 11, 96), 32), ((2, 1, 1, 128), 32), ((2, 5, 3, 6), 1)],
)
def test_group_norm_equals_that_of_keras_with_its_gradients(shape, groups):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3, 2, shape), tf.float32)
    ours, keras_own = both_group_norms(x, groups, rng.normal(size=shape).astype(np.float32))
    np.testing.assert_allclose(ours[0], keras_own[0], atol=1e-5)
    for gradient, expected in zip(ours[1:], keras_own[1:], strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_group_norm_by_hand():
    x = np.random.default_rng(0).normal(1, 3, (2, 5, 4, 6)).astype(np.float32)
    groups = x.astype(np.float64).reshape(2, 5, 4, 2, 3)
    mean, variance = (f(groups, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(GroupNorm(2, epsilon=1e-5)(x), expected, atol=1e-5)


def test_group_norm_of_half_precision_computes_its_statistics_in_float32():
    # Sums of 4,096 values of about 300 and their squares are beyond float16.
    x = np.random.default_rng(0).normal(300, 2, (1, 32, 32, 4)).astype(np.float16)
    out = GroupNorm(1, epsilon=1e-5, dtype="float16")(x)
    assert out.dtype == tf.float16
    expected = keras.layers.GroupNormalization(1, epsilon=1e-5)(x.astype(np.float32))
    np.testing.assert_allclose(tf.cast(out, tf.float32), expected, atol=5e-3)


def test_group_norm_keeps_a_far_mean_out_of_its_variance():
    x = np.random.default_rng(0).normal(0, 1, (1, 9, 9, 4)) + 1e4
    expected = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    np.testing.assert_allclose(GroupNorm(1, epsilon=1e-5)(x.astype(np.float32)), expected, atol=5e-3)


def test_group_norm_round_trip():
    layer = normalization("group", "norm")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is GroupNorm and again.get_config() == layer.get_config()


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
