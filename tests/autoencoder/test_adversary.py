import numpy as np
import pytest
import tensorflow as tf

from autoencoder.adaptation import HIDDEN_UNITS, adversarial_loss, build_discriminator, discriminator_scores


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(7, 3))


CENTRE_IDS = np.array([0, 0, 0, 0, 1, 1, 2])


def test_build_discriminator_has_three_layers_and_a_seed():
    model = build_discriminator(8, 3, seed=1)
    dense = [layer for layer in model.layers if layer.weights]
    assert [layer.units for layer in dense] == [*HIDDEN_UNITS, 3]
    assert [layer.activation.__name__ for layer in dense] == ["relu", "relu", "linear"]
    again, other = build_discriminator(8, 3, seed=1), build_discriminator(8, 3, seed=2)
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])
    assert np.abs(model.get_weights()[0] - other.get_weights()[0]).max() > 0.01


def test_discriminator_scores_equal_numpy(logits):
    likelihood = log_softmax(logits)[np.arange(7), CENTRE_IDS]
    right = logits.argmax(axis=1) == CENTRE_IDS
    scores = discriminator_scores(tf.constant(logits, tf.float32), tf.constant(CENTRE_IDS))
    parts = [CENTRE_IDS == k for k in range(3)]
    assert float(scores.loss) == pytest.approx(-np.mean([likelihood[p].mean() for p in parts]), rel=1e-5)
    assert float(scores.accuracy) == pytest.approx(np.mean([right[p].mean() for p in parts]), rel=1e-5)


def test_discriminator_scores_of_one_that_knows_nothing_and_of_absent_centres():
    scores = discriminator_scores(tf.zeros((4, 3)), tf.constant([0, 0, 0, 1]))
    assert float(scores.loss) == pytest.approx(np.log(3), rel=1e-6)
    # All ties go to centre 0: right for it, wrong for centre 1, and centre 2 is not there.
    assert float(scores.accuracy) == pytest.approx(0.5)


def test_adversarial_loss_equals_numpy_and_spares_the_source(logits):
    variable = tf.Variable(logits, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = adversarial_loss(variable, tf.constant(CENTRE_IDS), 1)
    surprise = -log_softmax(logits)[:, 1]
    assert float(loss) == pytest.approx(surprise[:4].mean() + surprise[6], rel=1e-5)
    gradient = tape.gradient(loss, variable).numpy()
    np.testing.assert_array_equal(gradient[4:6], 0.0)
    # Following it makes targets look more like the source.
    assert (gradient[[0, 1, 2, 3, 6], 1] < 0).all()


def test_adversarial_loss_without_targets_is_zero(logits):
    assert float(adversarial_loss(tf.constant(logits, tf.float32), tf.zeros(7, tf.int32), 0)) == 0.0
