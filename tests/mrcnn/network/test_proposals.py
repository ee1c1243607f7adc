import keras
import numpy as np
import pytest

from mrcnn.network.boxes import pairwise_iou
from mrcnn.network.proposals import ProposalLayer, rpn_head


def slow_proposals(scores, deltas, anchors, num_proposals, nms_iou_threshold, pre_nms_limit) -> np.ndarray:
    """Of the best anchors, moved by their deltas and cut at the image, those that no better kept one overlaps."""
    kept: list[np.ndarray] = []
    for i in np.argsort(-scores, kind="stable")[:pre_nms_limit]:
        (y1, x1, y2, x2), (dy, dx, dh, dw) = anchors[i].astype(float), deltas[i] * [0.1, 0.1, 0.2, 0.2]
        y, x = (y1 + y2) / 2 + dy * (y2 - y1), (x1 + x2) / 2 + dx * (x2 - x1)
        height, width = (y2 - y1) * np.exp(dh), (x2 - x1) * np.exp(dw)
        box = np.clip([y - height / 2, x - width / 2, y + height / 2, x + width / 2], 0, 1)
        overlaps = pairwise_iou(np.float32([box]), np.reshape(kept, (-1, 4)).astype(np.float32)).numpy()
        if len(kept) < num_proposals and (overlaps <= nms_iou_threshold).all():
            kept.append(box)
    return np.concatenate([np.array(kept), np.zeros((num_proposals - len(kept), 4))])


@pytest.mark.parametrize(("num_proposals", "threshold", "limit"), [(30, 0.3, 60), (200, 0.5, 1000), (5, 0.7, 1000)])
def test_proposals_equal_a_slow_reference_on_random_boxes(num_proposals, threshold, limit):
    rng = np.random.default_rng(int(10 * threshold) + num_proposals)
    corners, sides = rng.uniform(-0.1, 0.8, (150, 2)), rng.uniform(0.1, 0.4, (150, 2))
    anchors = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    scores, deltas = rng.random((3, 150)).astype(np.float32), rng.normal(0, 1, (3, 150, 4)).astype(np.float32)
    layer = ProposalLayer(num_proposals, threshold, limit, (0.1, 0.1, 0.2, 0.2))
    found = layer([np.stack([1 - scores, scores], axis=-1), deltas, anchors])
    for i in range(3):
        expected = slow_proposals(scores[i], deltas[i], anchors, num_proposals, threshold, limit)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_rpn_head_rows_follow_the_order_of_the_anchors():
    keras.utils.set_random_seed(0)
    head = rpn_head(8, 3, 1)
    level = np.random.default_rng(0).normal(size=(1, 5, 4, 8)).astype(np.float32)
    touched = level.copy()
    touched[0, 4, 0] += 1.0
    change = np.abs(head(touched)[0] - head(level)[0]).max(axis=(0, 2)).reshape(5, 4, 3)
    seen = change.max(axis=-1) > 1e-6
    assert seen[3:, :2].any() and not seen[:3].any() and not seen[:, 2:].any()
