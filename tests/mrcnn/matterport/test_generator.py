from itertools import islice

import cv2
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
    generate_random_rois,
)
from mrcnn.network.anchors import pixel_anchors

SHAPE = (64, 64, 3)


class Discs(Dataset):
    """Images of none to three discs of two classes, each pixel of the image showing its number."""

    def __init__(self, counts=(2, 0, 3, 1)):
        super().__init__()
        for i, count in enumerate(counts):
            source = ("odd", "even")[i % 2]
            self.add_class(source, 1, "small")
            self.add_class(source, 2, "large")
            self.add_image(source, i, f"{i}.png", count=count)
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


@pytest.mark.parametrize(("num_scales", "count"), [(5, 1626), (4, 1620), (2, 1512)])
def test_pyramid_anchors_of_the_backbone_shapes_are_those_of_the_network(tiny_config_class, num_scales, count):
    config = make_config({"RPN_ANCHOR_SCALES": (8, 16, 32, 48, 64)[:num_scales]}, tiny_config_class)
    shapes = compute_backbone_shapes(config, (64, 97, 3))
    assert shapes.tolist() == [[16, 25], [8, 13], [4, 7], [2, 4], [1, 2]]
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, shapes, config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
    )
    np.testing.assert_array_equal(anchors, pixel_anchors(config, (64, 97, 3)))
    assert len(anchors) == count  # of 3 ratios


GT_BOXES = np.array([[4, 6, 22, 30], [30, 20, 60, 52], [8, 40, 20, 60]])


@pytest.mark.parametrize("class_ids", [[1, 2, -1], []])
def test_build_rpn_targets_marks_anchors_and_gives_their_deltas(config, class_ids):
    boxes, class_ids = GT_BOXES[: len(class_ids)], np.array(class_ids, int)
    anchors = pixel_anchors(config, SHAPE).numpy()
    match, deltas = build_rpn_targets(SHAPE, anchors, class_ids, boxes, config)
    found = np.flatnonzero(match == 1)
    assert match.shape == (len(anchors),) and deltas.shape == (40, 4) and (match == -1).sum() == 40 - len(found)
    assert bool(len(found)) == bool(len(boxes)) and not deltas[len(found) :].any()
    moved = utils.apply_box_deltas(anchors[found], deltas[: len(found)] * config.RPN_BBOX_STD_DEV)
    assert (np.abs(moved[:, np.newaxis] - boxes[class_ids > 0]).max(axis=2).min(axis=1, initial=9) < 1e-2).all()


@pytest.mark.parametrize("use_mini_mask", [True, False])
@pytest.mark.parametrize("class_ids", [[1, 2, 1], []])
def test_build_detection_targets_lead_to_the_cells(tiny_config_class, use_mini_mask, class_ids):
    overrides = {"NUM_CLASSES": 4, "TRAIN_ROIS_PER_IMAGE": 16, "USE_MINI_MASK": use_mini_mask}
    config = make_config(overrides, tiny_config_class)
    boxes, class_ids = GT_BOXES[: len(class_ids)], np.array(class_ids, np.int32)
    masks = np.zeros((64, 64, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, i] = np.triu(np.ones((y2 - y1, x2 - x1), bool))
    rois = generate_random_rois(SHAPE, 300, np.ones(3), GT_BOXES, np.random.default_rng(0))
    given = minimize_mask(boxes, masks, (56, 56)) if use_mini_mask else masks
    found, found_ids, deltas, roi_masks = build_detection_targets(rois, class_ids, boxes, given, config)
    assert found.shape == (16, 4) and found.dtype == np.int32 and found_ids.shape == (16,)
    assert deltas.shape == (16, 4, 4) and roi_masks.shape == (16, 28, 28, 4)
    num_positive = 5 if len(boxes) else 0  # 16 * 0.33 = 5.28
    np.testing.assert_array_equal(found_ids > 0, np.arange(16) < num_positive)
    assert {tuple(roi) for roi in found.tolist() if any(roi)} <= {tuple(roi) for roi in rois.tolist()}
    for k in range(num_positive):
        # In pixels, as notebooks use them, the deltas lead to the box.
        step = deltas[k : k + 1, found_ids[k]] * config.BBOX_STD_DEV
        refined = utils.apply_box_deltas(found[k : k + 1], step)[0]
        cell = np.abs(boxes - refined).max(axis=1).argmin()
        assert found_ids[k] == class_ids[cell] and np.abs(boxes[cell] - refined).max() < 1e-3
        y1, x1, y2, x2 = found[k]
        crop = cv2.resize(masks[y1:y2, x1:x2, cell].astype(np.float32), (28, 28))
        assert np.mean(roi_masks[k, ..., found_ids[k]] == (crop >= 0.5)) > 0.9
        others = np.arange(4) != found_ids[k]
        assert not deltas[k, others].any() and not roi_masks[k][..., others].any()
    assert not deltas[num_positive:].any() and not roi_masks[num_positive:].any()


@pytest.mark.parametrize("ratio", [0.33, 0.36])  # of 16: 5.28 and 5.76 positives, both cut to 5 as by Matterport
def test_build_detection_targets_fills_up_with_negatives_which_it_repeats(config, ratio):
    config.ROI_POSITIVE_RATIO = ratio
    cells, others = np.repeat(GT_BOXES[:2], 4, axis=0), np.array([[0, 50, 4, 60], [50, 0, 60, 9], [9, 41, 19, 59]])
    masks = np.ones((56, 56, 3), bool)
    for rois, expected in (
        ([*cells, *others], [5, 11]),  # the last of the others lies in a crowd
        ([*cells[:2], *others], [2, 14]),
        (cells, [5, 0]),
        (others[:2], [0, 16]),
    ):
        rois = np.array(rois, np.float32)
        found, class_ids, _, _ = build_detection_targets(rois, np.array([1, 2, -1]), GT_BOXES, masks, config)
        num_positive, num_negative = expected
        np.testing.assert_array_equal(class_ids > 0, np.arange(16) < num_positive)
        filled = found[num_positive : num_positive + num_negative]
        assert {*map(tuple, filled.tolist())} == {*map(tuple, others[:2].tolist() if num_negative else [])}
        assert not found[num_positive + num_negative :].any() and found.dtype == np.float32


@pytest.mark.parametrize("truth", [GT_BOXES, np.array([[63, 63, 64, 64], [0, 0, 1, 1], [5, 5, 5, 5]])])
def test_random_rois_lie_in_the_image_have_area_and_follow_their_seed(truth):
    rois, again = (
        generate_random_rois(SHAPE, 400, np.array(ids), truth, np.random.default_rng(0))
        for ids in ([1, 2, -1], [1, 2, 0])
    )
    assert rois.shape == (400, 4) and rois.dtype == np.int32
    assert (rois[:, 2:] > rois[:, :2]).all() and (rois >= 0).all() and (rois <= 64).all()
    np.testing.assert_array_equal(rois, again)
    if truth is GT_BOXES:
        assert (utils.compute_overlaps(rois, truth[:2]) >= 0.5).sum(axis=0).min() >= 5


def test_data_generator_gives_matterports_inputs(config):
    inputs, outputs = next(data_generator(Discs(), config, shuffle=False, batch_size=2))
    assert outputs == []
    images, meta, match, deltas, class_ids, boxes, masks = inputs
    num_anchors = len(pixel_anchors(config, SHAPE))
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
    assert (outputs[0] > 0).any()


def test_data_generator_goes_through_all_images_again_and_again(config):
    dataset = Discs((1, 2, 1, 3, 2))
    ids = [int(inputs[1][0, 0]) for inputs, _ in islice(data_generator(dataset, config, shuffle=False), 10)]
    assert ids == [0, 1, 2, 3, 4] * 2
    ids = [int(inputs[1][0, 0]) for inputs, _ in islice(data_generator(dataset, config), 40)]
    passes = [tuple(ids[i : i + 5]) for i in range(0, 40, 5)]
    assert all(sorted(p) == [0, 1, 2, 3, 4] for p in passes) and len(set(passes)) > 1
    with pytest.raises(InputError, match="no image has an instance"):
        next(data_generator(Discs((0, 0)), config))


def test_data_generator_leaves_the_images_of_named_sources_alone(config):
    dataset, changed = Discs((1, 1)), {0: 0, 1: 0}
    generator = data_generator(dataset, config, augment=True, no_augmentation_sources=["odd"])
    for inputs, _ in islice(generator, 40):
        image_id = int(inputs[1][0, 0])
        changed[image_id] += not np.array_equal(unmold_image(inputs[0][0], config), dataset.load_image(image_id))
    assert changed[0] == 0 and 0 < changed[1] < 20
