import numpy as np
import pytest

from mrcnn.network.detections import DetectionLayer

WHOLE = np.array([[0, 0, 1, 1]], np.float32)
A, A_NEAR, B = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.48], [0.6, 0.6, 0.9, 0.9]


def detect(rois, probabilities, deltas=None, windows=WHOLE, **settings) -> np.ndarray:
    layer = DetectionLayer(
        **{"max_detections": 4, "min_confidence": 0.5, "nms_iou_threshold": 0.3} | settings,
        bbox_std_dev=(0.1, 0.1, 0.2, 0.2),
    )
    probabilities = np.asarray(probabilities, np.float32)
    deltas = np.zeros((*probabilities.shape, 4), np.float32) if deltas is None else deltas
    return layer([np.asarray(rois, np.float32), probabilities, deltas, windows]).numpy()


def slow_iou(a, b) -> float:
    height, width = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0.0) for i in (0, 1))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union if union > 0 else 0.0


def slow_detections(rois, probabilities, deltas, window, max_detections, min_confidence, threshold) -> np.ndarray:
    """Class by class the boxes that no better kept one of the class overlaps; then the best of all classes."""
    found = []
    for class_id in range(1, probabilities.shape[1]):
        kept: list[np.ndarray] = []
        for i in np.argsort(-probabilities.max(axis=1), kind="stable"):
            score = probabilities[i].max()
            if probabilities[i].argmax() != class_id or score < min_confidence or not rois[i].any():
                continue
            (y1, x1, y2, x2), (dy, dx, dh, dw) = rois[i].astype(float), deltas[i, class_id] * [0.1, 0.1, 0.2, 0.2]
            y, x = (y1 + y2) / 2 + dy * (y2 - y1), (x1 + x2) / 2 + dx * (x2 - x1)
            height, width = (y2 - y1) * np.exp(dh), (x2 - x1) * np.exp(dw)
            box = np.array([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
            box = np.clip(box, [*window[:2], *window[:2]], [*window[2:], *window[2:]])
            if (box[2:] > box[:2]).all() and all(slow_iou(box, other[:4]) <= threshold for other in kept):
                kept.append(np.array([*box, class_id, score]))
        found += kept
    found = sorted(found, key=lambda row: -row[5])[:max_detections]
    return np.concatenate([np.reshape(found, (-1, 6)), np.zeros((max_detections - len(found), 6))])


@pytest.mark.parametrize(
    ("num_classes", "max_detections", "min_confidence", "threshold"),
    [(2, 100, 0.5, 0.3), (4, 100, 0.0, 0.3), (4, 100, 0.6, 0.7), (4, 6, 0.4, 0.5), (81, 50, 0.1, 0.3)],
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
    layer = DetectionLayer(max_detections, min_confidence, threshold, (0.1, 0.1, 0.2, 0.2))
    found = layer([rois, probabilities, deltas, windows]).numpy()
    settings = max_detections, min_confidence, threshold
    for i in range(3):
        expected = slow_detections(rois[i], probabilities[i], deltas[i], windows[i], *settings)
        assert expected.any()
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_detections_are_best_first_and_padded():
    found = detect([[A, B]], [[[0.3, 0.7], [0.1, 0.9]]])
    np.testing.assert_allclose(found[0], [[*B, 1, 0.9], [*A, 1, 0.7], [0] * 6, [0] * 6], atol=1e-6)


def test_detections_of_one_class_suppress_each_other():
    found = detect([[A, A_NEAR]], [[[0.3, 0.7], [0.2, 0.8]]])
    np.testing.assert_allclose(found[0, :, 5], [0.8, 0, 0, 0], atol=1e-6)


def test_detections_of_two_classes_do_not():
    found = detect([[A, A_NEAR]], [[[0.1, 0.7, 0.2], [0.1, 0.1, 0.8]]])
    np.testing.assert_array_equal(found[0, :, 4], [2, 1, 0, 0])
    np.testing.assert_allclose(found[0, :2, :4], [A_NEAR, A], atol=1e-6)


def test_detections_leave_out_background_weak_ones_and_padding():
    rois = [[A, B, [0, 0, 0, 0]]]
    assert not detect(rois, [[[0.9, 0.1], [0.52, 0.48], [0.0, 1.0]]]).any()
    assert not detect(rois, [[[0.4, 0.6], [0.45, 0.55], [0.0, 1.0]]], min_confidence=0.7).any()


def test_detections_keep_the_best_of_too_many():
    rois = [[[0.1 * i, 0.1 * i, 0.1 * i + 0.1, 0.1 * i + 0.1] for i in range(6)]]
    scores = np.array([0.6, 0.9, 0.7, 0.95, 0.65, 0.8])
    found = detect(rois, np.stack([1 - scores, scores], axis=-1)[np.newaxis], max_detections=3)
    np.testing.assert_allclose(found[0, :, 5], [0.95, 0.9, 0.8], atol=1e-6)


def test_detections_move_by_the_deltas_of_their_class():
    deltas = np.zeros((1, 1, 2, 4), np.float32)
    deltas[0, 0, 0] = 5.0
    deltas[0, 0, 1] = [1, 0, np.log(2) / 0.2, 0]  # down by a tenth of the height, then twice as high
    found = detect([[[0.4, 0.4, 0.6, 0.6]]], [[[0.1, 0.9]]], deltas)
    np.testing.assert_allclose(found[0, 0, :4], [0.32, 0.4, 0.72, 0.6], atol=1e-5)


def test_detections_are_clipped_to_the_window_of_their_image():
    windows = np.array([[0.25, 0, 0.75, 1], [0, 0, 0.05, 1]], np.float32)
    found = detect([[A], [A]], [[[0.1, 0.9]], [[0.1, 0.9]]], windows=windows)
    np.testing.assert_allclose(found[0, 0, :4], [0.25, 0.1, 0.5, 0.5], atol=1e-6)
    assert not found[1].any()


def test_detection_layer_round_trip():
    layer = DetectionLayer(9, 0.7, 0.3, (0.1, 0.1, 0.2, 0.2), name="mrcnn_detection")
    assert DetectionLayer.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer.compute_output_shape([(2, 50, 4), (2, 50, 3)]) == (2, 9, 6)
