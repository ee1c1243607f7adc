"""The exported autoencoder, in a process that has TensorFlow and none of our packages, against the Keras model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from autoencoder.config import AutoencoderConfig
from autoencoder.export import export_autoencoder, float32_model, signatures
from autoencoder.folder import CONFIG, RUN, SCALING, WEIGHTS, describe_stores, load_autoencoder
from autoencoder.network import build_autoencoder
from autoencoder.scaling import FeatureScaling
from mrcnn.feature_store import FeatureStore
from mrcnn.files.atomic import write_json
from mrcnn.files.provenance import file_hash

PROCESS = Path(__file__).parents[1] / "saved_model_process.py"
SETTINGS = {
    "minmax": {"feature_scaling": "minmax"},
    "centre": {"feature_scaling": "centre", "group_norm": "reference"},
}
SCALED_PER_CENTRE = {"anna": {"centre": ["anna"]}, "bert": {"centre": ["bert"] * 3}}


@pytest.fixture(scope="module")
def make_trained(stores, tmp_path_factory):
    """Function of settings that leaves the folder of a finished training, with random weights, and loads it."""

    def make(folder=None, **settings):
        folder = folder or tmp_path_factory.mktemp("trained") / "autoencoder"
        folder.mkdir(parents=True, exist_ok=True)
        config = AutoencoderConfig(latent_size=8, image_size=32, seed=3, **settings)
        config.save(folder / CONFIG)
        FeatureScaling.fit(config.feature_scaling, stores).save(folder / SCALING)
        model, random = build_autoencoder(config), np.random.default_rng(5)
        # Biases are zero and normalisations leave alone until they are trained: that would hide a lost one.
        model.set_weights([w + random.normal(0.0, 0.1, w.shape) * (w.ndim == 1) for w in model.get_weights()])
        model.save_weights(folder / WEIGHTS)
        record = {"complete": True, "stores": describe_stores(stores), "weights_sha256": file_hash(folder / WEIGHTS)}
        write_json(folder / RUN, record)
        return load_autoencoder(folder)

    return make


@pytest.fixture(scope="module")
def trained(make_trained):
    """An autoencoder for each scaling of the features."""
    return {kind: make_trained(**settings) for kind, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def features(stores):
    """Three stored cells of two centres, by centre."""
    cells = {}
    for name in ("anna", "bert"):
        with FeatureStore(stores[name]) as store:
            cells[name] = store.read("features", 0, 3).astype(np.float32)
    return cells


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: export_autoencoder(model, folder / kind / "1") for kind, model in trained.items()}


@pytest.fixture(scope="module")
def results(exported, features, tmp_path_factory):
    """Scaling -> arrays by "centre/signature/output", from a process of its own."""
    folder = tmp_path_factory.mktemp("foreign")
    arguments = []
    for kind, path in exported.items():
        inputs = {}
        for centre, cells in features.items():
            more = SCALED_PER_CENTRE[centre] if kind == "centre" else {}
            for signature in ("encode", "reconstruct", "serving_default"):
                inputs |= {f"{centre}/{signature}/{k}": v for k, v in {"features": cells, **more}.items()}
        if kind == "centre":
            faults = {"unknown": ["anna", "dora", "bert"], "two names": ["anna", "bert"]}
            for fault, names in faults.items():
                inputs |= {f"{fault}/encode/features": features["anna"], f"{fault}/encode/centre": names}
        np.savez(folder / f"{kind}.npz", **inputs)
        arguments += [path, f"{kind}.npz", f"{kind}-results.npz"]
    done = subprocess.run([sys.executable, "-I", PROCESS, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {kind: dict(np.load(folder / f"{kind}-results.npz").items()) for kind in exported}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("centre", SCALED_PER_CENTRE)
def test_exported_autoencoder_computes_what_the_model_computes(kind, centre, trained, features, results):
    model = trained[kind]
    # As a graph, as embedding runs it: layer by layer sums are rounded differently, which untrained layers magnify.
    expected = tf.function(model.model)(model.scaling.apply(features[centre], centre), training=False)
    assert np.ptp(expected["latents"]) > 0.1 and np.ptp(expected["images"]) > 0.01
    outputs = {"encode": ["latents"], "serving_default": ["latents"], "reconstruct": ["latents", "features", "images"]}
    for signature, names in outputs.items():
        place = f"{centre}/{signature}/"
        assert sorted(k for k in results[kind] if k.startswith(place)) == sorted(place + name for name in names)
        for name in names:
            value = results[kind][place + name]
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=place + name)


def test_exported_autoencoder_refuses_wrong_centres(results):
    unknown = str(results["centre"]["unknown/encode/error"])
    assert "known: anna, bert, cleo" in unknown and "dora" in unknown
    assert "one for each of" in str(results["centre"]["two names/encode/error"])


def test_mixed_precision_is_exported_in_float32(make_trained, features):
    mixed = make_trained(precision="mixed_bfloat16")
    plain = build_autoencoder(mixed.config.replace(precision="float32"))
    plain.set_weights(mixed.model.get_weights())
    scaled = mixed.scaling.apply(features["anna"], "anna")
    expected = tf.function(plain)(scaled, training=False)
    assert np.abs(expected["latents"] - tf.cast(mixed.encoder(scaled), tf.float32)).max() > 1e-4

    functions = signatures(float32_model(mixed), mixed.scaling)
    outputs = functions["reconstruct"](tf.constant(features["anna"]))
    for name, value in outputs.items():
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=name)


def test_exported_folder_says_what_it_is(exported, trained):
    extra, model = exported["centre"] / "assets.extra", trained["centre"]
    assert json.loads((extra / "config.json").read_text()) == model.config.to_dict()
    description = json.loads((extra / "export.json").read_text())
    assert description["autoencoder"] == file_hash(model.folder / WEIGHTS)
    assert (description["detector"], description["feature_scaling"]) == ("detector-a", "centre")
    assert description["centres"] == ["anna", "bert", "cleo"]
    assert description["versions"]["tensorflow"] == tf.__version__
