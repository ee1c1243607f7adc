import numpy as np
import pytest
import tensorflow as tf

from mrcnn.data.masks import unmold_mask
from mrcnn.data.molding import DetectionFrame, unmold_detections
from mrcnn.network.in_graph import MoldedBatch, paste_masks, unmold

NETWORK, WINDOW, IMAGE = (96, 96), (12, 0, 84, 96), (150, 200)
MAX_DETECTIONS = 8


@pytest.fixture(scope="module")
def molded():
    return MoldedBatch(tf.zeros((3, *NETWORK, 3), tf.uint8), tf.constant(WINDOW, tf.float32), tf.constant(IMAGE))


@pytest.fixture(scope="module")
def detections():
    """Of three images: five detections, two of which do not touch the image; none; eight."""
    rng = np.random.default_rng(0)
    rows = np.zeros((3, MAX_DETECTIONS, 6), np.float32)
    for image, count in enumerate((5, 0, MAX_DETECTIONS)):
        corners = np.sort(rng.uniform(0.0, 1.0, (count, 2, 2)), axis=1).reshape(count, 4)
        classes, scores = rng.integers(1, 4, count), np.sort(rng.uniform(0.1, 1.0, count))[::-1]
        rows[image, :count] = np.column_stack([corners, classes, scores])
    rows[0, 1, :4] = [0.0, 0.2, 0.1, 0.6]  # in the padding above the image, and below it
    rows[0, 3, :4] = [0.95, 0.2, 1.0, 0.6]
    return rows


def unmolded_outside(detections, values):
    """What `detect` makes of the same rows, image by image."""
    first, results = 0, []
    for rows in detections:
        rows = rows[rows[:, 5] > 0]
        features = values[first : first + len(rows)]
        first += len(rows)
        results.append(unmold_detections(rows, DetectionFrame(NETWORK, WINDOW, IMAGE), features, None))
    return results


def test_unmold_gives_the_rows_of_detect_and_padding(molded, detections):
    values = np.random.default_rng(1).normal(size=(13, 2, 3)).astype(np.float32)
    found = {name: v.numpy() for name, v in unmold(tf.constant(detections), molded, {"features": values}).items()}
    expected = unmolded_outside(detections, values)
    assert [len(result["scores"]) for result in expected] == [3, 0, 8]
    assert found["num_detections"].tolist() == [3, 0, 8]
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {
        "boxes": (3, 8, 4),
        "scores": (3, 8),
        "class_ids": (3, 8),
        "num_detections": (3,),
        "features": (3, 8, 2, 3),
    }
    for image, result in enumerate(expected):
        count = len(result["scores"])
        np.testing.assert_array_equal(np.round(found["boxes"][image, :count]), result["rois"])
        np.testing.assert_array_equal(found["scores"][image, :count], result["scores"])
        np.testing.assert_array_equal(found["class_ids"][image, :count], result["class_ids"])
        np.testing.assert_array_equal(found["features"][image, :count], result["feats"])
        for name in ("boxes", "scores", "class_ids", "features"):
            assert not found[name][image, count:].any()


def test_unmold_clips_boxes_to_the_image(molded):
    rows = np.zeros((1, 2, 6), np.float32)
    rows[0, 0] = [0.0, 0.0, 1.0, 1.0, 1, 0.9]
    boxes = unmold(tf.constant(rows), molded, {})["boxes"].numpy()
    np.testing.assert_allclose(boxes[0, 0], [0, 0, *IMAGE], atol=1e-4)


def test_paste_masks_is_unmold_mask():
    rng = np.random.default_rng(2)
    height, width = 60, 90
    small = rng.uniform(size=(2, 6, 28, 28)).astype(np.float32)
    boxes = np.zeros((2, 6, 4), np.float32)
    boxes[0] = [[0, 0, 60, 90], [5.4, 7.6, 33, 36], [59, 89, 60, 90], [10, 3, 24, 17], [0, 80, 60, 90], [2, 2, 30, 30]]
    pasted = paste_masks(tf.constant(boxes), tf.constant(small), tf.constant((height, width))).numpy()
    assert pasted.shape == (2, 6, height, width) and pasted.dtype == np.uint8
    assert not pasted[1].any()
    for box, mask, full in zip(boxes[0], small[0], pasted[0], strict=True):
        expected = unmold_mask(mask, np.round(box), (height, width))
        # Probabilities near the threshold may fall on either side; noise has more of them than any cell.
        assert (full != expected).sum() <= 1 and set(np.unique(full)) <= {0, 1}
