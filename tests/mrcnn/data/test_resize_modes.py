"""Kinds of images and settings that Matterport's configurations ask for: each trains a step and detects."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.model import MaskRCNN
from mrcnn.training.step import LOSS_NAMES


def two_kinds(sizes, channels):
    """Fields of different sizes with a dark and a bright cell, of one class each; the first also has a crowd."""
    for number, (height, width) in enumerate(sizes):
        y, x = np.mgrid[:height, :width]
        dark = (y - 20) ** 2 + (x - 22) ** 2 < 14**2
        bright = ((y - height + 20) ** 2 / 2 + (x - width + 20) ** 2 < 12**2) & ~dark
        image = np.random.default_rng(number).integers(110, 150, (height, width, channels))
        image[dark], image[bright] = 40, 230
        masks = [dark, bright, (y < 20) & (x > width - 30)][: 2 if number else 3]
        yield image.astype(np.uint8), np.stack(masks, axis=-1), [1, 2, -1][: len(masks)]


GREY = {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": (128.0,), "NORMALIZATION": None, "TRAIN_BN": True}
SGD = {"USE_MINI_MASK": False, "OPTIMIZER": "sgd", "NORMALIZATION": None, "RPN_BBOX_STD_DEV": (0.1, 0.1, 0.2, 0.2)}
PAPER = {"ROI_ALIGN": "paper", "RPN_LEVELS": ("P3", "P4"), "STEM_PADDING": "symmetric", "RPN_ANCHOR_STRIDE": 2}


@pytest.mark.parametrize(("mode", "overrides"), [("pad64", GREY), ("crop", SGD), ("none", PAPER)])
def test_each_mode_trains_every_part_and_detects_in_images_of_all_sizes(
    mode, overrides, tiny_config_class, small_resnet, given, tmp_path
):
    settings = {"IMAGE_RESIZE_MODE": mode, "NUM_CLASSES": 3, "STEPS_PER_EPOCH": 1, "DETECTION_MIN_CONFIDENCE": 0.0}
    config = make_config({**settings, **overrides}, tiny_config_class)
    sizes = [(64, 128), (128, 64), (64, 64)] if mode == "none" else [(64, 128), (100, 80), (150, 70)]
    dataset = given(list(two_kinds(sizes, config.IMAGE_CHANNEL_COUNT)), num_classes=2)
    with small_resnet():
        model = MaskRCNN("training", config, tmp_path)
    layers = {layer.name: layer for layer in model.parts.named_layers() if hasattr(layer, "kernel")}
    before = {name: layer.kernel.numpy() for name, layer in layers.items()}
    tf.config.run_functions_eagerly(mode != "pad64")  # one compiled step for images of several sizes is enough
    try:
        model.train(dataset, [], 1e-3, 1, "all", folder=tmp_path)
    finally:
        tf.config.run_functions_eagerly(False)
    logs = [model.keras_model.history.history[name][0] for name in ("loss", *LOSS_NAMES)]
    assert np.isfinite(logs).all() and min(logs) > 0
    assert not any(np.array_equal(before[name], layer.kernel) for name, layer in layers.items())

    # A network after one step takes most of what it looks at for background, and moves boxes anywhere.
    for name in ("mrcnn_class_logits", "mrcnn_bbox_fc", "rpn_bbox_pred"):
        layers[name].kernel.assign(1e-4 * layers[name].kernel)
    layers["mrcnn_class_logits"].bias.assign([-5.0, 5.0, 5.0])
    images = [dataset.load_image(i) for i in dataset.image_ids]
    for image, result in zip(images, model.detect(images), strict=True):
        count = len(result["scores"])
        y1, x1, y2, x2 = result["rois"].T
        assert (0 <= y1).all() and (y1 < y2).all() and (y2 <= image.shape[0]).all()
        assert (0 <= x1).all() and (x1 < x2).all() and (x2 <= image.shape[1]).all()
        assert result["masks"].shape == (*image.shape[:2], count) and result["feats"].shape == (count, 14, 14, 32)
        (alone,) = model.detect([image])
        np.testing.assert_allclose(alone["scores"], result["scores"], atol=1e-4)
        np.testing.assert_allclose(alone["rois"], result["rois"], atol=1)
