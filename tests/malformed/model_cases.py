"""Malformed trained models: files of Keras, weights by layer name, folders of detectors, autoencoders and oracles."""

import functools
import io
import json
import logging
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
from case import Case, file_of, files_of
from config_cases import broken_json

from autoencoder.config import AutoencoderConfig
from autoencoder.folder import TrainedAutoencoder, file_hash, load_autoencoder, read_run
from autoencoder.logs import _kept_rows
from autoencoder.network import build_autoencoder
from autoencoder.scaling import FeatureScaling
from autoencoder.state import load_newest_checkpoint, save_checkpoint
from experiments.oracle_config import OracleConfig
from experiments.oracles import load_oracle
from experiments.published_classifier import load_model_safely, read_class_names
from mrcnn.config import Config, SmearConfig
from mrcnn.detector_folder import load_parts
from mrcnn.keras_h5 import StoredWeights
from mrcnn.model import detector_config
from mrcnn.training_log import read_rows, write_rows

AT_LEAST = 1200

_LAYERS = ("conv1", "dense")


def read_by_name(path: Path) -> dict[str, np.ndarray]:
    """All weights of a file in Matterport's layout."""
    with StoredWeights(path, lambda name: name in _LAYERS) as stored:
        return {f"{layer}/{kind}": stored.read(layer, kind) for layer, kinds in stored.shapes.items() for kind in kinds}


def read_own_weights(path: Path) -> list[np.ndarray]:
    """A `.weights.h5` file, as a detector takes it."""
    model = small_model()
    load_parts(model, path)
    return model.get_weights()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The log of a detector."""
    return read_rows(path, 3)


def read_autoencoder_log(path: Path) -> list[list[str]]:
    """The log of an autoencoder."""
    return _kept_rows(path, ("step", "loss", "seconds"), 30)


READERS = {
    "keras": load_model_safely,
    "weights by name": read_by_name,
    "weights.h5": read_own_weights,
    "detector folder": detector_config,
    "autoencoder folder": load_autoencoder,
    "run.json": lambda path: read_run(path.parent),
    "scaling.npz": FeatureScaling.load,
    "checkpoints": load_newest_checkpoint,
    "oracle folder": load_oracle,
    "class names": read_class_names,
    "detector log": read_log,
    "autoencoder log": read_autoencoder_log,
}


def cases(reader: str, seed: int) -> Iterator[Case]:
    """The cases of a reader."""
    makers: dict[str, Callable[[int], Iterator[Case]]] = {
        "keras": _keras_files,
        "weights by name": _files_by_name,
        "weights.h5": _own_weights,
        "detector folder": _detectors,
        "autoencoder folder": _autoencoders,
        "run.json": _runs,
        "scaling.npz": _scalings,
        "checkpoints": _checkpoints,
        "oracle folder": _oracles,
        "class names": _class_names,
        "detector log": _detector_logs,
        "autoencoder log": _autoencoder_logs,
    }
    yield from makers[reader](seed)


def WARM_UP() -> None:  # noqa: N802
    """Make everything once: building networks is no part of a case."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for suffix in (".keras", ".h5", ".weights.h5"):
        model_bytes(suffix)
    autoencoder_files()


@functools.cache
def small_model() -> keras.Model:
    """A classifier of a few weights, which are the same each time."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1", activation="relu")(images)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(images, keras.layers.Dense(3, name="dense", activation="softmax")(x))
    random = np.random.default_rng(4)
    model.set_weights([random.normal(size=w.shape).astype(np.float32) for w in model.get_weights()])
    return model


@functools.cache
def sound_weights() -> tuple[np.ndarray, ...]:
    """The weights of `small_model`, whatever is loaded into it later."""
    random = np.random.default_rng(4)
    shapes = [w.shape for w in small_model().get_weights()]
    return tuple(random.normal(size=shape).astype(np.float32) for shape in shapes)


@functools.cache
def model_bytes(suffix: str) -> bytes:
    """The model as a file: whole, or its weights."""
    small_model().set_weights(list(sound_weights()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        (small_model().save_weights if suffix == ".weights.h5" else small_model().save)(path)
        return path.read_bytes()


def _cut_and_flipped(
    data: bytes, name: str, seed: int, check: Callable[[Any], None], cuts: int, flips: int
) -> Iterator[Case]:
    random = np.random.default_rng(seed)
    for end in sorted({0, 1, 8, len(data) // 2, len(data) - 1, *random.integers(0, len(data), cuts).tolist()}):
        yield Case(f"cut after {end} bytes", file_of(name, data[:end]), "refused")
    for place in sorted(random.choice(len(data), flips, replace=False).tolist()):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(random.integers(8))
        yield Case(f"a bit of byte {place}", file_of(name, bytes(flipped)), "either", check)
    yield Case("noise", file_of(name, random.bytes(500)), "refused")
    yield Case("zeros", file_of(name, bytes(500)), "refused")
    yield Case("text", file_of(name, "a,b\n1,2\n"), "refused")
    yield Case("absent", lambda folder: folder / name, "refused")


def _is_model(model: keras.Model) -> None:
    assert isinstance(model, keras.Model) and model.inputs


def _is_small_model(model: keras.Model) -> None:
    for found, weight in zip(model.get_weights(), sound_weights(), strict=True):
        np.testing.assert_array_equal(found, weight)


def zip_members(data: bytes) -> dict[str, bytes]:
    """The members of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def changed_model(suffix: str, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The small model with another description."""
    data = model_bytes(suffix)
    if suffix == ".keras":
        members = zip_members(data)
        config = json.loads(members["config.json"])
        change(config)
        return zipped({**members, "config.json": json.dumps(config).encode()})
    return edited_hdf5(data, lambda file: _change_attribute(file, change))


def _change_attribute(file: h5py.File, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads(file.attrs["model_config"])
    change(config)
    file.attrs["model_config"] = json.dumps(config)


def edited_hdf5(data: bytes, change: Callable[[h5py.File], Any]) -> bytes:
    """A file changed through h5py."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def layer_of(config: dict[str, Any], number: int = 1) -> dict[str, Any]:
    """One layer in the description of a network."""
    return config["config"]["layers"][number]


def _keras_files(seed: int) -> Iterator[Case]:
    for suffix in (".keras", ".h5"):
        data, name = model_bytes(suffix), f"a{suffix}"
        yield Case(f"sound{suffix}", file_of(name, data), "accepted", _is_small_model)
        # An archive has checksums; the older format has none.
        check = _is_small_model if suffix == ".keras" else _is_model
        for case in _cut_and_flipped(data, name, seed, check, 12, 30):
            yield Case(f"{case.name}, {suffix}", case.make, case.expect, case.check)
        for what, change in {
            "a layer that is none": lambda c: layer_of(c).update(class_name="Nothing"),
            "no layers": lambda c: c["config"].pop("layers"),
            "layers that are text": lambda c: c["config"].update(layers="abc"),
            "a layer that is text": lambda c: c["config"]["layers"].insert(1, "abc"),
            "two layers of one name": lambda c: c["config"]["layers"].append(layer_of(c)),
            "filters below 0": lambda c: layer_of(c)["config"].update(filters=-3),
            "filters as text": lambda c: layer_of(c)["config"].update(filters="many"),
            "a million million filters": lambda c: layer_of(c)["config"].update(filters=10**12),
            "a million filters": lambda c: layer_of(c)["config"].update(filters=10**6),
            "a network of 40 GB": lambda c: _widen(c),
            "other filters": lambda c: layer_of(c)["config"].update(filters=5),
            "kernel of a million": lambda c: layer_of(c)["config"].update(kernel_size=[10**6, 10**6]),
            "an input of a million": lambda c: _set_input(c, 10**6),
            "no inputs": lambda c: c["config"].update(input_layers=[]),
            "an unknown input": lambda c: c["config"].update(input_layers=[["nothing", 0, 0]]),
            "an unknown activation": lambda c: layer_of(c)["config"].update(activation="nothing"),
            "an unknown initializer": lambda c: layer_of(c)["config"].update(kernel_initializer="nothing"),
            "an unknown type": lambda c: layer_of(c)["config"].update(dtype="float3"),
            "an argument more": lambda c: layer_of(c)["config"].update(nothing=3),
            "a config that is a list": lambda c: layer_of(c).update(config=[1]),
            "null for a layer": lambda c: c["config"]["layers"].__setitem__(1, None),
            "no class": lambda c: c.pop("class_name"),
            "another kind": lambda c: c.update(class_name="Dense", config={"units": 3}),
        }.items():
            expect = "either" if what in ("two layers of one name", "no inputs", "an input of a million") else "refused"
            make = file_of(name, changed_model(suffix, change))
            yield Case(f"{what}, {suffix}", make, expect, lambda model: None)
    yield from _archives(seed)
    yield from _whole_hdf5()


def _widen(config: dict[str, Any]) -> None:
    """Two dense layers of 100,000 units in a row, described in a few bytes."""
    layer_of(config, 3)["config"]["units"] = 10**5
    layer_of(config, 1)["config"]["filters"] = 10**5


def _set_input(config: dict[str, Any], side: int) -> None:
    inputs = layer_of(config, 0)["config"]
    for key in ("batch_shape", "batch_input_shape"):
        if key in inputs:
            inputs[key] = [None, side, side, 3]


def _archives(seed: int) -> Iterator[Case]:
    members = zip_members(model_bytes(".keras"))
    yield Case("compressed", file_of("a.keras", zipped(members, zipfile.ZIP_DEFLATED)), "accepted", _is_small_model)
    for name in ("config.json", "model.weights.h5"):
        less = {key: value for key, value in members.items() if key != name}
        yield Case(f"without {name}", file_of("a.keras", zipped(less)), "refused")
        yield Case(f"with an empty {name}", file_of("a.keras", zipped({**members, name: b""})), "refused")
    for name in ("../a.txt", "/etc/a.txt", "assets/a.txt", "a.py", "model.weights.npz", "assets/../../a"):
        yield Case(f"with {name}", file_of("a.keras", zipped({**members, name: b"a"})), "refused")
    for name, content in broken_json(seed, members["config.json"]):
        if not name.startswith(("with", "cut")):
            yield Case(
                f"{name}, description", file_of("a.keras", zipped({**members, "config.json": content})), "refused"
            )
    for name, change in _HDF5_CHANGES.items():
        weights = edited_hdf5(members["model.weights.h5"], functools.partial(change, "layers/dense/vars/0"))
        content = zipped({**members, "model.weights.h5": weights})
        yield Case(f"{name}, in the archive", file_of("a.keras", content), "refused")


def _replace(path: str, file: h5py.File, **options: Any) -> None:
    del file[path]
    file.create_dataset(path, **options)


def _link(link: Any, path: str, file: h5py.File) -> None:
    del file[path]
    file[path] = link


def _virtual(path: str, file: h5py.File) -> None:
    shape = file[path].shape
    del file[path]
    layout = h5py.VirtualLayout(shape, "float32")
    layout[...] = h5py.VirtualSource("/etc/hostname", "x", shape)
    file.create_virtual_dataset(path, layout)


def _circle(path: str, file: h5py.File) -> None:
    file[path.rpartition("/")[0]]["up"] = file["/"]


_HDF5_CHANGES: dict[str, Callable[[str, h5py.File], Any]] = {
    "external link": functools.partial(_link, h5py.ExternalLink("/etc/hostname", "/")),
    "external link to a file beside": functools.partial(_link, h5py.ExternalLink("other.h5", "/x")),
    "soft link": functools.partial(_link, h5py.SoftLink("/")),
    "soft link that dangles": functools.partial(_link, h5py.SoftLink("/nowhere")),
    "external storage": lambda p, f: _replace(p, f, shape=(4, 3), dtype="f4", external=[("/etc/hostname", 0, 48)]),
    "virtual": _virtual,
    "a circle of hard links": _circle,
    "of absurd shape": lambda p, f: _replace(p, f, shape=(2**40, 3), dtype="f4", chunks=(1024, 3)),
    "compressed, of absurd shape": lambda p, f: _replace(
        p, f, shape=(2**30, 3), dtype="f4", chunks=(1024, 3), compression="gzip"
    ),
    "of another shape": lambda p, f: _replace(p, f, data=np.zeros((4, 5), "f4")),
    "an array of text": lambda p, f: _replace(p, f, data=[["a"] * 3] * 4),
    "references": lambda p, f: _replace(p, f, shape=(4, 3), dtype=h5py.ref_dtype),
    "opaque": lambda p, f: _replace(p, f, data=np.zeros((4, 3), "V8")),
    "records": lambda p, f: _replace(p, f, data=np.zeros((4, 3), [("a", "f4")])),
    "a group": lambda p, f: (f.__delitem__(p), f.create_group(p)),
    "gone": lambda p, f: f.__delitem__(p),
}


def _whole_hdf5() -> Iterator[Case]:
    data = model_bytes(".h5")
    with h5py.File(io.BytesIO(data)) as file:
        kernel = next(name for name in _dataset_names(file) if "dense" in name and "kernel" in name)
    for name, change in _HDF5_CHANGES.items():
        content = edited_hdf5(data, functools.partial(change, kernel))
        yield Case(f"{name}, whole model", file_of("a.h5", content), "refused")
    for name, value in {
        "a number": 3,
        "a list": [1, 2],
        "an empty text": "",
        "no JSON": "{",
        "deep": "[" * 60_000,
        "not UTF-8": np.bytes_(b"\xff{}"),
    }.items():
        content = edited_hdf5(data, lambda f, v=value: f.attrs.__setitem__("model_config", v))
        yield Case(f"model_config: {name}", file_of("a.h5", content), "refused")
    for name in ("model_weights", "model_weights/dense"):
        yield Case(f"without {name}", file_of("a.h5", edited_hdf5(data, lambda f, n=name: f.__delitem__(n))), "refused")


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def by_name_bytes() -> bytes:
    """Weights in Matterport's layout."""
    buffer = io.BytesIO()
    random = np.random.default_rng(1)
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in _LAYERS])
        for name in _LAYERS:
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/{kind}:0".encode() for kind in ("kernel", "bias")])
            group.create_dataset(f"{name}/kernel:0", data=random.normal(size=(4, 3)).astype("f4"))
            group.create_dataset(f"{name}/bias:0", data=random.normal(size=3).astype("f4"))
    return buffer.getvalue()


def _files_by_name(seed: int) -> Iterator[Case]:
    data = by_name_bytes()

    def is_sound(found: dict[str, np.ndarray]) -> None:
        assert set(found) == {f"{layer}/{kind}" for layer in _LAYERS for kind in ("kernel", "bias")}
        assert found["dense/kernel"].shape == (4, 3)

    def is_finite(found: dict[str, np.ndarray]) -> None:
        assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in found.values())

    yield Case("sound", file_of("a.h5", data), "accepted", is_sound)
    yield from _cut_and_flipped(data, "a.h5", seed, is_finite, 20, 80)
    for name, change in _HDF5_CHANGES.items():
        expect = "accepted" if name in ("of another shape", "a circle of hard links") else "refused"
        content = edited_hdf5(data, functools.partial(change, "dense/dense/kernel:0"))
        yield Case(name, file_of("a.h5", content), expect, is_finite)
    for attribute, group in (("layer_names", "/"), ("weight_names", "dense")):
        for number, value in enumerate(
            (3, [1, 2], "dense", [], [""], ["a\nb"], ["../x"], ["nothing"], ["dense", "dense"], [b"\xff"], ["a" * 5000])
        ):
            content = edited_hdf5(data, lambda f, v=value, g=group, a=attribute: f[g].attrs.__setitem__(a, v))
            expect = "either" if value in ([], ["nothing"], ["../x"]) else "refused"
            yield Case(f"{attribute} {number}: {str(value)[:12]!a}", file_of("a.h5", content), expect, is_finite)
    for value in (np.nan, np.inf):
        content = edited_hdf5(data, lambda f, v=value: f["dense/dense/kernel:0"].__setitem__((0, 0), v))
        yield Case(f"{value} in it", file_of("a.h5", content), "refused")


def _own_weights(seed: int) -> Iterator[Case]:
    data = model_bytes(".weights.h5")

    def is_sound(found: list[np.ndarray]) -> None:
        for value, weight in zip(found, sound_weights(), strict=True):
            np.testing.assert_array_equal(value, weight)

    yield Case("sound", file_of("a.weights.h5", data), "accepted", is_sound)
    yield from _cut_and_flipped(data, "a.weights.h5", seed, lambda found: None, 20, 60)
    with h5py.File(io.BytesIO(data)) as file:
        kernel = next(name for name in _dataset_names(file) if "dense" in name and file[name].ndim == 2)
    for name, change in _HDF5_CHANGES.items():
        content = edited_hdf5(data, functools.partial(change, kernel))
        yield Case(name, file_of("a.weights.h5", content), "refused")
    yield Case("a link to another folder", _linked(data), "refused")


def _linked(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "other").mkdir()
        (folder / "other" / "b.weights.h5").write_bytes(data)
        (folder / "a.weights.h5").symlink_to(folder / "other" / "b.weights.h5")
        return folder / "a.weights.h5"

    return make


def _detectors(seed: int) -> Iterator[Case]:
    sound = SmearConfig().to_dict()
    data = json.dumps(sound, indent=2).encode()
    weights = model_bytes(".weights.h5")

    def make(content: bytes | str) -> Callable[[Path], Path]:
        return files_of({"config.json": content, "weights.weights.h5": weights})

    def is_sound(config: Config) -> None:
        assert config.to_dict() == sound

    yield Case("sound", make(data), "accepted", is_sound)
    yield Case("without weights", files_of({"config.json": data}), "refused", mentions="weights.weights.h5")
    yield Case("without settings", files_of({"weights.weights.h5": weights}), "refused", mentions="config.json")
    for name, content in broken_json(seed, data):
        yield Case(name, make(content), "refused", mentions="config.json")
    for name, value in sound.items():
        if name in ("NAME", "NORMALIZATION", "TRAIN_BN"):
            continue
        for wrong in _wrong_settings(name, value):
            content = json.dumps({**sound, name: wrong})
            yield Case(f"{name}: {str(wrong)[:20]}", make(content), "refused", mentions="config.json")
    for name in ("ROI_ALIGN",):
        less = {key: value for key, value in sound.items() if key != name}
        yield Case(f"without {name}", make(json.dumps(less)), "refused", mentions="")


def _wrong_settings(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (3, "yes", None, [True])
    if isinstance(value, (int, float)):
        # A few may be 0 or None; none may be any of these.
        return ("3", True, [3], -7, 2**62, {"a": 1})
    if isinstance(value, str):
        return ("nothing", 3, True, ["a"])
    if isinstance(value, dict):
        return ({"nothing": 1}, [1], 3, {next(iter(value)): "a"}, {next(iter(value)): -1})
    return ("text", 3, [], [None], ["a"], {"a": 1})


@functools.cache
def autoencoder_files() -> dict[str, bytes]:
    """The folder of a finished autoencoder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = AutoencoderConfig(latent_size=2, image_size=32)
        config.save(folder / "config.json")
        nothing = np.zeros((1, 0), np.float32)
        FeatureScaling("minmax", ("anna",), nothing, nothing).save(folder / "scaling.npz")
        build_autoencoder(config).save_weights(folder / "weights.weights.h5")
        run = {
            "complete": True,
            "steps": 10,
            "stores": {"anna": {"path": "a.h5", "cells": 3, "detector_hash": "abc", "fingerprint": "def"}},
            "weights_sha256": file_hash(folder / "weights.weights.h5"),
        }
        (folder / "run.json").write_text(json.dumps(run))
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _autoencoders(seed: int) -> Iterator[Case]:
    sound = autoencoder_files()

    def is_sound(trained: TrainedAutoencoder) -> None:
        assert trained.config.latent_size == 2 and trained.detector_hash == "abc"

    yield Case("sound", files_of(sound), "accepted", is_sound)
    for name, content in sound.items():
        less = {key: value for key, value in sound.items() if key != name}
        mentions = "not finished" if name == "run.json" else name
        yield Case(f"without {name}", files_of(less), "refused", mentions=mentions)
        for end in (0, 10, len(content) // 2, len(content) - 3):
            yield Case(f"{name} cut after {end}", files_of({**sound, name: content[:end]}), "refused", mentions=name)
    weights = sound["weights.weights.h5"]
    for place in np.random.default_rng(seed).integers(0, len(weights), 15).tolist():
        flipped = bytearray(weights)
        flipped[place] ^= 4
        changed = {**sound, "weights.weights.h5": bytes(flipped)}
        yield Case(f"a bit of byte {place} of the weights", files_of(changed), "refused", mentions="weights.weights.h5")
    for name, values in {
        "another latent": {"latent_size": 3},
        "a giant": {"latent_size": 10**9},
        "a large one": {"latent_size": 20_000},
        "another scaling": {"feature_scaling": "centre"},
        "another image": {"image_size": 64},
    }.items():
        config = {**json.loads(sound["config.json"]), **values}
        yield Case(name, files_of({**sound, "config.json": json.dumps(config)}), "refused", mentions="")
    own = {**json.loads(sound["config.json"]), "adaptation": "this:that"}
    # The name of a loss of somebody's own is a name: nobody imports it who does not train.
    yield Case("a module for a loss", files_of({**sound, "config.json": json.dumps(own)}), "accepted", is_sound)


def _runs(seed: int) -> Iterator[Case]:
    data = autoencoder_files()["run.json"]

    def is_sound(run: dict[str, Any]) -> None:
        assert run == json.loads(data)

    yield Case("sound", file_of("run.json", data), "accepted", is_sound)
    yield Case("absent", lambda folder: folder / "run.json", "accepted", lambda run: None)
    for name, content in broken_json(seed, data):
        if name.startswith("with") and ("NaN" in name or "Infinity" in name or "unknown" in name or "class" in name):
            continue
        yield Case(name, file_of("run.json", content), "refused")
    run = json.loads(data)
    for change in (
        {"complete": 1},
        {"complete": None},
        {"stores": {}},
        {"stores": []},
        {"stores": {"a": 3}},
        {"stores": {"a": {}}},
        {"stores": {"a": {"detector_hash": 3}}},
        {"weights_sha256": 3},
    ):
        yield Case(f"{change}", file_of("run.json", json.dumps({**run, **change})), "refused")


def scaling_bytes(**changes: Any) -> bytes:
    """A scaling by channel of two centres."""
    arrays = {
        "kind": np.array("centre"),
        "centres": np.array(["anna", "bert"]),
        "mean": np.zeros((2, 256), np.float32),
        "deviation": np.ones((2, 256), np.float32),
        **changes,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def _scalings(seed: int) -> Iterator[Case]:
    data = scaling_bytes()

    def is_sound(scaling: FeatureScaling) -> None:
        assert scaling.kind == "centre" and scaling.centres == ("anna", "bert")
        assert not scaling.mean.any() and (scaling.deviation == 1).all()

    yield Case("sound", file_of("scaling.npz", data), "accepted", is_sound)
    yield from _cut_and_flipped(data, "scaling.npz", seed, is_sound, 12, 40)
    for name, changes in {
        "no kind": {"kind": None},
        "no mean": {"mean": None},
        "an unknown kind": {"kind": np.array("median")},
        "kind a number": {"kind": np.array(3)},
        "kinds": {"kind": np.array(["centre", "centre"])},
        "kind an object": {"kind": np.array({"a": 1}, object)},
        "centres numbers": {"centres": np.arange(2)},
        "centres objects": {"centres": np.array(["a", "b"], object)},
        "a centre twice": {"centres": np.array(["a", "a"])},
        "a centre more": {"centres": np.array(["a", "b", "c"])},
        "channels missing": {"mean": np.zeros((2, 255), np.float32)},
        "a channel each": {"mean": np.zeros((2, 1), np.float32)},
        "flat": {"mean": np.zeros(512, np.float32)},
        "doubles": {"mean": np.zeros((2, 256))},
        "NaN": {"mean": np.full((2, 256), np.nan, np.float32)},
        "infinite": {"deviation": np.full((2, 256), np.inf, np.float32)},
        "deviation 0": {"deviation": np.zeros((2, 256), np.float32)},
        "deviation below 0": {"deviation": np.full((2, 256), -1, np.float32)},
        "minmax with statistics": {"kind": np.array("minmax")},
    }.items():
        yield Case(name, file_of("scaling.npz", scaling_bytes(**changes)), "refused")


def _checkpoints(seed: int) -> Iterator[Case]:
    values = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)]
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder, 10, values)
        data = (Path(folder) / "step-00000010.npz").read_bytes()

    def is_sound(found: tuple[int, list[np.ndarray]]) -> None:
        step, arrays = found
        assert step == 10
        for array, value in zip(arrays, values, strict=True):
            np.testing.assert_array_equal(array, value)

    def make(content: bytes, **more: bytes) -> Callable[[Path], Path]:
        return files_of({"step-00000010.npz": content, **{f"{k}.npz": v for k, v in more.items()}})

    yield Case("sound", make(data), "accepted", is_sound)
    yield Case("none", lambda folder: folder, "accepted", lambda found: None)
    for case in _cut_and_flipped(data, "step-00000010.npz", seed, is_sound, 10, 30):
        if case.name == "absent":
            continue
        yield Case(case.name, lambda folder, case=case: case.make(folder).parent, case.expect, case.check, mentions="")
        newer = lambda folder, case=case: _newer(case, folder, data)  # noqa: E731
        # The older one is whole.
        yield Case(f"{case.name}, the newer", newer, "accepted", is_sound)
    for name, arrays in {
        "without step": {"0000": values[0]},
        "step a list": {"step": np.array([10])},
        "step a text": {"step": np.array("10")},
        "another step": {"step": np.int64(11)},
        "a value missing": {"step": np.int64(10), "0001": values[1]},
        "text for a value": {"step": np.int64(10), "0000": np.array("a")},
        "objects": {"step": np.int64(10), "0000": np.array([{}], object)},
    }.items():
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        yield Case(name, make(buffer.getvalue()), "refused", mentions="")


def _newer(case: Case, folder: Path, data: bytes) -> Path:
    path = case.make(folder)
    path.rename(folder / "step-00000020.npz")
    (folder / "step-00000010.npz").write_bytes(data)
    return folder


def _oracles(seed: int) -> Iterator[Case]:
    config = {**OracleConfig().to_dict(), "blocks": [1, 1, 1, 1], "image_size": 32}
    run = {"kind": "oracle", "classes": ["a", "b"], "complete": True}
    files = {
        "run.json": json.dumps(run),
        "config.json": json.dumps(config),
        "weights.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(50),
    }
    # The weights are no weights: whatever gets past the settings is refused for that.
    yield Case("damaged weights", files_of(files), "refused", mentions="weights.weights.h5")
    for file in ("run.json", "config.json"):
        for name, content in broken_json(seed, files[file].encode()):
            if file == "run.json" and name.startswith("with"):
                continue
            yield Case(f"{file}: {name}", files_of({**files, file: content}), "refused", mentions=file)
    for name, value in {
        "image_size": 10**9,
        "base_filters": 10**9,
        "cardinality": 10**9,
        "blocks": [10**9],
        "steps": -1,
        "seed": "a",
        "augment": 1,
        "other": 1,
    }.items():
        content = json.dumps({**config, name: value})
        yield Case(f"{name} {value}", files_of({**files, "config.json": content}), "refused", mentions="config.json")
    for name, value in {"kind": "autoencoder", "classes": ["a"], "complete": "yes"}.items():
        content = json.dumps({**run, name: value})
        yield Case(f"{name} {value}", files_of({**files, "run.json": content}), "refused", mentions="run.json")


def _class_names(seed: int) -> Iterator[Case]:
    def are_names(names: tuple[str, ...]) -> None:
        assert all(name == name.strip() and name.isprintable() for name in names) and len(set(names)) == len(names)

    yield Case("sound", file_of("a.txt", "LYT\nMON\n"), "accepted", are_names)
    yield Case("JSON", file_of("a.txt", '["LYT", "MON"]'), "accepted", are_names)
    for name, content in {
        "empty": b"",
        "blank lines": b"a\n\nb\n",
        "not UTF-8": b"a\n\xff\n",
        "UTF-16": "a\nb".encode("utf-16"),
        "twice": b"a\na\n",
        "NUL": b"a\0\nb\n",
        "escape": b"a\x1b[2J\nb\n",
        "long name": b"a" * 5000 + b"\nb",
        "large": b"a\n" * 2**20,
        "JSON cut": b'["a", "b"',
        "JSON of numbers": b"[1, 2]",
        "JSON deep": b"[" * 100_000,
        "JSON twice deep": b"[" * 500 + b"]" * 500,
        "JSON surrogate": b'["\\ud800", "b"]',
        "JSON empty": b"[]",
        "JSON null": b"[null]",
    }.items():
        yield Case(name, file_of("a.txt", content), "refused")
    random = np.random.default_rng(seed)
    for number in range(10):
        yield Case(f"noise {number}", file_of("a.txt", random.bytes(50)), "either", are_names)
    yield Case("folder", lambda folder: folder, "refused", mentions="")
    yield Case("absent", lambda folder: folder / "a.txt", "refused")


def _detector_logs(seed: int) -> Iterator[Case]:
    rows = [{"epoch": n, "step": 10 * n, "loss": f"{1 / n:.3g}"} for n in (1, 2, 3)]
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "log.csv", rows)
        data = (Path(folder) / "log.csv").read_bytes()

    def are_rows(found: list[dict[str, Any]]) -> None:
        assert all(isinstance(row["epoch"], int) and isinstance(row["step"], int) for row in found)

    yield Case("sound", file_of("log.csv", data), "accepted", are_rows)
    yield Case("absent", lambda folder: folder / "log.csv", "accepted", are_rows)
    for name, content in {
        "text": b"epoch,step,loss\na,b,c\n",
        "no epoch": b"step,loss\n1,2\n",
        "not UTF-8": b"epoch,step,loss\n1,2,\xff\n",
        "a value more": b"epoch,step,loss\n1,2,3,4\n",
        "a value less": b"epoch,step,loss\n1,2\n",
        "huge number": b"epoch,step,loss\n" + b"9" * 5000 + b",2,3\n",
        "huge field": b"epoch,step,loss\n1,2," + b"9" * 200_000 + b"\n",
    }.items():
        yield Case(name, file_of("log.csv", content), "refused")
    random = np.random.default_rng(seed)
    for end in random.integers(0, len(data), 10).tolist():
        yield Case(f"cut after {end}", file_of("log.csv", data[:end]), "either", are_rows)


def _autoencoder_logs(seed: int) -> Iterator[Case]:
    data = b"step,loss,seconds\n10,0.5,1.0\n20,0.25,2.0\n30,nan,3.0\n"

    def are_rows(rows: list[list[str]]) -> None:
        assert all(len(row) == 3 and row[0].isdigit() and np.isfinite(float(row[2])) for row in rows)

    yield Case("sound", file_of("log.csv", data), "accepted", lambda rows: are_rows(rows) or len(rows) == 3)
    random = np.random.default_rng(seed)
    contents = {
        "empty": b"",
        "not UTF-8": b"\xff" + data,
        "NUL": data.replace(b"20", b"2\0"),
        "text": data.replace(b"20", b"a"),
        "other digits": data.replace(b"20", "\u00b2".encode()),
        "huge number": data.replace(b"20", b"9" * 5000),
        "huge field": data.replace(b"0.25", b"9" * 200_000),
        "a time that is none": data.replace(b"3.0", b"--3"),
        "unclosed quote": data.replace(b"20", b'"20'),
        **{f"noise {number}": random.bytes(60) for number in range(8)},
        **{f"cut after {end}": data[:end] for end in range(0, len(data), 5)},
    }
    for name, content in contents.items():
        # It is for people to read, and what is damaged is left out.
        yield Case(name, file_of("log.csv", content), "accepted", are_rows)
