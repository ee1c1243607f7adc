"""The YAML of a run: what is accepted, what is refused, and how the refusal reads."""

from pathlib import Path

import pytest

from experiments.settings import RunSettings, load_settings
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
def write(tmp_path):
    def write_config(text):
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return path

    return write_config


def test_load_settings_fills_defaults_and_names_the_run_after_the_file(write):
    settings = load_settings(write(MINIMAL))

    assert (settings.name, settings.output, settings.seed) == ("my", "runs/my", 0)
    assert settings.centres["one"].layout == "csv"
    assert settings.centres["two"].layout == "auto"
    assert settings.detector.epochs == 26


def test_load_settings_overrides_nested_values(write):
    settings = load_settings(
        write(MINIMAL), ["detector.epochs=3", "autoencoder.beta=0.5", "centres.two.layout=folders", "seed=7"]
    )

    assert settings.detector.epochs == 3
    assert settings.autoencoder == {"beta": 0.5}
    assert settings.centres["two"].layout == "folders"
    assert settings.seed == 7


def test_settings_round_trip_through_plain_values(write, tmp_path):
    import yaml

    settings = load_settings(write(MINIMAL))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(settings.to_dict()))

    assert load_settings(again) == settings


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (MINIMAL + "centers: {}\n", [], "did you mean centres"),
        (MINIMAL, ["detector.epoch=3"], "did you mean epochs"),
        (MINIMAL, ["detector.epochs=many"], "epochs must be a whole number"),
        (MINIMAL, ["detector.train_on=[three]"], "'three' is none of the centres one, two"),
        (MINIMAL, ["detector.train_share=1.5"], "between 0 and 1"),
        (MINIMAL, ["detector.train_share=.nan"], "number .nan out of range"),
        (MINIMAL, ["detector.epochs=0"], "detector.epochs must be 1 or more"),
        (MINIMAL, ["detector.layers='('"], "a regular expression; got '('"),
        (MINIMAL, ["detector.weights=5"], "weights must be text; got 5"),
        (MINIMAL, ["detector.exclude=[mrcnn_mask]"], "add detector.weights"),
        (MINIMAL, ["evaluate.methods=[magic]"], "'magic' is none of"),
        (MINIMAL, ["evaluate.test_on=none"], "test or all"),
        (MINIMAL, ["autoencoder.source_centre=three"], "none of the centres"),
        (MINIMAL, ["detector"], "section.key=value"),
        (MINIMAL, ["seed.deeper=1"], "seed has no settings below it"),
        ("centres: [one, two]", [], "expected settings with keys"),
        ("- 1\n- 2\n", [], "expected a mapping"),
        ("centres: {a: [", [], "not a YAML file"),
        ("seed: 1", [], "at least one centre"),
    ],
)
def test_load_settings_refuses_in_one_line(write, text, overrides, message):
    path = write(text)
    if overrides == ["seed.deeper=1"]:
        path.write_text(text + "seed: 1\n")

    with pytest.raises(InputError) as error:
        load_settings(path, overrides)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_may_be_none_or_text(write):
    assert load_settings(write(MINIMAL), ["detector.weights=~"]).detector.weights is None
    settings = load_settings(write(MINIMAL), ["detector.weights=coco.h5", "detector.exclude=[mrcnn_mask]"])
    assert (settings.detector.weights, settings.detector.exclude) == ("coco.h5", ["mrcnn_mask"])


def test_load_settings_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.yaml: no such configuration file"):
        load_settings(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations_are_valid_down_to_the_networks(path):
    from autoencoder.config import AutoencoderConfig
    from mrcnn.config import make_config

    settings = load_settings(path)

    assert isinstance(settings, RunSettings)
    make_config(settings.detector.settings)
    AutoencoderConfig.from_dict({"seed": settings.seed, **settings.autoencoder})


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("autoencoder.betta=1", "autoencoder: unknown setting 'betta'; did you mean 'beta'"),
        ("autoencoder.latent_size=1000000000", "latent_size must be at most"),
        ("detector.settings.LEARNING_RAET=1", "LEARNING_RAET"),
        ("detector.settings.NUM_CLASSES=1000000000", "NUM_CLASSES must lie between"),
        ("reproduce.bottleneck.autoencoder.stebs=1", "reproduce.bottleneck.autoencoder: unknown setting 'stebs'"),
        (
            "reproduce.ablation.autoencoders.mine={bta: 1}",
            "reproduce.ablation.autoencoders.mine: unknown setting 'bta'",
        ),
        ("seed=-1", "seed must be"),
        ("centres.one.num_images=0", "centres.one.num_images must be"),
        ("extract.batch_size=0", "extract.batch_size must be"),
        ("evaluate.runs=0", "evaluate.runs must be"),
    ],
)
def test_what_would_fail_hours_later_is_refused_at_once(write, override, reason):
    with pytest.raises(InputError, match=reason):
        load_settings(write(MINIMAL), [override])


@pytest.mark.parametrize("name", ["../a", "a/b", "'a\\b'", ".a", "''"])
def test_a_centre_that_is_no_name_for_files_is_refused(write, name):
    with pytest.raises(InputError, match="no name for files"):
        load_settings(write(MINIMAL.replace("two:", f"{name}:")))


def test_a_key_twice_is_refused(write):
    with pytest.raises(InputError, match=r"my\.yaml: not a YAML file .*key 'seed' twice"):
        load_settings(write(MINIMAL + "seed: 1\nseed: 2\n"))
