import numpy as np
import pytest
import tensorflow as tf

from mrcnn.network import losses


def log_loss(logits, label: int) -> float:
    logits = np.asarray(logits, np.float64)
    return float(np.log(np.exp(logits).sum()) - logits[label])


def test_smooth_l1_known_answers():
    values = losses.smooth_l1(tf.constant([0.0, 0.5, -0.5, 1.0, -3.0]))
    np.testing.assert_allclose(values, [0, 0.125, 0.125, 0.5, 2.5])


def test_masked_mean_of_nothing_is_zero():
    assert float(losses.masked_mean(tf.constant([1.0, np.nan]), tf.constant([False, False]))) == 0.0
    assert float(losses.masked_mean(tf.constant([1.0, 5.0, 9.0]), tf.constant([True, False, True]))) == 5.0


def test_rpn_class_loss_counts_sampled_anchors_only():
    logits = np.array([[[2.0, 0.0], [0.0, 1.0], [50.0, -50.0]]], np.float32)
    expected = (log_loss([2, 0], 0) + log_loss([0, 1], 1)) / 2
    np.testing.assert_allclose(losses.rpn_class_loss(tf.constant([[-1, 1, 0]]), logits), expected, rtol=1e-5)


def test_rpn_bbox_loss_counts_objects_only():
    target, deltas = np.zeros((1, 3, 4), np.float32), np.full((1, 3, 4), 7.0, np.float32)
    deltas[0, 0] = [0.5, 0, 0, 3]
    expected = (0.125 + 2.5) / 4
    np.testing.assert_allclose(losses.rpn_bbox_loss(tf.constant([[1, -1, 0]]), target, deltas), expected)


def test_head_class_loss_leaves_padding_out():
    logits = np.array([[[1.0, 3.0], [0.0, 0.0], [9.0, -9.0]]], np.float32)
    value = losses.head_class_loss(tf.constant([[1, 0, 0]]), tf.constant([[True, True, False]]), logits)
    np.testing.assert_allclose(value, (log_loss([1, 3], 1) + np.log(2)) / 2, rtol=1e-5)


def test_head_bbox_loss_takes_the_true_class():
    deltas = np.full((1, 2, 3, 4), 99.0, np.float32)
    deltas[0, 0, 2] = 0.5
    value = losses.head_bbox_loss(tf.constant([[2, 0]]), np.zeros((1, 2, 4), np.float32), deltas)
    np.testing.assert_allclose(value, 0.125)


def test_head_mask_loss_takes_the_true_class():
    masks = np.full((1, 2, 2, 2, 3), 0.01, np.float32)
    masks[0, 0, :, :, 1] = 0.8
    target = np.zeros((1, 2, 2, 2), np.float32)
    target[0, 0, 0] = 1.0
    value = losses.head_mask_loss(tf.constant([[1, 0]]), target, masks)
    np.testing.assert_allclose(value, -(np.log(0.8) + np.log(0.2)) / 2, rtol=1e-4)


@pytest.mark.parametrize("positives", [True, False])
def test_losses_have_finite_gradients_with_and_without_positives(positives):
    rng = np.random.default_rng(0)
    ids = tf.constant([[1, 0]] if positives else [[0, 0]])
    logits, deltas = (tf.Variable(rng.normal(size=s), dtype=tf.float32) for s in ((1, 2, 2), (1, 2, 2, 4)))
    masks = tf.Variable(np.where(rng.random((1, 2, 4, 4, 2)) > 0.5, 1.0, 0.0), dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = (
            losses.rpn_class_loss(ids, logits)
            + losses.rpn_bbox_loss(ids, tf.zeros((1, 2, 4)), deltas[:, :, 0])
            + losses.head_class_loss(ids, ids > 0, logits)
            + losses.head_bbox_loss(ids, tf.zeros((1, 2, 4)), deltas)
            + losses.head_mask_loss(ids, tf.zeros((1, 2, 4, 4)), masks)
        )
    assert np.isfinite(total)
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in tape.gradient(total, [logits, deltas, masks]))
