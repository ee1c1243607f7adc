"""The commands one after another, from synthetic smears to a table, with a detector that learned next to nothing."""

import json

import numpy as np
import pytest

from mrcnn.feature_store import FeatureStore, open_store

TINY_DETECTOR = """
    BACKBONE=resnet50 FPN_CLASSIF_FC_LAYERS_SIZE=64 IMAGE_MIN_DIM=64 IMAGE_MAX_DIM=64 RPN_ANCHOR_SCALES=[8,16,24,32,48]
    TRAIN_ROIS_PER_IMAGE=8 PRE_NMS_LIMIT=200 POST_NMS_ROIS_TRAINING=40 POST_NMS_ROIS_INFERENCE=20 MAX_GT_INSTANCES=4
    DETECTION_MAX_INSTANCES=4 STEPS_PER_EPOCH=2 VALIDATION_STEPS=0
""".split()
TRAIN_DETECTOR = ("--instances", "--set=epochs=1", *(f"--set=settings.{setting}" for setting in TINY_DETECTOR))
TRAIN = ("--steps", 2, "--batch-size", 4, "--image-size", 32)


@pytest.fixture(scope="module", autouse=True)
def short_backbone(small_resnet):
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def centres(tmp_path_factory, aecfe):
    folder = tmp_path_factory.mktemp("smears")
    assert aecfe("synth", folder, "--images", 12, "--centres", "north", "river", "--size", 64) == 0
    return folder


@pytest.fixture(scope="module")
def detector(centres, tmp_path_factory, aecfe):
    folder = tmp_path_factory.mktemp("detector") / "run"
    assert aecfe("detector", "train", centres / "north", "-o", folder, *TRAIN_DETECTOR) == 0
    return folder


@pytest.fixture(scope="module")
def extract(centres, detector, aecfe):
    """Function that extracts a centre; the minimum score lets the untrained detector's guesses through."""

    def call(name, output, *more):
        options = ("--scheme", "eleven", "--min-score", 0, "--batch-size", 6)
        return aecfe("extract", centres / name, "--detector", detector, "-o", output, *options, *more)

    return call


@pytest.fixture(scope="module")
def stores(extract, tmp_path_factory):
    """The features of north, and of river in two shards."""
    folder = tmp_path_factory.mktemp("features")
    assert extract("north", folder / "north.h5") == 0
    for shard in ("1/2", "2/2"):
        assert extract("river", folder / "river.h5", "--shard", shard) == 0
    return sorted(folder.iterdir())


def test_stages_lead_from_smears_to_a_table(stores, tmp_path, capsys, aecfe):
    assert [path.name for path in stores] == ["north.h5", "river.shard-1-of-2.h5", "river.shard-2-of-2.h5"]
    settings = {"adaptation": "adversarial", "reduction": "sum", "beta": 0.25, "source": "river", "balance": "centre",
                "latent_size": 5, "feature_scaling": "channel", "seed": 7, "log_every": 1}  # fmt: skip
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert aecfe("train", *stores, "-o", tmp_path / "ae", *TRAIN, *flags, "--tracker", "tensorboard") == 0
    assert list((tmp_path / "ae" / "tensorboard" / "train").iterdir())
    config = json.loads((tmp_path / "ae" / "config.json").read_text())
    renamed = {"reduction": "adaptation_reduction", "source": "source_centre"}
    assert {name: config[renamed.get(name, name)] for name in settings} == settings
    assert config["steps"] == 2 and config["global_batch_size"] == 4

    assert aecfe("embed", tmp_path / "ae", *stores, "-o", tmp_path / "latents.h5ad") == 0
    assert aecfe("evaluate", *stores, tmp_path / "latents.h5ad", "-o", tmp_path / "table", "--runs", 1) == 0
    printed = capsys.readouterr().out
    assert "R-CNN-RF" in printed and "latents" in printed
    assert (tmp_path / "table" / "cross_centre.csv").stat().st_size > 0
    assert (tmp_path / "table" / "splits" / "river.json").is_file()


def test_merged_shards_are_the_store_of_the_whole_centre(extract, stores, tmp_path, capsys, aecfe):
    assert extract("river", tmp_path / "whole.h5") == 0
    assert aecfe("merge", *stores[1:], "-o", tmp_path / "merged.h5") == 0
    assert "merged.h5: images 12" in capsys.readouterr().out
    opened = (FeatureStore(tmp_path / "whole.h5"), FeatureStore(tmp_path / "merged.h5"), open_store(stores[1:]))
    with opened[0] as whole, opened[1] as merged, opened[2] as read:
        for store in (merged, read):
            assert store.settings == whole.settings and store.counts == whole.counts
            assert store.all_image_ids.tolist() == whole.all_image_ids.tolist() and store.missed == whole.missed
            # Other batches: the same but for rounding.
            for field, tolerance in (("features", 5e-3), ("box", 1.0), ("score", 1e-3)):
                rows = [s.read(field, 0, len(whole)).astype(np.float32) for s in (store, whole)]
                np.testing.assert_allclose(*rows, rtol=1e-2, atol=tolerance, err_msg=field)


def test_a_second_call_reuses_what_is_there_and_another_setting_does_not_replace_it(
    centres, detector, extract, stores, capsys, aecfe, refused
):
    before = {path: path.stat().st_mtime_ns for path in (stores[0], detector / "weights.weights.h5")}
    train = ("detector", "train", centres / "north", "-o", detector, *TRAIN_DETECTOR)
    assert aecfe(*train) == 0
    assert extract("north", stores[0]) == 0
    assert "reused" in capsys.readouterr().err
    assert "epochs" in refused(*train, "--set=epochs=2")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_not_there_is_named(centres, detector, stores, tmp_path, refused):
    (tmp_path / "empty").mkdir()
    (tmp_path / "half.h5").write_bytes(stores[0].read_bytes()[:20_000])
    ae = tmp_path / "ae"
    for command, named in (
        (("extract", tmp_path / "absent", "--detector", detector, "-o", tmp_path / "x.h5"), "absent"),
        (("extract", tmp_path / "empty", "--detector", detector, "-o", tmp_path / "x.h5"), "empty"),
        (("extract", centres / "north", "--detector", tmp_path, "-o", tmp_path / "x.h5"), "no trained detector"),
        (("train", tmp_path / "half.h5", "-o", ae, "--steps", 1), "half.h5"),
        (("train", *stores[:2], "-o", ae), "shard 2/2 of centre river must be given too"),
        (("join", stores[1], "-o", tmp_path / "no.h5"), "shard 2/2 of centre river must be given too"),
        (("train", stores[0], "-o", ae, "--gpus", 64), "--gpus is 64, but TensorFlow sees"),
        (("train", stores[0], "-o", ae, "--gpus", 2, "--multi-worker"), "exclude each other"),
        (("detector", "train", centres / "north", "-o", ae, *TRAIN_DETECTOR, "--weights", "none.h5"), "none.h5"),
    ):
        assert named in refused(*command)
    assert {path.name for path in tmp_path.rglob("*")} <= {"ae", "empty", "half.h5"}
