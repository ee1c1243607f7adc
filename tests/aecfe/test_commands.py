"""Options that cannot be, and what is said when a command is interrupted; nothing here needs a network."""

import json

import pytest
from PIL import Image

from aecfe.cli import main
from aecfe.commands import actions as commands
from mrcnn.data.masks import mask_polygons


def run(*arguments):
    return main([str(argument) for argument in arguments])


def error_of(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aecfe: error: ")
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "("], "detector.layers must be heads, 3+, 4+, 5+, all or a regular expression; got '('"),
        (["--set", "weights=5"], "weights must be text; got 5"),
        (["--set", "train_share=.nan"], "--set detector.train_share=.nan: the value is not valid YAML"),
        (["--set", "train_share=1.5"], "detector.train_share must lie between 0 and 1; got 1.5"),
        (["--set", "epochs=0"], "detector.epochs must be 1 or more; got 0"),
        (["--set", "epochs=-3"], "detector.epochs must be 1 or more; got -3"),
        (["--set", "min_score_for_ap=2"], "detector.min_score_for_ap must lie between 0 and 1; got 2"),
        (["--exclude", "mrcnn_mask"], "detector.exclude (--exclude) names layers that do not take the weights"),
        (["--config", "list.yaml"], "list.yaml: detector: expected settings with keys, found [1]"),
        (["--config", "list.yaml", "--set", "epochs=2"], "list.yaml: detector: expected settings with keys"),
    ],
)
def test_detector_train_tells_wrong_settings(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("detector: [1]\n")
    assert run("detector", "train", "centre", "-o", "out", *options) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_train_tells_a_section_that_is_no_mapping(tmp_path, capsys):
    (tmp_path / "list.yaml").write_text("autoencoder: [1]\n")
    assert run("train", "a.h5", "-o", tmp_path / "ae", "--config", tmp_path / "list.yaml") == 2
    assert "list.yaml: autoencoder: expected settings with keys, found [1]" in error_of(capsys)


@pytest.mark.parametrize("score", ["1.5", "-0.1", "nan"])
def test_extract_takes_scores_from_0_to_1_alone(tmp_path, capsys, score):
    arguments = [tmp_path, "--detector", tmp_path, "-o", tmp_path / "a.h5", f"--min-score={score}"]
    assert run("extract", *arguments) == 2
    assert f"--min-score must lie between 0 and 1; got {float(score):g}" in error_of(capsys)


@pytest.mark.parametrize("size", ["7e-8", "65000", "0", "-1", "nan", "inf"])
def test_detect_takes_pixel_sizes_in_micrometres_alone(tmp_path, capsys, size):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert run("detect", tmp_path / "a.png", "--detector", tmp_path, "--labels", out, f"--pixel-size={size}") == 2
    assert f"--pixel-size is in micrometres, 0.0001 to 10000; got {float(size):g}" in error_of(capsys)
    assert not out.exists()


def test_detector_train_says_that_instances_has_no_effect_on_outlines(tmp_path, draw_cell, monkeypatch, capsys):
    image, mask = draw_cell(0)
    (tmp_path / "lab" / "images").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "lab" / "images" / "0.png")
    outline = [[v for point in polygon[0] for v in point] for polygon in mask_polygons(mask[..., 0])]
    annotations = {
        "images": [{"id": 0, "file_name": "0.png", "width": 64, "height": 64}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "segmentation": outline, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "WBC"}],
    }
    (tmp_path / "lab" / "coco.json").write_text(json.dumps(annotations))
    monkeypatch.setattr("experiments.cells.detector.train_detector", lambda *a, **k: True)
    train = ["detector", "train", tmp_path / "lab", "-o", tmp_path / "run"]

    assert run(*train) == 0
    assert "no effect" not in capsys.readouterr().err
    assert run(*train, "--instances") == 0
    assert "lab: each outline is a cell of its own; --instances has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "arguments", "goes_on"),
    [
        ("run", ["run", "a.yaml"], "run the same command again to go on from here"),
        ("detector_train", ["detector", "train", "c", "-o", "d"], "run the same command again to go on from here"),
        ("detector_train", ["detector", "train", "c", "-o", "d", "--overwrite"], "without --overwrite to go on"),
        ("extract", ["extract", "c", "--detector", "d", "-o", "x.h5"], "run the same command again to go on from here"),
        ("train", ["train", "x.h5", "-o", "a", "--overwrite"], "without --overwrite to go on from here"),
        ("detector_evaluate", ["detector", "evaluate", "d", "c"], None),
        ("run", ["run", "a.yaml", "--overwrite"], None),
        ("evaluate", ["evaluate", "x.h5", "-o", "t"], None),
    ],
)
def test_interrupted_commands_promise_no_more_than_they_keep(monkeypatch, capsys, function, arguments, goes_on):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, function, interrupted)
    assert run(*arguments) == 130
    error = capsys.readouterr().err
    assert (goes_on or "the same command") in error
    assert ("go on" in error) == (goes_on is not None)
