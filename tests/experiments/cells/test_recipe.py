"""The recipe of the detector that ships, on drawn smears."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from experiments.cells import recipe as recipes
from experiments.cells.recipe import Recipe, make_detector
from experiments.synthetic.centre import generate_centre
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.settings import read_mapping
from mrcnn.model import load_detector
from mrcnn.training.folder import SPLIT, read_metrics

SMALL = {
    **{"TOP_DOWN_PYRAMID_SIZE": 32, "PYRAMID_HIDDEN_SIZE": 32, "RPN_CHANNELS": 16, "FPN_CLASSIF_FC_LAYERS_SIZE": 64},
    **{"MASK_CONV_CHANNELS": [32], "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64, "RPN_ANCHOR_SCALES": [8, 16, 24, 32, 48]},
    **{"TRAIN_ROIS_PER_IMAGE": 4, "POST_NMS_ROIS_TRAINING": 20, "POST_NMS_ROIS_INFERENCE": 10},
    **{"IMAGES_PER_GPU": 2, "STEPS_PER_EPOCH": 1, "VALIDATION_STEPS": 0},
}


@pytest.fixture(scope="module")
def followed(tmp_path_factory, small_backbone):
    """A recipe of a centre with masks, one without and one left out, and the folder of its detector."""
    folder = tmp_path_factory.mktemp("recipe")
    for name in ("north", "river", "harbour"):
        generate_centre(name, folder / name, num_images=6, seed=0, image_size=64)
    for part in ("masks", "nuclei"):
        shutil.rmtree(folder / "river" / part)
    sample = folder / "sample" / "river" / "images"
    sample.mkdir(parents=True)
    shutil.copy(folder / "river" / "images" / "0000.png", sample)
    values = {
        "name": "tiny",
        "output": str(folder / "run"),
        "data": str(folder),
        "held_out": str(folder / "sample"),
        "centres": {name: {"root": name, "layout": "csv"} for name in ("north", "river", "harbour")},
        "leave_out": ["harbour"],
        "synthetic_images": 2,
        "teacher": {"epochs": 1, "learning_rate": 1e-3},
        "student": {"epochs": 1, "learning_rate": 1e-3},
        "settings": SMALL,
    }
    given = Recipe.from_dict(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "write_pseudo_masks", all_is_cell)
        tf.config.run_functions_eagerly(True)  # to compile takes longer than all the steps
        try:
            return given, make_detector(given)
        finally:
            tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def small_backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrcnn.network.backbone.SMALL_FILTERS", (16, 16, 16, 32))
        patch.setattr("mrcnn.network.backbone.SMALL_STEM", 16)
        yield


def all_is_cell(detector, records, folder, boxes, *, empty=()):
    """Stands in for an untrained teacher, which is sure of nothing."""
    from experiments.cells.self_training import DrawnCell, _write

    for record in records:
        _write(Path(folder), record, (64, 64), [DrawnCell(np.ones((64, 64), bool), np.ones((64, 64), bool))])
    return list(records)


def test_recipe_gives_a_detector_of_cell_and_nucleus_measured_on_every_centre(followed):
    _, folder = followed
    detector = load_detector(folder)
    assert detector.config.NAME == "tiny" and detector.config.MASK_PARTS == ("cell", "nucleus")
    for made, seen in ((folder, {"north", "river"}), (folder.with_name("teacher"), {"north"})):
        measured = read_metrics(made)
        assert {name for name, values in measured.items() if values["held_out"]} == seen
        assert measured["north"]["truth"] == "masks" and measured["river"]["truth"] == "presence"


def test_recipe_never_learns_from_the_sample(followed):
    _, folder = followed
    split = read_json_file(folder / SPLIT, missing="", advice="")
    assert set(split) == {"north", "river"}
    assert "images/0000.png" in split["river"]["test"] and "images/0000.png" not in split["river"]["train"]
    drawn = read_json_file(folder.parent / "pseudo-masks" / "river" / "images.json", missing="", advice="")
    assert sorted(drawn) == split["river"]["train"]


def test_recipe_that_was_followed_is_kept_and_another_refused(followed):
    given, folder = followed
    before = (folder / "weights.weights.h5").stat().st_mtime_ns
    assert make_detector(given) == folder
    assert (folder / "weights.weights.h5").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="epochs"):
        make_detector(given.replace(student={"epochs": 2, "learning_rate": 1e-3}))


def test_recipe_in_the_repository_is_one():
    path = Path(__file__).parents[3] / "experiments" / "configs" / "recipes" / "smear-small.yaml"
    assert Recipe.from_dict(read_mapping(path)).name == "smear-small"
