import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from autoencoder import training
from autoencoder.config import AutoencoderConfig
from autoencoder.folder import load_autoencoder
from autoencoder.log import TrainingLog
from autoencoder.step import metric_names
from autoencoder.training import train_autoencoder
from mrcnn.files.errors import InputError


@pytest.fixture(scope="module")
def trained(stores, tiny_settings, tmp_path_factory):
    """A finished training, not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "autoencoder"
    return train_autoencoder(AutoencoderConfig(**tiny_settings), stores, folder)


def read_log(folder):
    with open(folder / "log.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def broken_off(trained, stores, tmp_path_factory):
    """The same training, stopped while it works at step 4 after a checkpoint at step 2."""
    folder = tmp_path_factory.mktemp("broken") / "autoencoder"
    check = training._check_finite

    def stop(names, metrics, step):
        check(names, metrics, step)
        if step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_check_finite", stop)
        train_autoencoder(trained.config, stores, folder)
    return folder


def test_train_leaves_a_whole_folder(trained, stores):
    names = {p.name for p in trained.folder.iterdir()}
    files = {"config.json", "run.json", "weights.weights.h5", "scaling.npz", "log.csv"}
    assert names == files | {"tensorboard", "checkpoints"}
    assert sorted(p.name for p in (trained.folder / "checkpoints").iterdir()) == [
        "step-00000002.npz",
        "step-00000004.npz",
    ]
    run = json.loads((trained.folder / "run.json").read_text())
    assert run["complete"] and run["steps"] == 4 and run["command"] == sys.argv
    assert {c: s["cells"] for c, s in run["stores"].items()} == {"anna": 12, "bert": 9, "cleo": 7}
    assert run["source_centre"] == "anna" and trained.detector_hash == "detector-a"
    assert list((trained.folder / "tensorboard").glob("events*"))


def test_train_logs_means_that_add_up(trained):
    rows = read_log(trained.folder)
    assert tuple(rows[0]) == ("step", *metric_names(trained.config), "seconds")
    assert [row["step"] for row in rows] == ["2", "4"]
    for row in rows:
        parts = float(row["feature_loss"]) + float(row["image_loss"]) + 5 * float(row["adaptation_loss"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-4)
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


def test_load_autoencoder_gives_back_what_was_trained(trained):
    loaded = load_autoencoder(trained.folder)
    assert loaded.config == trained.config
    for a, b in zip(loaded.model.get_weights(), trained.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.encoder.output_shape == (None, 8)


def test_train_again_returns_the_finished_run_untouched(trained, stores):
    before = snapshot(trained.folder)
    again = train_autoencoder(trained.config, stores, trained.folder)
    assert snapshot(trained.folder) == before
    np.testing.assert_array_equal(again.model.get_weights()[0], trained.model.get_weights()[0])


def test_train_refuses_a_folder_with_another_config_or_stores(trained, stores, tiny_settings):
    before = snapshot(trained.folder)
    with pytest.raises(InputError, match="beta is 5.0 there.; choose another output or --overwrite"):
        train_autoencoder(AutoencoderConfig(**tiny_settings, beta=1.0), stores, trained.folder)
    fewer = {c: stores[c] for c in ("anna", "bert")}
    with pytest.raises(InputError, match="its feature stores are others"):
        train_autoencoder(trained.config, fewer, trained.folder)
    assert snapshot(trained.folder) == before


def test_train_without_resume_replaces_its_own_files_only(trained, stores, tiny_settings, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    (folder / "notes.txt").write_text("mine")
    config = AutoencoderConfig(**{**tiny_settings, "steps": 1, "adaptation": "none"})
    fresh = train_autoencoder(config, stores, folder, resume=False)
    assert fresh.run["steps"] == 1 and (folder / "notes.txt").read_text() == "mine"
    (row,) = read_log(folder)
    assert row["step"] == "1" and float(row["adaptation_loss"]) == 0.0


def test_resumed_training_ends_where_an_unbroken_one_does(trained, broken_off, stores, tmp_path):
    folder = shutil.copytree(broken_off, tmp_path / "resumed")
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-00000002.npz"]
    with pytest.raises(InputError, match="not finished"):
        load_autoencoder(folder)
    resumed = train_autoencoder(trained.config, stores, folder)
    for a, b in zip(resumed.model.get_weights(), trained.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    rows, expected = read_log(folder), read_log(trained.folder)
    assert [row["step"] for row in rows] == ["2", "4"]
    for name in metric_names(trained.config):
        assert [float(r[name]) for r in rows] == pytest.approx([float(r[name]) for r in expected], rel=1e-4)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_training_goes_on_from_the_last_checkpoint_that_is_whole(trained, stores, tmp_path, caplog):
    folder = shutil.copytree(trained.folder, tmp_path / "damaged")
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "complete": False}))
    (folder / "weights.weights.h5").unlink()
    cut_short(folder / "checkpoints" / "step-00000004.npz")
    resumed = train_autoencoder(trained.config, stores, folder)
    assert "step-00000004.npz: damaged checkpoint" in caplog.text
    for a, b in zip(resumed.model.get_weights(), trained.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_training_without_a_whole_checkpoint_is_refused(trained, broken_off, stores, tmp_path):
    folder = shutil.copytree(broken_off, tmp_path / "damaged")
    cut_short(folder / "checkpoints" / "step-00000002.npz")
    with pytest.raises(InputError, match="checkpoints: every checkpoint is damaged; train again with --overwrite"):
        train_autoencoder(trained.config, stores, folder)


def test_train_goes_on_where_a_finished_run_asks_for_more_steps(trained, stores, tiny_settings, tmp_path):
    longer = AutoencoderConfig(**{**tiny_settings, "steps": 6})
    whole = train_autoencoder(longer, stores, tmp_path / "whole")
    folder = shutil.copytree(trained.folder, tmp_path / "longer")
    extended = train_autoencoder(longer, stores, folder)
    assert extended.run["steps"] == 6 and [row["step"] for row in read_log(folder)] == ["2", "4", "6"]
    for a, b in zip(extended.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(InputError, match="has been trained for 6 steps, more than 4; choose another output"):
        train_autoencoder(trained.config, stores, folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(InputError, match="cannot go on, since its checkpoints/ is gone"):
        train_autoencoder(AutoencoderConfig(**{**tiny_settings, "steps": 8}), stores, folder)


def test_train_with_adversary_resumes_both_sides(stores, tiny_settings, tmp_path):
    config = AutoencoderConfig(**tiny_settings, adaptation="adversarial")
    whole = train_autoencoder(config, stores, tmp_path / "whole")
    half = AutoencoderConfig(**{**tiny_settings, "steps": 2}, adaptation="adversarial")
    train_autoencoder(half, stores, tmp_path / "half")
    resumed = train_autoencoder(config, stores, tmp_path / "half")
    for a, b in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert resumed.run["losses"]["discriminator_loss"] == pytest.approx(
        whole.run["losses"]["discriminator_loss"], rel=1e-3
    )


def test_train_tells_of_cell_types_and_of_what_may_harm(stores, tiny_settings, tmp_path, caplog):
    caplog.set_level("INFO")
    config = AutoencoderConfig(**{**tiny_settings, "steps": 1})
    train_autoencoder(config, {"anna": stores["anna"]}, tmp_path / "one")
    assert "type0" in caplog.text and "one centre only" in caplog.text


def test_loss_that_is_not_finite_stops_the_training(stores, tiny_settings, tmp_path):
    config = AutoencoderConfig(**{**tiny_settings, "feature_scaling": "channel", "learning_rate": 1e30})
    with pytest.raises(InputError, match="feature_loss is (nan|inf) at step 2; lower learning_rate"):
        train_autoencoder(config, stores, tmp_path / "nan")


def test_train_refuses_stores_of_two_detectors(store_maker, stores, tiny_settings, tmp_path):
    other = store_maker(tmp_path / "dora.h5", "dora", 3, detector="detector-b")
    with pytest.raises(InputError, match="dora.h5: made by another detector"):
        train_autoencoder(AutoencoderConfig(**tiny_settings), {**stores, "dora": other}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_train_refuses_unknown_source_and_wrong_names(stores, tiny_settings, tmp_path):
    with pytest.raises(InputError, match="source_centre 'zoe' is not among the centres .anna, bert, cleo"):
        train_autoencoder(AutoencoderConfig(**tiny_settings, source_centre="zoe"), stores, tmp_path)
    with pytest.raises(InputError, match="holds centre 'anna', not 'otto'"):
        train_autoencoder(AutoencoderConfig(**tiny_settings), {"otto": stores["anna"]}, tmp_path)


def test_damaged_features_are_reported_with_the_file(stores, tiny_settings, tmp_path):
    path = shutil.copy(stores["anna"], tmp_path / "anna.h5")
    with h5py.File(path) as file:
        offset = file["cells/features"].id.get_chunk_info(5).byte_offset
    with open(path, "r+b") as handle:
        handle.seek(offset + 100)
        handle.write(b"\xff\x00\xff\x00")
    with pytest.raises(InputError, match="anna.h5: damaged"):
        train_autoencoder(AutoencoderConfig(**tiny_settings), {"anna": path}, tmp_path / "out")


def test_load_refuses_damaged_weights(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    weights = folder / "weights.weights.h5"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="weights.weights.h5: damaged"):
        load_autoencoder(folder)
    weights.unlink()
    with pytest.raises(InputError, match="weights.weights.h5: no such file"):
        load_autoencoder(folder)


def test_log_drops_rows_after_the_checkpoint_and_rows_cut_short(tmp_path):
    names = ("loss", "feature_loss")
    with TrainingLog(tmp_path, names, every=2) as log:
        for step in range(1, 7):
            log.add(step, np.full(2, float(step)))
    with open(tmp_path / "log.csv", "a") as handle:
        handle.write("8,7.5,7")
    with TrainingLog(tmp_path, names, every=2, start_step=4) as log:
        assert log.add(5, np.full(2, 50.0), last=True) == {"loss": 50.0, "feature_loss": 50.0}
    rows = read_log(tmp_path)
    assert [(row["step"], float(row["loss"])) for row in rows] == [("2", 1.5), ("4", 3.5), ("5", 50.0)]


REPLICAS = """
import json
import sys
import numpy as np
import tensorflow as tf

num_replicas = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas)
from autoencoder.config import AutoencoderConfig
from autoencoder.training import train_autoencoder

mirrored = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_replicas)])
settings, expected, stores = json.loads(sys.argv[3])
# The whole loop, against the losses of a training on one device.
config = AutoencoderConfig(**settings)
run = train_autoencoder(config, stores, sys.argv[2], strategy=mirrored).run
assert run["replicas"] == num_replicas
for name in ("loss", "feature_loss", "image_loss", "adaptation_loss"):
    value = expected[name]
    np.testing.assert_allclose(run["losses"][name], value, rtol=2e-2, atol=1e-3, err_msg=name)
"""


def test_training_on_two_replicas_gives_the_losses_of_one(trained, stores, tmp_path):
    paths = {centre: str(path) for centre, path in stores.items()}
    given = json.dumps([trained.config.to_dict(), trained.run["losses"], paths])
    # In a process of its own, since the number of devices is fixed once TensorFlow has started.
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS, "2", str(tmp_path / "mirrored"), given],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
