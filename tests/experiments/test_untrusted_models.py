"""Models that attack whoever opens them: each is refused in one line, and what it carries does not happen."""

import base64
import io
import json
import marshal
import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.folder import load_autoencoder
from autoencoder.network import build_autoencoder
from autoencoder.scaling import FeatureScaling
from experiments.cache import Cache, software
from experiments.thesis.image_classifier import load_model_safely
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import file_hash, hash_json
from mrcnn.training.folder import load_parts
from mrcnn.training.weights import load_by_name

SECRET = "/etc/hostname"


def refused(read, path: Path) -> None:
    """Check that `read(path)` refuses in one line that names the file."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1 and path.name in str(caught.value)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.fixture
def mark(tmp_path) -> Path:
    """A file that no test may find: whoever makes it has run what a file brought along."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists()


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv", activation="relu")(images)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, keras.layers.Dense(3, name="dense")(x))


def change_first_layer(path: Path, changes: dict) -> None:
    """Change the description of the first layer in a model file."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"][1] |= changes
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1] |= changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)


FUNCTION = {"class_name": "function", "module": "keras.utils", "config": "get_file", "registered_name": "get_file"}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_model_is_not_run(classifier, suffix, mark, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(mark)!r}, 'w')\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = eval(f"lambda x: (open({str(mark)!r}, 'w'), x)[1]")
    code = base64.b64encode(marshal.dumps(function.__code__)).decode()
    code = {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}
    path = tmp_path / f"model{suffix}"
    for changes in (
        {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "conv", "function": code}},
        {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/elsewhere"}},
        {"config": {"filters": 4, "kernel_size": 3, "activation": FUNCTION}},
        {"class_name": "Trap", "module": "trap", "registered_name": "Trap"},
    ):
        classifier.save(path)
        change_first_layer(path, changes)
        refused(load_model_safely, path)


def external_link(file, name):
    file[name] = h5py.ExternalLink(SECRET, "/")


def external_storage(file, name):
    file.create_dataset(name, (4, 3), "float32", external=[(SECRET, 0, 48)])


@pytest.mark.parametrize("attack", [external_link, external_storage])
@pytest.mark.parametrize("kind", [".h5", ".weights.h5"])
def test_weights_that_lead_elsewhere_are_refused(attack, kind, classifier, tmp_path):
    path = tmp_path / f"model{kind}"
    (classifier.save if kind == ".h5" else classifier.save_weights)(path)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = next(name for name in names if "dense" in name and file[name].ndim == 2)
        del file[name]
        attack(file, name)
    if kind == ".h5":
        refused(load_model_safely, path)
        refused(lambda path: load_by_name(classifier.layers, path), path)
    else:
        refused(lambda path: load_parts(classifier, lambda: classifier, path), path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of an autoencoder."""
    folder = tmp_path_factory.mktemp("trained")
    config = AutoencoderConfig(latent_size=2, image_size=32)
    config.save(folder / "config.json")
    nothing = np.zeros((1, 0), np.float32)
    FeatureScaling("minmax", ("anna",), nothing, nothing).save(folder / "scaling.npz")
    build_autoencoder(config).save_weights(folder / "weights.weights.h5")
    run = {"complete": True, "steps": 1, "stores": {"anna": {"detector_hash": "abc"}}}
    run["weights_sha256"] = file_hash(folder / "weights.weights.h5")
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_an_autoencoder_that_somebody_changed_is_refused(trained, mark, tmp_path, monkeypatch):
    folder = tmp_path / "autoencoder"
    folder.mkdir()
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    # The loss that it names is somebody's code, which only training runs.
    (tmp_path / "evil_loss.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "config.json").write_text(json.dumps({**config, "adaptation": "evil_loss:loss"}))
    assert load_autoencoder(folder).config.adaptation == "evil_loss:loss"
    for changes in ({"class_name": "Lambda"}, {"latent_size": 10**12}):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(InputError, match=next(iter(changes))):
            load_autoencoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    other = build_autoencoder(AutoencoderConfig(latent_size=2, image_size=32, seed=9))
    other.save_weights(folder / "weights.weights.h5")
    with pytest.raises(InputError, match=r"weights\.weights\.h5"):
        load_autoencoder(folder)


def test_arrays_of_pickles_are_not_unpickled(mark, tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, mean=np.array([[Trap(mark)]], object), a=np.array([Trap(mark)], object))
    for content in (buffer.getvalue(), pickle.dumps(Trap(mark))):
        (tmp_path / "scaling.npz").write_bytes(content)
        refused(FeatureScaling.load, tmp_path / "scaling.npz")
        path = tmp_path / "kind" / f"{hash_json({'software': software()})[:32]}.npz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        refused(lambda _: Cache(tmp_path).arrays("kind", {}, dict), path)
