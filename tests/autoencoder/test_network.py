import numpy as np
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.layers import FlattenedGroupNormalization
from autoencoder.network import build_autoencoder, build_encoder, build_feature_decoder, build_image_decoder


def sides_of_convolutions(decoder):
    return [layer.output.shape[1] for layer in decoder.layers if layer.weights]


def test_encoder_has_the_size_and_shape_of_the_thesis():
    encoder = build_encoder(50)
    assert encoder.count_params() == 915_390  # 914,230 of convolutions, 1,160 of normalisations
    assert encoder.output_shape == (None, 50)
    sides = [layer.output.shape[1] for layer in encoder.layers if layer.name.startswith("encoder_conv")]
    assert sides == [12, 5, 3, 2, 1, 1]
    groups = [layer.groups for layer in encoder.layers if layer.name.startswith("encoder_norm")]
    assert groups == [25, 30, 10, 10, 20]


def test_encoder_has_the_groups_of_the_reference():
    encoder = build_encoder(50, group_norm="reference")
    norms = [layer for layer in encoder.layers if isinstance(layer, FlattenedGroupNormalization)]
    assert [layer.groups for layer in norms] == [32, 30, 10, 10, 20]
    assert encoder.count_params() == 915_390


def test_feature_decoder_has_the_size_and_shape_of_the_thesis():
    decoder = build_feature_decoder(50)
    assert decoder.count_params() == 1_128_906
    assert decoder.output_shape == (None, 14, 14, 256)
    assert sides_of_convolutions(decoder) == [5, 12, 14]


@pytest.mark.parametrize(
    ("image_size", "sides", "parameters"),
    [(128, [31, 63, 127, 128, 128], 1_924_845), (64, [31, 63, 64, 64], None), (32, [31, 32, 32], None)],
)
def test_image_decoder_reaches_every_size(image_size, sides, parameters):
    decoder = build_image_decoder(image_size)
    assert sides_of_convolutions(decoder) == sides
    assert decoder.output_shape == (None, image_size, image_size, 3)
    if parameters:
        assert decoder.count_params() == parameters


def test_image_decoder_refuses_other_sizes():
    with pytest.raises(ValueError, match="image_size must be one of"):
        build_image_decoder(48)


@pytest.mark.parametrize("latent_size", [5, 1000])
def test_autoencoder_outputs_lie_in_their_ranges(latent_size):
    model = build_autoencoder(AutoencoderConfig(latent_size=latent_size, image_size=32))
    features = np.random.default_rng(0).uniform(-1, 1, (2, 14, 14, 256)).astype(np.float32)
    outputs = {name: value.numpy() for name, value in model(features).items()}
    assert outputs["latents"].shape == (2, latent_size)
    assert outputs["features"].shape == (2, 14, 14, 256)
    assert outputs["images"].shape == (2, 32, 32, 3)
    assert np.abs(outputs["latents"]).max() <= 1 and np.abs(outputs["features"]).max() <= 1
    assert outputs["images"].min() >= 0 and outputs["images"].max() <= 1


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("group_norm", ["keras", "reference"])
def test_autoencoder_in_mixed_precision_is_close_to_float32(precision, group_norm):
    def outputs(precision):
        config = AutoencoderConfig(latent_size=8, image_size=32, precision=precision, group_norm=group_norm)
        model = build_autoencoder(config)
        assert all(weight.dtype == "float32" for weight in model.weights)
        return model(features)

    features = np.random.default_rng(0).uniform(-1, 1, (2, 14, 14, 256)).astype(np.float32)
    mixed, full = outputs(precision), outputs("float32")
    for name, values in mixed.items():
        assert values.dtype == "float32"
        np.testing.assert_allclose(values, full[name], atol=0.05)
        assert np.abs(values - full[name]).max() > 0  # it is not computed in float32 all the same


def test_autoencoder_decodes_standardised_features_without_a_bound():
    model = build_autoencoder(AutoencoderConfig(image_size=32, feature_scaling="channel"))
    assert model.get_layer("feature_decoder").layers[-1].activation.__name__ == "linear"


def test_autoencoder_weights_follow_the_seed():
    def weights(seed):
        return [w.numpy() for w in build_autoencoder(AutoencoderConfig(image_size=32, seed=seed)).weights]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    kernels = [(a, b) for a, b in zip(first, other, strict=True) if a.ndim == 4]
    assert not any(np.array_equal(a, b) for a, b in kernels)


def test_encoder_latent_of_a_sample_does_not_depend_on_its_batch():
    encoder = build_encoder(6, seed=4)
    features = np.random.default_rng(0).normal(size=(3, 14, 14, 256)).astype(np.float32)
    np.testing.assert_allclose(encoder(features)[1:2], encoder(features[1:2]), atol=1e-4)
