import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import structural_similarity

from autoencoder.losses import feature_loss, image_mse_loss, ssim_loss


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return random.uniform(size=(2, 3, 32, 32, 3)).astype(np.float32)


def test_feature_loss_is_the_mean_of_squares():
    assert float(feature_loss(tf.zeros((2, 1, 1, 2)), tf.constant([[[[1.0, 2.0]]], [[[3.0, 0.0]]]]))) == 3.5


def test_image_mse_loss_is_the_mean_of_squares(images):
    assert float(image_mse_loss(images[0], images[1])) == pytest.approx(np.mean((images[0] - images[1]) ** 2))


def test_ssim_loss_of_equal_images_is_zero(images):
    assert float(ssim_loss(images[0], images[0])) == pytest.approx(0.0, abs=1e-6)


def test_ssim_loss_agrees_with_scikit_image(images):
    a, b = images
    b = 0.7 * a + 0.3 * b
    # tf.image.ssim keeps only the windows that lie inside the image.
    crop = slice(5, -5)
    expected = []
    for x, y in zip(a, b, strict=True):
        _, ssim = structural_similarity(
            x,
            y,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
            full=True,
        )
        expected.append(ssim[crop, crop].mean())
    assert float(ssim_loss(b, a)) == pytest.approx(1 - np.mean(expected), abs=1e-4)


def test_ssim_loss_has_a_finite_gradient_on_flat_images():
    flat = tf.Variable(tf.fill((1, 32, 32, 3), 0.5))
    with tf.GradientTape() as tape:
        loss = ssim_loss(flat, tf.zeros((1, 32, 32, 3)))
    assert np.isfinite(tape.gradient(loss, flat)).all()
