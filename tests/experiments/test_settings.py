"""The settings of a run: what is accepted, what is refused, and how the refusal reads."""

from pathlib import Path

import pytest
import yaml

from autoencoder.config import AutoencoderConfig
from experiments.settings import (
    AblationSettings,
    ReproduceSettings,
    apply_changes,
    load_settings,
    parse_changes,
    read_section,
)
from mrcnn.files.errors import InputError

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
MINIMAL = """
centres:
  one: {root: a, layout: csv}
  two: {root: b}
detector:
  train_on: [one]
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "my.yaml").write_text(MINIMAL)
    return tmp_path / "my.yaml"


def test_load_settings_fills_defaults_and_names_the_run_after_the_file(path):
    settings = load_settings(path)
    assert (settings.name, settings.output, settings.seed) == ("my", "runs/my", 0)
    assert settings.centres["one"].layout == "csv" and settings.centres["two"].layout == "auto"
    assert settings.detector.epochs == 26


def test_changes_are_yaml_by_dotted_name(path):
    texts = ["detector.epochs=3", "autoencoder={beta: 0.5}", "centres.two.layout=folders", "seed=7", "detector.layers="]
    changes = parse_changes(texts[:-1])
    settings = load_settings(path, changes)
    assert (settings.detector.epochs, settings.autoencoder, settings.seed) == (3, {"beta": 0.5}, 7)
    assert settings.centres["two"].layout == "folders"
    assert parse_changes(texts[-1:]) == {"detector.layers": None}
    with pytest.raises(InputError, match="write it as section.key=value"):
        parse_changes(["detector"])
    with pytest.raises(InputError, match=r"--set seed=\[: not YAML"):
        parse_changes(["seed=["])
    with pytest.raises(InputError, match="seed has no settings below it"):
        apply_changes({"seed": 1}, {"seed.deeper": 1})


def test_settings_round_trip_through_yaml(path, tmp_path):
    settings = load_settings(path)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(settings.to_dict()))
    assert load_settings(tmp_path / "again.yaml") == settings


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("centers", {}, "unknown setting centers, did you mean 'centres'?"),
        ("centres", {}, "centres must have at least 1 item after validation"),
        ("detector.epochs", "many", "detector.epochs must be a valid integer, got 'many'"),
        ("detector.train_on", ["three"], "detector.train_on: 'three' is none of the centres one, two"),
        ("detector", {"epochs": 3}, "detector.train_on: name the centres with masks"),
        ("detector.layers", "(", "detector.layers must be heads, 3+, 4+, 5+, all or a regular expression, got '('"),
        ("detector.exclude", ["mrcnn_mask"], "detector.exclude: names layers that do not take the weights"),
        ("detector.settings.LEARNING_RAET", 1, "LEARNING_RAET"),
        ("evaluate.methods", ["magic"], "evaluate.methods.0 must be 'R-CNN-RF'"),
        ("autoencoder.source_centre", "three", "autoencoder.source_centre: 'three' is none of the centres one, two"),
        ("autoencoder.betta", 1, "unknown setting autoencoder.betta, did you mean 'beta'?"),
        ("reproduce.bottleneck.sizes", [0], "reproduce.bottleneck.sizes.0 must be greater than or equal to 1"),
        ("reproduce.bottleneck.image_losses", [], "reproduce.bottleneck.image_losses: name one or more, each once"),
        ("reproduce.bottleneck.centre", "b", "reproduce.bottleneck.centre: 'b' is none of the centres one, two"),
        ("reproduce.bottleneck.autoencoder.latent_size", 3, "latent_size is set elsewhere; leave it out"),
        ("reproduce.ablation.columns", ["AE"], "reproduce.ablation.columns: 'AE' is none of Handcrafted"),
        ("reproduce.ablation.autoencoders", {"R-CNN-RF": {}}, "'R-CNN-RF' is no autoencoder; choose another name"),
        ("reproduce.ablation.autoencoders.mine", {"bta": 1}, "reproduce.ablation.autoencoders.mine.bta, did you mean"),
        ("reproduce.oracle.network.seed", 1, "reproduce.oracle.network: seed is set elsewhere; leave it out"),
    ],
)
def test_what_would_fail_hours_later_is_refused_at_once(path, name, value, told):
    with pytest.raises(InputError) as error:
        load_settings(path, {name: value})
    assert str(error.value).startswith("my.yaml: ") and told in str(error.value)


def test_every_fault_of_a_file_is_told_at_once(path):
    changes = {"seed": -1, "detector.epochs": 0, "autoencoder.beta": "1e-3", "evaluate.runs": True}
    with pytest.raises(InputError) as error:
        load_settings(path, changes)
    for name in changes:
        assert name in str(error.value)


@pytest.mark.parametrize("text", [None, "- 1\n- 2\n", "seed: 1", MINIMAL.replace("two:", "../two:")])
def test_a_file_that_holds_no_run_is_named(path, text):
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=r"my\.yaml: "):
        load_settings(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations_are_valid(path):
    load_settings(path)


def test_preset_is_a_section_that_train_takes(path):
    config = AutoencoderConfig(**read_section(CONFIGS / "presets" / "across-centres.yaml", "autoencoder"))
    assert (config.feature_scaling, config.image_colours, config.adaptation) == ("centre", "standardised", "mmd")
    assert read_section(path, "autoencoder") == {}
    path.write_text("autoencoder: [1]\n")
    with pytest.raises(InputError, match=r"my\.yaml: autoencoder must be settings with keys, got \[1\]"):
        read_section(path, "autoencoder")


def test_reproduce_settings_are_the_thesis_by_default():
    settings = ReproduceSettings()
    assert settings.bottleneck.sizes == [5, 10, 50, 100, 150, 300, 400, 650, 1000]
    names = ("AE-RF", "ND-AE-DA", "AAE-DA", "AE-CFE")
    adaptations = [settings.ablation.autoencoder_of(name)["adaptation"] for name in names]
    assert adaptations == ["none", "normal", "adversarial", "mmd"]
    assert settings.ablation.autoencoder_of("R-CNN-RF") is None


def test_ablation_overrides_change_a_column_or_add_one_and_former_names_are_taken():
    ablation = AblationSettings(autoencoders={"AAE-DA": {"beta": 0.1}, "Mine": {"adaptation": "coral"}})
    assert ablation.autoencoder_of("AAE-DA") == {"adaptation": "adversarial", "beta": 0.1}
    assert ablation.autoencoder_of("Mine") == {"adaptation": "coral"}
    settings = AblationSettings(columns=["Hand-made", "AE-RF"], reference="Hand-made, Lab")
    assert settings.columns == ["Handcrafted", "AE-RF"] and settings.reference == "Handcrafted, Lab"
