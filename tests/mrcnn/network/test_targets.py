import cv2
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.network import boxes as box_ops
from mrcnn.network.targets import assign_anchor_targets, assign_roi_targets, crop_masks, subsample

STD = (0.1, 0.1, 0.2, 0.2)
SEED = tf.constant([[1, 2]])
SHAPE = (64, 64)
WHOLE_IMAGE = np.array([0, 0, 64, 64], np.float32)


def seeds_of(batch: int, start: int = 0) -> np.ndarray:
    """A seed for each row of a batch."""
    return np.stack([np.full(batch, 3), 8 * np.arange(start, start + batch)], axis=1).astype(np.int32)


def grid_anchors(side: float = 0.25, step: float = 0.05) -> np.ndarray:
    corners = np.stack(np.meshgrid(*[np.arange(0, 1 - side + 1e-6, step)] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.concatenate([corners, corners + side], axis=1).astype(np.float32)


def one_cell(box=(0.2, 0.3, 0.45, 0.55), rows: int = 3) -> tuple[np.ndarray, np.ndarray]:
    boxes, ids = np.zeros((1, rows, 4), np.float32), np.zeros((1, rows), np.int32)
    boxes[0, 0], ids[0, 0] = box, 1
    return boxes, ids


def roi_targets(proposals, gt_boxes, gt_ids, num_rois=8, positive_ratio=0.5, seeds=SEED):
    proposals = np.asarray(proposals, np.float32)
    gt_masks = np.ones((*gt_ids.shape, 56, 56), bool)
    return assign_roi_targets(
        proposals, gt_boxes, gt_ids, gt_masks, gt_boxes, seeds, num_rois, positive_ratio, STD, 28, SHAPE
    )


def test_subsample_keeps_a_subset_of_the_wanted_size():
    candidates = np.random.default_rng(0).random((3, 40)) > 0.4
    kept = subsample(candidates, 10, seeds_of(3)).numpy()
    assert not (kept & ~candidates).any()
    np.testing.assert_array_equal(kept.sum(axis=1), [10, 10, 10])


def test_subsample_keeps_all_of_too_few():
    candidates = np.eye(4, 9, dtype=bool)
    np.testing.assert_array_equal(subsample(candidates, 5, seeds_of(4)), candidates)


def test_subsample_takes_a_number_for_each_row():
    kept = subsample(np.ones((2, 9), bool), tf.constant([[2], [0]]), seeds_of(2)).numpy()
    np.testing.assert_array_equal(kept.sum(axis=1), [2, 0])


def test_subsample_follows_its_seed():
    candidates = np.ones((1, 100), bool)
    first, again, other = (subsample(candidates, 10, tf.constant([[0, s]])).numpy() for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_anchor_targets_match_by_overlap():
    anchors = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.4], [0, 0, 0.5, 0.2], [0.6, 0.6, 0.9, 0.9]], np.float32)
    gt_boxes, gt_ids = one_cell((0, 0, 0.5, 0.5))
    targets = assign_anchor_targets(anchors, gt_boxes, gt_ids, SEED, 10, STD)
    # IoU 1, 0.8, 0.4 and 0: two objects, one in between that is not used, one background.
    np.testing.assert_array_equal(targets.match[0], [1, 1, 0, -1])
    expected = box_ops.encode(anchors[1:2], gt_boxes[0, :1]) / np.array(STD)
    np.testing.assert_allclose(targets.deltas[0, 1], expected[0], rtol=1e-5)
    assert not targets.deltas.numpy()[0, [0, 2, 3]].any()


def test_anchor_targets_give_each_cell_its_best_anchor():
    anchors = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    gt_boxes, gt_ids = one_cell((0.1, 0.1, 0.2, 0.2))  # IoU 0.04 with the first
    np.testing.assert_array_equal(assign_anchor_targets(anchors, gt_boxes, gt_ids, SEED, 4, STD).match, [[1, -1]])


def rows(*widths: float) -> np.ndarray:
    """Boxes of height 1 and these widths, side by side with the same corner."""
    return np.array([[0, 0, 1, width] for width in widths], np.float32)


def test_anchor_targets_at_the_thresholds_are_objects_and_no_background():
    # Inside a cell that is 10 wide the IoU is a tenth of the width; the widest anchor is the best.
    anchors, gt_boxes = rows(9, 7, 6.9, 3, 2.9), rows(10)[np.newaxis]
    match = assign_anchor_targets(anchors, gt_boxes, np.array([[1]]), SEED, 10, STD).match
    np.testing.assert_array_equal(match, [[1, 1, 0, 0, -1]])


def test_anchor_targets_next_to_a_crowd_are_no_background():
    # IoU 1/1000 and less with the crowd.
    gt_boxes = rows(1000)[np.newaxis]
    match = assign_anchor_targets(rows(1, 0.5), gt_boxes, np.array([[-1]]), SEED, 10, STD).match
    np.testing.assert_array_equal(match, [[0, -1]])


def test_anchor_targets_of_a_cell_that_no_anchor_overlaps_are_background():
    gt_boxes, gt_ids = one_cell((0.6, 0.6, 0.9, 0.9))
    anchors = np.array([[0, 0, 0.5, 0.5], [0.1, 0, 0.6, 0.5]], np.float32)
    np.testing.assert_array_equal(assign_anchor_targets(anchors, gt_boxes, gt_ids, SEED, 4, STD).match, [[-1, -1]])


def test_targets_draw_objects_by_the_seed_and_background_by_the_next():
    gt_boxes, gt_ids = one_cell((0, 0, 0.5, 0.5))
    near, far = np.float32([0, 0, 0.5, 0.5]), np.float32([0.5, 0.5, 1, 1])
    boxes, seed = np.stack([near, far] * 30), np.array([[7, 11]], np.int32)
    is_near = np.arange(60) % 2 == 0
    match = assign_anchor_targets(boxes, gt_boxes, gt_ids, seed, 20, STD).match.numpy()
    np.testing.assert_array_equal(match == 1, subsample(is_near[np.newaxis], 10, seed))
    np.testing.assert_array_equal(match == -1, subsample(~is_near[np.newaxis], 10, seed + 1))

    # Boxes that can be told apart, none of them further than a thousandth from where it was.
    boxes[:, 0] += np.arange(60) / 60_000
    # The last of 11 rows is the sixth positive, where the ratio would have six negatives.
    for num_rois, ratio, num_near, num_far in ((20, 0.5, 10, 10), (40, 0.2, 8, 30), (11, 0.5, 6, 5)):
        kept = [
            subsample(is_near[np.newaxis], num_near, seed)[0].numpy(),
            subsample(~is_near[np.newaxis], num_far, seed + 1)[0].numpy(),
        ]
        rois = roi_targets(boxes[np.newaxis], gt_boxes, gt_ids, num_rois, ratio, seed).rois.numpy()[0]
        expected = np.concatenate([boxes[kept[0]], boxes[kept[1]]])
        np.testing.assert_array_equal(rois[: len(expected)], expected)
        assert not rois[len(expected) :].any()


def test_anchor_targets_keep_the_quotas():
    anchors = np.repeat(grid_anchors(), 3, axis=0)
    gt_boxes, gt_ids = one_cell()
    match = assign_anchor_targets(anchors, gt_boxes, gt_ids, SEED, 8, STD, 0.4, 0.3).match.numpy()
    assert (match == 1).sum() == 4 and (match == -1).sum() == 4
    few = assign_anchor_targets(grid_anchors(step=0.25), gt_boxes, gt_ids, SEED, 8, STD).match.numpy()
    assert (few == 1).sum() == 1 and (few == -1).sum() == 7


def test_anchor_targets_without_cells_are_background():
    gt_boxes, gt_ids = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.int32)
    targets = assign_anchor_targets(grid_anchors(), gt_boxes, gt_ids, seeds_of(2), 16, STD)
    np.testing.assert_array_equal((targets.match.numpy() == -1).sum(axis=1), [16, 16])
    assert not (targets.match.numpy() == 1).any() and not targets.deltas.numpy().any()


def test_roi_targets_keep_the_quotas_positives_first():
    gt_boxes, gt_ids = one_cell()
    gt_ids[0, 0] = 2
    near = np.repeat(gt_boxes[:, :1], 9, axis=1) + 0.002 * np.arange(9)[:, np.newaxis]
    far = np.tile(np.array([0.7, 0.7, 0.9, 0.9], np.float32), (1, 20, 1))
    targets = roi_targets(np.concatenate([far, near], axis=1), gt_boxes, gt_ids, 12, 0.25)
    np.testing.assert_array_equal(targets.class_ids[0], [2] * 3 + [0] * 9)
    assert targets.valid.numpy().all() and targets.masks.shape == (1, 3, 28, 28)
    assert not targets.deltas.numpy()[0, 3:].any()
    np.testing.assert_allclose(
        box_ops.decode(targets.rois[0, :3], targets.deltas[0, :3] * np.array(STD)),
        [gt_boxes[0, 0]] * 3,
        atol=1e-5,
    )


def test_roi_targets_keep_the_ratio_when_positives_are_few():
    gt_boxes, gt_ids = one_cell()
    far = np.tile(np.array([0.7, 0.7, 0.9, 0.9], np.float32), (1, 20, 1))
    targets = roi_targets(np.concatenate([gt_boxes[:, :1], far], axis=1), gt_boxes, gt_ids, 12, 0.25)
    assert int(tf.reduce_sum(tf.cast(targets.valid, tf.int32))) == 4
    assert not targets.rois.numpy()[0, 4:].any() and not targets.masks.numpy()[0, 1:].any()


def test_roi_targets_have_one_positive_at_the_smallest_ratio():
    gt_boxes, gt_ids = one_cell()
    targets = roi_targets(np.repeat(gt_boxes[:, :1], 3, axis=1), gt_boxes, gt_ids, 4, 0.1)
    np.testing.assert_array_equal(targets.class_ids, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(targets.valid, [[True, False, False, False]])
    assert targets.masks.shape == (1, 1, 28, 28)


def test_roi_targets_at_the_threshold_are_positive():
    # IoU 1/2 and less.
    targets = roi_targets(rows(5, 4.9)[np.newaxis], rows(10)[np.newaxis], np.array([[1]]), 4, 0.5)
    np.testing.assert_array_equal(targets.rois[0, :2], rows(5, 4.9))
    np.testing.assert_array_equal(targets.class_ids, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(targets.valid, [[True, True, False, False]])


def test_roi_targets_without_cells_are_negatives():
    gt_boxes, gt_ids = np.zeros((1, 3, 4), np.float32), np.zeros((1, 3), np.int32)
    targets = roi_targets(grid_anchors()[np.newaxis, :10], gt_boxes, gt_ids)
    assert targets.valid.numpy().all() and not targets.class_ids.numpy().any()
    assert np.isfinite(targets.deltas).all() and not targets.masks.numpy().any()


@pytest.mark.parametrize("num_proposals", [3, 10])
def test_roi_targets_of_padding_are_padding(num_proposals):
    gt_boxes, gt_ids = one_cell()
    targets = roi_targets(np.zeros((1, num_proposals, 4)), gt_boxes, gt_ids)
    assert targets.rois.shape == (1, 8, 4)
    assert not targets.valid.numpy().any() and not targets.class_ids.numpy().any()
    assert all(np.isfinite(tf.cast(value, tf.float32)).all() for value in targets)


def test_roi_targets_follow_their_seed():
    gt_boxes, gt_ids = one_cell()
    first, again, other = (
        roi_targets(grid_anchors()[np.newaxis], gt_boxes, gt_ids, seeds=tf.constant([[0, s]])).rois.numpy()
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.fixture(scope="module")
def ellipse():
    mask = np.zeros(SHAPE, np.uint8)
    cv2.ellipse(mask, (30, 34), (17, 12), 25, 0, 360, 1, -1)
    return mask[..., np.newaxis] > 0


def full_crop(mask, rois, size=28) -> np.ndarray:
    matched = np.zeros((1, len(rois)), np.int32)
    masks, frames = mask.transpose(2, 0, 1)[np.newaxis], WHOLE_IMAGE[np.newaxis, np.newaxis]
    return crop_masks(tf.constant([rois], tf.float32), masks, frames, matched, size).numpy()[0]


def test_crop_masks_on_whole_pixels_copies_them(ellipse):
    np.testing.assert_array_equal(full_crop(ellipse, [[20, 14, 48, 42]])[0], ellipse[20:48, 14:42, 0])


def test_crop_masks_outside_of_the_image_are_empty(ellipse):
    crop = full_crop(np.ones_like(ellipse), [[-14, 0, 14, 28], [70, 70, 90, 90]])
    assert not crop[0, :14].any() and crop[0, 14:].all() and not crop[1].any()


def test_crop_masks_of_frames_smaller_than_a_pixel_and_of_none():
    mask = np.array([[1, 0], [0, 1]], bool)[np.newaxis, np.newaxis]
    frames = np.array([[[3, 4, 3.5, 4.25]]], np.float32)
    crops = crop_masks(frames, mask, frames, np.zeros((1, 1), np.int32), 2)
    np.testing.assert_array_equal(crops[0, 0], mask[0, 0])
    crops = crop_masks(frames, mask, np.zeros((1, 1, 4), np.float32), np.zeros((1, 1), np.int32), 2)
    np.testing.assert_array_equal(crops[0, 0], np.zeros((2, 2)))


def test_crop_masks_agree_between_mini_and_full_masks(ellipse):
    box = extract_bboxes(ellipse)
    mini = minimize_mask(box, ellipse, (56, 56)).transpose(2, 0, 1)[np.newaxis]
    rois = np.array([box[0], box[0] + [-4, -6, 5, 3], box[0] + [5, 3, -6, 4], [0, 0, 64, 64]], np.float32)
    matched = np.zeros((1, len(rois)), np.int32)
    from_mini = crop_masks(rois[np.newaxis], mini, box[np.newaxis].astype(np.float32), matched, 28).numpy()[0]
    from_full = full_crop(ellipse, rois.tolist())
    for a, b in zip(from_mini, from_full, strict=True):
        assert b.any() and set(np.unique(a)) <= {0.0, 1.0}
        assert np.mean(a != b) < 0.03


def test_roi_targets_give_each_positive_the_mask_of_its_cell():
    gt_boxes = np.array([[[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]]], np.float32)
    gt_masks = np.zeros((1, 2, 56, 56), bool)
    gt_masks[0, 0, :28], gt_masks[0, 1, 28:] = True, True
    targets = assign_roi_targets(
        gt_boxes, gt_boxes, np.array([[1, 2]]), gt_masks, gt_boxes, SEED, 4, 0.5, STD, 28, SHAPE
    )
    for class_id, mask in zip(targets.class_ids.numpy()[0, :2], targets.masks.numpy()[0], strict=True):
        upper, lower = (1, 0) if class_id == 1 else (0, 1)
        assert (mask[:13] == upper).all() and (mask[15:] == lower).all()
