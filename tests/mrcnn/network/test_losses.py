import numpy as np
import pytest
import tensorflow as tf

from mrcnn.network import losses


def log_loss(logits, label: int) -> float:
    logits = np.asarray(logits, np.float64)
    return float(np.log(np.exp(logits).sum()) - logits[label])


def slow_smooth_l1(error: float) -> float:
    return 0.5 * error * error if abs(error) < 1 else abs(error) - 0.5


def check(loss: losses.LossSum, values: list[float]) -> None:
    """The loss is the sum, and the mean, of these values; 0 if there are none."""
    np.testing.assert_allclose(loss.total, sum(values), rtol=1e-4, atol=1e-6)
    assert float(loss.count) == len(values)
    np.testing.assert_allclose(loss.mean(), np.mean(values) if values else 0.0, rtol=1e-4, atol=1e-6)


# What the anchors are: some of each, no object, no background, nothing sampled (all padding, or nothing left over).
MATCHES = {
    "mixed": [[-1, 1, 0, -1], [1, 0, 0, 0]],
    "no positives": [[-1, -1, 0, 0], [0, -1, 0, 0]],
    "none": [[0, 0, 0, 0], [0, 0, 0, 0]],
}


@pytest.mark.parametrize("case", MATCHES)
def test_rpn_losses_equal_plain_sums(case):
    rng, match = np.random.default_rng(1), np.array(MATCHES[case], np.int32)
    logits = rng.normal(0, 2, (2, 4, 2)).astype(np.float32)
    target, deltas = rng.normal(0, 1.5, (2, 2, 4, 4)).astype(np.float32)
    expected = [log_loss(logits[i], int(match[i] == 1)) for i in zip(*np.nonzero(match), strict=True)]
    check(losses.rpn_class_loss(match, logits), expected)
    objects = zip(*np.nonzero(match == 1), strict=True)
    expected = [np.mean([slow_smooth_l1(e) for e in target[i] - deltas[i]]) for i in objects]
    check(losses.rpn_bbox_loss(match, target, deltas), expected)


# Class ids and which RoIs are no padding.
ROIS = {
    "mixed": ([[2, 1, 0, 0], [1, 0, 0, 0]], [[1, 1, 1, 0], [1, 1, 0, 0]]),
    "no positives": ([[0, 0, 0, 0], [0, 0, 0, 0]], [[1, 1, 1, 1], [1, 0, 0, 0]]),
    "all padding": ([[0, 0, 0, 0], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]),
}


@pytest.mark.parametrize("case", ROIS)
def test_head_losses_equal_plain_sums(case):
    rng = np.random.default_rng(2)
    class_ids, valid = (np.array(v, np.int32) for v in ROIS[case])
    logits = rng.normal(0, 2, (2, 4, 3)).astype(np.float32)
    expected = [log_loss(logits[i], class_ids[i]) for i in zip(*np.nonzero(valid), strict=True)]
    check(losses.head_class_loss(class_ids, valid > 0, logits, np.ones((2, 3), np.int32)), expected)

    target, deltas = rng.normal(0, 1.5, (2, 4, 4)), rng.normal(0, 1.5, (2, 4, 3, 4))
    positives = list(zip(*np.nonzero(class_ids), strict=True))
    errors = [target[i] - deltas[i][class_ids[i]] for i in positives]
    expected = [np.mean([slow_smooth_l1(e) for e in error]) for error in errors]
    check(losses.head_bbox_loss(class_ids, target.astype(np.float32), deltas.astype(np.float32)), expected)

    masks, target = rng.uniform(0.05, 0.95, (8, 5, 5, 3)), rng.random((8, 5, 5, 1)) > 0.5
    ids, expected = class_ids.reshape(-1), []
    for i in np.flatnonzero(ids):
        right = np.where(target[i, ..., 0], masks[i, ..., ids[i]], 1 - masks[i, ..., ids[i]])
        expected.append(-np.log(right).mean())
    check(
        losses.head_mask_loss(ids, target.astype(np.float32), ids[:, np.newaxis] > 0, masks.astype(np.float32)),
        expected,
    )


def test_head_mask_loss_leaves_out_parts_that_are_not_known():
    rng = np.random.default_rng(3)
    # Two classes of two parts each; the second RoI's part is unknown, the third, of background, has a part alone.
    masks, target = rng.uniform(0.05, 0.95, (3, 5, 5, 4)), rng.random((3, 5, 5, 2)) > 0.5
    class_ids, has_part, expected = np.array([1, 1, 0]), np.array([[1, 1], [1, 0], [0, 1]]) > 0, []
    for i, part in zip(*np.nonzero(has_part), strict=True):
        chosen = masks[i, ..., 2 * class_ids[i] + part]
        expected.append(-np.log(np.where(target[i, ..., part], chosen, 1 - chosen)).mean())
    check(losses.head_mask_loss(class_ids, target.astype(np.float32), has_part, masks.astype(np.float32)), expected)


def test_head_class_loss_leaves_out_what_is_taken_for_a_class_that_is_not_annotated():
    # The second image's data set knows classes 0 and 1 only.
    active = np.array([[1, 1, 1], [1, 1, 0]], np.int32)
    taken_for_two, taken_for_one = [0.0, 1.0, 4.0], [0.0, 3.0, 1.0]
    logits = np.array([[taken_for_two, taken_for_one], [taken_for_two, taken_for_one]], np.float32)
    class_ids, valid = np.array([[2, 0], [1, 1]], np.int32), np.ones((2, 2), bool)
    expected = [log_loss(taken_for_two, 2), log_loss(taken_for_one, 0), log_loss(taken_for_one, 1)]
    check(losses.head_class_loss(class_ids, valid, logits, active), expected)
    check(losses.head_class_loss(class_ids[1:, :1], valid[1:, :1], logits[1:, :1], active[1:]), [])


@pytest.mark.parametrize("positives", [True, False])
def test_losses_have_finite_gradients_with_and_without_positives(positives):
    rng = np.random.default_rng(0)
    ids = tf.constant([[1, 0]] if positives else [[0, 0]])
    logits, deltas = (tf.Variable(rng.normal(size=s), dtype=tf.float32) for s in ((1, 2, 2), (1, 2, 2, 4)))
    # Masks of exactly 0 and 1 have an infinite logarithm.
    masks = tf.Variable(np.where(rng.random((2, 4, 4, 2)) > 0.5, 1.0, 0.0), dtype=tf.float32)
    with tf.GradientTape() as tape:
        terms = [
            losses.rpn_class_loss(ids, logits),
            losses.rpn_bbox_loss(ids, tf.zeros((1, 2, 4)), deltas[:, :, 0]),
            losses.head_class_loss(ids, ids > 0, logits, tf.ones((1, 2), tf.int32)),
            losses.head_bbox_loss(ids, tf.zeros((1, 2, 4)), deltas),
            losses.head_mask_loss(ids[0], tf.zeros((2, 4, 4, 1)), ids[0][:, tf.newaxis] > 0, masks),
        ]
        total = tf.add_n([term.mean() for term in terms])
    assert np.isfinite(total) and (float(total) > 0) == positives
    gradients = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(total, [logits, deltas, masks])]
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert all(gradient.any() == positives for gradient in gradients[:2])
