import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import structural_similarity

from autoencoder import losses
from autoencoder.losses import image_loss, reference_ssim


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(size=(2, 3, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(("variant", "level"), [("tf", 0.0), ("tf", 1.0), ("reference", 0.0), ("reference", 0.5)])
def test_ssim_loss_of_equal_flat_images_is_zero_with_a_finite_gradient(variant, level):
    flat = tf.Variable(tf.fill((1, 16, 16, 3), level))
    with tf.GradientTape() as tape:
        loss = image_loss(flat, tf.fill((1, 16, 16, 3), level), "ssim", variant)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)
    assert np.isfinite(tape.gradient(loss, flat)).all()


def test_ssim_loss_agrees_with_scikit_image(images):
    a, b = images[0], 0.7 * images[0] + 0.3 * images[1]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    crop = slice(5, -5)  # tf.image.ssim keeps only the windows that lie inside the image
    maps = [structural_similarity(x, y, channel_axis=-1, full=True, **options)[1] for x, y in zip(a, b, strict=True)]
    assert float(image_loss(b, a, "ssim")) == pytest.approx(1 - np.mean([m[crop, crop].mean() for m in maps]), abs=1e-4)


@pytest.mark.parametrize("taps", [10, 11])
def test_reference_ssim_and_gradient_equal_the_reference(vectors, taps, monkeypatch):
    # The reference trains with ten; its result with eleven shows that nothing else is special about ten.
    monkeypatch.setattr(losses, "REFERENCE_TAPS", taps)
    first, second = (vectors[name].transpose(0, 2, 3, 1) for name in ("img_a", "img_b"))
    variable = tf.Variable(first)
    with tf.GradientTape() as tape:
        values = reference_ssim(variable, second)
    np.testing.assert_allclose(values, vectors[f"ssim_w{taps}_per_image"], atol=1e-5)
    assert values.numpy().mean() == pytest.approx(float(vectors[f"ssim_w{taps}"]), abs=1e-5)
    of_loss = -tape.gradient(values, variable).numpy() / len(first)
    np.testing.assert_allclose(of_loss, vectors[f"ssim_w{taps}_grad_1minus_a"].transpose(0, 2, 3, 1), atol=1e-7)


def test_image_loss_is_the_one_that_is_named(images):
    assert float(image_loss(*images, "mse")) == pytest.approx(np.mean((images[0] - images[1]) ** 2))
    assert float(image_loss(*images, "ssim", "tf")) != float(image_loss(*images, "ssim", "reference"))
