import subprocess
import sys

import numpy as np
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.network import build_autoencoder, build_encoder, build_feature_decoder, build_image_decoder


def features(number=2):
    return np.random.default_rng(0).uniform(-1, 1, (number, 14, 14, 256)).astype(np.float32)


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


def test_feature_decoder_has_the_size_and_shape_of_the_thesis():
    decoder = build_feature_decoder(50)
    assert decoder.count_params() == 1_128_906
    assert decoder.output_shape == (None, 14, 14, 256)
    assert sides_of_convolutions(decoder) == [5, 12, 14]


@pytest.mark.parametrize(
    ("image_size", "sides"), [(128, [31, 63, 127, 128, 128]), (64, [31, 63, 64, 64]), (32, [31, 32, 32])]
)
def test_image_decoder_reaches_every_size(image_size, sides):
    decoder = build_image_decoder(image_size)
    assert sides_of_convolutions(decoder) == sides
    assert decoder.output_shape == (None, image_size, image_size, 3)
    assert image_size != 128 or decoder.count_params() == 1_924_845


def test_autoencoder_outputs_lie_in_their_ranges():
    model = build_autoencoder(AutoencoderConfig(latent_size=5, image_size=32))
    outputs = {name: value.numpy() for name, value in model(features()).items()}
    shapes = {"latents": (2, 5), "features": (2, 14, 14, 256), "images": (2, 32, 32, 3)}
    assert {name: value.shape for name, value in outputs.items()} == shapes
    assert np.abs(outputs["latents"]).max() <= 1 and np.abs(outputs["features"]).max() <= 1
    assert outputs["images"].min() >= 0 and outputs["images"].max() <= 1


@pytest.mark.parametrize(("precision", "group_norm"), [("mixed_float16", "keras"), ("mixed_bfloat16", "reference")])
def test_autoencoder_in_mixed_precision_is_close_to_float32(precision, group_norm):
    def outputs(precision):
        config = AutoencoderConfig(latent_size=8, image_size=32, precision=precision, group_norm=group_norm)
        model = build_autoencoder(config)
        assert all(weight.dtype == "float32" for weight in model.weights)
        return model(features())

    mixed, full = outputs(precision), outputs("float32")
    for name, values in mixed.items():
        assert values.dtype == "float32"
        np.testing.assert_allclose(values, full[name], atol=0.05)
        assert np.abs(values - full[name]).max() > 0  # it is not computed in float32 all the same


KERAS_ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mrcnn", "autoencoder", "experiments", "aecfe"):
            raise ImportError("this process has Keras alone")

sys.meta_path.insert(0, Refuse())
import keras
import numpy as np

outputs = keras.models.load_model("model.keras")(np.load("features.npy"))
np.savez("outputs.npz", **{name: np.asarray(value) for name, value in outputs.items()})
"""


def test_autoencoder_saved_as_keras_file_opens_with_keras_alone(tmp_path):
    model = build_autoencoder(AutoencoderConfig(latent_size=8, image_size=32, seed=3))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "features.npy", features())
    subprocess.run([sys.executable, "-I", "-c", KERAS_ALONE], cwd=tmp_path, check=True)
    with np.load(tmp_path / "outputs.npz") as outputs:
        for name, expected in model(features()).items():
            np.testing.assert_allclose(outputs[name], expected, atol=1e-6)
