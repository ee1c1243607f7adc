import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import structural_similarity

from autoencoder.losses import feature_loss, image_loss, image_mse_loss, ssim_loss


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


def test_ssim_loss_of_black_and_white_known_answer():
    # Flat images have no contrast, so what is left is the luminance: 0.01^2 / (1 + 0.01^2).
    black = np.zeros((1, 16, 16, 3), np.float32)
    assert float(ssim_loss(black, black + 1)) == pytest.approx(1 - 1e-4 / 1.0001, abs=1e-6)


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


@pytest.mark.parametrize("variant", ["tf", "reference"])
def test_image_loss_is_the_one_that_is_named(images, variant):
    # As read from a file: equal to the names in the program, but not the same objects.
    mse, ssim = "mse-ssim".split("-")
    assert float(image_loss(*images, mse, variant)) == float(image_mse_loss(*images))
    assert float(image_loss(*images, ssim, variant)) == float(ssim_loss(*images, variant))
    assert float(ssim_loss(*images, "tf")) != float(ssim_loss(*images, "reference"))
