import numpy as np
import pytest

from mrcnn.network import boxes as box_ops


def random_boxes(num_boxes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (num_boxes, 2))
    return np.concatenate([corners, corners + rng.uniform(1, 40, (num_boxes, 2))], axis=1).astype(np.float32)


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union


def test_pairwise_iou_equals_the_plain_formula():
    boxes, others = random_boxes(7), random_boxes(5, seed=1)
    expected = [[slow_iou(a, b) for b in others] for a in boxes]
    np.testing.assert_allclose(box_ops.pairwise_iou(boxes, others), expected, atol=1e-6)


def test_pairwise_iou_known_answers():
    boxes = np.array([[0, 0, 2, 2], [0, 0, 0, 0]], np.float32)
    others = np.array([[0, 0, 2, 2], [0, 1, 2, 3], [2, 0, 4, 2], [0, 0, 0, 0]], np.float32)
    expected = [[1, 1 / 3, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(box_ops.pairwise_iou(boxes, others), expected, atol=1e-6)


def test_decode_undoes_encode():
    boxes, targets = random_boxes(50), random_boxes(50, seed=3)
    np.testing.assert_allclose(box_ops.decode(boxes, box_ops.encode(boxes, targets)), targets, atol=1e-3)


def test_decode_does_not_overflow():
    # A side of 16 px grows to 1000 px, and no further.
    box, deltas = np.array([[0, 0, 16, 8]], np.float32), np.array([[0, 0, 500, 4.2]], np.float32)
    np.testing.assert_allclose(box_ops.decode(box, deltas), [[-492, -246, 508, 254]], rtol=1e-4)


def test_pixel_boxes_undo_normalized_boxes():
    boxes = random_boxes(20)
    normalized = box_ops.normalized_boxes(boxes, (100, 80))
    np.testing.assert_allclose(box_ops.pixel_boxes(normalized, (100, 80)), boxes, atol=1e-4)


@pytest.mark.parametrize(
    ("box", "expected"),
    [((-5, 2, 5, 200), (0, 2, 5, 100)), ((150, 0, 160, 10), (100, 0, 100, 10)), ((1, 2, 3, 4), (1, 2, 3, 4))],
)
def test_clip_to_a_window(box, expected):
    window = np.array([0, 0, 100, 100], np.float32)
    np.testing.assert_array_equal(box_ops.clip(np.array([box], np.float32), window), [expected])
