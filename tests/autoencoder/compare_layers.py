"""Holding a layer against Keras' own: both get the same weights, and outputs and gradients are compared."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


def give_same_weights(layers: Sequence[keras.Layer], shape: tuple[int, ...]) -> None:
    """Build the layers for inputs `(batch, *shape)` and give all of them the same random weights."""
    for layer in layers:
        layer.build((None, *shape))
    random = np.random.default_rng(0)
    weights = [random.normal(size=value.shape) for value in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(weights)


def outputs_and_gradients(layer: keras.Layer, inputs: tf.Tensor, compiled: bool = True) -> list[np.ndarray]:
    """Outputs, and gradients of a loss that weighs each output differently, for inputs and weights."""

    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            weights = tf.reshape(tf.sin(tf.range(tf.size(outputs), dtype=tf.float32)), tf.shape(outputs))
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
        return outputs, *tape.gradient(loss, [inputs, *(v.value for v in layer.trainable_variables)])

    if compiled:
        signature = [tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype)]
        compute = tf.function(compute, input_signature=signature)
    return [value.numpy() for value in compute(inputs)]


def assert_alike(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = 1e-5) -> None:
    """Same shapes, types and values; the tolerance is relative to the largest value of each array."""
    assert len(actual) == len(expected)
    for ours, keras_own in zip(actual, expected, strict=True):
        assert ours.shape == keras_own.shape
        assert ours.dtype == keras_own.dtype
        np.testing.assert_allclose(ours, keras_own, rtol=0, atol=tolerance * (1 + np.abs(keras_own).max()))
