from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf

from autoencoder.adaptation import (
    METHODS,
    adaptation_loss,
    coral_loss,
    in_deviations,
    kernel_mmd_loss,
    moment_matching_loss,
    normal_alignment_loss,
)


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


def test_moment_matching_loss_with_the_sum_is_the_mean_term_and_the_sum_of_the_entries(vectors):
    source, target = vectors["z_source"], vectors["z_target"]
    entries = source.shape[1] ** 2
    expected = float(vectors["mmd_mu_term"]) + entries * float(vectors["mmd_cov_term"])
    assert float(moment_matching_loss(source, target, reduction="sum")) == pytest.approx(expected, rel=1e-4)


PAIRWISE = {
    "mmd": moment_matching_loss,
    "kernel-mmd": kernel_mmd_loss,
    "coral": coral_loss,
}


@pytest.mark.parametrize("method", METHODS)
def test_adaptation_loss_and_gradient_equal_the_pairwise_losses(method):
    random = np.random.default_rng(0)
    latents = random.normal(size=(11, 4)).astype(np.float32)
    centre_ids = np.array([1, 0, 2, 1, 1, 0, 2, 0, 2, 1, 0])

    def pairwise(z):
        parts = [tf.boolean_mask(z, centre_ids == k) for k in range(3)]
        if method == "normal":
            return sum(normal_alignment_loss(part) for part in parts)
        return PAIRWISE[method](parts[1], parts[0]) + PAIRWISE[method](parts[1], parts[2])

    loss, (gradient,) = loss_and_gradients(lambda z: adaptation_loss(z, centre_ids, 1, 3, method=method), latents)
    expected, (expected_gradient,) = loss_and_gradients(pairwise, latents)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def softmax(values):
    exponentials = np.exp(values)
    return exponentials / exponentials.sum(axis=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_normal_alignment_loss_equals_numpy(reduction):
    latents = np.random.default_rng(1).normal(0.3, 0.7, size=(9, 5))
    unit, ours = softmax(np.eye(5)), softmax(np.cov(latents, rowvar=False))
    divergences = unit * np.log(unit / ours) + ours * np.log(ours / unit)
    expected = np.linalg.norm(latents.mean(axis=0)) + 0.5 * getattr(np, reduction)(divergences)
    loss = normal_alignment_loss(latents.astype(np.float32), reduction=reduction)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_normal_alignment_loss_vanishes_for_standard_normal_moments():
    # Mean 0 and unit covariance exactly: opposite points on each axis, as far out as the unbiased variance asks.
    corners = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(2.5)
    loss, (gradient,) = loss_and_gradients(normal_alignment_loss, corners.astype(np.float32))
    assert loss == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(gradient).all()
    # TensorFlow's own root has a gradient of 0 there where nothing reaches it, XLA's is not a number.
    compiled = tf.function(normal_alignment_loss, jit_compile=True)
    _, (gradient,) = loss_and_gradients(compiled, corners.astype(np.float32))
    assert np.isfinite(gradient).all()


def test_kernel_mmd_loss_equals_numpy():
    random = np.random.default_rng(2)
    a, b = random.normal(size=(7, 3)), random.normal(0.5, 1.5, size=(5, 3))
    rows = np.concatenate([a, b])
    distances = sorted(np.sum((x - y) ** 2) for x, y in combinations(rows, 2))
    median = distances[(len(distances) - 1) // 2]

    def kernel(x, y):
        shares = (0.25, 0.5, 1, 2, 4)
        return np.mean([np.exp(-np.sum((x - y) ** 2) / (2 * share * median)) for share in shares])

    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    expected = sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    assert float(kernel_mmd_loss(a.astype(np.float32), b.astype(np.float32))) == pytest.approx(expected, abs=1e-5)


def test_kernel_mmd_loss_known_answer_of_single_numbers():
    # Squared distances in units of 0.01: 1 and 4 within, 4, 9, 16, 1, 4, 9 between; the lower median is 4.
    source, target = np.array([[0.0], [0.1]], np.float32), np.array([[0.2], [0.4]], np.float32)

    def kernel(*squares):
        return np.mean([np.exp(-d / (8 * share)) for d in squares for share in (0.25, 0.5, 1, 2, 4)])

    expected = kernel(1) + kernel(4) - 2 * kernel(4, 16, 1, 9)
    assert float(kernel_mmd_loss(source, target)) == pytest.approx(expected, rel=1e-4)


def test_kernel_mmd_loss_is_zero_on_average_for_one_distribution_and_grows_with_the_shift():
    random = np.random.default_rng(3)

    def draws(shift):
        pairs = random.normal(size=(60, 2, 16, 2)).astype(np.float32)
        return np.array([float(kernel_mmd_loss(a, b + np.float32(shift))) for a, b in pairs])

    same, near, far = draws(0.0), draws(1.0), draws(3.0)
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(len(same)) and same.min() < 0
    assert same.mean() + 0.05 < near.mean() < far.mean()


def test_kernel_mmd_loss_of_equal_rows_is_finite():
    loss, gradients = loss_and_gradients(kernel_mmd_loss, np.ones((3, 2), np.float32), np.ones((4, 2), np.float32))
    assert loss == pytest.approx(0.0, abs=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_coral_loss_equals_numpy():
    random = np.random.default_rng(4)
    a, b = random.normal(size=(8, 5)), random.normal(0.5, 2.0, size=(6, 5))
    difference = np.cov(a, rowvar=False) - np.cov(b, rowvar=False)
    expected = np.sum(difference**2) / (4 * 5**2)
    assert float(coral_loss(a.astype(np.float32), b.astype(np.float32))) == pytest.approx(expected, rel=1e-5)


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


def test_losses_of_single_numbers_are_those_of_the_means():
    # Over one row a softmax is 1, whatever the variance.
    source, target = np.array([[0.0], [1.0]], np.float32), np.array([[2.0], [5.0]], np.float32)
    assert float(moment_matching_loss(source, target)) == pytest.approx(9.0)
    assert float(normal_alignment_loss(target)) == pytest.approx(3.5)
    # Variances 1/2 and 9/2.
    assert float(coral_loss(source, target)) == pytest.approx(4.0)


def test_losses_take_the_reduction_as_a_text_of_any_origin():
    latents = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    mean, total = "mean-sum".split("-")
    assert float(normal_alignment_loss(latents, mean)) == float(normal_alignment_loss(latents))
    assert float(normal_alignment_loss(latents, total)) == float(normal_alignment_loss(latents, "sum"))
    by_name = adaptation_loss(latents, [0, 0, 0, 1, 1, 1], 0, 2, method="-normal"[1:])
    assert float(by_name) == float(adaptation_loss(latents, [0, 0, 0, 1, 1, 1], 0, 2, method="normal")) > 0


def test_moment_matching_loss_is_symmetric_and_zero_for_equal_moments():
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 9, 5)).astype(np.float32)
    assert float(moment_matching_loss(a, b)) == pytest.approx(float(moment_matching_loss(b, a)), rel=1e-5)
    assert float(moment_matching_loss(a, a[::-1])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "normal"])
@pytest.mark.parametrize("centre_ids", [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_adaptation_loss_of_a_centre_with_few_samples_is_zero_not_nan(method, centre_ids):
    latents = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    function = tf.function(lambda z: adaptation_loss(z, tf.constant(centre_ids), 0, 2, method=method))
    loss, (gradient,) = loss_and_gradients(function, latents)
    assert loss == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_normal_adaptation_loss_counts_every_centre_that_has_two_samples():
    latents = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    loss, (gradient,) = loss_and_gradients(
        lambda z: adaptation_loss(z, tf.constant([1, 0, 1, 1]), 0, 2, method="normal"), latents
    )
    assert loss == pytest.approx(float(normal_alignment_loss(latents[[0, 2, 3]])), rel=1e-5)
    np.testing.assert_array_equal(gradient[1], 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_adaptation_loss_counts_centres_of_two_samples(method):
    latents = np.random.default_rng(6).normal(size=(5, 3)).astype(np.float32)
    loss = adaptation_loss(latents, [2, 0, 2, 0, 1], 2, 3, method=method)
    if method == "normal":
        expected = normal_alignment_loss(latents[[1, 3]]) + normal_alignment_loss(latents[[0, 2]])
    else:
        expected = PAIRWISE[method](latents[[0, 2]], latents[[1, 3]])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5) and float(loss) != 0


def test_adaptation_loss_of_a_function_is_its_sum_over_the_targets_of_two_samples(tmp_path, monkeypatch):
    # One more than the difference of the means; it fails on a single row.
    code = (
        "def loss(source, target):\n"
        "    means = [sum(rows[:, 0]) / len(rows) for rows in (source, target)]\n"
        "    return 1 + means[1] - means[0] + 0 / (min(len(source), len(target)) - 1)\n"
    )
    (tmp_path / "ones_of_rows.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    centre_ids = np.array([2, 0, 2, 0, 1, 3, 3, 3])
    latents = np.tile(centre_ids[:, None], 3).astype(np.float32)
    # Centre 1 has one row; of the others each is its number.
    for source, expected in ((0, 3 + 4), (2, -1 + 2), (1, 0), (np.int64(0), 3 + 4)):
        loss = adaptation_loss(latents, centre_ids, source, 4, method="ones_of_rows:loss")
        assert loss.dtype == tf.float32 and float(loss) == expected


@pytest.mark.parametrize("method", METHODS)
def test_adaptation_loss_takes_the_source_as_a_number_of_any_type(method):
    latents = np.random.default_rng(6).normal(size=(6, 3)).astype(np.float32)
    losses = [adaptation_loss(latents, [0, 0, 0, 1, 1, 1], one, 2, method=method) for one in (1, np.int64(1))]
    assert float(losses[0]) == float(losses[1])


@pytest.mark.parametrize("method", METHODS)
def test_adaptation_loss_of_a_single_row_is_zero(method):
    loss, (gradient,) = loss_and_gradients(
        lambda z: adaptation_loss(z, tf.constant([1]), 0, 2, method=method), np.ones((1, 3), np.float32)
    )
    assert loss == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_adaptation_loss_stays_finite_for_large_latents(method):
    latents = np.random.default_rng(3).normal(scale=1e3, size=(8, 3)).astype(np.float32)
    loss, (gradient,) = loss_and_gradients(lambda z: adaptation_loss(z, np.arange(8) % 2, 0, 2, method=method), latents)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("method", METHODS)
def test_adaptation_loss_is_float32_for_half_precision(method):
    latents = np.random.default_rng(5).normal(size=(8, 3)).astype(np.float16)
    loss = adaptation_loss(tf.constant(latents), np.arange(8) % 2, 0, 2, method=method)
    assert loss.dtype == tf.float32
    expected = adaptation_loss(latents.astype(np.float32), np.arange(8) % 2, 0, 2, method=method)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_adaptation_refuses_unknown_source_method_and_reduction():
    for source in (-1, 4, 5):
        with pytest.raises(ValueError, match=f"source must be between 0 and 3, got {source}"):
            adaptation_loss(tf.zeros((4, 2)), [0, 1, 0, 1], source, 4)
    with pytest.raises(TypeError, match="positional"):
        adaptation_loss(tf.zeros((4, 2)), [0, 1, 0, 1], 0, 2, "mmd")
    with pytest.raises(ValueError, match="method must be one of mmd, normal, kernel-mmd, coral; got 'adversarial'"):
        adaptation_loss(tf.zeros((4, 2)), [0, 1, 0, 1], 0, 2, method="adversarial")
    with pytest.raises(ValueError, match="reduction"):
        moment_matching_loss(tf.zeros((4, 2)), tf.zeros((4, 2)), reduction="max")
    with pytest.raises(ValueError, match="reduction"):
        normal_alignment_loss(tf.zeros((4, 2)), reduction="max")


@pytest.mark.parametrize("method", list(METHODS))
def test_in_deviations_makes_shrinking_worth_nothing(method):
    random = np.random.default_rng(0)
    ids = np.repeat([0, 1, 2], 8)
    values = (0.4 * random.normal(size=(24, 5)) + ids[:, None] / 4).astype(np.float32)

    def loss(factor):
        return adaptation_loss(in_deviations(factor * values), ids, 0, 3, method=method)

    assert float(loss(0.05)) == pytest.approx(float(loss(1.0)), rel=2e-3)
    factor = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        total = loss(factor)
    assert abs(float(tape.gradient(total, factor))) < 1e-3 * float(total)


def test_in_deviations_is_finite_for_latents_that_are_alike():
    latents = tf.Variable(np.full((6, 4), 0.3, np.float32))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(in_deviations(latents))
    assert np.isfinite(total) and np.isfinite(tape.gradient(total, latents)).all()


def test_in_deviations_known_answer():
    # Variances 1 and 9, 5 in the mean.
    latents = np.array([[0, 1], [2, 7]], np.float32)
    np.testing.assert_allclose(in_deviations(latents), latents / np.sqrt(5), rtol=1e-6)
