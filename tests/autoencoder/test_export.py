"""The exported autoencoder, in a process that has TensorFlow and none of our packages, against the Keras model."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from autoencoder.config import AutoencoderConfig
from autoencoder.export import export_autoencoder, float32_model, signatures
from autoencoder.folder import TrainedAutoencoder
from autoencoder.network import build_autoencoder
from autoencoder.scaling import FeatureScaling
from mrcnn.feature_store import FeatureStore

SETTINGS = {
    "minmax": {"feature_scaling": "minmax"},
    "centre": {"feature_scaling": "centre", "group_norm": "reference"},
}
SCALED_PER_CENTRE = {"anna": {"centre": ["anna"]}, "bert": {"centre": ["bert"] * 3}}


def make_trained(stores, **settings):
    """An autoencoder as of a finished training, with random weights."""
    config = AutoencoderConfig(latent_size=8, image_size=32, seed=3, **settings)
    model, random = build_autoencoder(config), np.random.default_rng(5)
    # Biases are zero and normalisations leave alone until they are trained: that would hide a lost one.
    model.set_weights([w + random.normal(0.0, 0.1, w.shape) * (w.ndim == 1) for w in model.get_weights()])
    run = {"stores": {name: {"detector_hash": "detector-a"} for name in stores}, "weights_sha256": "5e1f"}
    return TrainedAutoencoder(Path("unused"), config, run, FeatureScaling.fit(config.feature_scaling, stores), model)


@pytest.fixture(scope="module")
def trained(stores):
    """An autoencoder for each scaling of the features."""
    return {kind: make_trained(stores, **settings) for kind, settings in SETTINGS.items()}


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
def results(exported, features, call_saved_models):
    """Scaling -> arrays by "centre/signature/output"."""
    inputs = {kind: {} for kind in exported}
    for kind, arrays in inputs.items():
        for centre, cells in features.items():
            named = {"features": cells, **(SCALED_PER_CENTRE[centre] if kind == "centre" else {})}
            for signature in ("encode", "reconstruct", "serving_default"):
                arrays |= {f"{centre}/{signature}/{name}": value for name, value in named.items()}
    for fault, names in {"unknown": ["anna", "dora", "bert"], "two names": ["anna", "bert"]}.items():
        inputs["centre"] |= {f"{fault}/encode/features": features["anna"], f"{fault}/encode/centre": names}
    return call_saved_models(exported, inputs)


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


def test_mixed_precision_is_exported_in_float32(stores, features):
    mixed = make_trained(stores, precision="mixed_bfloat16")
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
    assert (description["autoencoder"], description["detector"]) == ("5e1f", "detector-a")
    assert description["feature_scaling"] == "centre"
    assert description["centres"] == ["anna", "bert", "cleo"]
    assert description["versions"]["tensorflow"] == tf.__version__
