"""The command line: help, mistakes, and the way from drawn smears to a table."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from aecfe.cli import build_parser, main
from autoencoder.config import CHOICES

TINY_DETECTOR = [
    "--set=settings.BACKBONE=resnet50",
    "--set=settings.FPN_CLASSIF_FC_LAYERS_SIZE=64",
    "--set=settings.IMAGE_MIN_DIM=64",
    "--set=settings.IMAGE_MAX_DIM=64",
    "--set=settings.RPN_ANCHOR_SCALES=[8,16,24,32,48]",
    "--set=settings.TRAIN_ROIS_PER_IMAGE=8",
    "--set=settings.PRE_NMS_LIMIT=200",
    "--set=settings.POST_NMS_ROIS_TRAINING=40",
    "--set=settings.POST_NMS_ROIS_INFERENCE=20",
    "--set=settings.MAX_GT_INSTANCES=4",
    "--set=settings.DETECTION_MAX_INSTANCES=4",
    "--set=settings.STEPS_PER_EPOCH=2",
    "--set=settings.VALIDATION_STEPS=0",
    "--set=epochs=1",
]


def run(*arguments):
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module", autouse=True)
def short_backbone(small_resnet):
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def centres(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smears")
    assert run("synth", folder, "--images", 12, "--centres", "north", "river", "--size", 64) == 0
    return folder


@pytest.fixture(scope="module")
def detector(centres, tmp_path_factory):
    """A detector after two steps: it has learned nothing, but everything after it can run."""
    folder = tmp_path_factory.mktemp("detector") / "run"
    assert run("detector", "train", centres / "north", "-o", folder, "--instances", *TINY_DETECTOR) == 0
    return folder


@pytest.fixture(scope="module")
def stores(centres, detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    for name in ("north", "river"):
        # The least score lets the untrained detector's guesses through.
        assert (
            run(
                "extract", centres / name, "--detector", detector, "-o", folder / f"{name}.h5",
                "--scheme", "eleven", "--min-score", 0,
            )
            == 0
        )  # fmt: skip
    return [folder / "north.h5", folder / "river.h5"]


def test_train_takes_every_choice_of_the_settings():
    arguments = build_parser().parse_args(["train", "a.h5", "-o", "out"])
    commands = next(action for action in build_parser()._actions if action.choices)
    offered = {action.dest: action.choices for action in commands.choices["train"]._actions if action.choices}
    names = {"reduction": "adaptation_reduction"}
    for option, choices in offered.items():
        assert set(choices) == set(CHOICES[names.get(option, option)]), option
        assert getattr(arguments, option) is None  # the settings' own default
    # Which adaptation there is the settings know, since it may be a function of the user's own.
    assert set(CHOICES) == {"adaptation", *(names.get(option, option) for option in offered)}


def test_train_takes_its_options_into_the_settings(stores, tmp_path):
    options = {
        "adaptation": "adversarial", "reduction": "sum", "beta": 0.25, "source": "river", "balance": "centre",
        "latent_size": 5, "image_size": 32, "image_source": "image", "image_loss": "mse", "ssim": "reference",
        "group_norm": "reference", "feature_scaling": "channel", "precision": "mixed_bfloat16", "steps": 2,
        "batch_size": 4, "seed": 7,
    }  # fmt: skip
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert run("train", *stores, "-o", tmp_path / "ae", *flags) == 0
    config = json.loads((tmp_path / "ae" / "config.json").read_text())
    renamed = {"reduction": "adaptation_reduction", "source": "source_centre", "batch_size": "global_batch_size"}
    assert {name: config[renamed.get(name, name)] for name in options} == options
    assert json.loads((tmp_path / "ae" / "run.json").read_text())["losses"]["discriminator_loss"] > 0


def test_train_on_gpus_that_are_not_there_is_one_line(stores, tmp_path, capsys):
    assert run("train", *stores, "-o", tmp_path / "ae", "--gpus", 64) == 2
    assert "error: --gpus is 64, but TensorFlow sees" in capsys.readouterr().err
    assert run("train", *stores, "-o", tmp_path / "ae", "--gpus", 2, "--multi-worker") == 2
    assert "exclude each other" in capsys.readouterr().err
    assert not (tmp_path / "ae").exists()


def test_every_command_has_help(capsys):
    for command in (["run"], ["synth"], ["detector", "train"], ["detector", "evaluate"], ["extract"], ["join"],
                    ["train"], ["embed"], ["evaluate"], ["report"], ["detect"], ["export", "detector"],
                    ["export", "autoencoder"], ["export", "pipeline"], ["features"], ["qc"], ["doctor"],
                    ["classifier", "train"], ["classifier", "apply"]):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0
    assert "usage: aecfe" in capsys.readouterr().out


def test_help_does_not_import_tensorflow():
    code = "import sys; sys.argv=['aecfe','--help']\ntry:\n import aecfe.__main__\nexcept SystemExit: pass\n"
    code += "from aecfe.cli import build_parser; build_parser(); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_stages_lead_from_smears_to_a_table(stores, tmp_path, capsys):
    steps = ["--steps", 2, "--batch-size", 4, "--image-size", 32]
    assert run("train", *stores, "-o", tmp_path / "ae", *steps) == 0
    assert run("embed", tmp_path / "ae", *stores, "-o", tmp_path / "latents.h5ad") == 0
    assert run("evaluate", *stores, tmp_path / "latents.h5ad", "-o", tmp_path / "table", "--runs", 1) == 0

    printed = capsys.readouterr().out
    assert "R-CNN-RF" in printed
    assert "latents" in printed
    assert (tmp_path / "table" / "cross_centre.csv").stat().st_size > 0


def test_a_second_call_reuses_what_is_there(centres, detector, stores, capsys):
    before = {path: path.stat().st_mtime_ns for path in [*stores, detector / "weights.weights.h5"]}

    assert run("detector", "train", centres / "north", "-o", detector, "--instances", *TINY_DETECTOR) == 0
    assert run("extract", centres / "north", "--detector", detector, "-o", stores[0], "--scheme", "eleven",
               "--min-score", 0) == 0  # fmt: skip

    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "reused" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shards(centres, detector, tmp_path_factory):
    """The store of river in two shards."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in ("1/2", "2/2"):
        assert run("extract", centres / "river", "--detector", detector, "-o", folder / "river.h5", "--scheme",
                   "eleven", "--min-score", 0, "--batch-size", 2, "--shard", shard) == 0  # fmt: skip
    return sorted(folder.iterdir())


def test_shards_are_one_store(stores, shards, tmp_path, capsys):
    from mrcnn.feature_store import FeatureStore, open_store

    assert [path.name for path in shards] == ["river.shard-1-of-2.h5", "river.shard-2-of-2.h5"]
    assert run("join", *shards, "-o", tmp_path / "river.h5") == 0
    assert "river.h5: images 12" in capsys.readouterr().out
    with FeatureStore(stores[1]) as whole, FeatureStore(tmp_path / "river.h5") as joined, open_store(shards) as read:
        for store in (joined, read):
            assert store.settings == whole.settings and store.counts == whole.counts
            assert store.image_keys.tolist() == whole.image_keys.tolist() and store.missed == whole.missed
            assert store.labels.tolist() == whole.labels.tolist()
            # Other batches: the same but for rounding.
            for field, tolerance in (("features", 5e-3), ("box", 1.0), ("score", 1e-3)):
                rows = [s.read(field, 0, len(whole)).astype(np.float32) for s in (store, whole)]
                np.testing.assert_allclose(*rows, rtol=1e-2, atol=tolerance, err_msg=field)


def test_stages_take_the_shards_of_a_centre(stores, shards, tmp_path, capsys):
    inputs = [shards[1], stores[0], shards[0]]
    steps = ["--steps", 1, "--batch-size", 4, "--image-size", 32, "--source", "north"]
    assert run("train", *inputs, "-o", tmp_path / "ae", *steps) == 0
    assert run("embed", tmp_path / "ae", *inputs, "-o", tmp_path / "latents.h5ad") == 0
    assert run("evaluate", *inputs, tmp_path / "latents.h5ad", "-o", tmp_path / "table", "--runs", 1) == 0
    assert (tmp_path / "table" / "splits" / "river.json").is_file()
    for command in (["train", *inputs[1:], "-o", tmp_path / "no"], ["join", shards[0], "-o", tmp_path / "no.h5"]):
        capsys.readouterr()
        assert run(*command) == 2
        assert "shard 2/2 of centre river must be given too" in one_line_error(capsys)


def test_shards_of_another_number_are_refused(centres, detector, shards, capsys):
    before = sorted(shards[0].parent.iterdir())
    assert run("extract", centres / "river", "--detector", detector, "-o", shards[0].with_name("river.h5"),
               "--shard", "1/3") == 2  # fmt: skip
    assert "is one of 2 shards, not of 3" in one_line_error(capsys)
    assert sorted(shards[0].parent.iterdir()) == before


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3"])
def test_a_wrong_shard_is_a_usage_error(tmp_path, shard, capsys):
    with pytest.raises(SystemExit) as stop:
        run("extract", tmp_path, "--detector", tmp_path, "-o", tmp_path / "a.h5", "--shard", shard)
    assert stop.value.code == 2
    assert "give I/N" in capsys.readouterr().err


def test_another_setting_does_not_replace_a_trained_detector(centres, detector, capsys):
    before = (detector / "weights.weights.h5").read_bytes()

    assert run("detector", "train", centres / "north", "-o", detector, "--instances", *TINY_DETECTOR,
               "--set=epochs=2") == 2  # fmt: skip

    assert "epochs 1 -> 2" in capsys.readouterr().err
    assert (detector / "weights.weights.h5").read_bytes() == before


def one_line_error(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aecfe: error: ")]
    assert len(lines) == 1
    return lines[0]


def test_missing_and_empty_folders_are_named(tmp_path, detector, capsys):
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        assert run("extract", tmp_path / name, "--detector", detector, "-o", tmp_path / "out.h5") == 2
        assert str(tmp_path / name) in one_line_error(capsys)
        assert not (tmp_path / "out.h5").exists()


def test_missing_detector_is_named(centres, tmp_path, capsys):
    assert run("extract", centres / "north", "--detector", tmp_path, "-o", tmp_path / "out.h5") == 2
    assert "no trained detector" in one_line_error(capsys)


def test_csv_that_names_a_missing_file_is_refused(centres, detector, tmp_path, capsys):
    (tmp_path / "c" / "images").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "c" / "images" / "a.png")
    (tmp_path / "c" / "labels.csv").write_text("image,label\na.png,monocyte\nb.png,monocyte\n")

    assert run("extract", tmp_path / "c", "--detector", detector, "-o", tmp_path / "out.h5") == 2
    assert "b.png" in one_line_error(capsys)


def test_odd_images_are_read_and_bad_ones_listed(detector, tmp_path, capsys):
    from mrcnn.feature_store import FeatureStore

    folder = tmp_path / "odd"
    folder.mkdir()
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(np.dstack([grey] * 4)).save(folder / "rgba.png")
    Image.fromarray(np.dstack([grey] * 3)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:700])
    (folder / "text.png").write_text("this is no image")

    assert run("extract", folder, "--detector", detector, "-o", tmp_path / "odd.h5", "--min-score", 0) == 0

    assert re.search(r"5 images in \d+ s \(\d+\.\d images/s\)", capsys.readouterr().err)
    with FeatureStore(tmp_path / "odd.h5") as store:
        assert store.counts["unreadable"] == 2
        assert {m["key"] for m in store.missed if m["reason"].startswith("unreadable")} == {"cut.jpg", "text.png"}
        assert set(store.keys.tolist()) <= {"grey.png", "deep.png", "rgba.png"}
        assert store.counts["images"] == 5


def test_mask_of_another_size_leaves_its_image_out(centres, tmp_path, capsys):
    import json
    import shutil

    shutil.copytree(centres / "river", tmp_path / "river")
    Image.new("L", (10, 10), 1).save(tmp_path / "river" / "masks" / "0003.png")

    assert run("detector", "train", tmp_path / "river", "-o", tmp_path / "run", "--instances", *TINY_DETECTOR) == 0

    assert "0003.png" in capsys.readouterr().err
    left_out = json.loads((tmp_path / "run" / "run.json").read_text())["left_out"]["river"]
    assert [key for key, _ in left_out] == ["images/0003.png"]


def test_weights_that_do_not_fit_leave_nothing_behind(centres, tmp_path, capsys):
    import h5py

    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        file.create_group("conv1").attrs["weight_names"] = [b"conv1/kernel:0"]
        file["conv1"]["conv1/kernel:0"] = [[1.0]]
    train = ("detector", "train", centres / "north", "-o", tmp_path / "run", "--instances", *TINY_DETECTOR)

    assert run(*train, "--weights", path) == 2
    assert "other.h5" in capsys.readouterr().err
    assert run(*train, "--weights", tmp_path / "none.h5") == 2
    assert "none.h5: no such weights file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_store_cut_in_half_is_refused(stores, tmp_path, capsys):
    whole = stores[0].read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])

    assert run("train", tmp_path / "half.h5", "-o", tmp_path / "ae", "--steps", 1) == 2
    assert "half.h5" in one_line_error(capsys)
    assert not (tmp_path / "ae").exists()


def test_unknown_autoencoder_setting_is_refused(stores, tmp_path, capsys):
    assert run("train", *stores, "-o", tmp_path / "ae", "--set", "latent_sise=5") == 2
    assert "latent_size" in one_line_error(capsys)


def test_wrong_whole_number_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run("synth", tmp_path, "--images", "0")
    assert stop.value.code == 2
