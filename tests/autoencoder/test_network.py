import subprocess
import sys

import keras
import numpy as np
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.network import (
    FlattenedGroupNormalization,
    build_autoencoder,
    build_encoder,
    build_feature_decoder,
    build_image_decoder,
)

FEATURES = np.random.default_rng(0).uniform(-1, 1, (2, 14, 14, 256)).astype(np.float32)


@pytest.mark.parametrize(("name", "groups"), [("gn0", 32), ("gn1", 30), ("gn2", 20)])
def test_flattened_group_normalization_equals_the_reference(vectors, name, groups):
    inputs = vectors[f"{name}_x"].transpose(0, 2, 3, 1)
    layer = FlattenedGroupNormalization(groups)
    np.testing.assert_allclose(layer(inputs), vectors[f"{name}_y_default"].transpose(0, 2, 3, 1), atol=1e-5)
    layer.set_weights([vectors[f"{name}_gamma"].ravel(), vectors[f"{name}_beta"].ravel()])
    np.testing.assert_allclose(layer(inputs), vectors[f"{name}_y_affine"].transpose(0, 2, 3, 1), atol=1e-5)


def test_flattened_group_normalization_makes_unit_runs_across_channels_and_refuses_uneven_ones():
    inputs = np.random.default_rng(0).gamma(2.0, size=(2, 3, 2, 4)).astype(np.float32)
    # Three runs of eight values: each is one channel of six and a third of the next.
    outputs = FlattenedGroupNormalization(3, epsilon=0.0)(inputs).numpy()
    runs = outputs.transpose(0, 3, 1, 2).reshape(2, 3, 8)
    np.testing.assert_allclose(runs.mean(axis=-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(runs.std(axis=-1, ddof=1), 1.0, rtol=1e-5)
    for groups in (5, 24):
        with pytest.raises(ValueError, match="cannot share 24 values evenly"):
            FlattenedGroupNormalization(groups).build((None, 3, 2, 4))


def test_flattened_group_normalization_round_trips_and_keeps_half_precision(tmp_path):
    inputs = keras.Input((4, 4, 6))
    model = keras.Model(inputs, FlattenedGroupNormalization(3, dtype="mixed_float16")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    values = np.random.default_rng(2).normal(size=(1, 4, 4, 6)).astype(np.float32)
    assert loaded(values).dtype.name == "float16"
    np.testing.assert_array_equal(loaded(values), model(values))


def sides_of_convolutions(model):
    return [layer.output.shape[1] for layer in model.layers if "_conv" in layer.name]


@pytest.mark.parametrize(("group_norm", "first_groups"), [("keras", 25), ("reference", 32)])
def test_encoder_has_the_size_and_shape_of_the_thesis(group_norm, first_groups):
    encoder = build_encoder(50, group_norm=group_norm)
    assert encoder.count_params() == 915_390  # 914,230 of convolutions, 1,160 of normalisations
    assert encoder.output_shape == (None, 50)
    assert sides_of_convolutions(encoder) == [12, 5, 3, 2, 1, 1]
    groups = [layer.groups for layer in encoder.layers if layer.name.startswith("encoder_norm")]
    assert groups == [first_groups, 30, 10, 10, 20]


def test_decoders_have_the_sizes_and_shapes_of_the_thesis():
    decoder = build_feature_decoder(50)
    assert (decoder.count_params(), decoder.output_shape) == (1_128_906, (None, 14, 14, 256))
    assert sides_of_convolutions(decoder) == [5, 12, 14]
    for size, sides in ((128, [31, 63, 127, 128, 128]), (64, [31, 63, 64, 64]), (32, [31, 32, 32])):
        decoder = build_image_decoder(size)
        assert (sides_of_convolutions(decoder), decoder.output_shape) == (sides, (None, size, size, 3))
        assert size != 128 or decoder.count_params() == 1_924_845


def test_autoencoder_outputs_lie_in_their_ranges():
    model = build_autoencoder(AutoencoderConfig(latent_size=5, image_size=32))
    outputs = {name: value.numpy() for name, value in model(FEATURES).items()}
    shapes = {"latents": (2, 5), "features": (2, 14, 14, 256), "images": (2, 32, 32, 3)}
    assert {name: value.shape for name, value in outputs.items()} == shapes
    assert np.abs(outputs["latents"]).max() <= 1 and np.abs(outputs["features"]).max() <= 1
    assert outputs["images"].min() >= 0 and outputs["images"].max() <= 1


@pytest.mark.parametrize(("precision", "group_norm"), [("mixed_float16", "keras"), ("mixed_bfloat16", "reference")])
def test_autoencoder_in_mixed_precision_is_close_to_float32(precision, group_norm):
    config = AutoencoderConfig(latent_size=8, image_size=32, precision=precision, group_norm=group_norm)
    model = build_autoencoder(config)
    assert all(weight.dtype == "float32" for weight in model.weights)
    full = build_autoencoder(config.replace(precision="float32"))(FEATURES)
    for name, values in model(FEATURES).items():
        assert values.dtype == "float32"
        np.testing.assert_allclose(values, full[name], atol=0.05)
        assert np.abs(values - full[name]).max() > 0  # it is not computed in float32 all the same


KERAS_ALONE = """
import sys

for name in ("mrcnn", "autoencoder", "experiments", "aecfe"):
    sys.modules[name] = None  # importing it fails
import keras
import numpy as np

outputs = keras.models.load_model("model.keras")(np.load("features.npy"))
np.savez("outputs.npz", **{name: np.asarray(value) for name, value in outputs.items()})
"""


def test_autoencoder_saved_as_keras_file_opens_with_keras_alone(tmp_path):
    model = build_autoencoder(AutoencoderConfig(latent_size=8, image_size=32, seed=3))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "features.npy", FEATURES)
    subprocess.run([sys.executable, "-I", "-c", KERAS_ALONE], cwd=tmp_path, check=True)
    with np.load(tmp_path / "outputs.npz") as outputs:
        for name, expected in model(FEATURES).items():
            np.testing.assert_allclose(outputs[name], expected, atol=1e-6)
