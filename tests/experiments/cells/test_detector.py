"""What a trained detector is known by, when it is replaced, and on which images it is measured."""

import hashlib
import json
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.model import load_detector

TINY_SETTINGS = """BACKBONE=resnet50 FPN_CLASSIF_FC_LAYERS_SIZE=64 IMAGE_MIN_DIM=64 IMAGE_MAX_DIM=64
    RPN_ANCHOR_SCALES=[8,16,24,32,48] TRAIN_ROIS_PER_IMAGE=8 PRE_NMS_LIMIT=200 POST_NMS_ROIS_TRAINING=40
    POST_NMS_ROIS_INFERENCE=20 MAX_GT_INSTANCES=4 DETECTION_MAX_INSTANCES=4 STEPS_PER_EPOCH=1 VALIDATION_STEPS=0"""


def training(folder, output, *options):
    settings = [f"--set=settings.{setting}" for setting in TINY_SETTINGS.split()]
    settings += ["--set=epochs=1", "--set=train_share=0.5"]
    return ["detector", "train", folder, "-o", output, *settings, *options]


@pytest.fixture(scope="module")
def train(aecfe):
    return lambda *arguments: aecfe(*training(*arguments))


@pytest.fixture
def error_of(refused):
    return lambda *arguments: refused(*training(*arguments))


def content_of(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def lab(tmp_path_factory, draw_cell):
    """A centre of eight images with label masks."""
    folder = tmp_path_factory.mktemp("centres") / "lab"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for seed in range(8):
        image, mask = draw_cell(seed)
        Image.fromarray(image).save(folder / "images" / f"{seed}.png")
        Image.fromarray(mask[..., 0].astype(np.uint8)).save(folder / "masks" / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def trained(lab, tmp_path_factory, train):
    """A detector after one step on half of the images."""
    folder = tmp_path_factory.mktemp("detector") / "run"
    assert train(lab, folder, "--instances", "--tracker", "tensorboard") == 0
    return folder


@pytest.fixture
def detector(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "detector")


@pytest.fixture
def no_steps(monkeypatch):
    """Trainings that save the weights as they began."""

    def save(model, *arguments, folder, custom_callbacks):
        model.save(folder)
        return []

    monkeypatch.setattr("mrcnn.model.MaskRCNN.train", save)


@pytest.fixture(scope="module")
def opened(trained):
    """The detector, opened once for all evaluations, since it is compiled with each opening."""
    return load_detector(trained, {"DETECTION_MIN_CONFIDENCE": 0.05})


@pytest.fixture
def open_once(opened, monkeypatch):
    monkeypatch.setattr("experiments.cells.detector.load_detector", lambda *arguments: opened)


def min_confidence(folder):
    return json.loads((folder / "config.json").read_text())["DETECTION_MIN_CONFIDENCE"]


def test_detector_gets_the_score_that_is_best_on_held_out_images(lab, no_steps, tmp_path, monkeypatch, train):
    measured = []

    def measure(detector, datasets):
        measured.append((detector.config.DETECTION_MIN_CONFIDENCE, sum(d.num_images for d in datasets)))
        return 0.812345

    monkeypatch.setattr("mrcnn.evaluation.measure_operating_score", measure)
    assert train(lab, tmp_path / "a", "--instances", "--set=min_score_for_ap=0.1") == 0
    assert measured == [(0.1, 4)]  # half of the eight images
    assert min_confidence(tmp_path / "a") == 0.8123
    assert json.loads((tmp_path / "a" / "run.json").read_text())["min_confidence"] == 0.8123
    before = content_of(tmp_path / "a")
    assert train(lab, tmp_path / "a", "--instances", "--set=min_score_for_ap=0.1") == 0
    assert content_of(tmp_path / "a") == before and len(measured) == 1  # the finished detector is kept

    assert train(lab, tmp_path / "b", "--instances", "--set=settings.DETECTION_MIN_CONFIDENCE=0.33") == 0
    assert min_confidence(tmp_path / "b") == 0.33 and len(measured) == 1


def test_detector_for_other_stains_gets_its_score_on_them_too(lab, no_steps, tmp_path, monkeypatch, train):
    seen = []
    monkeypatch.setattr("mrcnn.evaluation.measure_operating_score", lambda detector, sets: seen.extend(sets) or 0.5)
    assert train(lab, tmp_path / "a", "--instances", "--set=settings.AUGMENTATION=strong") == 0
    assert [dataset.num_images for dataset in seen] == [4, 16]  # each of the held-out images under four colour changes


def test_detector_that_finds_nothing_keeps_its_score(lab, no_steps, tmp_path, monkeypatch, capsys, train):
    monkeypatch.setattr("mrcnn.evaluation.measure_operating_score", lambda *a: None)
    assert train(lab, tmp_path / "a", "--instances") == 0
    assert min_confidence(tmp_path / "a") == 0.7
    assert "no cell was found on the held-out images" in capsys.readouterr().err


def test_overwrite_keeps_the_detector_until_weights_and_layers_are_found_good(lab, detector, tmp_path, error_of):
    before = content_of(detector)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        file.create_group("conv1").attrs["weight_names"] = [b"conv1/kernel:0"]
        file["conv1"]["conv1/kernel:0"] = [[1.0]]
    for options in (
        ["--weights", tmp_path / "typo.h5"],
        ["--weights", tmp_path / "other.h5"],
        ["--layers", "("],
        ["--layers", "nothing"],
    ):
        assert error_of(lab, detector, "--instances", "--overwrite", *options)
        assert content_of(detector) == before


def test_overwrite_leaves_nothing_of_the_detector_before(lab, detector, train):
    other_notes, events = detector / "tensorboard" / "notes.txt", next((detector / "tensorboard" / "train").iterdir())
    other_notes.write_text("mine")
    (detector / "metrics.json").write_text("{}")
    # As of a kill after another training's epoch: it must not be gone on from.
    (detector / "checkpoint" / "00000001.weights.h5").write_text("no weights")
    (detector / "run.json").write_text("damaged")

    assert train(lab, detector, "--instances", "--overwrite") == 0

    assert json.loads((detector / "run.json").read_text())["complete"]
    assert not (detector / "metrics.json").exists() and not list((detector / "checkpoint").iterdir())
    assert not events.exists() and other_notes.read_text() == "mine"


def test_detector_of_other_masks_is_not_reused(lab, detector, tmp_path, capsys, train, error_of):
    before = content_of(detector)
    assert "annotations" in error_of(lab, detector)  # the values of the masks mean something else
    masks = shutil.copytree(lab / "masks", tmp_path / "redrawn")
    assert train(lab, detector, "--instances", "--annotations", masks) == 0  # a copy of the same
    assert "detector reused" in capsys.readouterr().err
    mask = np.array(Image.open(masks / "3.png"))
    mask[:32] = 0
    mask[40, 40] = 1
    Image.fromarray(mask).save(masks / "3.png")
    assert "annotations" in error_of(lab, detector, "--instances", "--annotations", masks)
    assert content_of(detector) == before


def write_boxes(folder, names):
    (folder / "annotations").mkdir()
    box = "<xmin>9</xmin><ymin>9</ymin><xmax>40</xmax><ymax>40</ymax>"
    for name in names:
        text = f"<annotation><object><name>WBC</name><bndbox>{box}</bndbox></object></annotation>"
        (folder / "annotations" / f"{name}.xml").write_text(text)


@pytest.mark.parametrize("truth", ["masks", "boxes", "presence"])
def test_evaluate_counts_no_image_that_was_learned_from(lab, trained, open_once, tmp_path, truth, aecfe):
    centre = shutil.copytree(lab, tmp_path / "lab")
    if truth != "masks":
        shutil.rmtree(centre / "masks")
    if truth == "boxes":
        write_boxes(centre, range(8))
    arguments = ["--instances"] if truth == "masks" else []
    assert aecfe("detector", "evaluate", trained, centre, *arguments, "-o", tmp_path / "m.json") == 0
    measured = json.loads((tmp_path / "m.json").read_text())["lab"]
    assert (measured["truth"], measured["held_out"], measured["num_images"]) == (truth, True, 4)


def test_evaluate_shows_other_colours_on_request(lab, trained, open_once, tmp_path, aecfe, refused):
    arguments = ["detector", "evaluate", trained, lab, "--instances", "--colour-shifts", 2]
    assert aecfe(*arguments, "-o", tmp_path / "m.json") == 0
    assert json.loads((tmp_path / "m.json").read_text())["lab"]["num_images"] == 8
    without = shutil.copytree(lab, tmp_path / "lab")
    shutil.rmtree(without / "masks")
    assert f"{without}: --colour-shifts needs masks" in refused(*arguments[:3], without, "--colour-shifts", 2)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["images", "masks"], "the detector learned from every image of centre lab"),
        (["images"], "the detector learned from every image of centre lab"),
        (["masks"], "no usable mask in centre lab of an image that the detector did not learn from (4 faults"),
    ],
)
def test_evaluate_refuses_a_centre_without_held_out_truth(lab, trained, open_once, tmp_path, refused, missing, message):
    centre = shutil.copytree(lab, tmp_path / "lab")
    for name in json.loads((trained / "split.json").read_text())["lab"]["test"]:
        for folder in missing:
            (centre / folder / name.removeprefix("images/")).unlink()
    assert message in refused("detector", "evaluate", trained, centre, "-o", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_finished_detector_loses_what_a_killed_run_did_not_remove(lab, detector, train):
    before = content_of(detector)
    (detector / "checkpoint").mkdir(exist_ok=True)
    (detector / "checkpoint" / "00000001.weights.h5").touch()
    with OutputLock(detector, inside=True):  # to use it takes no lock, as on a read-only disk
        assert train(lab, detector, "--instances") == 0
    assert content_of(detector) == before


def test_detector_is_written_by_one_run_at_a_time(lab, tmp_path, error_of):
    with OutputLock(tmp_path / "run", inside=True):
        assert f"{tmp_path / 'run'}: another run (pid " in error_of(lab, tmp_path / "run", "--instances")
    assert not (tmp_path / "run" / "run.json").exists()


def test_checkpoints_of_an_unknown_training_are_not_gone_on_from(lab, tmp_path, monkeypatch, error_of):
    folder = tmp_path / "run"
    (folder / "checkpoint").mkdir(parents=True)
    for name in ("00000001.weights.h5", ".7.tmp.00000002.weights.h5"):
        (folder / "checkpoint" / name).write_bytes(b"of other settings")

    def stop(*arguments, **options):
        raise InputError("stop")

    monkeypatch.setattr("mrcnn.model.MaskRCNN.train", stop)
    assert error_of(lab, folder, "--instances") == "stop"
    assert not list((folder / "checkpoint").iterdir())
