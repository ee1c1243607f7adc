import re

import numpy as np
import pytest

from mrcnn import metrics
from mrcnn import utils as image_metrics

CELLS = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], float)
EMPTY = np.zeros((0, 4))


def make_masks(boxes, size=64):
    masks = np.zeros((size, size, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(boxes, int)):
        masks[y1:y2, x1:x2, i] = True
    return masks


def random_boxes(rng, count):
    corners = rng.integers(0, 40, (count, 2))
    return np.concatenate([corners, corners + rng.integers(4, 24, (count, 2))], axis=1).astype(float)


def test_box_iou_by_hand():
    ious = metrics.box_iou_matrix([[0, 0, 2, 2]], [[0, 1, 2, 3], [0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 1, 1]])
    np.testing.assert_allclose(ious, [[1 / 3, 1, 0, 0]])
    assert metrics.box_iou_matrix(EMPTY, CELLS).shape == (0, 2)


def test_box_iou_of_boxes_smaller_than_a_pixel():
    ious = metrics.box_iou_matrix([[0, 0, 0.5, 0.5]], [[0, 0, 0.5, 0.5], [0, 0.25, 0.5, 0.75]])
    np.testing.assert_allclose(ious, [[1, 1 / 3]])


def test_mask_iou_counts_what_is_above_a_half():
    masks = np.array([0.4, 0.5, 0.6, 1.0]).reshape(1, 4, 1)
    np.testing.assert_allclose(metrics.mask_iou_matrix(masks, np.ones((1, 4, 1))), [[1 / 2]])
    np.testing.assert_allclose(metrics.mask_iou_matrix(np.ones((1, 4, 1)), masks), [[1 / 2]])


def test_mask_iou_of_filled_boxes_is_box_iou():
    rng = np.random.default_rng(0)
    first, second = random_boxes(rng, 6), random_boxes(rng, 5)
    ious = metrics.mask_iou_matrix(make_masks(first), make_masks(second))
    np.testing.assert_allclose(ious, metrics.box_iou_matrix(first, second))
    np.testing.assert_allclose(ious.T, metrics.mask_iou_matrix(make_masks(second), make_masks(first)))


def test_mask_iou_of_nothing_is_zero_and_sizes_must_agree():
    blank = np.zeros((8, 8, 1), bool)
    np.testing.assert_array_equal(metrics.mask_iou_matrix(blank, blank), [[0]])
    assert metrics.mask_iou_matrix(blank[..., :0], blank).shape == (0, 1)
    # Without a mask on one side there is nothing to compare, whatever the sizes.
    assert metrics.mask_iou_matrix(blank, np.zeros((9, 8, 0), bool)).shape == (1, 0)
    assert metrics.mask_iou_matrix(np.zeros((9, 8, 0), bool), blank).shape == (0, 1)
    for size in ((9, 8), (8, 7)):
        with pytest.raises(ValueError, match=re.escape(f"masks are of images of (8, 8) and {size} px")):
            metrics.mask_iou_matrix(blank, np.zeros((*size, 1), bool))


def test_match_detections_gives_a_cell_to_the_best_score_once():
    ious = np.array([[0.9, 0.6], [0.8, 0.55], [0.2, 0.1]])
    np.testing.assert_array_equal(metrics.match_detections(ious, [0.5, 0.9, 0.8], 0.5), [1, 0, -1])
    np.testing.assert_array_equal(metrics.match_detections(ious, [0.5, 0.9, 0.8], 0.7), [-1, 0, -1])
    np.testing.assert_array_equal(metrics.match_detections(np.zeros((2, 0)), [0.5, 0.9]), [-1, -1])


def test_match_detections_wants_half_of_the_union_by_default():
    np.testing.assert_array_equal(metrics.match_detections(np.array([[0.5, 0.0], [0.0, 0.49]]), [0.9, 0.8]), [0, -1])


def test_match_detections_of_a_taken_cell_is_none_even_where_any_overlap_will_do():
    ious = np.array([[0.6, 0.0], [0.7, 0.0], [0.8, 0.0]])
    np.testing.assert_array_equal(metrics.match_detections(ious, [0.9, 0.8, 0.7], 0.0), [0, 1, -1])


def test_average_precision_worked_example():
    predicted = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]], float)
    value = metrics.average_precision([CELLS], [predicted], [np.array([0.9, 0.8, 0.7])])
    assert value == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_average_precision_ranks_over_all_images():
    # The false positive of the second image outranks the true positive of the first.
    value = metrics.average_precision([CELLS[:1], EMPTY], [CELLS[:1], CELLS[1:]], [np.array([0.6]), np.array([0.9])])
    assert value == pytest.approx(0.5)


def test_average_precision_of_perfect_none_and_undefined():
    scores = np.array([0.9, 0.4])
    assert metrics.average_precision([CELLS], [CELLS], [scores]) == pytest.approx(1)
    assert metrics.average_precision([CELLS], [EMPTY], [np.zeros(0)]) == 0
    assert np.isnan(metrics.average_precision([EMPTY], [CELLS], [scores]))


def test_average_precision_reaches_recalls_that_are_tenths():
    # Recall 0.7 must count as reached by 7 of 10 cells, whatever the rounding of 0.01 * 70.
    cells = np.array([[12 * i, 0, 12 * i + 10, 10] for i in range(10)], float)
    value = metrics.average_precision([cells], [cells[:7]], [np.linspace(0.9, 0.5, 7)])
    assert value == pytest.approx(71 / 101)


def test_mean_average_precision_by_hand():
    # IoU 0.8 for the one cell: right at the seven thresholds 0.5 to 0.8.
    result = metrics.mean_average_precision([CELLS[:1]], [np.array([[0, 0, 10, 8.0]])], [np.array([0.9])])
    assert result["mAP"] == pytest.approx(0.7)
    assert result["AP50"] == result["AP80"] == 1 and result["AP85"] == 0
    assert len(result) == 11


def test_mean_average_precision_uses_masks_where_given():
    boxes, scores = [CELLS[:1]], [np.array([0.9])]
    truth = make_masks(CELLS[:1])
    half = truth.copy()
    half[5:] = False
    by_mask = metrics.mean_average_precision(boxes, boxes, scores, gt_masks=[truth], pred_masks=[half])
    assert by_mask["mAP"] == pytest.approx(0.1) and by_mask["AP50"] == 1
    with pytest.raises(ValueError, match="both gt_masks and pred_masks"):
        metrics.average_precision(boxes, boxes, scores, gt_masks=[truth])
    with pytest.raises(ValueError, match="both gt_masks and pred_masks"):
        metrics.average_precision(boxes, boxes, scores, pred_masks=[truth])


def test_average_precision_invariants():
    rng = np.random.default_rng(1)
    truth = [random_boxes(rng, 4) for _ in range(5)]
    predicted = [np.concatenate([t + rng.normal(0, 2, t.shape), random_boxes(rng, 3)]) for t in truth]
    scores = [rng.uniform(size=7) for _ in truth]
    value = metrics.average_precision(truth, predicted, scores)
    assert 0 < value < 1
    # Only the order of the scores counts; images and detections come in any order; asking for more overlap
    # cannot help.
    squeezed = metrics.average_precision(truth, predicted, [s**3 for s in scores])
    assert squeezed == pytest.approx(value)
    assert metrics.average_precision(truth[::-1], predicted[::-1], scores[::-1]) == pytest.approx(value)
    order = rng.permutation(7)
    shuffled = metrics.average_precision(truth, [p[order] for p in predicted], [s[order] for s in scores])
    assert shuffled == pytest.approx(value)
    by_threshold = list(metrics.mean_average_precision(truth, predicted, scores).values())[1:]
    assert all(a >= b - 1e-9 for a, b in zip(by_threshold, by_threshold[1:], strict=False))


def test_precision_recall_at_score_counts_what_is_seen():
    predicted = np.concatenate([CELLS, [[50, 50, 60, 60]]])
    result = metrics.precision_recall_at_score([CELLS], [predicted], [np.array([0.9, 0.6, 0.8])])
    assert result["precision"] == 0.5 and result["recall"] == 0.5
    counts = (result["num_true_positives"], result["num_detections"], result["num_cells"])
    assert counts == (1, 2, 2)
    both = metrics.precision_recall_at_score([CELLS], [CELLS[::-1]], [np.array([0.9, 0.8])])
    assert (both["num_true_positives"], both["precision"], both["recall"]) == (2, 1.0, 1.0)
    nothing = metrics.precision_recall_at_score([CELLS], [predicted], [np.full(3, 0.1)])
    assert nothing["precision"] == nothing["recall"] == 0
    assert metrics.precision_recall_at_score([EMPTY], [CELLS], [np.ones(2)])["recall"] == 0


def test_scores_at_the_threshold_count():
    scores = [np.array([0.7, 0.69])]
    counted = metrics.precision_recall_at_score([CELLS], [CELLS], scores)
    assert (counted["num_detections"], counted["precision"], counted["recall"]) == (1, 1.0, 0.5)
    assert metrics.detection_rate([CELLS], [CELLS], scores) == {"images": 1.0, "cells": 0.5}
    assert metrics.detection_rate([CELLS], [CELLS[1:]], [scores[0][1:]]) == {"images": 0.0, "cells": 0.0}


def test_detection_rate_with_and_without_annotation():
    scores = [np.array([0.9]), np.array([0.8]), np.zeros(0)]
    predicted = [CELLS[:1], np.array([[40, 40, 50, 50.0]]), EMPTY]
    with_truth = metrics.detection_rate([CELLS[:1], CELLS[:1], CELLS], predicted, scores)
    assert with_truth["images"] == pytest.approx(2 / 3)
    assert with_truth["cells"] == pytest.approx(1 / 4)
    assert metrics.detection_rate(None, predicted, scores, score_threshold=0.85) == {"images": pytest.approx(1 / 3)}


def test_images_without_a_cell_count_for_precision_and_not_for_the_detection_rate():
    truth, scores = [CELLS[:1], EMPTY, EMPTY], [np.array([0.9]), np.array([0.95]), np.zeros(0)]
    predicted = [CELLS[:1], CELLS[1:2], EMPTY]
    counted = metrics.precision_recall_at_score(truth, predicted, scores)
    assert (counted["precision"], counted["recall"], counted["num_detections"]) == (0.5, 1.0, 2)
    # The better score is wrong: precision is 1/2 at every recall.
    assert metrics.average_precision(truth, predicted, scores) == pytest.approx(0.5)
    assert metrics.detection_rate(truth, predicted, scores)["images"] == 1.0
    blind = metrics.detection_rate(truth, [EMPTY, CELLS[1:2], EMPTY], [np.zeros(0), np.array([0.95]), np.zeros(0)])
    assert blind == {"images": 0.0, "cells": 0.0}
    assert metrics.detection_rate([EMPTY], [CELLS], [np.ones(2)]) == {"images": 0.0, "cells": 0.0}


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="one entry per image"):
        metrics.average_precision([CELLS], [CELLS, CELLS], [np.zeros(2)])
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"image 0 has 2 detections and {count} scores"):
            metrics.average_precision([CELLS[:1]], [CELLS], [np.zeros(count)])
    for truth in ([CELLS], [CELLS] * 3):
        with pytest.raises(ValueError, match="one entry per image"):
            metrics.detection_rate(truth, [CELLS] * 2, [np.zeros(2)] * 2)


@pytest.mark.parametrize(
    "function",
    [
        metrics.average_precision,
        metrics.mean_average_precision,
        metrics.precision_recall_at_score,
        metrics.detection_rate,
    ],
)
def test_options_are_named_and_lists_may_be(function):
    lists = {"gt_boxes": [CELLS], "pred_boxes": [CELLS], "scores": [np.ones(2)]}
    assert function(**lists) == function(*lists.values())
    with pytest.raises(TypeError, match="positional"):
        function(*lists.values(), 0.5)


def test_lists_may_be_long():
    # Beyond 256, where equal numbers need not be one object.
    boxes, scores = np.tile(CELLS[:1], (300, 1)), np.linspace(0.9, 0.8, 300)
    assert metrics.average_precision([boxes[:1]], [boxes], [scores]) == pytest.approx(1)
    rates = metrics.detection_rate([CELLS[:1]] * 300, [CELLS[:1]] * 300, [np.ones(1)] * 300)
    assert rates == {"images": 1.0, "cells": 1.0}


def single_image(predicted, class_ids, scores):
    truth = (CELLS, np.array([1, 2]), make_masks(CELLS))
    return (*truth, predicted, np.array(class_ids), np.array(scores), make_masks(predicted))


def test_compute_matches_sorts_by_score_and_wants_the_class():
    arguments = single_image(CELLS[::-1], [2, 1], [0.6, 0.9])
    gt_match, pred_match, overlaps = image_metrics.compute_matches(*arguments)
    np.testing.assert_array_equal(gt_match, [0, 1])
    np.testing.assert_array_equal(pred_match, [0, 1])
    np.testing.assert_array_equal(overlaps, np.eye(2))
    gt_match, pred_match, _ = image_metrics.compute_matches(*single_image(CELLS, [1, 1], [0.9, 0.6]))
    np.testing.assert_array_equal(gt_match, [0, -1])
    np.testing.assert_array_equal(pred_match, [0, -1])


def test_compute_ap_by_hand():
    predicted = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]], float)
    value, precisions, recalls, overlaps = image_metrics.compute_ap(
        *single_image(predicted, [1, 1, 2], [0.9, 0.8, 0.7])
    )
    assert value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    np.testing.assert_allclose(precisions, [1, 1, 2 / 3, 2 / 3, 0])
    np.testing.assert_allclose(recalls, [0, 0.5, 0.5, 1, 1])
    assert overlaps.shape == (3, 2)


def test_compute_ap_of_an_image_without_cells_or_detections_is_zero():
    blank = (EMPTY, np.zeros(0, int), make_masks(EMPTY))
    found = (CELLS, np.array([1, 2]), np.array([0.9, 0.8]), make_masks(CELLS))
    none = (EMPTY, np.zeros(0, int), np.zeros(0), make_masks(EMPTY))
    assert image_metrics.compute_ap(*blank, *found)[0] == 0
    assert image_metrics.compute_ap(CELLS, np.array([1, 2]), make_masks(CELLS), *none)[0] == 0


def test_compute_ap_range_averages_over_thresholds():
    arguments = single_image(np.array([[0, 0, 10, 8], [20, 20, 30, 30]], float), [1, 2], [0.9, 0.8])
    # The first has IoU 0.8; above that threshold its AP is the second's alone: recall 1/2 at precision 1/2.
    assert image_metrics.compute_ap_range(*arguments, verbose=0) == pytest.approx(0.7 * 1 + 0.3 * 0.25)
    assert image_metrics.compute_ap_range(*arguments, iou_thresholds=[0.5], verbose=0) == 1


def test_compute_recall():
    recall, positive = image_metrics.compute_recall(np.concatenate([CELLS[:1], CELLS[:1] + 1]), CELLS, 0.6)
    assert recall == 0.5
    np.testing.assert_array_equal(positive, [0, 1])
    assert image_metrics.compute_recall(EMPTY, CELLS, 0.5)[0] == 0
