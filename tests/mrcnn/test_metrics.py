import numpy as np
import pytest

from mrcnn.metrics import Comparison, PartsComparison

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


def found(cells, nuclei, scores):
    return {"masks": make_masks(cells), "nucleus_masks": make_masks(nuclei), "scores": np.array(scores)}


NUCLEI = np.array([[2, 2, 8, 8], [22, 22, 28, 28]], float)
HALF = np.array([[2, 2, 8, 5]], float)
NO_BOX = np.zeros((1, 4))


def compare_parts(*images):
    """Images are (cells, nuclei, result) or (cells, nuclei, result, which cells are crowds)."""
    comparison = PartsComparison(("cell", "nucleus"), 0.5)
    for cells, nuclei, result, *crowds in images:
        comparison.add(
            make_masks(cells), crowds[0] if crowds else [False] * len(cells), {"nucleus": make_masks(nuclei)}, result
        )
    return comparison.measures()


def test_parts_worked_example():
    # The first nucleus is half right (IoU 1/2, Dice 2/3); the second cell is found below the operating score.
    measured = compare_parts((CELLS, NUCLEI, found(CELLS, np.concatenate([HALF, NUCLEI[1:]]), [0.9, 0.4])))
    assert measured == pytest.approx(
        {
            "cell_dice": 0.5,
            "nucleus_dice": 1 / 3,
            "nucleus_ap50": 1.0,  # average precision goes down to every score
            "nucleus_map": (1 + 9 * (51 * 0.5) / 101) / 10,
            "both_parts": 0.5,
        }
    )


def test_parts_of_a_perfect_detector_and_of_one_that_finds_nothing():
    perfect = compare_parts((CELLS, NUCLEI, found(CELLS[::-1], NUCLEI[::-1], [0.9, 0.8])))
    assert set(perfect.values()) == {1.0}
    nothing = compare_parts((CELLS, NUCLEI, found(EMPTY, EMPTY, [])))
    assert set(nothing.values()) == {0.0} and nothing.keys() == perfect.keys()


def test_parts_that_are_not_known_do_not_count():
    nuclei = np.concatenate([NUCLEI[:1], NO_BOX])
    # What is drawn in the cell of the unknown nucleus has the better score, and is neither right nor wrong.
    measured = compare_parts((CELLS, nuclei, found(CELLS, np.concatenate([NUCLEI[:1], NUCLEI[1:] + 1]), [0.8, 0.9])))
    assert set(measured.values()) == {1.0}
    unknown = compare_parts((CELLS, NO_BOX.repeat(2, axis=0), found(CELLS, NUCLEI, [0.8, 0.9])))
    assert unknown == {"cell_dice": 1.0}


def test_parts_of_crowds_do_not_count():
    result = found(CELLS, NUCLEI, [0.9, 0.8])
    measured = compare_parts((CELLS, NUCLEI, result, [False, True]), (CELLS, NUCLEI, result))
    assert set(measured.values()) == {1.0}
    assert compare_parts((EMPTY, EMPTY, result)) == {"cell_dice": None}


def test_parts_nucleus_of_another_detection_does_not_help():
    # The cell is drawn right by one detection, its nucleus by another.
    result = found(np.concatenate([CELLS[:1], WRONG]), np.concatenate([WRONG, NUCLEI[:1]]), [0.9, 0.8])
    measured = compare_parts((CELLS[:1], NUCLEI[:1], result))
    assert (measured["cell_dice"], measured["nucleus_dice"], measured["both_parts"]) == (1.0, 0.0, 0.0)
