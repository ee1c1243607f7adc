import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from autoencoder.adaptation import adaptation_loss, moment_matching_loss

VECTORS = Path(os.environ.get("AECFE_PARITY", Path(__file__).parents[2] / "../shared/parity/reference_vectors.npz"))


@pytest.fixture(scope="module")
def vectors():
    if not VECTORS.exists():
        pytest.skip(f"no reference vectors at {VECTORS}")
    with np.load(VECTORS) as file:
        return {name: file[name] for name in file.files if not name.startswith(("gn", "img", "ssim"))}


def loss_and_gradients(function, *arrays):
    variables = [tf.Variable(a) for a in arrays]
    with tf.GradientTape() as tape:
        loss = function(*variables)
    return float(loss), [g.numpy() for g in tape.gradient(loss, variables)]


def test_moment_matching_loss_and_gradient_equal_the_reference(vectors):
    loss, (source, target) = loss_and_gradients(moment_matching_loss, vectors["z_source"], vectors["z_target"])
    assert loss == pytest.approx(float(vectors["mmd"]), abs=1e-5)
    assert loss == pytest.approx(float(vectors["mmd_mu_term"] + vectors["mmd_cov_term"]), abs=1e-5)
    np.testing.assert_allclose(source, vectors["mmd_grad_source"], atol=1e-5)
    np.testing.assert_allclose(target, vectors["mmd_grad_target"], atol=1e-5)


def test_moment_matching_loss_parts_equal_the_reference(vectors):
    source, target = vectors["z_source"], vectors["z_target"]
    centred = moment_matching_loss(source - source.mean(axis=0), target - target.mean(axis=0))
    assert float(centred) == pytest.approx(float(vectors["mmd_cov_term"]), abs=1e-5)
    shifted = moment_matching_loss(source, source - source.mean(axis=0) + target.mean(axis=0))
    assert float(shifted) == pytest.approx(float(vectors["mmd_mu_term"]), abs=1e-5)
    tanh = moment_matching_loss(np.tanh(source), np.tanh(target))
    assert float(tanh) == pytest.approx(float(vectors["mmd_tanh"]), abs=1e-5)


def test_adaptation_loss_sums_the_reference_losses_of_both_targets(vectors):
    latents, centre_ids = vectors["cm_z"][:, :, 0, 0], vectors["cm_ds"].argmax(axis=1)
    first, second = float(vectors["cm_loss1"]), float(vectors["cm_loss2"])
    assert float(adaptation_loss(latents, centre_ids, 0, 3)) == pytest.approx(first + second, abs=1e-5)
    two = centre_ids != 2
    assert float(adaptation_loss(latents[two], centre_ids[two], 0, 3)) == pytest.approx(first, abs=1e-5)


def test_adaptation_loss_and_gradient_equal_the_pairwise_losses():
    random = np.random.default_rng(0)
    latents = random.normal(size=(11, 4)).astype(np.float32)
    centre_ids = np.array([1, 0, 2, 1, 1, 0, 2, 0, 2, 1, 0])

    def pairwise(z):
        parts = [tf.boolean_mask(z, centre_ids == k) for k in range(3)]
        return moment_matching_loss(parts[1], parts[0]) + moment_matching_loss(parts[1], parts[2])

    loss, (gradient,) = loss_and_gradients(lambda z: adaptation_loss(z, centre_ids, 1, 3), latents)
    expected, (expected_gradient,) = loss_and_gradients(pairwise, latents)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_moment_matching_loss_known_answer():
    # Means (1, 0) and (0, 0), covariances diag(2, 0) and 0. Their softmax over axis 0 differs in one column:
    # (p, 1 - p) against (1/2, 1/2).
    source = np.array([[2.0, 0.0], [0.0, 0.0]], np.float32)
    target = np.zeros((2, 2), np.float32)
    p = np.exp(2) / (np.exp(2) + 1)
    divergences = (p - 0.5) * np.log(p / 0.5) + (0.5 - p) * np.log((1 - p) / 0.5)
    assert float(moment_matching_loss(source, target)) == pytest.approx(0.5 + 0.5 * divergences / 4, rel=1e-5)
    assert float(moment_matching_loss(source, target, reduction="sum")) == pytest.approx(
        0.5 + 0.5 * divergences, rel=1e-5
    )


def test_moment_matching_loss_is_symmetric_and_zero_for_equal_moments():
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 9, 5)).astype(np.float32)
    assert float(moment_matching_loss(a, b)) == pytest.approx(float(moment_matching_loss(b, a)), rel=1e-5)
    assert float(moment_matching_loss(a, a[::-1])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("centre_ids", [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_adaptation_loss_of_a_centre_with_few_samples_is_zero_not_nan(centre_ids):
    latents = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    function = tf.function(lambda z: adaptation_loss(z, tf.constant(centre_ids), 0, 2))
    loss, (gradient,) = loss_and_gradients(function, latents)
    assert loss == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_adaptation_loss_stays_finite_for_large_latents():
    latents = np.random.default_rng(3).normal(scale=1e3, size=(8, 3)).astype(np.float32)
    loss, (gradient,) = loss_and_gradients(lambda z: adaptation_loss(z, np.arange(8) % 2, 0, 2), latents)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_adaptation_refuses_unknown_source_and_reduction():
    with pytest.raises(ValueError, match="source must be between 0 and 1"):
        adaptation_loss(tf.zeros((4, 2)), [0, 1, 0, 1], 2, 2)
    with pytest.raises(ValueError, match="reduction"):
        moment_matching_loss(tf.zeros((4, 2)), tf.zeros((4, 2)), reduction="max")
