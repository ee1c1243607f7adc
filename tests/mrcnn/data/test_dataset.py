"""The Dataset class as Matterport's users derive from it."""

import numpy as np
import pytest
from PIL import Image

from mrcnn.config import make_config
from mrcnn.data.dataset import Dataset, UprightDataset
from mrcnn.data.ground_truth import load_image_gt
from mrcnn.files.errors import InputError


class Shapes(Dataset):
    """A data set as people write it for Matterport's package."""

    def load_shapes(self, folder, count):
        self.add_class("shapes", 1, "square")
        self.add_class("shapes", 2, "circle, round")
        for i in range(count):
            self.add_image("shapes", image_id=f"s{i}", path=folder / f"{i}.png", side=10 + i)

    def load_mask(self, image_id):
        side = self.image_info[image_id]["side"]
        mask = np.zeros((32, 32, 1), bool)
        mask[2 : 2 + side, 3 : 3 + side] = True
        return mask, np.array([1], np.int32)


@pytest.fixture
def shapes(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((32, 32), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    dataset = Shapes()
    dataset.load_shapes(tmp_path, 3)
    dataset.prepare()
    return dataset


def test_dataset_numbers_classes_and_images(shapes):
    assert shapes.num_classes == 3 and shapes.num_images == 3
    assert shapes.class_names == ["BG", "square", "circle"]
    assert shapes.class_ids.tolist() == shapes.image_ids.tolist() == [0, 1, 2]
    assert shapes.map_source_class_id("shapes.2") == 2
    assert shapes.get_source_class_id(1, "shapes") == 1
    assert shapes.source_class_ids == {"": [0], "shapes": [0, 1, 2]}
    assert shapes.image_from_source_map["shapes.s1"] == 1
    assert shapes.source_image_link(2).name == "2.png" and shapes.image_reference(0) == ""
    np.testing.assert_array_equal(shapes.load_image(1), np.full((32, 32, 3), 40))  # grey as RGB


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_dataset_leaves_photographs_as_stored(tmp_path, orientation):
    pixels, exif = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "0.png", exif=exif)
    for kind, turns in ((Dataset, 0), (UprightDataset, {1: 0, 3: 2, 6: 3}[orientation])):
        dataset = kind()
        dataset.add_image("photos", 0, tmp_path / "0.png")
        np.testing.assert_array_equal(dataset.load_image(0), np.rot90(pixels, turns))


def test_dataset_ignores_a_class_added_twice_and_refuses_dots(shapes):
    shapes.add_class("shapes", 1, "square again")
    assert len(shapes.class_info) == 3
    with pytest.raises(ValueError, match="dot"):
        shapes.add_class("sha.pes", 3, "star")
    with pytest.raises(ValueError, match="'shapes', not 'coco'"):
        shapes.get_source_class_id(1, "coco")


def test_dataset_class_map_shares_an_id(shapes):
    shapes.prepare(class_map={"other.9": 2})
    assert shapes.map_source_class_id("other.9") == 2
    with pytest.raises(ValueError, match="sends 'other.9' to 7"):
        shapes.prepare(class_map={"other.9": 7})


def test_dataset_without_load_mask_says_so_and_an_override_gets_empty_masks_from_super(shapes):
    dataset = Dataset()
    dataset.image_info = shapes.image_info
    with pytest.raises(InputError, match="override load_mask"):
        dataset.load_mask(0)
    mask, class_ids = super(Shapes, shapes).load_mask(1)
    assert mask.shape == (32, 32, 0) and mask.dtype == bool
    assert class_ids.shape == (0,) and class_ids.dtype == np.int32


class GivesItself(Shapes):
    """Calls the base class as many scripts do."""

    def __init__(self):
        super().__init__(self)


class SetsItsOwn(Shapes):
    """Sets what Matterport's `__init__` sets, and something of its own under a name of ours."""

    def __init__(self):
        self._image_ids = []
        self.image_info = []
        self.class_info = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids = {}
        self.class_map = {"square": "not an id"}


@pytest.mark.parametrize("kind", [GivesItself, SetsItsOwn])
def test_dataset_takes_an_init_that_gives_itself_or_asks_for_nothing(tmp_path, kind, tiny_config_class):
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    dataset, config = kind(), make_config({"NUM_CLASSES": 3}, tiny_config_class)
    assert len(dataset.image_ids) == dataset.num_images == 0
    dataset.load_shapes(tmp_path, 1)
    dataset.prepare()
    assert dataset.image_ids.tolist() == [0] and dataset.class_from_source_map["shapes.2"] == 2
    image, _, class_ids, boxes, _ = load_image_gt(dataset, config, 0)
    assert image.shape == (64, 64, 3) and class_ids.tolist() == [1] and boxes.tolist() == [[4, 6, 24, 26]]
    dataset._image_ids = dataset.image_ids[:0]  # as scripts choose some of the images
    assert len(dataset.image_ids) == 0
