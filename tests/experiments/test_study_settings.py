from pathlib import Path

import pytest

from experiments.settings import AblationSettings, ReproduceSettings, RunSettings, build, load_settings, read_section
from mrcnn.files.errors import InputError


def settings_of(**reproduce):
    values = {"centres": {"a": {}}, "detector": {"train_on": ["a"]}, "reproduce": reproduce}
    settings = build(RunSettings, values, "run.yaml")
    settings.validate()
    return settings.reproduce


def test_reproduce_settings_are_the_thesis_by_default():
    settings = settings_of()
    assert settings.bottleneck.sizes == [5, 10, 50, 100, 150, 300, 400, 650, 1000]
    assert set(settings.ablation.columns) >= {"ResNet-RF", "R-CNN-RF", "AE-RF", "ND-AE-DA", "AAE-DA", "AE-CFE"}
    adaptations = [settings.ablation.autoencoder_of(n)["adaptation"] for n in ("AE-RF", "ND-AE-DA", "AAE-DA", "AE-CFE")]
    assert adaptations == ["none", "normal", "adversarial", "mmd"]
    assert settings.ablation.autoencoder_of("R-CNN-RF") is None


def test_ablation_overrides_change_a_column_or_add_one():
    ablation = AblationSettings(autoencoders={"AAE-DA": {"beta": 0.1}, "Mine": {"adaptation": "coral"}})
    assert ablation.autoencoder_of("AAE-DA") == {"adaptation": "adversarial", "beta": 0.1}
    assert ablation.autoencoder_of("Mine") == {"adaptation": "coral"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bottleneck": {"sizes": [0]}}, "reproduce.bottleneck.sizes: one number or more, of 1 or more each"),
        (
            {"bottleneck": {"backbones": ["vgg"]}},
            "reproduce.bottleneck.backbones: 'vgg' is none of resnet101, resnet50",
        ),
        ({"bottleneck": {"image_losses": []}}, "reproduce.bottleneck.image_losses: name one or more, each once"),
        ({"bottleneck": {"centre": "b"}}, "reproduce.bottleneck.centre: 'b' is none of the centres a"),
        ({"ablation": {"columns": ["AE-CFE", "AE-CFE"]}}, "reproduce.ablation.columns: name one or more, each once"),
        ({"ablation": {"columns": ["AE"]}}, "reproduce.ablation.columns: 'AE' is none of Hand-made"),
        ({"ablation": {"standardise": ["both"]}}, "reproduce.ablation.standardise: 'both' is none of none, centre"),
        ({"ablation": {"training_runs": 0}}, "reproduce.ablation.training_runs must be 1 or more; got 0"),
        ({"ablation": {"autoencoders": {"R-CNN-RF": {}}}}, "'R-CNN-RF' is no autoencoder; choose another name"),
        ({"oracle": {"normalizations": ["layer"]}}, "reproduce.oracle.normalizations: 'layer' is none of batch, group"),
        ({"oracle": {"network": {"seed": 1}}}, "reproduce.oracle.network.seed: is set elsewhere; leave it out"),
        ({"bootstrap": 5}, "reproduce.bootstrap must be 100 or more; got 5"),
        ({"ablations": {}}, "unknown setting 'ablations'; did you mean ablation"),
    ],
)
def test_reproduce_settings_name_what_is_wrong(values, message):
    with pytest.raises(InputError) as error:
        settings_of(**values)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["demo", "real-small", "thesis"])
def test_configs_that_come_along_are_valid(name):
    from autoencoder.config import AutoencoderConfig

    settings = load_settings(Path(__file__).parents[2] / "experiments" / "configs" / f"{name}.yaml")
    assert isinstance(settings.reproduce, ReproduceSettings)
    for column in settings.reproduce.ablation.columns:
        overrides = settings.reproduce.ablation.autoencoder_of(column)
        if overrides is not None:
            AutoencoderConfig.from_dict({**settings.autoencoder, **overrides})
    AutoencoderConfig.from_dict({**settings.autoencoder, **settings.reproduce.bottleneck.autoencoder})


def test_preset_is_a_section_that_train_takes():
    from autoencoder.config import AutoencoderConfig

    path = Path(__file__).parents[2] / "experiments" / "configs" / "presets" / "across-centres.yaml"
    config = AutoencoderConfig.from_dict(read_section(path, "autoencoder"))
    assert (config.feature_scaling, config.image_colours, config.adaptation) == ("centre", "standardised", "mmd")
