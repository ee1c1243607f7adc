"""The detector that ships: taken where none is named, and what a training begins with."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.pipeline import Pipeline
from experiments.settings import RunSettings
from mrcnn.model import load_detector
from mrcnn.training.folder import ship_detector
from mrcnn.training.weights import save_matterport

TOLD = "smear-small, which ships with aecfe"


@pytest.fixture(scope="module")
def models(untrained_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    ship_detector(untrained_run / "detector", folder / "smear-small")
    return folder


@pytest.fixture
def shipped(models, monkeypatch):
    """The folder of a detector that ships, with learned nothing."""
    monkeypatch.setattr("mrcnn.training.shipped.models_folder", lambda: models)
    return models / "smear-small"


@pytest.fixture
def lab(tmp_path, draw_cell):
    """A centre of four images with masks."""
    for part in ("images", "masks"):
        (tmp_path / "lab" / part).mkdir(parents=True)
    for seed in range(4):
        image, mask = draw_cell(seed)
        Image.fromarray(image).save(tmp_path / "lab" / "images" / f"{seed}.png")
        Image.fromarray(mask[..., 0].astype(np.uint8)).save(tmp_path / "lab" / "masks" / f"{seed}.png")
    return tmp_path / "lab"


@pytest.fixture
def train(lab, tmp_path, monkeypatch, aecfe):
    """Function that trains without a step; returns the settings and the weights that the training began with."""
    began = []

    def save(model, *arguments, folder, custom_callbacks):
        began.append([variable.numpy() for variable in model.parts.variables])
        model.save(folder)

    monkeypatch.setattr("mrcnn.model.MaskRCNN.train", save)

    def call(*options):
        fixed = ("--set=settings.DETECTION_MIN_CONFIDENCE=0.5", "--overwrite", "-o", tmp_path / "out")
        assert aecfe("detector", "train", lab, *fixed, *options) == 0
        return json.loads((tmp_path / "out" / "config.json").read_text()), began[-1]

    return call


def assert_begins_with(began, folder):
    for value, variable in zip(began, load_detector(folder).parts.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


def test_detect_takes_the_one_that_ships_and_says_so(shipped, lab, tmp_path, capsys, aecfe):
    assert aecfe("detect", lab / "images", "--csv", tmp_path / "cells.csv") == 0
    assert f"detector: {TOLD}" in capsys.readouterr().err
    assert len((tmp_path / "cells.csv").read_text().splitlines()) > 1


def test_without_one_a_detector_must_be_named(lab, tmp_path, monkeypatch, refused):
    monkeypatch.setattr("mrcnn.training.shipped.models_folder", lambda: tmp_path / "none")
    for command in (
        ("detect", lab / "images", "--csv", tmp_path / "c.csv"),
        ("export", "detector", tmp_path / "model"),
    ):
        assert "none ships" in refused(*command)


def test_few_images_start_from_the_one_that_ships(shipped, train, capsys):
    config, began = train()
    assert f"starts from {TOLD}" in capsys.readouterr().err
    assert_begins_with(began, shipped)
    assert (config["NAME"], config["LEARNING_RATE"], config["SEED"]) == ("tiny", 2e-4, 0)
    assert train("--set=settings.LEARNING_RATE=0.5")[0]["LEARNING_RATE"] == 0.5


@pytest.mark.parametrize("why", ["are enough", "another network", "no detector ships"])
def test_otherwise_training_starts_from_scratch(shipped, train, monkeypatch, capsys, tmp_path, why):
    options = ["--set=settings.BACKBONE=resnet50", "--set=settings.IMAGE_MAX_DIM=64", "--set=settings.IMAGE_MIN_DIM=64"]
    if why == "are enough":
        monkeypatch.setattr("experiments.cells.detector.ENOUGH_IMAGES", 4)
    elif why == "another network":
        options += ["--set=settings.RPN_CHANNELS=64"]
    else:
        monkeypatch.setattr("mrcnn.training.shipped.models_folder", lambda: tmp_path / "none")
    assert train(*options)[0]["NAME"] == "smear"
    told = capsys.readouterr().err
    assert "starts from scratch" in told and why in told


def test_start_takes_a_detectors_folder_or_a_file(shipped, untrained_run, train, tmp_path):
    own = untrained_run / "detector"
    config, began = train("--start", own)
    assert config["FPN_CLASSIF_FC_LAYERS_SIZE"] == 64
    assert_begins_with(began, own)

    detector = load_detector(own)
    save_matterport(detector.parts.named_layers(), tmp_path / "mask_rcnn.h5")
    changes = {**detector.config.to_dict(), "SEED": 5}
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps({"detector": {"settings": changes}}))
    for path in (tmp_path / "mask_rcnn.h5", own / "weights.weights.h5"):
        assert_begins_with(train("--config", file, "--start", path)[1], own)


def test_small_network_starts_from_scratch_on_request(train):
    config, _ = train("--start", "scratch", "--set=settings.BACKBONE=small")
    assert (config["NAME"], config["MASK_PARTS"]) == ("smear-small", ["cell", "nucleus"])


def test_run_without_a_detector_takes_the_one_that_ships(shipped, study_values, tmp_path, logged):
    values = {name: value for name, value in study_values.items() if name != "detector"}
    settings = RunSettings(**values, output=str(tmp_path / "run"))
    Pipeline(settings).train_detector()
    taken = tmp_path / "run" / "detector"
    for name in ("config.json", "weights.weights.h5"):
        assert (taken / name).read_bytes() == (shipped / name).read_bytes()
    Pipeline(settings).train_detector()
    assert "reused" in logged.text


def test_run_takes_a_named_detector_and_keeps_another_that_is_there(
    shipped, untrained_run, study_values, tmp_path, refused
):
    other = shutil.copytree(untrained_run, tmp_path / "run")
    before = (other / "detector" / "weights.weights.h5").read_bytes()
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(study_values))
    assert "another detector is there" in refused("run", config, "-o", other, "--detector", "smear-small")
    assert (other / "detector" / "weights.weights.h5").read_bytes() == before
