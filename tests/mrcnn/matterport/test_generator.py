from itertools import islice

import numpy as np
import pytest

from mrcnn import utils
from mrcnn.config import make_config
from mrcnn.data.dataset import Dataset
from mrcnn.data.ground_truth import load_image_gt
from mrcnn.data.masks import minimize_mask
from mrcnn.data.molding import parse_image_meta, unmold_image
from mrcnn.files.errors import InputError
from mrcnn.matterport.generator import (
    build_detection_targets,
    build_rpn_targets,
    compute_backbone_shapes,
    data_generator,
    image_anchors,
)
from mrcnn.network.anchors import pyramid_anchors

SHAPE = (64, 64, 3)


class Discs(Dataset):
    """Images of none to three discs of two classes, each pixel of the image showing its number."""

    def __init__(self, counts=(2, 0, 3, 1), sources=("odd", "even")):
        super().__init__()
        for source in sources:
            self.add_class(source, 1, "small")
            self.add_class(source, 2, "large")
        for i, count in enumerate(counts):
            self.add_image(sources[i % len(sources)], i, f"{i}.png", count=count)
        self.prepare()

    def load_image(self, image_id):
        image = np.full(SHAPE, 10 * image_id, np.uint8)
        image[:, 60:] = 255  # so that flips show
        return image

    def load_mask(self, image_id):
        y, x = np.mgrid[:64, :64]
        count = self.image_info[image_id]["count"]
        discs = [(y - 16 - 14 * k) ** 2 + (x - 14 - 16 * k) ** 2 < (7 + 2 * k) ** 2 for k in range(count)]
        masks = np.stack(discs, axis=-1) if discs else np.zeros((64, 64, 0), bool)
        return masks, np.arange(count, dtype=np.int32) % 2 + 1


@pytest.fixture
def config(tiny_config_class):
    return make_config(
        {"NUM_CLASSES": 5, "TRAIN_ROIS_PER_IMAGE": 16, "RPN_TRAIN_ANCHORS_PER_IMAGE": 40}, tiny_config_class
    )


def test_compute_backbone_shapes_of_an_image(config):
    expected = [[16, 24], [8, 12], [4, 6], [2, 3], [1, 2]]
    np.testing.assert_array_equal(compute_backbone_shapes(config, (64, 96, 3)), expected)


def test_image_anchors_are_those_of_the_levels_in_use(config, tiny_config_class):
    shapes = compute_backbone_shapes(config, (64, 96))
    arguments = config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, shapes, config.BACKBONE_STRIDES
    np.testing.assert_array_equal(image_anchors(config, (64, 96, 3)), pyramid_anchors(*arguments))
    some = make_config({"RPN_LEVELS": ["P3", "P6"]}, tiny_config_class)
    expected = pyramid_anchors((16, 64), config.RPN_ANCHOR_RATIOS, shapes[[1, 4]], (8, 64))
    np.testing.assert_array_equal(image_anchors(some, (64, 96, 3)), expected)


def slow_iou(a, b) -> float:
    height, width = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0.0) for i in (0, 1))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union if union > 0 else 0.0


def slow_overlaps(boxes, others) -> np.ndarray:
    return np.array([[slow_iou(a, b) for b in others] for a in boxes]).reshape(len(boxes), len(others))


def slow_deltas(box, target) -> np.ndarray:
    size, target_size = box[2:] - box[:2], target[2:] - target[:2]
    shift = (target[:2] + target_size / 2 - box[:2] - size / 2) / size
    return np.concatenate([shift / 0.1, np.log(target_size / size) / 0.2])


GT_BOXES = np.array([[4, 6, 22, 30], [30, 20, 60, 52], [8, 40, 20, 60], [40, 0, 64, 16]])


@pytest.mark.parametrize("class_ids", [[1, 2, 1, 3], [1, 2, -1, 3], [-1, -1, -1, -1], []])
def test_build_rpn_targets_agrees_with_a_slow_reference(config, class_ids):
    boxes, class_ids = GT_BOXES[: len(class_ids)], np.array(class_ids, int)
    anchors = image_anchors(config, SHAPE).astype(float)
    match, deltas = build_rpn_targets(SHAPE, anchors, class_ids, boxes, config)
    assert match.dtype == np.int32 and match.shape == (len(anchors),) and deltas.shape == (40, 4)
    cells, crowds = boxes[class_ids > 0], boxes[class_ids < 0]
    overlaps, near_crowd = slow_overlaps(anchors, cells), (slow_overlaps(anchors, crowds) >= 0.001).any(axis=1)
    best = overlaps.max(axis=1, initial=0.0)
    objects = best >= 0.7
    for j in range(len(cells)):
        objects |= overlaps[:, j] >= overlaps[:, j].max() - 1e-9
    background = (best < 0.3) & ~objects & ~near_crowd
    assert objects.any() == bool(len(cells)) and background.sum() > 40
    found = np.flatnonzero(match == 1)
    assert len(found) == min(objects.sum(), 20) and objects[found].all()
    assert (match == -1).sum() == 40 - len(found) and background[match == -1].all()
    for k, i in enumerate(found):
        np.testing.assert_allclose(deltas[k], slow_deltas(anchors[i], cells[overlaps[i].argmax()]), atol=1e-3)
    assert not deltas[len(found) :].any()


@pytest.mark.parametrize("use_mini_mask", [True, False])
@pytest.mark.parametrize("class_ids", [[1, 2, 1, 3], [1, 2, -1, 3], []])
def test_build_detection_targets_agrees_with_a_slow_reference(tiny_config_class, use_mini_mask, class_ids):
    overrides = {"NUM_CLASSES": 4, "TRAIN_ROIS_PER_IMAGE": 16, "USE_MINI_MASK": use_mini_mask}
    config = make_config(overrides, tiny_config_class)
    rng = np.random.default_rng(len(class_ids))
    boxes, class_ids = GT_BOXES[: len(class_ids)], np.array(class_ids, np.int32)
    masks = np.zeros((64, 64, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, i] = np.triu(np.ones((y2 - y1, x2 - x1), bool))
    corners = np.sort(rng.integers(0, 65, (150, 2, 2)), axis=1).reshape(-1, 4)
    near = GT_BOXES[rng.integers(0, 4, 150)] + rng.integers(-3, 4, (150, 4))
    rois = np.unique(np.clip(np.concatenate([corners, near]), 0, 64), axis=0)
    rois = rng.permutation(rois[(rois[:, 2:] > rois[:, :2] + 2).all(axis=1)])
    given = minimize_mask(boxes, masks, (56, 56)) if use_mini_mask else masks
    found_rois, found_ids, deltas, roi_masks = build_detection_targets(rois, class_ids, boxes, given, config)
    assert found_rois.shape == (16, 4) and found_rois.dtype == np.int32 and found_ids.shape == (16,)
    assert deltas.shape == (16, 4, 4) and roi_masks.shape == (16, 28, 28, 4)

    # As in the network, boxes are compared and encoded in normalised coordinates: they are a pixel smaller there.
    smaller, cells = rois - [0, 0, 1, 1], boxes - [0, 0, 1, 1]
    overlaps = slow_overlaps(smaller, cells[class_ids > 0])
    near_crowd = (slow_overlaps(smaller, cells[class_ids < 0]) >= 0.001).any(axis=1)
    best = overlaps.max(axis=1, initial=0.0)
    num_positive = min(int((best >= 0.5).sum()), 5)  # of 16 a third
    assert num_positive == (5 if len(boxes) else 0)
    num_rows = 16 if num_positive else min(16, int((~near_crowd).sum()))
    np.testing.assert_array_equal(found_ids > 0, np.arange(16) < num_positive)
    order = {tuple(roi): i for i, roi in enumerate(rois.tolist())}
    rows = [order[tuple(roi)] for roi in found_rois[:num_rows].tolist()]
    assert len(set(rows)) == num_rows and not found_rois[num_rows:].any()
    assert (best[rows[:num_positive]] >= 0.5).all() and (best[rows[num_positive:]] < 0.5).all()
    assert not near_crowd[rows[num_positive:]].any()
    for k, row in enumerate(rows[:num_positive]):
        cell = np.flatnonzero(class_ids > 0)[overlaps[row].argmax()]
        assert found_ids[k] == class_ids[cell]
        np.testing.assert_allclose(deltas[k, found_ids[k]], slow_deltas(smaller[row], cells[cell]), atol=1e-3)
        # In pixels, as notebooks use them, the deltas lead to the box too.
        step = deltas[k : k + 1, found_ids[k]] * config.BBOX_STD_DEV
        refined = utils.apply_box_deltas(rois[row : row + 1].astype(float), step)
        np.testing.assert_allclose(refined[0], boxes[cell], atol=0.6)
        crop = crop_at_bin_centres(masks[..., cell], rois[row])
        assert np.mean(roi_masks[k, ..., found_ids[k]] == crop) > 0.9
        others = np.arange(4) != found_ids[k]
        assert not deltas[k, others].any() and not roi_masks[k][..., others].any()
    assert not deltas[num_positive:].any() and not roi_masks[num_positive:].any()


def crop_at_bin_centres(mask, roi) -> np.ndarray:
    """The pixel under the centre of each of 28 x 28 bins."""
    rows = roi[0] + (np.arange(28) + 0.5) / 28 * (roi[2] - roi[0])
    columns = roi[1] + (np.arange(28) + 0.5) / 28 * (roi[3] - roi[1])
    return mask[rows.astype(int)][:, columns.astype(int)]


def test_data_generator_gives_matterports_inputs(config):
    inputs, outputs = next(data_generator(Discs(), config, shuffle=False, batch_size=2))
    assert outputs == []
    images, meta, match, deltas, class_ids, boxes, masks = inputs
    num_anchors = len(image_anchors(config, SHAPE))
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.float32
    assert meta.shape == (2, 12 + 5) and match.shape == (2, num_anchors, 1) and deltas.shape == (2, 40, 4)
    assert class_ids.shape == (2, 4) and boxes.shape == (2, 4, 4) and masks.shape == (2, 56, 56, 4)
    assert masks.dtype == bool and class_ids.dtype == boxes.dtype == np.int32
    # The second image has no cell and is left out.
    np.testing.assert_array_equal(parse_image_meta(meta)["image_id"], [0, 2])
    for i, image_id in enumerate((0, 2)):
        image, expected_meta, expected_ids, expected_boxes, expected_masks = load_image_gt(
            Discs(), config, image_id, use_mini_mask=True
        )
        count = len(expected_ids)
        np.testing.assert_array_equal(unmold_image(images[i], config), image)
        np.testing.assert_array_equal(meta[i], expected_meta)
        np.testing.assert_array_equal(class_ids[i], [*expected_ids, *[0] * (4 - count)])
        np.testing.assert_array_equal(boxes[i, :count], expected_boxes)
        np.testing.assert_array_equal(masks[i, ..., :count], expected_masks)
        assert not boxes[i, count:].any() and not masks[i, ..., count:].any()
        assert (match[i] == 1).any() and deltas[i, : int((match[i] == 1).sum())].any(axis=1).any()


def test_data_generator_adds_random_rois_and_their_targets(tiny_config_class):
    overrides = {"NUM_CLASSES": 5, "TRAIN_ROIS_PER_IMAGE": 16, "USE_MINI_MASK": False}
    config = make_config(overrides, tiny_config_class)
    inputs, outputs = next(data_generator(Discs(), config, random_rois=300, batch_size=2))
    assert [x.shape for x in inputs[6:]] == [(2, 64, 64, 4), (2, 300, 4)] and outputs == []
    inputs, outputs = next(data_generator(Discs(), config, random_rois=300, batch_size=2, detection_targets=True))
    assert [x.shape for x in inputs[7:]] == [(2, 300, 4), (2, 16, 4)]
    assert [x.shape for x in outputs] == [(2, 16, 1), (2, 16, 5, 4), (2, 16, 28, 28, 5)]
    rpn_rois, rois = inputs[7:]
    for i in range(2):
        given = set(map(tuple, rpn_rois[i].tolist()))
        assert {tuple(roi) for roi in rois[i].tolist() if any(roi)} <= given
    assert (outputs[0] > 0).any()


def test_data_generator_goes_through_all_images_again_and_again(config):
    dataset = Discs((1, 2, 1, 3, 2))
    ids = [int(inputs[1][0, 0]) for inputs, _ in islice(data_generator(dataset, config, shuffle=False), 10)]
    assert ids == [0, 1, 2, 3, 4] * 2
    ids = [int(inputs[1][0, 0]) for inputs, _ in islice(data_generator(dataset, config), 40)]
    passes = [tuple(ids[i : i + 5]) for i in range(0, 40, 5)]
    assert all(sorted(p) == [0, 1, 2, 3, 4] for p in passes) and len(set(passes)) > 1


def test_data_generator_says_that_no_image_shows_anything(config):
    class Nothing(Dataset):
        def load_image(self, image_id):
            return np.zeros((64, 64, 3), np.uint8)

        def load_mask(self, image_id):
            return np.zeros((64, 64, 0), bool), np.zeros(0, np.int32)

    dataset = Nothing()
    dataset.add_image("drawn", 0, "0.png")
    dataset.prepare()
    with pytest.raises(InputError, match="no image has an instance"):
        next(data_generator(dataset, config))


def test_data_generator_leaves_the_images_of_named_sources_alone(config):
    dataset, changed = Discs((1, 1)), {0: 0, 1: 0}
    generator = data_generator(dataset, config, augment=True, no_augmentation_sources=["odd"])
    for inputs, _ in islice(generator, 40):
        image_id = int(inputs[1][0, 0])
        changed[image_id] += not np.array_equal(unmold_image(inputs[0][0], config), dataset.load_image(image_id))
    assert changed[0] == 0 and 0 < changed[1] < 20
