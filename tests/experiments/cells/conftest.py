"""A detector that has learned nothing but finds something, for what uses detectors."""

import pytest

from mrcnn.config import make_config


@pytest.fixture(scope="module", autouse=True)
def short_backbone(small_resnet):
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def untrained_run(tiny_config_class, tmp_path_factory):
    """A folder as of `aecfe run`, with a detector alone."""
    from mrcnn.model import MaskRCNN

    folder = tmp_path_factory.mktemp("run")
    config = make_config({"DETECTION_MIN_CONFIDENCE": 0.0, "TOP_DOWN_PYRAMID_SIZE": 256}, tiny_config_class)
    detector = MaskRCNN("inference", config, folder / "detector")
    # Not so far apart as to make every score 1.
    detector.parts.box_head.get_layer("mrcnn_class_logits").bias.assign([-2.0, 2.0])
    detector.save()
    return folder
