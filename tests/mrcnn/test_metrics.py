import numpy as np
import pytest

from mrcnn.metrics import Comparison

CELLS = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], float)
EMPTY = np.zeros((0, 4))


def make_masks(boxes, size=64):
    masks = np.zeros((size, size, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(boxes, int)):
        masks[y1:y2, x1:x2, i] = True
    return masks


def compare(*images, by="bbox"):
    """Images are (cells, detections, scores) or (cells, detections, scores, which cells are crowds)."""
    comparison = Comparison(by)
    for cells, found, scores, *crowds in images:
        if by == "segm":
            cells, found = make_masks(cells), make_masks(found)
        comparison.add(cells, crowds[0] if crowds else [False] * cells.shape[-1 if by == "segm" else 0], found, scores)
    return comparison


WRONG = np.array([[50, 50, 60, 60]], float)


@pytest.mark.parametrize("by", ["bbox", "segm"])
def test_average_precision_worked_example(by):
    predicted = np.concatenate([CELLS[:1], WRONG, CELLS[1:]])
    measured = compare((CELLS, predicted, [0.9, 0.8, 0.7]), by=by).average_precision()
    assert list(measured) == ["mAP", *(f"AP{percent}" for percent in range(50, 100, 5))]
    assert measured == pytest.approx(dict.fromkeys(measured, (51 + 50 * 2 / 3) / 101))


def test_average_precision_ranks_over_all_images():
    # The false positive of the second image outranks the true positive of the first.
    comparison = compare((CELLS[:1], CELLS[:1], [0.6]), (EMPTY, CELLS[1:], [0.9]))
    assert comparison.average_precision()["AP50"] == pytest.approx(0.5)
    assert comparison.precision_recall(0.5) == (0.5, 1.0)


@pytest.mark.parametrize("by", ["bbox", "segm"])
def test_average_precision_of_perfect_none_and_undefined(by):
    assert compare((CELLS, CELLS, [0.9, 0.4]), by=by).average_precision()["mAP"] == pytest.approx(1)
    assert compare((CELLS, EMPTY, []), by=by).average_precision()["mAP"] == 0
    assert np.isnan(compare((EMPTY, CELLS, [0.9, 0.4]), by=by).average_precision()["mAP"])
    assert np.isnan(Comparison(by).average_precision()["mAP"])


def test_average_precision_of_masks_looks_at_pixels():
    half = make_masks(CELLS[:1])
    half[5:] = False
    comparison = Comparison("segm")
    comparison.add(make_masks(CELLS[:1]), [False], half, [0.9])
    measured = comparison.average_precision()
    assert measured["mAP"] == pytest.approx(0.1) and measured["AP50"] == 1


def test_average_precision_counts_more_than_a_hundred_detections():
    # 120 false alarms outrank the second cell.
    predicted = np.concatenate([CELLS[:1], np.tile(WRONG, (120, 1)), CELLS[1:]])
    measured = compare((CELLS, predicted, np.linspace(0.9, 0.1, 122))).average_precision()
    assert measured["AP50"] == pytest.approx((51 + 50 * 2 / 122) / 101)


@pytest.mark.parametrize("by", ["bbox", "segm"])
def test_what_is_found_on_a_crowd_counts_neither_as_right_nor_as_wrong(by):
    crowd = np.array([[32, 0, 64, 64]], float)
    cells = np.concatenate([CELLS, crowd])
    on_crowd = np.array([[40, 0, 50, 20], [50, 30, 60, 60]], float)
    found = np.concatenate([on_crowd, CELLS[:1], [[0, 40, 10, 60]], CELLS[1:]])
    scores = [0.99, 0.98, 0.9, 0.8, 0.7]
    comparison = compare((cells, found, scores, [False, False, True]), by=by)
    assert comparison.average_precision()["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert comparison.precision_recall(0.75) == (0.5, 0.5)
    kept, correct, num_cells = comparison.matches()
    assert kept.tolist() == [0.9, 0.8, 0.7] and correct.tolist() == [True, False, True] and num_cells == 2
    as_cell = compare((cells, found, scores), by=by)
    assert as_cell.precision_recall(0.75) == (0.25, 1 / 3)


def test_matches_give_a_cell_to_the_best_score_once():
    found = np.concatenate([CELLS[:1], CELLS[:1] + 1, CELLS[1:]])
    scores, correct, num_cells = compare((CELLS, found, [0.5, 0.9, 0.8])).matches()
    assert dict(zip(scores.tolist(), correct.tolist(), strict=True)) == {0.9: True, 0.8: True, 0.5: False}
    assert num_cells == 2


def test_precision_recall_counts_what_is_seen():
    comparison = compare((CELLS, np.concatenate([CELLS, WRONG]), [0.7, 0.6, 0.8]))
    assert comparison.precision_recall(0.7) == (0.5, 0.5)
    assert comparison.precision_recall(0.9) == compare((EMPTY, CELLS, [1, 1])).precision_recall(0.5) == (0.0, 0.0)
