import numpy as np
import pytest

from mrcnn.config import Config, make_config
from mrcnn.data.masks import expand_mask, extract_bboxes, minimize_mask, unmold_mask
from mrcnn.data.molding import DetectionFrame, mold_for_detection, unmold_detections
from mrcnn.utils import norm_boxes


def slow_paste(mask: np.ndarray, box, shape) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel: is it inside, and is that beyond doubt?

    A pixel of the box takes the value of the small mask at its centre, bilinear between the centres of the mask's
    cells, the outer ones repeated to the border; it is inside from 0.5 on.
    """
    height, width = mask.shape
    y1, x1, y2, x2 = box
    inside, clear = np.zeros(shape, bool), np.ones(shape, bool)
    for y in range(max(y1, 0), min(y2, shape[0])):
        for x in range(max(x1, 0), min(x2, shape[1])):
            row = np.clip((y - y1 + 0.5) / (y2 - y1) * height - 0.5, 0, height - 1)
            column = np.clip((x - x1 + 0.5) / (x2 - x1) * width - 0.5, 0, width - 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = row - top, column - left
            value = (1 - dy) * ((1 - dx) * mask[top, left] + dx * mask[top, right])
            value += dy * ((1 - dx) * mask[bottom, left] + dx * mask[bottom, right])
            inside[y, x], clear[y, x] = value >= 0.5, abs(value - 0.5) > 1e-4
    return inside, clear


# Inside, larger than the mask, smaller than it, uneven, beyond each border, a single pixel.
BOXES = [(5, 7, 33, 35), (2, 3, 58, 70), (10, 10, 21, 17), (-9, -4, 25, 30), (40, 50, 75, 99), (11, 12, 12, 13)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("mask_shape", [(28, 28), (14, 20)])
def test_unmold_mask_equals_a_slow_reference(box, mask_shape):
    mask = np.random.default_rng(0).random(mask_shape).astype(np.float32)
    expected, clear = slow_paste(mask, box, (60, 80))
    found = unmold_mask(mask, np.array(box), (60, 80, 3))
    assert found.dtype == bool and clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_unmold_mask_of_exactly_one_half_is_inside():
    np.testing.assert_array_equal(unmold_mask(np.full((28, 28), 0.5), np.array([1, 1, 4, 5]), (6, 6))[1:4, 1:5], True)


def test_expand_mask_equals_a_slow_reference():
    rng = np.random.default_rng(1)
    boxes, minis = np.array(BOXES[:4]), rng.random((56, 56, 4)) > 0.4
    found = expand_mask(boxes, minis, (60, 80, 3))
    for i, box in enumerate(boxes):
        expected, clear = slow_paste(minis[..., i].astype(float), box, (60, 80))
        np.testing.assert_array_equal(found[..., i][clear], expected[clear])


def test_expand_mask_undoes_minimize_mask_of_the_boxes_own_size():
    rng = np.random.default_rng(2)
    masks = np.zeros((60, 80, 2), bool)
    masks[10:38, 20:48, 0], masks[30:58, 3:31, 1] = True, rng.random((28, 28)) > 0.5
    masks[30, 3:31, 1] = masks[57, 3:31, 1] = masks[30:58, 3, 1] = masks[30:58, 30, 1] = True
    boxes = extract_bboxes(masks)
    np.testing.assert_array_equal(expand_mask(boxes, minimize_mask(boxes, masks, (28, 28)), (60, 80)), masks)


def rows_of(boxes, shape, class_ids, scores) -> np.ndarray:
    """Detections as the network gives them."""
    return np.concatenate([norm_boxes(boxes, shape), np.stack([class_ids, scores], axis=1)], axis=1).astype(np.float32)


def test_unmold_detections_known_answer():
    # An image of 30 x 60 px, enlarged twice and padded to 128 x 128.
    frame = DetectionFrame((128, 128), (34, 4, 94, 124), (30, 60))
    boxes = np.array([[34, 4, 94, 124], [44, 14, 54, 34], [39, 100, 60, 124]], np.float32)
    result = unmold_detections(rows_of(boxes, (128, 128), [1, 2, 1], [0.9, 0.8, 0.7]), frame, None, None)
    np.testing.assert_array_equal(result["rois"], [[0, 0, 30, 60], [5, 5, 10, 15], [2, 48, 13, 60]])
    np.testing.assert_array_equal(result["class_ids"], [1, 2, 1])
    np.testing.assert_allclose(result["scores"], [0.9, 0.8, 0.7])
    types = {name: values.dtype for name, values in result.items()}
    assert types == {"rois": np.int32, "class_ids": np.int32, "scores": np.float32}


def test_unmold_detections_drops_what_has_no_pixel_with_its_features_and_masks():
    frame = DetectionFrame((128, 128), (0, 0, 128, 128), (64, 64))
    boxes = np.array([[10, 10, 10.4, 30], [20, 20, 40, 40], [30, 50, 90, 50.3]], np.float32)
    features, masks = np.arange(3.0).reshape(3, 1, 1, 1), np.ones((3, 28, 28)) * [[[0.2]], [[0.9]], [[0.1]]]
    result = unmold_detections(rows_of(boxes, (128, 128), [1, 2, 3], [0.9, 0.8, 0.7]), frame, features, masks)
    np.testing.assert_array_equal(result["rois"], [[10, 10, 20, 20]])
    assert result["class_ids"] == [2] and result["feats"].item() == 1.0
    assert result["small_masks"].shape == (1, 28, 28) and result["masks"].shape == (64, 64, 1)
    assert result["masks"][10:20, 10:20].all() and result["masks"].sum() == 100


def test_unmold_detections_pastes_each_mask_into_its_box():
    rng = np.random.default_rng(3)
    frame, boxes = DetectionFrame((64, 64), (0, 0, 64, 64), (64, 64)), np.array([[3, 5, 33, 47], [40, 2, 64, 30]])
    masks = rng.random((2, 28, 28)).astype(np.float32)
    result = unmold_detections(rows_of(boxes, (64, 64), [1, 1], [0.9, 0.8]), frame, None, masks)
    for i, box in enumerate(boxes):
        expected, clear = slow_paste(masks[i], box, (64, 64))
        np.testing.assert_array_equal(result["masks"][..., i][clear], expected[clear])
    small = unmold_detections(rows_of(boxes, (64, 64), [1, 1], [0.9, 0.8]), frame, None, masks, paste=False)
    assert "masks" not in small
    np.testing.assert_array_equal(small["small_masks"], masks)


def test_unmold_detections_of_nothing_is_empty():
    frame = DetectionFrame((64, 64), (0, 0, 64, 64), (20, 30))
    nothing = unmold_detections(np.zeros((0, 6)), frame, np.zeros((0, 14, 14, 8)), np.zeros((0, 28, 28)))
    assert nothing["rois"].shape == (0, 4) and nothing["masks"].shape == (20, 30, 0)
    assert nothing["feats"].shape == (0, 14, 14, 8) and nothing["small_masks"].shape == (0, 28, 28)


SETTINGS = {
    "square, enlarged": ({"IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 256}, (100, 76)),
    "square, shrunk": ({"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128}, (300, 211)),
    "square, very wide": ({"IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 128}, (40, 333)),
    "pad64": ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 128}, (90, 145)),
    "pad64, not scaled": ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 0}, (90, 145)),
    "crop": ({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 128}, (90, 145)),
    "none": ({"IMAGE_RESIZE_MODE": "none"}, (128, 192)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_boxes_come_back_from_where_the_image_is_seen(name):
    overrides, shape = SETTINGS[name]
    config = make_config({"IMAGE_MAX_DIM": 256, **overrides}, Config)
    height, width = shape
    boxes = np.array(
        [[0, 0, height, width], [10, 12, 38, 40], [15, width - 31, 36, width], [height - 25, 0, height, 9]]
    )
    for box in boxes:
        image = np.zeros((*shape, 3), np.uint8)
        image[box[0] : box[2], box[1] : box[3]] = 255
        molded = mold_for_detection(image, config)
        seen = extract_bboxes(molded.image[..., :1] > 127)
        frame = DetectionFrame(molded.image.shape[:2], molded.window, shape)
        found = unmold_detections(rows_of(seen, molded.image.shape[:2], [1], [1.0]), frame, None, None)["rois"]
        # What is seen is known to a pixel of the network's input.
        np.testing.assert_allclose(found[0], box, atol=0.5 + 0.5 / molded.scale)


@pytest.mark.parametrize("name", SETTINGS)
def test_boxes_round_trip_exactly(name):
    overrides, shape = SETTINGS[name]
    config = make_config({"IMAGE_MAX_DIM": 256, **overrides}, Config)
    molded = mold_for_detection(np.zeros((*shape, 3), np.uint8), config)
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, np.array(shape) + 1, (60, 2, 2)), axis=1).reshape(-1, 4)
    boxes = np.concatenate([corners[(corners[:, 2:] > corners[:, :2]).all(axis=1)], [[0, 0, *shape]]])
    y1, x1, y2, x2 = molded.window
    scale = np.array([(y2 - y1) / shape[0], (x2 - x1) / shape[1]] * 2)
    inside = boxes * scale + [y1, x1, y1, x1]
    rows = rows_of(inside, molded.image.shape[:2], np.ones(len(boxes)), np.ones(len(boxes)))
    frame = DetectionFrame(molded.image.shape[:2], molded.window, shape)
    np.testing.assert_array_equal(unmold_detections(rows, frame, None, None)["rois"], boxes)
