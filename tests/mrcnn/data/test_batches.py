from itertools import islice

import numpy as np
import pytest

from mrcnn.config import make_config
from mrcnn.data.augmentation import strong_augmentation
from mrcnn.data.batches import load_example, make_augmentation, mold_inputs, sample_order, training_batches
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import extract_bboxes
from mrcnn.utils import denorm_boxes


@pytest.fixture
def config(tiny_config_class):
    return tiny_config_class()


class ManySquares(Dataset):
    """One image with squares of sides 4, 5, ..., the smallest first, the k-th of class k."""

    def __init__(self, num_cells: int):
        super().__init__()
        for class_id in range(1, num_cells + 1):
            self.add_class("squares", class_id, f"c{class_id}")
        self.num_cells = num_cells
        self.add_image("squares", 0, "none")
        self.prepare()

    def load_image(self, image_id):
        return np.full((64, 64, 3), 200, np.uint8)

    def load_mask(self, image_id):
        masks = np.zeros((64, 64, self.num_cells), bool)
        for i in range(self.num_cells):
            masks[2 : 6 + i, 12 * i : 12 * i + 4 + i, i] = True
        return masks, np.arange(1, self.num_cells + 1, dtype=np.int32)


def test_load_example_of_one_cell(config, cell_dataset):
    dataset = cell_dataset(1)
    example = load_example(dataset, 0, config, None, (0, 0))
    assert example["images"].shape == (64, 64, 3) and example["images"].dtype == np.uint8
    assert example["gt_masks"].shape == (4, 56, 56) and example["gt_masks"].dtype == bool
    np.testing.assert_array_equal(example["gt_class_ids"], [1, 0, 0, 0])
    truth = extract_bboxes(dataset.load_mask(0)[0])
    np.testing.assert_array_equal(denorm_boxes(example["gt_boxes"], (64, 64))[0], truth[0])
    assert not example["gt_boxes"][1:].any() and not example["gt_masks"][1:].any()


def test_load_example_scales_image_and_mask_alike(config, cell_dataset):
    dataset = cell_dataset(1, size=40)
    example = load_example(dataset, 0, config, None, (0, 0))
    box = denorm_boxes(example["gt_boxes"], (64, 64))[0]
    np.testing.assert_allclose(box, extract_bboxes(dataset.load_mask(0)[0])[0] * 64 / 40, atol=1.5)


def test_load_example_keeps_full_masks_without_mini_masks(tiny_config_class, cell_dataset):
    config = make_config({"USE_MINI_MASK": False}, tiny_config_class)
    dataset = cell_dataset(1)
    example = load_example(dataset, 0, config, None, (0, 0))
    np.testing.assert_array_equal(example["gt_masks"][0], dataset.load_mask(0)[0][..., 0])


def test_load_example_drops_the_smallest_of_too_many_cells(config):
    example = load_example(ManySquares(5), 0, config, None, (0, 0))
    np.testing.assert_array_equal(example["gt_class_ids"], [5, 4, 3, 2])


def test_load_example_without_a_cell_is_all_padding(config):
    example = load_example(ManySquares(0), 0, config, None, (0, 0))
    assert not example["gt_class_ids"].any() and not example["gt_boxes"].any()
    assert example["gt_masks"].shape == (4, 56, 56)


def test_load_example_augmentation_depends_on_the_seed_alone(config, cell_dataset):
    dataset, augmentation = cell_dataset(1), strong_augmentation(1.0)
    first, again, other = (load_example(dataset, 0, config, augmentation, (0, s)) for s in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["images"], other["images"])


def test_mold_inputs_pads_images_of_any_size(config):
    images = [np.full((h, w, 3), value, np.uint8) for h, w, value in ((20, 40, 9), (64, 64, 7), (1, 90, 0))]
    molded, windows, scales = mold_inputs(images, config)
    assert molded.shape == (3, 64, 64, 3) and molded.dtype == np.uint8
    np.testing.assert_allclose(scales, [1.6, 1.0, 64 / 90], rtol=1e-6)
    np.testing.assert_array_equal(windows[:2], [[16, 0, 48, 64], [0, 0, 64, 64]])
    assert (molded[0, 16:48] == 9).all() and not molded[0, :16].any() and not molded[0, 48:].any()


def test_sample_order_is_a_new_permutation_on_each_pass():
    pairs = list(islice(sample_order(5, seed=1), 15))
    assert [serial for serial, _ in pairs] == list(range(15))
    passes = [tuple(index for _, index in pairs[i : i + 5]) for i in (0, 5, 10)]
    assert all(sorted(p) == list(range(5)) for p in passes)
    assert len(set(passes)) > 1


@pytest.mark.parametrize("start", [1, 5, 7, 13])
def test_sample_order_goes_on_where_another_stopped(start):
    whole = list(islice(sample_order(5, seed=2), 20))
    assert list(islice(sample_order(5, seed=2, start=start), 20 - start)) == whole[start:]


def test_training_batches_repeat_and_resume(config, cell_dataset):
    datasets = [cell_dataset(3), cell_dataset(2, first_seed=10)]
    augmentation = strong_augmentation(0.8)
    whole = [batch["images"].numpy() for batch in training_batches(datasets, config, 2, augmentation).take(4)]
    later = training_batches(datasets, config, 2, augmentation, start_step=2).take(2)
    assert whole[0].shape == (2, 64, 64, 3)
    for batch, expected in zip(later, whole[2:], strict=True):
        np.testing.assert_array_equal(batch["images"], expected)


def test_training_batches_in_order_go_through_all_datasets(config, cell_dataset):
    datasets = [cell_dataset(2), cell_dataset(1, first_seed=10)]
    batches = list(training_batches(datasets, config, 2, shuffle=False).take(2).as_numpy_iterator())
    images = np.concatenate([batch["images"] for batch in batches])
    expected = [datasets[0].load_image(0), datasets[0].load_image(1), datasets[1].load_image(0)]
    np.testing.assert_array_equal(images, [*expected, expected[0]])


def test_make_augmentation_follows_the_configuration(tiny_config_class):
    assert make_augmentation(tiny_config_class()) is None
    for kind in ("thesis", "strong"):
        assert make_augmentation(make_config({"AUGMENTATION": kind}, tiny_config_class)) is not None
    wide = make_config({"AUGMENTATION": "strong", "AUGMENTATION_ZOOM": [0.5, 1.6]}, tiny_config_class)
    assert make_augmentation(wide).zoom == (0.5, 1.6)
