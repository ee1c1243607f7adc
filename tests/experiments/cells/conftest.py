"""A detector that has learned nothing but finds something, for what uses detectors."""

import shutil

import pytest

from mrcnn.config import make_config
from mrcnn.files.atomic import write_json
from mrcnn.files.provenance import file_hash


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


@pytest.fixture(scope="session")
def write_autoencoder():
    """Function that leaves an untrained autoencoder in a folder, as a training on a detector's features does."""
    from autoencoder.config import AutoencoderConfig
    from autoencoder.folder import CONFIG, RUN, SCALING, WEIGHTS
    from autoencoder.network import build_autoencoder
    from mrcnn.model import detector_hash

    def write(folder, detector, scaling, latent_size):
        folder.mkdir()
        config = AutoencoderConfig(latent_size=latent_size, image_size=32, feature_scaling=scaling.kind)
        config.save(folder / CONFIG)
        scaling.save(folder / SCALING)
        build_autoencoder(config).save_weights(folder / WEIGHTS)
        stores = {centre: {"detector_hash": detector_hash(detector)} for centre in scaling.centres}
        write_json(folder / RUN, {"complete": True, "stores": stores, "weights_sha256": file_hash(folder / WEIGHTS)})

    return write


@pytest.fixture
def other_detector(untrained_run, tmp_path):
    """A detector of the same weights that counts as another one."""
    folder = shutil.copytree(untrained_run / "detector", tmp_path / "other")
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    return folder
