import numpy as np
import pytest
from skimage.transform import resize as resize_with_skimage

from mrcnn import utils


def test_compute_overlaps_of_boxes_and_masks_takes_matterports_keywords():
    boxes = np.array([[0, 0, 2, 2], [0, 1, 2, 3]])
    masks = np.zeros((4, 4, 2), bool)
    masks[:2, :2, 0] = masks[:2, 1:3, 1] = True
    expected = [[1, 1 / 3], [1 / 3, 1]]
    np.testing.assert_allclose(utils.compute_overlaps(boxes1=boxes, boxes2=boxes), expected)
    np.testing.assert_allclose(utils.compute_iou(boxes[0], boxes, 4.0, np.array([4.0, 4.0])), expected[0])
    np.testing.assert_allclose(utils.compute_overlaps_masks(masks1=masks, masks2=masks), expected)
    assert utils.compute_overlaps_masks(masks, masks[..., :0]).shape == (2, 0)
    soft = np.array([0.4, 0.5, 0.6, 1.0]).reshape(1, 4, 1)  # above a half is inside
    np.testing.assert_allclose(utils.compute_overlaps_masks(soft, np.ones((1, 4, 1))), [[1 / 2]])
    np.testing.assert_allclose(utils.compute_overlaps_masks(0 * soft, 0 * soft), [[0]])


def test_non_max_suppression_known_answer():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 9]], float)
    scores = np.array([0.6, 0.9, 0.3, 0.8])
    kept = utils.non_max_suppression(boxes, scores, 0.5)
    assert kept.dtype == np.int32
    np.testing.assert_array_equal(kept, [1, 2])
    # Box 3 overlaps box 1 by 81 / 109, box 0 overlaps box 3 by 90 / 100.
    np.testing.assert_array_equal(utils.non_max_suppression(boxes, scores, 0.8), [1, 3, 2])


def test_norm_boxes_sends_the_whole_image_to_the_unit_box_and_back():
    boxes = np.array([[0, 0, 100, 200], [10, 20, 30, 40]])
    normalised = utils.norm_boxes(boxes, (100, 200))
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised[0], [0, 0, 1, 1])
    np.testing.assert_allclose(normalised[1], [10 / 99, 20 / 199, 29 / 99, 39 / 199], rtol=1e-6)
    np.testing.assert_array_equal(utils.denorm_boxes(normalised, (100, 200)), boxes)


def test_box_deltas_round_trip():
    boxes = np.array([[0, 0, 10, 10], [5, 6, 25, 46]], float)
    targets = np.array([[2, 1, 14, 8], [0, 10, 40, 30]], float)
    deltas = utils.box_refinement(boxes, targets)
    np.testing.assert_allclose(deltas[0], [0.3, -0.05, np.log(1.2), np.log(0.7)], rtol=1e-6)
    np.testing.assert_allclose(utils.box_refinement_graph(boxes, targets), deltas, rtol=1e-5)
    np.testing.assert_allclose(utils.apply_box_deltas(boxes, deltas), targets, atol=1e-4)


def test_resize_is_that_of_scikit_image():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    half = utils.resize(image, (10, 15))
    assert half.shape == (10, 15, 3) and 0 <= half.min() and half.max() <= 1
    np.testing.assert_array_equal(half, resize_with_skimage(image, (10, 15), mode="constant", anti_aliasing=False))
    np.testing.assert_allclose(utils.resize(image, (10, 15), preserve_range=True), 255 * half, rtol=1e-6)
    assert utils.resize(image[..., 0] > 99, (40, 40)).dtype == np.float64  # scripts threshold it


def test_generate_anchors_with_several_scales_puts_them_innermost():
    anchors = utils.generate_anchors((8, 16), (1, 4), (1, 2), 10, 1)
    heights, widths = (anchors[:, 2:] - anchors[:, :2]).T
    np.testing.assert_allclose(heights, [8, 16, 4, 8] * 2)
    np.testing.assert_allclose(widths, [8, 16, 16, 32] * 2)
    np.testing.assert_allclose((anchors[:, :2] + anchors[:, 2:]) / 2, [[0, 0]] * 4 + [[0, 10]] * 4)


def test_batch_slice_stacks_one_output_and_gives_a_list_for_several():
    values, index = np.arange(12, dtype=np.float32).reshape(2, 3, 2), np.array([[0, 2], [1, 1]])
    taken = utils.batch_slice([values, index], lambda v, i: v[i[0]] + v[i[1]], 2)
    np.testing.assert_array_equal(taken, [values[0, 0] + values[0, 2], 2 * values[1, 1]])
    total, doubled = utils.batch_slice(values, lambda v: (v.sum(), 2 * v), 2, names=["total", "doubled"])
    np.testing.assert_array_equal(total, [15, 51])
    np.testing.assert_array_equal(doubled, 2 * values)


CELLS, EMPTY = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], float), np.zeros((0, 4))


def make_masks(boxes, size=64):
    masks = np.zeros((size, size, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(boxes, int)):
        masks[y1:y2, x1:x2, i] = True
    return masks


def single_image(predicted, class_ids, scores):
    truth = (CELLS, np.array([1, 2]), make_masks(CELLS))
    return (*truth, predicted, np.array(class_ids), np.array(scores), make_masks(predicted))


def test_compute_matches_sorts_by_score_and_wants_the_class():
    arguments = single_image(CELLS[::-1], [2, 1], [0.6, 0.9])
    gt_match, pred_match, overlaps = utils.compute_matches(*arguments)
    np.testing.assert_array_equal(gt_match, [0, 1])
    np.testing.assert_array_equal(pred_match, [0, 1])
    np.testing.assert_array_equal(overlaps, np.eye(2))
    gt_match, pred_match, _ = utils.compute_matches(*single_image(CELLS, [1, 1], [0.9, 0.6]))
    np.testing.assert_array_equal(gt_match, [0, -1])
    np.testing.assert_array_equal(pred_match, [0, -1])


def test_compute_ap_by_hand():
    predicted = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]], float)
    value, precisions, recalls, overlaps = utils.compute_ap(*single_image(predicted, [1, 1, 2], [0.9, 0.8, 0.7]))
    assert value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    np.testing.assert_allclose(precisions, [1, 1, 2 / 3, 2 / 3, 0])
    np.testing.assert_allclose(recalls, [0, 0.5, 0.5, 1, 1])
    assert overlaps.shape == (3, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("truth", "predicted", "value", "recall"),
    # Without cells Matterport's division by their number gives NaN, and with neither its sum is over nothing.
    [(EMPTY, CELLS, np.nan, np.nan), (CELLS, EMPTY, 0, 0), (EMPTY, EMPTY, 0, np.nan), (CELLS, CELLS, 1, 1)],
)
def test_scores_of_an_image_without_cells_or_detections_are_matterports(truth, predicted, value, recall):
    cells, found = ((boxes, np.arange(1, len(boxes) + 1), make_masks(boxes)) for boxes in (truth, predicted))
    arguments = (*cells, *found[:2], np.linspace(0.9, 0.8, len(predicted)), found[2])
    assert utils.compute_ap(*arguments)[0] == pytest.approx(value, nan_ok=True)
    assert utils.compute_ap_range(*arguments, verbose=0) == pytest.approx(value, nan_ok=True)
    assert utils.compute_recall(predicted, truth, 0.5)[0] == pytest.approx(recall, nan_ok=True)


def test_compute_ap_range_averages_over_thresholds():
    arguments = single_image(np.array([[0, 0, 10, 8], [20, 20, 30, 30]], float), [1, 2], [0.9, 0.8])
    # The first has IoU 0.8; above that threshold its AP is the second's alone: recall 1/2 at precision 1/2.
    assert utils.compute_ap_range(*arguments, verbose=0) == pytest.approx(0.7 * 1 + 0.3 * 0.25)
    assert utils.compute_ap_range(*arguments, iou_thresholds=[0.5], verbose=0) == 1


def test_compute_recall():
    recall, positive = utils.compute_recall(np.concatenate([CELLS[:1], CELLS[:1] + 1]), CELLS, 0.6)
    assert recall == 0.5
    np.testing.assert_array_equal(positive, [0, 1])
