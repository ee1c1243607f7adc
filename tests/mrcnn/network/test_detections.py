import numpy as np
import pytest

from mrcnn.network.boxes import pairwise_iou
from mrcnn.network.detections import DetectionLayer

STD = (0.1, 0.1, 0.2, 0.2)


def slow_detections(rois, probabilities, deltas, window, max_detections, min_confidence, threshold) -> np.ndarray:
    """Class by class the boxes that no better kept one of the class overlaps; then the best of all classes."""
    found = []
    for class_id in range(1, probabilities.shape[1]):
        kept: list[np.ndarray] = []
        for i in np.argsort(-probabilities.max(axis=1), kind="stable"):
            score = probabilities[i].max()
            if probabilities[i].argmax() != class_id or score < min_confidence or not rois[i].any():
                continue
            (y1, x1, y2, x2), (dy, dx, dh, dw) = rois[i].astype(float), deltas[i, class_id] * STD
            y, x = (y1 + y2) / 2 + dy * (y2 - y1), (x1 + x2) / 2 + dx * (x2 - x1)
            height, width = (y2 - y1) * np.exp(dh), (x2 - x1) * np.exp(dw)
            box = np.array([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
            box = np.clip(box, [*window[:2], *window[:2]], [*window[2:], *window[2:]])
            overlaps = pairwise_iou(np.float32([box]), np.reshape(kept, (-1, 6))[:, :4].astype(np.float32))
            if (box[2:] > box[:2]).all() and (overlaps.numpy() <= threshold).all():
                kept.append(np.array([*box, class_id, score]))
        found += kept
    found = sorted(found, key=lambda row: -row[5])[:max_detections]
    return np.concatenate([np.reshape(found, (-1, 6)), np.zeros((max_detections - len(found), 6))])


@pytest.mark.parametrize(
    ("num_classes", "max_detections", "min_confidence", "threshold"),
    [(2, 100, 0.5, 0.3), (4, 6, 0.4, 0.5)],
)
def test_detections_equal_a_slow_reference_on_random_boxes(num_classes, max_detections, min_confidence, threshold):
    rng = np.random.default_rng(num_classes + max_detections)
    corners, sides = rng.uniform(0, 0.7, (3, 90, 2)), rng.uniform(0.1, 0.3, (3, 90, 2))
    rois = np.concatenate([corners, corners + sides], axis=-1).astype(np.float32)
    rois[:, 80:] = 0.0  # padding
    logits = rng.normal(0, 4, (3, 90, num_classes))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)).astype(np.float32)
    deltas = rng.normal(0, 1, (3, 90, num_classes, 4)).astype(np.float32)
    windows = np.array([[0, 0, 1, 1], [0.2, 0, 0.8, 1], [0, 0.4, 1, 0.6]], np.float32)
    settings = max_detections, min_confidence, threshold
    found = DetectionLayer(*settings, STD)([rois, probabilities, deltas, windows]).numpy()
    for i in range(3):
        expected = slow_detections(rois[i], probabilities[i], deltas[i], windows[i], *settings)
        assert expected.any()
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_detections_of_two_classes_do_not_suppress_each_other():
    rois = np.array([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.48]]], np.float32)
    probabilities, whole = np.float32([[[0.1, 0.7, 0.2], [0.1, 0.1, 0.8]]]), np.float32([[0, 0, 1, 1]])
    found = DetectionLayer(4, 0.5, 0.3, STD)([rois, probabilities, np.zeros((1, 2, 3, 4), np.float32), whole])
    np.testing.assert_array_equal(found[0, :, 4], [2, 1, 0, 0])
    np.testing.assert_allclose(found[0, :2, :4], rois[0, ::-1], atol=1e-6)
