"""Targets on random boxes against slow references of the rules, then examples of what lies on a border."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from mrcnn.config import Config, make_config
from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.network.boxes import pairwise_iou, pixel_boxes
from mrcnn.network.targets import CROWD_IOU_THRESHOLD, assign_anchor_targets, assign_roi_targets, crop_masks

STD = (0.1, 0.1, 0.2, 0.2)
SHAPE = (80, 120)
NUM_ANCHORS, NUM_PROPOSALS, MAX_GT = 400, 120, 6
SEED = np.array([[1, 2]], np.int32)


def slow_deltas(box, target) -> np.ndarray:
    """Girshick et al. 2014, appendix C, in units of the standard deviation."""
    height, width, target_height, target_width = box[2] - box[0], box[3] - box[1], *(target[2:] - target[:2])
    dy = (target[0] + target_height / 2 - box[0] - height / 2) / height
    dx = (target[1] + target_width / 2 - box[1] - width / 2) / width
    return np.array([dy, dx, np.log(target_height / height), np.log(target_width / width)]) / STD


def overlaps_of(boxes, image) -> tuple[np.ndarray, np.ndarray]:
    """IoU with real cells, 0 in the columns of padding and crowds; and whether a crowd is near."""
    overlaps = pairwise_iou(boxes, image["gt_boxes"]).numpy()
    near_crowd = (overlaps[:, image["class_ids"] < 0] >= CROWD_IOU_THRESHOLD).any(axis=1)
    return np.where(image["class_ids"] > 0, overlaps, 0.0), near_crowd


def random_boxes(rng, count, least=0.1, most=0.5) -> np.ndarray:
    sides = rng.uniform(least, most, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (1 - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def around(rng, boxes, count, spread=0.12) -> np.ndarray:
    """Boxes near the given ones: some overlap a lot, some half, some little."""
    chosen = boxes[rng.integers(0, len(boxes), count)]
    sides = np.tile(chosen[:, 2:] - chosen[:, :2], 2)
    near = chosen + rng.normal(0, spread, chosen.shape) * sides
    return np.concatenate([near[:, :2], np.maximum(near[:, 2:], near[:, :2] + 0.02)], axis=1)


def scene(seed: int) -> dict[str, np.ndarray]:
    """An image of none to four cells of several classes, perhaps a crowd, padding; with anchors and proposals."""
    rng = np.random.default_rng(seed)
    num_cells, num_crowds = seed % 5, seed // 2 % 2
    count = num_cells + num_crowds
    gt_boxes, class_ids = np.zeros((MAX_GT, 4)), np.zeros(MAX_GT, np.int32)
    gt_boxes[:count] = random_boxes(rng, count)
    class_ids[:num_cells] = rng.integers(1, 4, num_cells)
    class_ids[num_cells:count] = -rng.integers(1, 4, num_crowds)
    middle = gt_boxes[:count] if count else random_boxes(rng, 2)
    num_near = 9 if seed % 2 else 60
    proposals = [random_boxes(rng, NUM_PROPOSALS - 10 - num_near), around(rng, middle, num_near), np.zeros((10, 4))]
    return {
        "gt_boxes": gt_boxes.astype(np.float32),
        "class_ids": class_ids,
        "proposals": rng.permutation(np.concatenate(proposals)).astype(np.float32),
        "gt_masks": rng.random((MAX_GT, 28, 28, 1)) > 0.5,
        "seeds": np.array([5, 8 * seed], np.int32),
    }


@pytest.fixture(scope="module")
def scenes() -> list[dict[str, np.ndarray]]:
    return [scene(seed) for seed in range(8)]


@pytest.fixture(scope="module")
def anchors(scenes) -> np.ndarray:
    """Anchors that the images share; a few lie on their cells."""
    rng = np.random.default_rng(99)
    cells = np.concatenate([s["gt_boxes"][s["class_ids"] > 0] for s in scenes])
    made = np.concatenate([random_boxes(rng, NUM_ANCHORS // 2), around(rng, cells, NUM_ANCHORS // 2, 0.06)])
    return made.astype(np.float32)


def sampling(num_anchors: int, num_rois: int = 4, positive_ratio: float = 0.5) -> Config:
    """Settings for samples of so many anchors and RoIs."""
    counts = {"RPN_TRAIN_ANCHORS_PER_IMAGE": num_anchors, "TRAIN_ROIS_PER_IMAGE": num_rois}
    return make_config({**counts, "ROI_POSITIVE_RATIO": positive_ratio}, Config)


def stacked(scenes) -> dict[str, np.ndarray]:
    return {name: np.stack([s[name] for s in scenes]) for name in scenes[0]}


def anchor_targets(scenes, anchors, num_samples):
    batch, config = stacked(scenes), sampling(num_samples)
    targets = assign_anchor_targets(anchors, batch["gt_boxes"], batch["class_ids"], batch["seeds"], config)
    return targets.match.numpy(), targets.deltas.numpy()


def roi_targets(scenes, num_rois, positive_ratio):
    batch, config = stacked(scenes), sampling(1, num_rois, positive_ratio)
    arrays = [batch[name] for name in ("proposals", "gt_boxes", "class_ids", "gt_masks", "seeds")]
    return [value.numpy() for value in assign_roi_targets(*arrays, config, SHAPE)]


@pytest.mark.parametrize("num_samples", [8, 41, 5000])
def test_anchor_targets_follow_the_rules(scenes, anchors, num_samples):
    match, deltas = anchor_targets(scenes, anchors, num_samples)
    for image, found, found_deltas in zip(scenes, match, deltas, strict=True):
        overlaps, near_crowd = overlaps_of(anchors, image)
        best = overlaps.max(axis=1)
        objects = best >= 0.7
        for j in np.flatnonzero(image["class_ids"] > 0):
            objects[overlaps[:, j].argmax()] |= overlaps[:, j].max() > 0
        background = (best < 0.3) & ~objects & ~near_crowd
        num_objects = min(int(objects.sum()), num_samples // 2)
        assert (found == 1).sum() == num_objects and not ((found == 1) & ~objects).any()
        assert (found == -1).sum() == min(int(background.sum()), num_samples - num_objects)
        assert not ((found == -1) & ~background).any()
        for i in np.flatnonzero(found == 1):
            target = image["gt_boxes"][overlaps[i].argmax()]
            np.testing.assert_allclose(found_deltas[i], slow_deltas(anchors[i], target), rtol=1e-3, atol=1e-3)
        assert not found_deltas[found != 1].any()


@pytest.mark.parametrize(("num_rois", "positive_ratio"), [(12, 0.25), (30, 0.33), (400, 0.5)])
def test_roi_targets_follow_the_rules(scenes, num_rois, positive_ratio):
    results = roi_targets(scenes, num_rois, positive_ratio)
    for image, rois, class_ids, valid, deltas, masks, has_part in zip(scenes, *results, strict=True):
        proposals = image["proposals"]
        overlaps, near_crowd = overlaps_of(proposals, image)
        real = proposals.any(axis=1)
        positive, negative = real & (overlaps.max(axis=1) >= 0.5), real & (overlaps.max(axis=1) < 0.5) & ~near_crowd
        num_positive = min(int(positive.sum()), round(num_rois * positive_ratio))
        # Negatives keep the ratio; without a positive they fill the rows.
        wanted = int(np.ceil(np.float32(num_positive) / np.float32(positive_ratio))) - num_positive
        wanted = min(wanted, num_rois - num_positive) if num_positive else num_rois
        num_negative = min(int(negative.sum()), wanted)
        np.testing.assert_array_equal(valid, np.arange(num_rois) < num_positive + num_negative)
        np.testing.assert_array_equal(class_ids > 0, np.arange(num_rois) < num_positive)
        np.testing.assert_array_equal(has_part[:, 0], np.arange(len(masks)) < num_positive)
        rows = [int(np.flatnonzero((proposals == roi).all(axis=1))[0]) for roi in rois[valid]]
        assert len(set(rows)) == len(rows)
        assert positive[rows[:num_positive]].all() and negative[rows[num_positive:]].all()
        for k, row in enumerate(rows[:num_positive]):
            cell = overlaps[row].argmax()
            assert class_ids[k] == image["class_ids"][cell]
            expected = slow_deltas(proposals[row], image["gt_boxes"][cell])
            np.testing.assert_allclose(deltas[k], expected, rtol=1e-3, atol=1e-3)
            check_mask(masks[k, ..., 0], image["gt_masks"][cell, ..., 0], image["gt_boxes"][cell], proposals[row])
        for values in (deltas[num_positive:], masks[num_positive:], rois[~valid]):
            assert not values.any()


def slow_crop(mask, frame, roi, size=28) -> np.ndarray:
    """Bilinear values at the bin centres of an RoI in a mask that spans a frame, both in pixels; 0 outside."""
    bins = (np.arange(size) + 0.5) / size
    cells = [
        (roi[i] + bins * (roi[i + 2] - roi[i]) - frame[i]) * mask.shape[i] / (frame[i + 2] - frame[i]) - 0.5
        for i in (0, 1)
    ]
    return map_coordinates(mask.astype(float), np.meshgrid(*cells, indexing="ij"), order=1, mode="grid-constant")


def check_mask(found, mask, gt_box, roi):
    values = slow_crop(mask, *(pixel_boxes(box, SHAPE).numpy().astype(float) for box in (gt_box, roi)))
    # Values that rounding may put on either side of a half say nothing.
    clear = np.abs(values - 0.5) > 2e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found[clear], (values > 0.5)[clear])


def test_targets_of_an_image_do_not_depend_on_its_neighbours(scenes, anchors):
    whole = [*anchor_targets(scenes, anchors, 20), *roi_targets(scenes, 12, 0.33)]
    turned = [*anchor_targets(scenes[::-1], anchors, 20), *roi_targets(scenes[::-1], 12, 0.33)]
    alone = [*anchor_targets(scenes[3:4], anchors, 20), *roi_targets(scenes[3:4], 12, 0.33)]
    for a, b, c in zip(whole, turned, alone, strict=True):
        np.testing.assert_array_equal(a, b[::-1])
        np.testing.assert_array_equal(a[3:4], c)


def test_targets_of_an_image_follow_its_seed(scenes, anchors):
    same, other = dict(scenes[3]), dict(scenes[3], seeds=np.array([5, 1], np.int32))
    match, _ = anchor_targets([same, same, other], anchors, 20)
    rois = roi_targets([same, same, other], 12, 0.33)[0]
    for first, again, different in (match, rois):
        np.testing.assert_array_equal(first, again)
        assert (first != different).any()


def rows(*widths: float) -> np.ndarray:
    """Boxes of height 1 and these widths, side by side with the same corner."""
    return np.array([[0, 0, 1, width] for width in widths], np.float32)


def test_thresholds_belong_to_the_objects_and_crowds():
    def match(anchors, cell, class_id):
        return assign_anchor_targets(anchors, cell[np.newaxis], np.array([[class_id]]), SEED, sampling(10)).match

    # Inside a cell that is 10 wide the IoU is a tenth of the width; the widest anchor is the best.
    np.testing.assert_array_equal(match(rows(9, 7, 6.9, 3, 2.9), rows(10), 1), [[1, 1, 0, 0, -1]])
    # IoU 1/1000 and less with the crowd.
    np.testing.assert_array_equal(match(rows(1, 0.5), rows(1000), -1), [[0, -1]])
    # IoU 1/2 and less, under a full mask.
    masks, cell = np.ones((1, 1, 56, 56, 1), bool), rows(10)[np.newaxis]
    proposals = rows(5, 4.9)[np.newaxis]
    targets = assign_roi_targets(proposals, cell, np.array([[1]]), masks, SEED, sampling(10), SHAPE)
    np.testing.assert_array_equal(targets.rois[0, :2], rows(5, 4.9))
    np.testing.assert_array_equal(targets.class_ids, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(targets.valid, [[True, True, False, False]])


def test_crowds_are_neither_matched_nor_background():
    crowd = np.array([[[0.0, 0.0, 0.5, 0.5]]], np.float32)
    boxes = np.array([[0, 0, 0.5, 0.5], [0.4, 0.4, 0.8, 0.8], [0.5, 0.5, 1, 1]], np.float32)
    class_ids = np.array([[-1]], np.int32)
    match = assign_anchor_targets(boxes, crowd, class_ids, SEED, sampling(8)).match
    np.testing.assert_array_equal(match, [[0, 0, -1]])
    masks = np.ones((1, 1, 28, 28, 1), bool)
    targets = assign_roi_targets(boxes[np.newaxis], crowd, class_ids, masks, SEED, sampling(8), SHAPE)
    np.testing.assert_array_equal(targets.valid, [[True, False, False, False]])
    np.testing.assert_array_equal(targets.rois[0, 0], boxes[2])
    assert not targets.class_ids.numpy().any() and not targets.masks.numpy().any()


def test_crop_masks_agree_between_mini_and_full_masks():
    drawn = np.zeros((64, 64), np.uint8)
    mask = cv2.ellipse(drawn, (30, 34), (17, 12), 25, 0, 360, 1, -1)[..., np.newaxis] > 0
    box = extract_bboxes(mask)
    rois = np.array([box[0], box[0] + [-4, -6, 5, 3], box[0] + [5, 3, -6, 4], [0, 0, 64, 64]], np.float32)
    rows_of_cell = np.zeros((1, 4), np.int32)
    crops = [
        crop_masks(rois[np.newaxis], masks.transpose(2, 0, 1)[np.newaxis, ..., np.newaxis], frame, rows_of_cell, 28)[0]
        for masks, frame in (
            (minimize_mask(box, mask, (56, 56)), box[np.newaxis].astype(np.float32)),
            (mask, np.array([[[0, 0, 64, 64]]], np.float32)),
        )
    ]
    for mini, full in zip(*map(np.array, crops), strict=True):
        assert full.any() and set(np.unique(mini)) <= {0.0, 1.0}
        assert np.mean(mini != full) < 0.03


def test_parts_are_learnt_where_they_are_known_and_on_background_away_from_cells():
    cells = np.array([[0.1, 0.1, 0.5, 0.5], [0.5, 0.6, 0.9, 0.9]], np.float32)
    far, touching = [0.6, 0.1, 0.9, 0.4], [0.4, 0.4, 0.6, 0.59]
    proposals = np.array([*cells, far, touching], np.float32)[np.newaxis]
    gt_masks = np.zeros((1, 2, 56, 56, 2), bool)
    gt_masks[..., 0] = True
    gt_masks[0, 0, 14:42, :28, 1] = True  # the nucleus of the second is not known

    def targets_of(masks):
        return assign_roi_targets(proposals, cells[np.newaxis], np.array([[1, 2]]), masks, SEED, sampling(8, 12), SHAPE)

    whole, alone = targets_of(gt_masks), targets_of(gt_masks[..., :1])
    for name in ("rois", "class_ids", "valid", "deltas"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(alone, name))
    assert alone.masks.shape == (1, 6, 28, 28, 1) and whole.masks.shape == (1, 9, 28, 28, 2)
    np.testing.assert_array_equal(whole.masks[:, :6, ..., :1], alone.masks)
    np.testing.assert_array_equal(whole.has_part[:, :6, :1], alone.has_part)

    rois, has_part, masks = whole.rois[0].numpy(), whole.has_part[0].numpy(), whole.masks[0].numpy()
    rows = [int(np.flatnonzero((rois == proposal).all(axis=1))[0]) for proposal in proposals[0]]
    assert has_part[rows].tolist() == [[True, True], [True, False], [False, True], [False, False]]
    assert not has_part[~whole.valid[0].numpy()[:9]].any() and not masks[rows[2:]].any()
    check_mask(masks[rows[0], ..., 1], gt_masks[0, 0, ..., 1], cells[0], cells[0])
