import pytest

from autoencoder.config import AutoencoderConfig
from mrcnn.files.errors import InputError


def test_config_defaults_are_those_of_the_thesis():
    config = AutoencoderConfig()
    assert (config.latent_size, config.image_size, config.beta) == (50, 128, 5.0)
    assert (config.global_batch_size, config.learning_rate, config.epochs) == (1500, 1e-3, 150)
    # 65,693 cells, 150 epochs in batches of 1,500
    assert config.num_steps(65_693) == 6570
    assert config.replace(steps=9).num_steps(65_693) == 9


def test_config_survives_json(tmp_path):
    config = AutoencoderConfig(latent_size=5, source_centre="Zürich", steps=7, adaptation="nosuch.module:loss")
    config.save(tmp_path / "config.json")
    assert AutoencoderConfig.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("name", "value"),
    [("latent_sise", 3), ("image_size", 48), ("adaptation", "gan"), ("adaptation", "a/b.py:c"), ("beta", -1.0)],
)
def test_config_refuses_value(name, value):
    with pytest.raises(InputError, match=f"some.json: .*{name}"):
        AutoencoderConfig.from_dict({name: value}, where="some.json")
