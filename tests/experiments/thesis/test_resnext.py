"""The grouped convolution is Keras' own with a gradient, and the network is the published one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.thesis import resnext
from experiments.thesis.resnext import GroupedConv2D, build_resnext, make_normalization


@pytest.mark.parametrize("on_gpu", [False, True])  # its form runs on a CPU too, but has no gradient everywhere
@pytest.mark.parametrize("strides", [1, 2])
def test_grouped_convolution_equals_keras_own_and_is_saved(strides, on_gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(resnext, "_has_gpu", lambda: on_gpu)
    images = np.random.default_rng(0).normal(size=(2, 7, 7, 12)).astype(np.float32)
    settings = {"filters": 8, "kernel_size": 3, "strides": strides, "padding": "same", "groups": 4}
    theirs = keras.layers.Conv2D(**settings)
    expected = theirs(images)
    model = keras.Sequential([keras.Input((7, 7, 12)), GroupedConv2D(**settings)])
    model.layers[0].set_weights(theirs.get_weights())
    np.testing.assert_allclose(model(images), expected, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is GroupedConv2D and loaded.layers[0].groups == 4
    np.testing.assert_array_equal(loaded(images), model(images))


def test_grouped_convolution_has_the_gradient_of_keras_own():
    random = np.random.default_rng(1)
    images = tf.constant(random.normal(size=(2, 6, 6, 8)), tf.float32)
    settings = {"filters": 12, "kernel_size": 3, "padding": "same", "groups": 4, "activation": "relu"}
    ours, theirs = GroupedConv2D(**settings), keras.layers.Conv2D(**settings, bias_initializer="random_normal")
    for layer in (theirs, ours):
        layer.build(images.shape)
    ours.set_weights(theirs.get_weights())

    def gradients(layer):
        values = [images, layer.kernel.value, layer.bias.value]
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = tf.reduce_sum(tf.sin(layer(images)))
        return tape.gradient(loss, values)

    expected = gradients(theirs)
    assert all(np.abs(values).max() > 0.1 for values in expected)
    for compile_by_xla in (False, True):
        step = tf.function(lambda: gradients(ours), jit_compile=compile_by_xla)
        for values, reference in zip(step(), expected, strict=True):
            np.testing.assert_allclose(values, reference, atol=1e-4)


def test_build_resnext_has_the_published_number_of_parameters(monkeypatch):
    # The shapes are those of any convolution; building 512 single ones takes its time.
    monkeypatch.setattr(resnext, "_has_gpu", lambda: True)
    model = build_resnext(224, 1000)
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert weights == 25_028_904  # ResNeXt-50 (32x4d), 25.03 M
    assert model.get_layer("stage4_block3_out").output.shape == (None, 7, 7, 2048)
    assert model.get_layer("stage2_block1_2_conv").kernel.shape == (3, 3, 8, 256)
    assert model.output.shape == (None, 1000)


SMALL = {"blocks": (1, 1), "cardinality": 4, "width_per_group": 2, "base_filters": 8}


def test_build_resnext_takes_bytes_and_scales_them_itself():
    model = build_resnext(32, 3, **SMALL)
    images = np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    logits = model(images)
    assert logits.shape == (2, 3) and logits.dtype == tf.float32
    np.testing.assert_allclose(logits, model(images.astype(np.float32)), atol=1e-6)
    scaled = keras.Model(model.input, model.get_layer("rescaling").output)
    black_and_white = np.zeros((2, 32, 32, 3), np.uint8)
    black_and_white[1] = 255
    np.testing.assert_allclose(scaled(black_and_white)[:, 0, 0, 0], [-1, 1], atol=1e-6)


def test_build_resnext_weights_follow_the_seed_alone():
    first, same, other = (build_resnext(32, 3, **SMALL, seed=seed) for seed in (5, 5, 6))
    for a, b, c in zip(first.weights, same.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.name != "kernel" or not np.array_equal(a, c)


def test_normalization_is_as_asked_for():
    batch = make_normalization("batch", 24, "norm")
    assert isinstance(batch, keras.layers.BatchNormalization) and batch.momentum == 0.9
    groups = {channels: make_normalization("group", channels, "norm").groups for channels in (8, 33, 48, 64, 37)}
    assert groups == {8: 8, 33: 11, 48: 24, 64: 32, 37: 1}
    model = build_resnext(32, 3, **SMALL, normalization="group")
    assert not any("moving" in weight.name for weight in model.weights)
