"""Kinds of images and settings that Matterport's configurations ask for: each trains a step and detects."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.data.dataset import Dataset
from mrcnn.model import MaskRCNN, load_detector
from mrcnn.training.step import LOSS_NAMES

SIZES = [(64, 128), (100, 80), (150, 70), (64, 64)]


class TwoKinds(Dataset):
    """Fields of different sizes with a dark and a bright cell, of one class each; the first also has a crowd."""

    def __init__(self, sizes, channels):
        super().__init__()
        self.channels = channels
        self.add_class("fields", 1, "dark")
        self.add_class("fields", 2, "bright")
        for i, size in enumerate(sizes):
            self.add_image("fields", i, f"{i}.png", size=size)
        self.prepare()

    def load_image(self, image_id):
        masks, class_ids = self.load_mask(image_id)
        image = np.random.default_rng(image_id).integers(110, 150, (*masks.shape[:2], self.channels))
        for i, value in enumerate((40, 230)):
            image[masks[..., i]] = value
        return image.astype(np.uint8)

    def load_mask(self, image_id):
        height, width = self.image_info[image_id]["size"]
        y, x = np.mgrid[:height, :width]
        dark = (y - 20) ** 2 + (x - 22) ** 2 < 14**2
        bright = (y - height + 20) ** 2 / 2 + (x - width + 20) ** 2 < 12**2
        masks, class_ids = [dark, bright & ~dark], [1, 2]
        if image_id == 0:
            masks, class_ids = [*masks, (y < 20) & (x > width - 30)], [*class_ids, -1]
        return np.stack(masks, axis=-1), np.array(class_ids, np.int32)


SETTINGS = {
    "pad64, grey, Adam with trained BatchNorm": (
        {
            "IMAGE_RESIZE_MODE": "pad64",
            "IMAGE_CHANNEL_COUNT": 1,
            "MEAN_PIXEL": (128.0,),
            "NORMALIZATION": None,
            "TRAIN_BN": True,
        },
        SIZES,
        1,
    ),
    "crop, whole masks, SGD with frozen BatchNorm": (
        {
            "IMAGE_RESIZE_MODE": "crop",
            "USE_MINI_MASK": False,
            "OPTIMIZER": "sgd",
            "NORMALIZATION": None,
            "RPN_BBOX_STD_DEV": (0.1, 0.1, 0.2, 0.2),
        },
        SIZES,
        3,
    ),
    "none, pooling of the paper, two levels with anchors, symmetric stem": (
        {
            "IMAGE_RESIZE_MODE": "none",
            "ROI_ALIGN": "paper",
            "RPN_LEVELS": ("P3", "P4"),
            "STEM_PADDING": "symmetric",
            "RPN_ANCHOR_STRIDE": 2,
            "AUGMENTATION": "thesis",
            "AUGMENTATION_SHARE": 1.0,
        },
        [(64, 128), (128, 64), (64, 64)],
        3,
    ),
}


@pytest.fixture(scope="module", params=SETTINGS)
def trained(request, tiny_config_class, small_resnet, tmp_path_factory):
    """A network after one step, its log, its kernels before, and the images."""
    overrides, sizes, channels = SETTINGS[request.param]
    config = make_config({"NUM_CLASSES": 3, "STEPS_PER_EPOCH": 1, **overrides}, tiny_config_class)
    folder, dataset = tmp_path_factory.mktemp("run"), TwoKinds(sizes, channels)
    with small_resnet():
        model = MaskRCNN("training", config, folder)
    before = {layer.name: layer.kernel.numpy() for layer in model.parts.named_layers() if hasattr(layer, "kernel")}
    # One compiled step for images of several sizes is enough.
    tf.config.run_functions_eagerly(config.IMAGE_RESIZE_MODE != "pad64")
    try:
        rows = model.train(dataset, [], 1e-3, 1, "all", folder=folder)
    finally:
        tf.config.run_functions_eagerly(False)
    return model, rows, before, dataset, folder


def test_one_step_trains_every_part(trained):
    model, rows, before, _, _ = trained
    assert all(np.isfinite(float(rows[0][name])) and float(rows[0][name]) > 0 for name in ("loss", *LOSS_NAMES))
    changed = {name for name, kernel in before.items() if not np.array_equal(kernel, layer_of(model, name).kernel)}
    assert changed == set(before)


def layer_of(model, name):
    return next(layer for layer in model.parts.named_layers() if layer.name == name)


@pytest.fixture(scope="module")
def results(trained, small_resnet):
    _, _, _, dataset, folder = trained
    with small_resnet():
        model = load_detector(folder, {"DETECTION_MIN_CONFIDENCE": 0.0})
    # A network after one step takes most of what it looks at for background, and moves boxes anywhere.
    for name in ("mrcnn_class_logits", "mrcnn_bbox_fc", "rpn_bbox_pred"):
        kernel = layer_of(model, name).kernel
        kernel.assign(1e-4 * kernel)
    layer_of(model, "mrcnn_class_logits").bias.assign([-5.0, 5.0, 5.0])
    images = [dataset.load_image(i) for i in dataset.image_ids]
    return model, images, model.detect(images)


def test_detect_finds_cells_in_images_of_all_sizes(results):
    model, images, found = results
    # All proposals of a network that has learned nothing may lie in an image's padding.
    assert sum(len(result["scores"]) > 0 for result in found) >= 2
    for image, result in zip(images, found, strict=True):
        count = len(result["scores"])
        y1, x1, y2, x2 = result["rois"].T
        assert (0 <= y1).all() and (y1 < y2).all() and (y2 <= image.shape[0]).all()
        assert (0 <= x1).all() and (x1 < x2).all() and (x2 <= image.shape[1]).all()
        assert set(result["class_ids"]) <= {1, 2}
        assert result["masks"].shape == (*image.shape[:2], count) and result["feats"].shape == (count, 14, 14, 32)


def test_detect_does_not_depend_on_the_other_images(results):
    model, images, found = results
    for image, expected in zip(images, found, strict=True):
        (alone,) = model.detect([image])
        np.testing.assert_allclose(alone["scores"], expected["scores"], atol=1e-4)
        np.testing.assert_allclose(alone["rois"], expected["rois"], atol=1)
        np.testing.assert_allclose(alone["feats"], expected["feats"], atol=2e-2)
