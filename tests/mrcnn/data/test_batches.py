"""Batches: their shapes, order, augmentation and what stands in for empty images."""

import imgaug.augmenters as iaa
import numpy as np
import pytest

from mrcnn.config import make_config
from mrcnn.data.augmentation import StrongAugmentation, WideAugmentation
from mrcnn.data.batches import TrainingImages, load_example, make_augmentation
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import extract_bboxes
from mrcnn.files.errors import InputError


@pytest.fixture
def config(tiny_config_class):
    return make_config({"NUM_CLASSES": 6}, tiny_config_class)


def some_empty(full):
    """Five grey images, each of its own value, and their masks; only some show something."""
    samples = [(np.full((64, 64, 3), 40 * i, np.uint8), np.zeros((64, 64, int(i in full)), bool)) for i in range(5)]
    for _, masks in samples:
        masks[10:30, 20:40] = True
    return samples


def test_load_example_of_one_cell(config, cell_dataset):
    dataset = cell_dataset(1)
    example = load_example(dataset, 0, config, None, (0, 0))
    assert example["images"].shape == (64, 64, 3) and example["images"].dtype == np.float32
    assert example["gt_masks"].shape == (4, 56, 56, 1) and example["gt_masks"].dtype == bool
    np.testing.assert_array_equal(example["gt_class_ids"], [1, 0, 0, 0])
    assert example["gt_boxes"].dtype == np.float32 and example["gt_boxes"].shape == (4, 4)
    np.testing.assert_array_equal(example["gt_boxes"][0], extract_bboxes(dataset.load_mask(0)[0])[0])
    assert not example["gt_boxes"][1:].any() and not example["gt_masks"][1:].any()
    np.testing.assert_array_equal(example["active_class_ids"], [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(example["seeds"], [0, 0])


def test_load_example_drops_the_smallest_of_too_many_cells(config, given):
    masks = np.zeros((64, 64, 5), bool)
    for i in range(5):
        masks[2 : 6 + i, 12 * i : 12 * i + 4 + i, i] = True
    example = load_example(given([(np.zeros((64, 64, 3), np.uint8), masks)]), 0, config, None, (0, 0))
    np.testing.assert_array_equal(example["gt_class_ids"], [2, 3, 4, 5])


@pytest.mark.parametrize(
    ("overrides", "sizes", "shape"),
    [
        ({}, (40, 100), (64, 64, 3)),
        ({"IMAGE_RESIZE_MODE": "crop"}, (40, 100), (64, 64, 3)),
        ({"IMAGE_RESIZE_MODE": "none", "IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": [100]}, (64, 128), (128, 128, 1)),
    ],
)
@pytest.mark.parametrize("use_mini_mask", [True, False])
def test_training_images_of_every_resize_mode(tiny_config_class, cell_dataset, overrides, sizes, shape, use_mini_mask):
    settings = {"USE_MINI_MASK": use_mini_mask, "TRAIN_ON_EMPTY_IMAGES": True, **overrides}
    config = make_config(settings, tiny_config_class)
    datasets = [cell_dataset(1, size=size) for size in sizes]
    batch = TrainingImages(datasets, config, 2, shuffle=False)[0]
    assert batch["images"].shape == (2, *shape)
    assert batch["gt_masks"].shape == (2, 4, *((56, 56) if use_mini_mask else shape[:2]), 1)
    for i, dataset in enumerate(datasets):
        example = load_example(dataset, 0, config, None, batch["seeds"][i])
        height, width = example["images"].shape[:2]
        np.testing.assert_array_equal(batch["images"][i, :height, :width], example["images"])
        assert not batch["images"][i, height:].any() and not batch["images"][i, :, width:].any()
        np.testing.assert_array_equal(batch["gt_boxes"][i], example["gt_boxes"])
        if not use_mini_mask and example["gt_class_ids"].any():
            tight = extract_bboxes(batch["gt_masks"][i, ..., 0].transpose(1, 2, 0))
            np.testing.assert_array_equal(tight, batch["gt_boxes"][i])


def test_training_images_repeat_and_resume(tiny_config_class, cell_dataset):
    config = make_config({"IMAGE_RESIZE_MODE": "crop"}, tiny_config_class)
    datasets = [cell_dataset(3, size=90), cell_dataset(2, first_seed=10)]
    augmentation = StrongAugmentation(0.8)
    images, others = (TrainingImages(datasets, config, 2, augmentation) for _ in range(2))
    whole, again, later = (
        [each[i] for i in numbers] for each, numbers in ((images, range(4)), (images, range(4)), (others, (2, 3)))
    )
    assert whole[0]["images"].shape == (2, 64, 64, 3)
    for batch, expected in zip(again + later, whole + whole[2:], strict=True):
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name])
    seeds = np.concatenate([batch["seeds"] for batch in whole])
    assert len({tuple(seed) for seed in seeds}) == 8


def test_training_images_put_others_in_the_place_of_empty_images(tiny_config_class, given):
    config = make_config({"TRAIN_ON_EMPTY_IMAGES": False, "NUM_CLASSES": 6}, tiny_config_class)
    images = TrainingImages([given(some_empty({1, 3}))], config, 2)
    whole = [images[i] for i in range(10)]
    numbers = np.concatenate([batch["images"][:, 0, 0, 0] / 40 for batch in whole])
    assert set(numbers) == {1, 3} and all(batch["gt_class_ids"].any(axis=1).all() for batch in whole)
    later = TrainingImages([given(some_empty({1, 3}))], config, 2)[7]
    np.testing.assert_array_equal(later["images"], whole[7]["images"])
    with pytest.raises(InputError, match="no image has an instance"):
        TrainingImages([given(some_empty(()))], config, 2)[0]


def test_training_images_leave_the_images_of_named_sources_alone(config, cell_dataset):
    dataset, augmentation = cell_dataset(2), StrongAugmentation(1.0)
    images = {}
    for sources in ((), ("drawn",), ("other",)):
        options = {"shuffle": False, "no_augmentation_sources": sources}
        images[sources] = TrainingImages([dataset], config, 2, augmentation, **options)[0]["images"]
    np.testing.assert_array_equal(images["drawn",], [dataset.load_image(0), dataset.load_image(1)])
    np.testing.assert_array_equal(images[()], images["other",])
    assert not np.array_equal(images[()], images["drawn",])


def test_make_augmentation_follows_the_configuration(tiny_config_class):
    assert make_augmentation(tiny_config_class()) is None
    assert make_augmentation(make_config({"AUGMENTATION": "thesis"}, tiny_config_class)).mirrors_cells
    wide = make_config({"AUGMENTATION": "strong", "AUGMENTATION_ZOOM": [0.5, 1.6]}, tiny_config_class)
    assert make_augmentation(wide).zoom == (0.5, 1.6) and make_augmentation(wide).least_ratio == 0.6
    assert type(make_augmentation(wide)) is StrongAugmentation
    assert type(make_augmentation(make_config({"AUGMENTATION": "wide"}, tiny_config_class))) is WideAugmentation
    sizes = make_config({"AUGMENTATION": "strong", "IMAGE_RESIZE_MODE": "none"}, tiny_config_class)
    assert make_augmentation(sizes).least_ratio == 1.0


class Faulty(Dataset):
    """Eight grey images, of which the first few have a class that their list of classes lacks."""

    def __init__(self, num_faulty):
        super().__init__()
        self.num_faulty = num_faulty
        self.add_class("grey", 1, "cell")
        for number in range(8):
            self.add_image("grey", number, f"grey/{number}.png")
        self.prepare()

    def load_image(self, image_id):
        return np.full((64, 64, 3), 20 * image_id, np.uint8)

    def load_mask(self, image_id):
        masks = np.zeros((64, 64, 1), bool)
        masks[10:30, 20:40] = True
        return masks, np.array([[1][int(image_id < self.num_faulty)]])


def test_up_to_five_images_that_cannot_be_loaded_are_named_and_passed_over(config, caplog):
    images = TrainingImages([Faulty(5)], config, 8)
    assert {value for i in range(3) for value in images[i]["images"][:, 0, 0, 0]} == {100, 120, 140}
    named = sorted(record.getMessage().split(": list index")[0] for record in caplog.records)
    assert named == [f"image grey/{i}.png" for i in range(5)]
    with pytest.raises(InputError, match=r"grey/[0-5]\.png: list index out of range"):
        TrainingImages([Faulty(6)], config, 8)[0]


def test_training_images_lay_augmented_samples_together_and_no_others(tiny_config_class, cell_dataset):
    config, dataset = make_config({"AUGMENTATION_MOSAIC_SHARE": 1.0}, tiny_config_class), cell_dataset(4)
    plain, laid, again = (
        TrainingImages([dataset], config, 4, augmentation, shuffle=False)[0]
        for augmentation in (None, WideAugmentation(0.0), WideAugmentation(0.0))
    )
    np.testing.assert_array_equal(plain["images"], [dataset.load_image(i) for i in range(4)])
    assert laid["gt_class_ids"].sum() > plain["gt_class_ids"].sum() == 4
    assert all((a != b).any() for a, b in zip(laid["images"], plain["images"], strict=True))
    np.testing.assert_array_equal(laid["images"], again["images"])


@pytest.mark.parametrize("augmentation", [iaa.Fliplr(1.0), StrongAugmentation(1.0), WideAugmentation(1.0)])
def test_parts_follow_their_cells_through_flips_zoom_and_mosaics(tiny_config_class, given, augmentation):
    settings = {"MASK_PARTS": ["cell", "nucleus"], "NUM_CLASSES": 6, "IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 128}
    settings |= {"USE_MINI_MASK": False, "MAX_GT_INSTANCES": 20}
    masks, nuclei = np.zeros((128, 128, 2), bool), np.zeros((128, 128, 2), bool)
    masks[12:70, 16:68, 0] = masks[76:120, 72:120, 1] = True
    nuclei[16:46, 20:48, 0] = True  # the second is not known
    image = np.full((128, 128, 3), 220, np.uint8)
    image[masks.any(axis=-1)], image[nuclei.any(axis=-1)] = 120, 20
    dataset, config = given([(image, masks)] * 4), make_config(settings, tiny_config_class)
    dataset.load_parts = lambda image_id: {"nucleus": nuclei}
    seen = 0
    for seed in range(6):
        beside = [] if isinstance(augmentation, iaa.Augmenter) else [(dataset, i) for i in (1, 2, 3)][: 3 * (seed % 2)]
        example = load_example(dataset, 0, config, augmentation, (1, 8 * seed), beside)
        of_class, found = example["gt_class_ids"], example["gt_masks"]
        assert found.shape == (20, 128, 128, 2) and not (found[..., 1] & ~found[..., 0]).any()
        assert not found[of_class == 2, ..., 1].any()
        grey = example["images"].mean(axis=-1)
        for cell, nucleus in np.moveaxis(found[of_class == 1], -1, 1):
            if nucleus.sum() > 100:  # the darkest there is, whatever the colours have become
                dark = cell & (grey < (np.median(grey[nucleus]) + np.median(grey[cell & ~nucleus])) / 2)
                assert (dark & nucleus).sum() / (dark | nucleus).sum() > 0.7
                seen += 1
    assert seen > 3


def test_parts_of_another_shape_are_named(tiny_config_class, cell_dataset):
    dataset, config = cell_dataset(1), make_config({"MASK_PARTS": ["cell", "nucleus"]}, tiny_config_class)
    assert not load_example(dataset, 0, config, None, (0, 0))["gt_masks"][..., 1].any()
    dataset.load_parts = lambda image_id: {"nucleus": np.ones((64, 64, 2), bool)}
    with pytest.raises(InputError, match=r"0\.png: load_parts of DrawnCells .*nucleus"):
        load_example(dataset, 0, config, None, (0, 0))
