import importlib
import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax

from autoencoder.adaptation import (
    METHODS,
    adaptation_loss,
    adversarial_loss,
    check_custom_loss,
    coral_loss,
    discriminator_scores,
    find_custom_loss,
    in_deviations,
    kernel_mmd_loss,
    moment_matching_loss,
    normal_alignment_loss,
)
from autoencoder.config import AutoencoderConfig
from autoencoder.embedding import embed
from autoencoder.training import train_autoencoder
from mrcnn.files.errors import InputError

PAIRWISE = {"mmd": moment_matching_loss, "kernel-mmd": kernel_mmd_loss, "coral": coral_loss}


def loss_and_gradients(function, *arrays):
    variables = [tf.Variable(a) for a in arrays]
    with tf.GradientTape() as tape:
        loss = function(*variables)
    return float(loss), [g.numpy() for g in tape.gradient(loss, variables)]


def test_moment_matching_loss_and_gradient_equal_the_reference(vectors):
    loss, (source, target) = loss_and_gradients(moment_matching_loss, vectors["z_source"], vectors["z_target"])
    assert loss == pytest.approx(float(vectors["mmd"]), abs=1e-5)
    np.testing.assert_allclose(source, vectors["mmd_grad_source"], atol=1e-5)
    np.testing.assert_allclose(target, vectors["mmd_grad_target"], atol=1e-5)


def test_moment_matching_loss_parts_equal_the_reference(vectors):
    source, target = vectors["z_source"], vectors["z_target"]
    means, divergence = float(vectors["mmd_mu_term"]), float(vectors["mmd_cov_term"])
    centred = moment_matching_loss(source - source.mean(axis=0), target - target.mean(axis=0))
    assert float(centred) == pytest.approx(divergence, abs=1e-5)
    shifted = moment_matching_loss(source, source - source.mean(axis=0) + target.mean(axis=0))
    assert float(shifted) == pytest.approx(means, abs=1e-5)
    tanh = moment_matching_loss(np.tanh(source), np.tanh(target))
    assert float(tanh) == pytest.approx(float(vectors["mmd_tanh"]), abs=1e-5)
    total = moment_matching_loss(source, target, reduction="sum")
    assert float(total) == pytest.approx(means + source.shape[1] ** 2 * divergence, rel=1e-4)


def test_adaptation_loss_sums_the_reference_losses_of_both_targets(vectors):
    latents, centre_ids = vectors["cm_z"][:, :, 0, 0], vectors["cm_ds"].argmax(axis=1)
    first, second = float(vectors["cm_loss1"]), float(vectors["cm_loss2"])
    assert float(adaptation_loss(latents, centre_ids, 0, 3)) == pytest.approx(first + second, abs=1e-5)
    two = centre_ids != 2
    assert float(adaptation_loss(latents[two], centre_ids[two], 0, 3)) == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize("method", [*METHODS, "autoencoder.adaptation:coral_loss"])
def test_adaptation_loss_and_gradient_equal_the_pairwise_losses(method):
    random = np.random.default_rng(0)
    latents = random.normal(size=(11, 4)).astype(np.float32)
    centre_ids = np.array([1, 0, 2, 1, 1, 0, 2, 0, 2, 1, 0])

    def pairwise(z):
        parts = [tf.boolean_mask(z, centre_ids == k) for k in range(3)]
        if method == "normal":
            return sum(normal_alignment_loss(part) for part in parts)
        distance = PAIRWISE.get(method, coral_loss)
        return distance(parts[1], parts[0]) + distance(parts[1], parts[2])

    function = tf.function(lambda z: adaptation_loss(z, centre_ids, 1, 3, method=method))
    loss, (gradient,) = loss_and_gradients(function, latents)
    expected, (expected_gradient,) = loss_and_gradients(pairwise, latents)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_normal_alignment_loss_equals_numpy(reduction):
    latents = np.random.default_rng(1).normal(0.3, 0.7, size=(9, 5))
    unit, ours = softmax(np.eye(5), axis=0), softmax(np.cov(latents, rowvar=False), axis=0)
    divergences = unit * np.log(unit / ours) + ours * np.log(ours / unit)
    expected = np.linalg.norm(latents.mean(axis=0)) + 0.5 * getattr(np, reduction)(divergences)
    loss = normal_alignment_loss(latents.astype(np.float32), reduction=reduction)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_normal_alignment_loss_vanishes_for_standard_normal_moments():
    # Mean 0 and unit covariance exactly: opposite points on each axis, as far out as the unbiased variance asks.
    corners = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(2.5)
    # TensorFlow's own root has a gradient of 0 there where nothing reaches it, XLA's is not a number.
    for function in (normal_alignment_loss, tf.function(normal_alignment_loss, jit_compile=True)):
        loss, (gradient,) = loss_and_gradients(function, corners.astype(np.float32))
        assert loss == pytest.approx(0.0, abs=1e-6)
        assert np.isfinite(gradient).all()


def test_kernel_mmd_loss_equals_numpy():
    random = np.random.default_rng(2)
    a, b = random.normal(size=(7, 3)), random.normal(0.5, 1.5, size=(5, 3))
    rows = np.concatenate([a, b])
    distances = cdist(rows, rows, "sqeuclidean")
    median = np.sort(distances[np.triu_indices(12, 1)])[(66 - 1) // 2]
    kernel = np.mean([np.exp(-distances / (2 * share * median)) for share in (0.25, 0.5, 1, 2, 4)], axis=0)
    within = sum((k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in (kernel[:7, :7], kernel[7:, 7:]))
    expected = within - 2 * kernel[:7, 7:].mean()
    assert float(kernel_mmd_loss(a.astype(np.float32), b.astype(np.float32))) == pytest.approx(expected, abs=1e-5)


def test_kernel_mmd_loss_is_zero_on_average_for_one_distribution_and_grows_with_the_shift():
    random = np.random.default_rng(3)

    def draws(shift):
        pairs = random.normal(size=(60, 2, 16, 2)).astype(np.float32)
        return np.array([float(kernel_mmd_loss(a, b + np.float32(shift))) for a, b in pairs])

    same, near, far = draws(0.0), draws(1.0), draws(3.0)
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(len(same)) and same.min() < 0
    assert same.mean() + 0.05 < near.mean() < far.mean()
    loss, gradients = loss_and_gradients(kernel_mmd_loss, np.ones((3, 2), np.float32), np.ones((4, 2), np.float32))
    assert loss == pytest.approx(0.0, abs=1e-6) and all(np.isfinite(gradient).all() for gradient in gradients)


def test_coral_loss_equals_numpy():
    random = np.random.default_rng(4)
    a, b = random.normal(size=(8, 5)), random.normal(0.5, 2.0, size=(6, 5))
    difference = np.cov(a, rowvar=False) - np.cov(b, rowvar=False)
    expected = np.sum(difference**2) / (4 * 5**2)
    assert float(coral_loss(a.astype(np.float32), b.astype(np.float32))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", PAIRWISE)
def test_adaptation_loss_of_a_centre_with_few_samples_is_zero_not_nan(method):
    latents = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    for ids in ([0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]):
        function = tf.function(lambda z, ids=ids: adaptation_loss(z, tf.constant(ids), 0, 2, method=method))
        loss, (gradient,) = loss_and_gradients(function, latents)
        assert loss == 0.0
        np.testing.assert_array_equal(gradient, 0.0)


def test_normal_adaptation_loss_counts_every_centre_that_has_two_samples():
    latents, ids = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32), tf.constant([1, 0, 1, 1])
    loss, (gradient,) = loss_and_gradients(lambda z: adaptation_loss(z, ids, 0, 2, method="normal"), latents)
    assert loss == pytest.approx(float(normal_alignment_loss(latents[[0, 2, 3]])), rel=1e-5)
    np.testing.assert_array_equal(gradient[1], 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_in_deviations_makes_shrinking_worth_nothing(method):
    ids = np.repeat([0, 1, 2], 8)
    values = (0.4 * np.random.default_rng(0).normal(size=(24, 5)) + ids[:, None] / 4).astype(np.float32)

    def loss(factor):
        return adaptation_loss(in_deviations(factor * values), ids, 0, 3, method=method)

    assert float(loss(0.05)) == pytest.approx(float(loss(1.0)), rel=2e-3)
    total, (gradient,) = loss_and_gradients(loss, np.float32(1.0))
    assert abs(gradient) < 1e-3 * total
    alike = np.full((24, 5), 0.3, np.float32)
    assert np.isfinite(loss_and_gradients(lambda z: tf.reduce_sum(in_deviations(z)), alike)[1]).all()


CENTRE_IDS = np.array([0, 0, 0, 0, 1, 1, 2])
LOGITS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def test_discriminator_scores_equal_numpy():
    likelihood = log_softmax(LOGITS, axis=-1)[np.arange(7), CENTRE_IDS]
    right = LOGITS.argmax(axis=1) == CENTRE_IDS
    scores = discriminator_scores(tf.constant(LOGITS), tf.constant(CENTRE_IDS))
    parts = [CENTRE_IDS == k for k in range(3)]
    assert float(scores.loss) == pytest.approx(-np.mean([likelihood[p].mean() for p in parts]), rel=1e-5)
    assert float(scores.accuracy) == pytest.approx(np.mean([right[p].mean() for p in parts]), rel=1e-5)
    # Centre 2 is absent, and all ties go to centre 0.
    ignorant = discriminator_scores(tf.zeros((4, 3)), tf.constant([0, 0, 0, 1]))
    assert [float(x) for x in ignorant] == pytest.approx([np.log(3), 0.5])


def test_adversarial_loss_equals_numpy_and_spares_the_source():
    loss, (gradient,) = loss_and_gradients(lambda x: adversarial_loss(x, tf.constant(CENTRE_IDS), 1), LOGITS)
    surprise = -log_softmax(LOGITS, axis=-1)[:, 1]
    assert loss == pytest.approx(surprise[:4].mean() + surprise[6], rel=1e-5)
    np.testing.assert_array_equal(gradient[4:6], 0.0)
    # Following it makes targets look more like the source.
    assert (gradient[[0, 1, 2, 3, 6], 1] < 0).all()
    assert float(adversarial_loss(tf.constant(LOGITS), tf.zeros(7, tf.int32), 0)) == 0.0


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Function of a name and code that makes a module to import, for one test."""
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (tmp_path / "modules").mkdir()

    def write(name, code):
        # Whatever else of the name was imported before comes back afterwards.
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "modules" / f"{name}.py").write_text(code)
        importlib.invalidate_caches()

    return write


def test_a_function_is_not_called_for_a_centre_with_few_samples(write_module):
    # One over the number of further rows: infinite for one row, and its gradient not a number.
    write_module(
        "few",
        "import tensorflow as tf\n"
        "def loss(source, target):\n"
        "    numbers = [tf.cast(tf.shape(rows)[0] - 1, tf.float32) for rows in (source, target)]\n"
        "    return sum(tf.reduce_sum(rows) / n for rows, n in zip((source, target), numbers))\n",
    )
    for ids in ([0, 0, 0, 1], [1, 1, 2, 2]):
        function = tf.function(lambda z, ids=ids: adaptation_loss(z, tf.constant(ids), 0, 3, method="few:loss"))
        loss, (gradient,) = loss_and_gradients(function, np.ones((4, 2), np.float32))
        assert loss == 0
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, "No module named 'broken'; set PYTHONPATH"),
        ("def other(source, target): ...\n", "has no attribute 'loss'"),
        ("def loss(source, target):\n    raise ValueError('two\\nlines')\n", "two lines"),
        ("def loss(source, target):\n    return source[0]\n", "array of shape"),
        ("def loss(source, target):\n    return float('nan')\n", "got nan"),
    ],
)
def test_what_cannot_be_used_is_one_line(code, reason, write_module):
    if code is not None:
        write_module("broken", code)
    with pytest.raises(InputError, match=f"^adaptation broken:loss: .*{reason}") as caught:
        check_custom_loss("broken:loss", 5)
    assert "\n" not in str(caught.value)


def test_find_custom_loss_finds_functions_of_the_running_program(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "loss_of_a_notebook", max, raising=False)
    assert find_custom_loss("__main__:loss_of_a_notebook") is max


def test_training_uses_a_function_and_embedding_needs_none(stores, tiny_settings, tmp_path, write_module):
    config = AutoencoderConfig(**{**tiny_settings, "steps": 1}, adaptation="constant:loss", beta=2.0, balance="centre")
    with pytest.raises(InputError, match="constant"):
        train_autoencoder(config, stores, tmp_path / "ae")
    assert not (tmp_path / "ae").exists()
    write_module("constant", "def loss(source, target):\n    return 0.25 + 0 * source[0, 0] * target[0, 0]\n")
    train_autoencoder(config, stores, tmp_path / "ae")
    run = json.loads((tmp_path / "ae" / "run.json").read_text())
    assert run["losses"]["adaptation_loss"] == pytest.approx(0.5)  # two targets
    write_module("constant", "raise RuntimeError('imported')\n")
    assert embed(tmp_path / "ae", stores, tmp_path / "latents.h5ad").n_obs == 28
