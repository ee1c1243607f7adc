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
from experiments.thesis.oracle_table import Published

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(study_values, tmp_path):
    """A configuration's file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(study_values))
    return path


@pytest.fixture
def asked(monkeypatch):
    """What `reproduce` was asked for, without anything being made."""
    calls = []
    monkeypatch.setattr(catalogue, "reproduce", lambda *call: calls.append(call) or [Path("tables/made.md")])
    return calls


FAULTS = [
    ("table-9", "reproduce table-9: is none of tables, figures, all, figure-2.6"),
    ("table-3.2 --set evaluate.runs=0", "tiny.yaml: evaluate.runs must be greater than or equal to 1"),
    ("table-3.2 --features DinoBloom", "--features DinoBloom: write it as NAME=FILE"),
    ("table-3.2 --features A=no.npz", "--features A no.npz: no such file"),
    ("table-3.2 --features A=a.npz A=a.npz", "--features: two columns are called A;"),
    ("table-3.1 --features A=a.npz", "--features: are columns of table-3.2, which"),
    ("table-3.3 --oracle m.keras", "--oracle and --classes belong together"),
    ("table-3.3 --oracle m.keras --classes c.txt", "--oracle m.keras: no such file"),
    ("table-3.2 --oracle m.keras --classes c.txt", "--oracle: is a column of table-3.3, which is not"),
    ("table-3.3 --oracle-size 64", "--oracle-size tells of the model of --oracle, and none is given"),
    ("table-3.2 --centres carl", "--centres carl: is none of anna, bert"),
    ("table-3.2 --centres anna --set centres.anna.use=detector", "--centres anna: only the detector is trained on it"),
    ("table-3.2 --centres bert --set autoencoder.source_centre=anna", "--centres: leaves out anna, the autoencoder."),
    (
        "curves --set centres.anna.use=detector --set centres.bert.use=detector",
        "centres: the detector alone is",
    ),
    ("table-3.2 --data /no/such/folder --config demo", "--data: the centres of demo are synthetic; leave it"),
    ("table-3.2 --data /no/such/folder", "--data: name the folder of the centres anna, bert; /no/such/folder is none"),
    ("table-3.2 --config thesys", "--config thesys: is none of demo, real-small, thesis, and no .yaml file"),
    ("table-3.2 --config no.yaml", "no.yaml: no such configuration file"),
    # These are found by what makes tables, before it begins.
    ("table-3.2 --features AE-CFE=a.npz", "--features AE-CFE: Table 3.2 has a column of this name"),
    (
        "curves --set reproduce.ablation.autoencoders.AE-CFE.source_centre=carl",
        "column AE-CFE: source_centre 'carl'",
    ),
    ("table-3.2 --set reproduce.ablation.columns=[ResNet-RF] --weights no.h5", "--weights no.h5: no such file; give "),
    ("table-3.2 --runs 2 --set reproduce.ablation.training_runs=3", "--runs 2: run r takes training r"),
]


def test_mistakes_are_one_line_without_tensorflow(config, tmp_path):
    np.savez(tmp_path / "a.npz", X=np.ones((1, 2)))
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
    study, targets, protocol, features, published = asked[0]
    assert (study.settings.name, study.settings.output, targets) == ("demo", "runs/reproduce-demo", ["figure-3.4"])
    assert (protocol.runs, protocol.test_on, protocol.name) == (5, "test", "thesis")
    assert (study.jobs, study.overwrite, features, published) == (None, False, {}, None)
    assert capsys.readouterr().out == "tables/made.md\n"


def test_options_come_through(asked, config, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    files = [tmp_path / name for name in ("a=b.npz", "model.keras", "classes.txt")]
    for path in files:
        path.touch()
    arguments = [
        "all", "--config", config, f"--set=output={tmp_path / 'out'}", "--jobs", 3, "--runs", 7, "--test-on", "all",
        "--seed", 5, "--standardise", "centre", "--protocol", "dinobloom", "--weights", "random", "--centres", "bert",
        "--overwrite", "--features", f"Mine={files[0]}", "--oracle", files[1], "--classes", files[2],
        "--oracle-centre", "none", "--oracle-size", 64,
    ]  # fmt: skip
    assert main(["reproduce", *map(str, arguments)]) == 0
    study, targets, protocol, features, published = asked[0]
    assert targets[0] == "figure-2.6" and targets[-1] == "table-3.3"
    settings = study.settings
    assert settings.output == str(tmp_path / "out") and settings.reproduce.resnet_weights == "random"
    # The detector is trained on anna, which is not compared.
    assert {name: centre.use for name, centre in settings.centres.items()} == {"anna": "detector", "bert": "all"}
    assert settings.reproduce.ablation.standardise == ["centre"]
    told = (protocol.name, protocol.runs, protocol.seed, protocol.test_on, protocol.bootstrap)
    assert told == ("dinobloom", 7, 5, "all", 100)
    assert features == {"Mine": files[0]} and (study.jobs, study.overwrite) == (3, True)
    assert published == Published(*files[1:], centre="none", pixels="0..1", image_size=64)
