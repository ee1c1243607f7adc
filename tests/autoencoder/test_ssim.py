import numpy as np
import pytest
import tensorflow as tf

from autoencoder import losses as ssim
from autoencoder.losses import band_matrix, structural_similarity


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(size=(2, 3, 24, 32, 3)).astype(np.float32)


def channels_last(values):
    return values.transpose(0, 2, 3, 1)


def value_and_gradient(function, images, others):
    variable = tf.Variable(images)
    with tf.GradientTape() as tape:
        values = function(variable, others)
    return values.numpy(), tape.gradient(values, variable).numpy()


def test_structural_similarity_and_gradient_equal_tensorflow(images):
    first, second = images[0], 0.6 * images[0] + 0.4 * images[1]
    ours = value_and_gradient(structural_similarity, second, first)
    theirs = value_and_gradient(lambda a, b: tf.image.ssim(a, b, max_val=1.0), second, first)
    np.testing.assert_allclose(ours[0], theirs[0], atol=2e-6)
    np.testing.assert_allclose(ours[1], theirs[1], atol=2e-6)


@pytest.mark.parametrize("taps", [10, 11])
def test_structural_similarity_and_gradient_equal_the_reference(vectors, taps, monkeypatch):
    # The reference trains with ten; its result with eleven shows that nothing else is special about ten.
    monkeypatch.setattr(ssim, "REFERENCE_TAPS", taps)
    first, second = channels_last(vectors["img_a"]), channels_last(vectors["img_b"])
    values, gradient = value_and_gradient(lambda a, b: structural_similarity(a, b, "reference"), first, second)
    np.testing.assert_allclose(values, vectors[f"ssim_w{taps}_per_image"], atol=1e-5)
    assert values.mean() == pytest.approx(float(vectors[f"ssim_w{taps}"]), abs=1e-5)
    of_loss = -gradient / len(first)
    np.testing.assert_allclose(of_loss, channels_last(vectors[f"ssim_w{taps}_grad_1minus_a"]), atol=1e-7)


@pytest.mark.parametrize("variant", ssim.VARIANTS)
def test_blur_by_convolutions_equals_blur_by_products(images, variant):
    products = ssim._blur_by_products(tf.constant(images[0]), variant).numpy()
    convolutions = ssim._blur_by_convolutions(tf.constant(images[0]), variant).numpy()
    np.testing.assert_allclose(products.transpose(0, 2, 1, 3), convolutions, atol=1e-6)


@pytest.mark.parametrize("variant", ssim.VARIANTS)
def test_structural_similarity_by_convolutions_is_the_same(images, variant, monkeypatch):
    expected = structural_similarity(*images, variant)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(ssim, "_blur_by_products", None)
    np.testing.assert_allclose(structural_similarity(*images, variant), expected, atol=1e-6)


def test_band_matrix_rows_hold_the_window():
    inside = band_matrix(20, "tf")
    assert inside.shape == (10, 20)
    np.testing.assert_allclose(inside.sum(axis=1), 1.0, rtol=1e-6)
    assert inside[0].argmax() == 5 and inside[9].argmax() == 14
    padded = band_matrix(20, "reference")
    assert padded.shape == (21, 20)
    # The sixth of ten weights is the largest, and lies on the pixel itself.
    assert [row.argmax() for row in padded[:20]] == list(range(20))
    assert padded[0].sum() < 0.7 < padded[10].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("variant", ssim.VARIANTS)
def test_structural_similarity_is_one_for_equal_images_and_has_finite_gradients(variant):
    for level in (0.0, 0.5, 1.0):
        flat = np.full((2, 16, 16, 3), level, np.float32)
        values, gradient = value_and_gradient(lambda a, b: structural_similarity(a, b, variant), flat, flat)
        np.testing.assert_allclose(values, 1.0, atol=1e-5)
        assert np.isfinite(gradient).all()


def test_structural_similarity_refuses_other_variants_and_small_images():
    with pytest.raises(ValueError, match="variant must be one of tf, reference; got 'skimage'"):
        structural_similarity(tf.zeros((1, 16, 16, 3)), tf.zeros((1, 16, 16, 3)), "skimage")
    with pytest.raises(ValueError, match="sides of at least 11 pixels, got 8 x 16"):
        structural_similarity(tf.zeros((1, 8, 16, 3)), tf.zeros((1, 8, 16, 3)))
