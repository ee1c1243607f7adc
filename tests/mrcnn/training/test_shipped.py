"""Detectors that ship: found by name, in half precision, and refused where a file is not what it was."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.model import load_detector
from mrcnn.training.folder import CONFIG_NAME, WEIGHTS_NAME, ship_detector
from mrcnn.training.shipped import DEFAULT, SUMS, find_detector, models_folder, shipped_detector


@pytest.fixture(scope="module")
def models(tiny_detector, tmp_path_factory):
    """A folder of models with one that ships."""
    folder = tmp_path_factory.mktemp("models")
    ship_detector(Path(tiny_detector.model_dir), folder / DEFAULT)
    return folder


@pytest.fixture
def shipped(models, tmp_path, monkeypatch):
    """A copy of it, where the package looks for it; the present folder is another one."""
    shutil.copytree(models, tmp_path / "models")
    monkeypatch.setattr("mrcnn.training.shipped.models_folder", lambda: tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models" / DEFAULT


def test_detectors_lie_in_the_package():
    assert models_folder().parts[-2:] == ("aecfe", "models")


def test_shipped_detector_finds_what_the_trained_one_finds(shipped, tiny_detector, small_resnet, draw_cell):
    images = [draw_cell(seed)[0] for seed in range(3)]
    with small_resnet():
        found = load_detector(DEFAULT)
    with h5py.File(shipped / WEIGHTS_NAME) as file:
        kinds = set()
        file.visititems(lambda _, item: kinds.add(item.dtype.name) if isinstance(item, h5py.Dataset) else None)
    assert kinds == {"float16"}
    for ours, theirs in zip(found.parts.variables, tiny_detector.parts.variables, strict=True):
        assert ours.dtype == "float32"
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-7)
    for one, other in zip(found.detect(images), tiny_detector.detect(images), strict=True):
        # Of an untrained network's scores many are as good as equal, so that a few boxes are others.
        apart = np.abs(one["rois"][:, np.newaxis] - other["rois"][np.newaxis]).max(axis=-1).min(axis=1)
        assert len(apart) == len(other["rois"]) > 0 and np.mean(apart <= 0.5) > 0.6
        np.testing.assert_allclose(one["scores"], other["scores"], atol=0.01)


def test_a_folder_wins_over_a_name(shipped, tmp_path):
    assert find_detector(DEFAULT) == shipped_detector() == shipped
    (tmp_path / DEFAULT).mkdir()
    assert str(find_detector(DEFAULT)) == DEFAULT
    assert shipped_detector("../models/smear-small") is None
    with pytest.raises(InputError, match="no trained detector"):
        load_detector("nosuch")


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME, SUMS])
def test_a_damaged_file_is_named(shipped, name):
    path = shipped / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged") as error:
        load_detector(shipped)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) or name == SUMS


def test_ship_detector_refuses_what_half_precision_cannot_hold(shipped, tiny_detector, tmp_path):
    folder = shutil.copytree(Path(tiny_detector.model_dir), tmp_path / "large")
    with h5py.File(folder / WEIGHTS_NAME, "r+") as file:
        first = []
        file.visititems(lambda name, item: first.append(name) if isinstance(item, h5py.Dataset) else None)
        file[first[0]][...] = 1e6
    with pytest.raises(InputError, match="half precision"):
        ship_detector(folder, tmp_path / "out")
    assert not (tmp_path / "out" / WEIGHTS_NAME).exists()


def test_a_detector_saved_over_it_is_no_longer_compared(shipped, tiny_detector):
    tiny_detector.save(shipped)
    assert not (shipped / SUMS).exists()
