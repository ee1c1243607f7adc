"""Average precision against COCO's own evaluation code, and where the two part.

They agree, score by score, but for three conventions:

- COCO looks at the 100 best detections of an image, we at all of them (`maxDets` below says how many).
- COCO compares recalls with 0, 0.01, ..., 1 as floating point has them, so that 7 of 10 cells do not reach its recall
  of 0.7 (0.7000000000000001); here they do. A number of cells that shares no divisor with 100 cannot tell.
- Of several cells that a detection overlaps equally, COCO takes the last and we take the first.
"""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn import metrics

SIZE = 64


def coco_box(box) -> list[float]:
    y1, x1, y2, x2 = (float(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]


def coco_evaluation(truth, predicted, scores, masks=None, max_detections=100) -> dict[str, float]:
    """ "mAP" and "AP50" ... "AP95" of pycocotools for lists of boxes; with `masks` (truth, predicted) for masks."""

    def entries(boxes, image_masks):
        for image_id, image_boxes in enumerate(boxes, 1):
            for i, box in enumerate(image_boxes):
                entry = {"image_id": image_id, "category_id": 1, "bbox": coco_box(box)}
                if image_masks is not None:
                    mask = np.asfortranarray(image_masks[image_id - 1][..., i].astype(np.uint8))
                    entry["segmentation"] = coco_masks.encode(mask)
                yield image_id, i, entry

    gt_masks, pred_masks = masks or (None, None)
    annotations = [
        entry | {"id": number, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
        for number, (_, _, entry) in enumerate(entries(truth, gt_masks), 1)
    ]
    results = [
        entry | {"score": float(scores[image_id - 1][i])} for image_id, i, entry in entries(predicted, pred_masks)
    ]
    if masks:
        results = [{name: value for name, value in entry.items() if name != "bbox"} for entry in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i, "height": SIZE, "width": SIZE} for i in range(1, len(truth) + 1)],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm" if masks else "bbox")
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    # Thresholds, recalls, classes, areas (all of them first), numbers of detections.
    precisions = evaluation.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
    names = [f"AP{round(100 * t)}" for t in evaluation.params.iouThrs]
    return {"mAP": precisions.mean(), **dict(zip(names, precisions, strict=True))}


def random_boxes(rng, count) -> np.ndarray:
    corners, sides = rng.uniform(0, 40, (count, 2)), rng.uniform(4, 24, (count, 2))
    return np.concatenate([corners, corners + sides], axis=1)


def random_detections(seed, num_cells=103, num_images=30, decimals=None):
    """So many cells on images of none to many, found well, badly, twice or not at all, among false alarms."""
    rng = np.random.default_rng(seed)
    # Some images have no cell, some no detection, some neither.
    owner = rng.integers(0, num_images - 6, num_cells)
    truth = [random_boxes(rng, int((owner == i).sum())) for i in range(num_images)]
    predicted, scores = [], []
    for i, boxes in enumerate(truth):
        spread = rng.choice([0.3, 1.0, 3.0], (len(boxes), 1))
        near = np.concatenate([boxes + rng.normal(0, spread, boxes.shape), boxes + rng.normal(0, 2, boxes.shape)])
        near = near[rng.random(len(near)) > 0.4]
        found = np.concatenate([near, random_boxes(rng, int(rng.integers(0, 4)))])
        found = found[(found[:, 2:] > found[:, :2] + 1).all(axis=1)]
        found = found[:0] if i % 7 == 3 or i >= num_images - 2 else rng.permutation(found)
        predicted.append(found)
        scores.append(rng.random(len(found)).round(decimals) if decimals is not None else rng.random(len(found)))
    assert any(len(t) == 0 and len(p) for t, p in zip(truth, predicted, strict=True))
    assert any(len(t) and len(p) == 0 for t, p in zip(truth, predicted, strict=True))
    return truth, predicted, scores


def filled(rng, boxes) -> np.ndarray:
    """A mask in each box, bool (SIZE, SIZE, n): an ellipse with a few pixels missing."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    masks = np.zeros((SIZE, SIZE, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        radii = (2 * y - y1 - y2) ** 2 / (y2 - y1) ** 2 + (2 * x - x1 - x2) ** 2 / (x2 - x1) ** 2
        masks[..., i] = (radii <= 1) & (rng.random((SIZE, SIZE)) > 0.1)
    return masks


@pytest.mark.parametrize("decimals", [None, 1], ids=["all scores differ", "many scores are equal"])
@pytest.mark.parametrize("seed", range(4))
def test_mean_average_precision_of_boxes_is_that_of_coco(seed, decimals):
    detections = random_detections(seed, decimals=decimals)
    ours, expected = metrics.mean_average_precision(*detections), coco_evaluation(*detections)
    assert 0.1 < expected["mAP"] < expected["AP50"] < 0.95
    assert ours == pytest.approx(expected, abs=1e-9)
    at_half = metrics.average_precision(*detections, iou_threshold=0.75)
    assert at_half == pytest.approx(expected["AP75"], abs=1e-9)


@pytest.mark.parametrize("decimals", [None, 1], ids=["all scores differ", "many scores are equal"])
@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision_of_masks_is_that_of_coco(seed, decimals):
    truth, predicted, scores = random_detections(seed, 53, 20, decimals)
    rng = np.random.default_rng(seed)
    gt_masks, pred_masks = ([filled(rng, boxes) for boxes in image_boxes] for image_boxes in (truth, predicted))
    ours = metrics.mean_average_precision(truth, predicted, scores, gt_masks=gt_masks, pred_masks=pred_masks)
    expected = coco_evaluation(truth, predicted, scores, (gt_masks, pred_masks))
    assert 0.02 < expected["mAP"] < expected["AP50"] < 0.95
    assert ours == pytest.approx(expected, abs=1e-9)


def hidden_recalls(num_cells: int) -> int:
    """How many of COCO's recalls are whole numbers of cells that rounding puts out of reach."""
    recalls = np.linspace(0, 1, 101)
    whole = [k for k in range(101) if k * num_cells % 100 == 0]
    return sum(k * num_cells // 100 / num_cells < recalls[k] for k in whole)


@pytest.mark.parametrize("num_cells", [20, 40, 100])
def test_mean_average_precision_parts_from_coco_by_the_recalls_that_rounding_hides(num_cells):
    detections = random_detections(5, num_cells, 20)
    ours, expected = metrics.mean_average_precision(*detections), coco_evaluation(*detections)
    assert hidden_recalls(103) == hidden_recalls(53) == 0 < hidden_recalls(num_cells) <= 10
    differences = np.array([ours[name] - expected[name] for name in ours])
    assert (differences >= -1e-9).all() and (differences <= hidden_recalls(num_cells) / 101 + 1e-9).all()
    assert differences.any()


def test_average_precision_counts_seven_of_ten_cells_as_a_recall_of_seven_tenths():
    cells = np.array([[6 * i, 0, 6 * i + 4, 10] for i in range(10)], float)
    detections = [cells], [cells[:7]], [np.linspace(0.9, 0.5, 7)]
    assert metrics.average_precision(*detections) == pytest.approx(71 / 101)
    assert coco_evaluation(*detections)["AP50"] == pytest.approx(70 / 101)


def test_average_precision_counts_all_detections_and_coco_the_best_hundred():
    rng = np.random.default_rng(0)
    cells = random_boxes(rng, 7)
    # 120 false alarms outrank the last four cells.
    predicted = [np.concatenate([cells[:3], np.tile([[60.0, 60.0, 63.0, 63.0]], (120, 1)), cells[3:]])]
    scores = [np.linspace(0.9, 0.1, 127)]
    ours = metrics.mean_average_precision([cells], predicted, scores)
    assert ours == pytest.approx(coco_evaluation([cells], predicted, scores, max_detections=1000), abs=1e-9)
    assert coco_evaluation([cells], predicted, scores)["AP50"] == pytest.approx(43 / 101)
    assert ours["AP50"] == pytest.approx((43 + 58 * 7 / 127) / 101)


def test_average_precision_gives_a_detection_between_two_cells_to_the_first_and_coco_to_the_last():
    # The first detection overlaps both cells by 2/3; the second is the first cell, and the other is too far from it.
    cells = np.array([[0, 0, 10, 10], [0, 4, 10, 14]], float)
    arguments = [cells], [np.array([[0, 2, 10, 12], [0, 0, 10, 10]], float)], [np.array([0.9, 0.8])]
    assert metrics.average_precision(*arguments) == pytest.approx(51 / 101)
    assert coco_evaluation(*arguments)["AP50"] == pytest.approx(1)


def test_average_precision_without_cells_is_undefined_in_both():
    nothing, some = [np.zeros((0, 4))], [random_boxes(np.random.default_rng(0), 3)]
    scores = [np.array([0.9, 0.8, 0.7])]
    assert np.isnan(metrics.average_precision(nothing, some, scores))
    assert coco_evaluation(nothing, some, scores)["AP50"] == -1
