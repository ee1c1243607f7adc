"""`aecfe detector import`: weights of Matterport's layout become a detector."""

import h5py
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.model import MaskRCNN, load_detector
from mrcnn.training.weights import save_matterport


class TheirConfig(Config):
    BACKBONE = "resnet50"
    NUM_CLASSES = 3
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    TOP_DOWN_PYRAMID_SIZE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64


@pytest.fixture(autouse=True)
def narrow_resnet(monkeypatch):
    monkeypatch.setattr("mrcnn.network.backbone.STAGE_FILTERS", (8, 8, 8, 8))


@pytest.fixture
def theirs(tmp_path):
    """A network of random weights, and the file that Matterport's `save_weights` would leave of it."""
    parts = MaskRCNN("inference", TheirConfig(), tmp_path).parts
    save_matterport(parts.named_layers(), tmp_path / "mask_rcnn_cells.h5")
    return parts, tmp_path / "mask_rcnn_cells.h5"


def test_import_reads_the_network_from_the_file(theirs, tmp_path, capsys, aecfe, refused):
    parts, path = theirs
    size = ("--set", "IMAGE_MAX_DIM=64", "--set", "IMAGE_MIN_DIM=64")
    assert aecfe("detector", "import", path, "-o", tmp_path / "imported", *size) == 0
    assert "resnet50" in capsys.readouterr().out
    detector = load_detector(tmp_path / "imported")
    wanted = ("BACKBONE", "NUM_CLASSES", "TOP_DOWN_PYRAMID_SIZE", "FPN_CLASSIF_FC_LAYERS_SIZE", "normalization")
    assert [getattr(detector.config, n) for n in wanted] == [getattr(TheirConfig(), n) for n in wanted]
    for ours, their in zip(detector.parts.variables, parts.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), their.numpy())
    assert "imported" in refused("detector", "import", path, "-o", tmp_path / "imported")


@pytest.mark.parametrize("kind", ["text", "no heads", "no layers"])
def test_import_refuses_what_is_no_detector(theirs, tmp_path, refused, kind):
    path = theirs[1]
    if kind == "text":
        path.write_text("weights")
    else:
        with h5py.File(path, "r+") as file:
            names = [n for n in file.attrs["layer_names"] if kind == "no heads" and not n.startswith(b"mrcnn")]
            file.attrs["layer_names"] = names
    assert str(path) in refused("detector", "import", path, "-o", tmp_path / "imported")
    assert not (tmp_path / "imported").exists()
