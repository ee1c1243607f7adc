import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.network.normalization import GROUP_NORM_EPSILON, GroupNorm, normalization


@pytest.mark.parametrize("kind", ["frozen_batch", "batch"])
def test_frozen_batch_alone_uses_stored_statistics_in_training_too(kind):
    images = keras.Input((4, 4, 32))
    model = keras.Model(images, normalization(kind, "norm")(images))  # which passes its own mode on to the layer
    activations = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 32)).astype(np.float32)
    frozen = np.allclose(model(activations, training=True), activations / np.sqrt(1 + 1e-3), rtol=1e-5)
    assert frozen == (not model.get_layer("norm").moving_mean.numpy().any()) == (kind == "frozen_batch")


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
    [((2, 7, 5, 64), 32), ((3, 1, 9, 32), 32), ((2, 1, 1, 128), 32), ((2, 5, 3, 6), 1)],
)
def test_group_norm_equals_that_of_keras_with_its_gradients(shape, groups):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3, 2, shape), tf.float32)
    ours, keras_own = both_group_norms(x, groups, rng.normal(size=shape).astype(np.float32))
    np.testing.assert_allclose(ours[0], keras_own[0], atol=1e-5)
    for gradient, expected in zip(ours[1:], keras_own[1:], strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_group_norm_of_half_precision_computes_its_statistics_in_float32():
    # Sums of 4,096 values of about 300 and their squares are beyond float16.
    x = np.random.default_rng(0).normal(300, 2, (1, 32, 32, 4)).astype(np.float16)
    out = GroupNorm(1, epsilon=1e-5, dtype="float16")(x)
    assert out.dtype == tf.float16
    expected = keras.layers.GroupNormalization(1, epsilon=1e-5)(x.astype(np.float32))
    np.testing.assert_allclose(tf.cast(out, tf.float32), expected, atol=5e-3)
