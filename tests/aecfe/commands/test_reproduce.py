"""The arguments of `aecfe reproduce`: mistakes, and what the rest gets of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from aecfe.cli import main
from experiments.thesis import catalogue

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(study_values, tmp_path):
    """A configuration's file, and a folder for what it makes."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(study_values))
    return path


@pytest.fixture
def asked(monkeypatch):
    """What `reproduce` was asked for, without anything being made."""
    calls = []

    def note(settings, targets, options, study):
        calls.append((settings, targets, options, study))
        return [Path(settings.output) / "tables" / f"{targets[0]}.md"]

    monkeypatch.setattr(catalogue, "reproduce", note)
    return calls


def fault(capsys, *arguments):
    """The one line that a mistake gives."""
    assert main(["reproduce", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("aecfe: error: ")


FAULTS = [
    ("table-9", "reproduce table-9: is none of tables, figures, all, figure-2.6"),
    ("table-3.2 --set evaluate.runs=0", "tiny.yaml: evaluate.runs must be 1 or more"),
    ("table-3.2 --seed 3000000000", "tiny.yaml: seed must be below 2147483648"),
    ("table-3.2 --standardise none none", "tiny.yaml: reproduce.ablation.standardise: name one or more, each once"),
    ("table-3.2 --features DinoBloom", "--features DinoBloom: write it as NAME=FILE"),
    ("table-3.2 --features =a.npz", "--features =a.npz: write it as NAME=FILE"),
    ("table-3.2 --features A=no.npz", "--features A no.npz: no such file"),
    ("table-3.3 --oracle m.keras", "--oracle and --classes belong together"),
    ("table-3.3 --oracle m.keras --classes c.txt", "--oracle m.keras: no such file"),
    ("table-3.2 --oracle m.keras --classes c.txt", "--oracle: is a column of table-3.3, which is not"),
    ("table-3.3 --oracle-size 64", "--oracle-size tells of the model of --oracle, and none is given"),
    ("table-3.2 --centres carl", "--centres carl: is none of anna, bert"),
    ("table-3.2 --centres bert --set autoencoder.source_centre=anna", "--centres: leaves out anna, the autoencoder."),
    ("table-3.2 --data /no/such/folder --config demo", "--data: the centres of demo are synthetic; leave it"),
    ("table-3.2 --data /no/such/folder", "--data: name the folder of the centres anna, bert; /no/such/folder is none"),
    ("table-3.2 --config thesys", "--config thesys: is none of demo, real-small, thesis, and no .yaml file"),
    ("table-3.2 --config no.yaml", "no.yaml: no such configuration file"),
    # These are found by what makes tables, before it begins.
    (
        "curves --set reproduce.ablation.autoencoders.AE-CFE.source_centre=carl",
        "column AE-CFE: source_centre 'carl' is none of the centres anna, bert",
    ),
    (
        "table-3.2 --set reproduce.ablation.columns=[ResNet-RF] --weights no.h5",
        "--weights no.h5: no such file; give the ResNet-101 weights of keras.applications, imagenet or random",
    ),
    (
        "table-3.2 --runs 2 --set reproduce.ablation.training_runs=3",
        "--runs 2: run number r takes training number r, and there are 3 trainings",
    ),
]


def test_mistakes_are_one_line_without_tensorflow(config, tmp_path):
    code = f"""
import contextlib, io, json, sys
sys.path.insert(0, {str(ROOT)!r})
from aecfe.cli import main
found = []
for words in json.load(sys.stdin):
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        status = main(["reproduce", "--config", {str(config)!r}, "-o", {str(tmp_path / "out")!r}, *words.split()])
    found.append((status, stream.getvalue()))
print(json.dumps([found, [name for name in ("tensorflow", "keras") if name in sys.modules]]))
"""
    given = json.dumps([words for words, _ in FAULTS])
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, imported = json.loads(done.stdout)
    for (status, text), (words, message) in zip(found, FAULTS, strict=True):
        assert (status, text.count("\n")) == (2, 1), (words, text)
        assert text.startswith(f"aecfe: error: {message}"), (words, text)
    assert imported == []
    assert not (tmp_path / "out").exists()


def test_config_names_what_comes_with_the_software(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "figure-3.4", "--config", "demo"]) == 0
    settings, targets, options, study = asked[0]
    assert (settings.name, settings.output, targets) == ("demo", "runs/reproduce-demo", ["figure-3.4"])
    assert (options.protocol.runs, options.protocol.test_on, options.protocol.name) == (5, "test", "thesis")
    assert (study.jobs, study.overwrite, options.features, options.published) == (None, False, {}, None)
    assert capsys.readouterr().out == "runs/reproduce-demo/tables/figure-3.4.md\n"


def test_options_come_through(asked, config, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    np.savez(tmp_path / "a=b.npz", X=np.ones((1, 2)))
    for name in ("model.keras", "classes.txt"):
        (tmp_path / name).touch()
    arguments = [
        "all", "--config", config, "-o", tmp_path / "out", "--jobs", 3, "--runs", 7, "--test-on", "all", "--seed", 5,
        "--standardise", "centre", "--protocol", "dinobloom", "--weights", "random", "--centres", "bert", "--overwrite",
        "--features", f"Mine={tmp_path / 'a=b.npz'}", "--oracle", tmp_path / "model.keras",
        "--classes", tmp_path / "classes.txt", "--oracle-centre", "none", "--oracle-size", 64,
    ]  # fmt: skip
    assert main(["reproduce", *map(str, arguments)]) == 0
    settings, targets, options, study = asked[0]
    assert targets[0] == "figure-2.6" and targets[-1] == "table-3.3"
    assert settings.output == str(tmp_path / "out")
    # The detector is trained on anna, which is not compared.
    assert {name: centre.use for name, centre in settings.centres.items()} == {"anna": "detector", "bert": "all"}
    assert settings.reproduce.ablation.standardise == ["centre"] and settings.reproduce.resnet_weights == "random"
    protocol = options.protocol
    told = (protocol.name, protocol.runs, protocol.seed, protocol.test_on, protocol.bootstrap)
    assert told == ("dinobloom", 7, 5, "all", 100)
    assert options.features == {"Mine": tmp_path / "a=b.npz"}
    files = {"model": tmp_path / "model.keras", "classes": tmp_path / "classes.txt"}
    assert options.published == {**files, "centre": "none", "pixels": "0..1", "image_size": 64}
    assert (study.jobs, study.overwrite) == (3, True)


def test_an_output_set_as_a_setting_is_kept(asked, config, tmp_path):
    assert main(["reproduce", "table-3.1", "--config", str(config), f"--set=output={tmp_path / 'here'}"]) == 0
    assert asked[0][0].output == str(tmp_path / "here")


def test_features_of_one_name_or_of_another_table_are_refused(capsys, config, tmp_path):
    np.savez(tmp_path / "a.npz", X=np.ones((1, 2)))
    files = [f"A={tmp_path / 'a.npz'}", f"A ={tmp_path / 'a.npz'}"]
    given = ("--config", config, "-o", tmp_path / "out", "--features")
    assert fault(capsys, "table-3.2", *given, *files).startswith("--features: two columns are called A;")
    assert fault(capsys, "table-3.1", *given, files[0]).startswith("--features: are columns of table-3.2, which")
    taken = fault(capsys, "table-3.2", *given, files[0].replace("A=", "AE-CFE="))
    assert taken.startswith("--features AE-CFE: Table 3.2 has a column of this name")


def test_centres_that_only_the_detector_is_trained_on_are_no_comparison(capsys, config):
    given = ["table-3.2", "--config", config, "--set", "centres.anna.use=detector"]
    assert fault(capsys, *given, "--centres", "anna").startswith("--centres anna: only the detector is trained on it")
    assert fault(capsys, *given, "--set", "centres.bert.use=detector").startswith("centres: the detector alone is")


def test_an_interruption_says_how_to_go_on(config, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "reproduce", stop)
    for more, how in (([], "again"), (["--overwrite"], "without --overwrite")):
        assert main(["reproduce", "table-3.1", "--config", str(config), *more]) == 130
        told = capsys.readouterr().err.strip()
        assert told == f"aecfe: interrupted; run the same command {how} to go on from here"
