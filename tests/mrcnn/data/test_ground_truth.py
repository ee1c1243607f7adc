"""An image with its instances, as training and evaluation take it."""

import imgaug.augmenters as iaa
import numpy as np
import pytest

from mrcnn.config import Config, make_config
from mrcnn.data.ground_truth import load_ground_truth
from mrcnn.data.masks import extract_bboxes
from mrcnn.data.molding import parse_image_meta
from mrcnn.data.resizing import resize, resize_mask
from mrcnn.files.errors import InputError

HEIGHT, WIDTH = 60, 90
# Of three classes; the third is a crowd, the last has no pixel.
BOXES = [(5, 6, 15, 20), (20, 30, 50, 80), (0, 40, 12, 70), (40, 2, 58, 12), (0, 0, 0, 0)]
CLASS_IDS = [1, 2, -2, 1, 3]


def sample(channels=3):
    masks = np.zeros((HEIGHT, WIDTH, len(BOXES)), bool)
    for i, (y1, x1, y2, x2) in enumerate(BOXES):
        masks[y1:y2, x1:x2, i] = True
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, channels)).astype(np.uint8), masks, CLASS_IDS


@pytest.fixture
def rectangles(given):
    """One image with the rectangles above, of a network's four classes but the background."""
    return given([sample()], num_classes=4)


def config_of(**overrides) -> Config:
    return make_config({"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128, "NUM_CLASSES": 5, **overrides}, Config)


def test_load_ground_truth_keeps_the_order_and_leaves_empty_instances_out(rectangles):
    truth = load_ground_truth(rectangles, 0, config_of(IMAGE_RESIZE_MODE="pad64", IMAGE_MIN_DIM=0))
    # 60 x 90 px are padded to 64 x 128.
    assert truth.class_ids.tolist() == CLASS_IDS[:4]
    np.testing.assert_array_equal(truth.boxes, np.array(BOXES[:4]) + [2, 19, 2, 19])
    np.testing.assert_array_equal(extract_bboxes(truth.masks), truth.boxes)
    np.testing.assert_array_equal(truth.image[2:62, 19:109], rectangles.load_image(0))
    assert truth.masks.shape == (64, 128, 4) and truth.masks.dtype == bool
    assert truth.boxes.dtype == np.int32 and truth.class_ids.dtype == np.int32


def test_load_ground_truth_describes_the_image_in_its_meta(given):
    dataset = given([sample(), sample()], num_classes=3)
    dataset.add_class("other", 1, "of another source")
    dataset.image_info[1]["source"] = "other"
    dataset.prepare()
    truth = load_ground_truth(dataset, 1, config_of())
    meta = {name: values[0].tolist() for name, values in parse_image_meta(truth.meta[np.newaxis]).items()}
    assert meta.pop("scale") == pytest.approx(64 / 60)
    assert meta.pop("original_image_shape") == [60, 90, 3] and meta.pop("image_shape") == [128, 128, 3]
    assert meta == {"image_id": 1, "window": [32, 16, 96, 112], "active_class_ids": [1, 0, 0, 0, 1]}


@pytest.mark.parametrize(
    ("overrides", "scale", "shift"),
    [
        ({}, 64 / 60, (32, 16)),
        ({"IMAGE_MIN_DIM": 32, "IMAGE_MAX_DIM": 64}, 64 / 90, (10, 0)),
        ({"IMAGE_MIN_SCALE": 1.3}, 1.3, (25, 5)),
        ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 128}, 128 / 60, (0, 0)),
    ],
)
def test_load_ground_truth_moves_boxes_as_the_image(rectangles, overrides, scale, shift):
    truth = load_ground_truth(rectangles, 0, config_of(**overrides))
    expected = np.array(BOXES)[:4] * scale + [*shift, *shift]
    np.testing.assert_allclose(truth.boxes, expected, atol=1.01)


def test_load_ground_truth_crops_image_and_instances_alike(rectangles):
    image = resize(rectangles.load_image(0), (64, 96))
    masks = resize_mask(rectangles.load_mask(0)[0], 64 / 60, [(0, 0)] * 3)
    origins = set()
    for seed in range(8):
        truth = load_ground_truth(rectangles, 0, config_of(IMAGE_RESIZE_MODE="crop"), seed=seed)
        (x,) = (x for x in range(33) if np.array_equal(image[:, x : x + 64], truth.image))
        origins.add(x)
        seen = masks[:, x : x + 64]
        np.testing.assert_array_equal(truth.masks, seen[..., seen.any(axis=(0, 1))])
    assert len(origins) > 2


def test_load_ground_truth_applies_imgaug_after_resizing_and_drops_only_what_is_out_of_view(rectangles):
    config = config_of(IMAGE_MIN_DIM=128)  # scaled by 128 / 90
    plain = load_ground_truth(rectangles, 0, config)
    moved = load_ground_truth(rectangles, 0, config, iaa.Affine(translate_px={"y": -27}))
    # The first instance ends at row 42 of 128; the third, at rows 21 to 38, keeps 11 rows.
    np.testing.assert_array_equal(moved.class_ids, plain.class_ids)
    np.testing.assert_array_equal(moved.boxes[:, 2], plain.boxes[:, 2] - 27)
    gone = load_ground_truth(rectangles, 0, config, iaa.Affine(translate_px={"y": -40}))
    assert gone.class_ids.tolist() == [1, 2, 1] and gone.boxes[0, 2] - gone.boxes[0, 0] < 8


def test_load_ground_truth_takes_the_masks_of_matterports_base_class(given):
    truth = load_ground_truth(given([(sample()[0], np.empty([0, 0, 0]))]), 0, config_of(NUM_CLASSES=6))
    assert truth.masks.shape == (128, 128, 0) and truth.boxes.shape == (0, 4) and len(truth.class_ids) == 0


@pytest.mark.parametrize("augmentation", [None, iaa.Fliplr(1.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_load_ground_truth_of_grey_networks_takes_grey_and_colour_images(given, channels, augmentation):
    config = config_of(IMAGE_CHANNEL_COUNT=1, MEAN_PIXEL=[100])
    truth = load_ground_truth(given([sample(channels)], num_classes=4), 0, config, augmentation)
    assert truth.image.shape == (128, 128, 1)
    assert parse_image_meta(truth.meta[np.newaxis])["original_image_shape"].tolist() == [[60, 90, 1]]


def test_load_ground_truth_names_masks_that_do_not_fit_and_too_many_classes(given, rectangles):
    wrong = given([(sample()[0], np.zeros((WIDTH, HEIGHT, 2), bool))], num_classes=4)
    with pytest.raises(
        InputError, match=r"0\.png: load_mask of Given .*\(90, 60, 2\) and 2 class ids for an image of 60x90 px"
    ):
        load_ground_truth(wrong, 0, config_of())
    with pytest.raises(InputError, match="NUM_CLASSES is 4"):
        load_ground_truth(rectangles, 0, config_of(NUM_CLASSES=4))


@pytest.mark.parametrize("path", ["7.png", None])
def test_load_ground_truth_names_a_class_id_beyond_the_networks_classes(given, path):
    image, masks, _ = sample()
    dataset = given([(image, masks, [1, 2, -9, 3, 1])], num_classes=2)
    dataset.image_info[0].update(id="seven", path=path)
    with pytest.raises(InputError, match=f"^{path or 'image seven'}: .* class id 3, but NUM_CLASSES is 3"):
        load_ground_truth(dataset, 0, config_of(NUM_CLASSES=3))
    assert load_ground_truth(dataset, 0, config_of(NUM_CLASSES=4)).class_ids.tolist() == [1, 2, -9, 3]
