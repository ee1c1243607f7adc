import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.folder import load_autoencoder
from autoencoder.step import metric_names
from autoencoder.training import train_autoencoder
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import list_checkpoints
from mrcnn.files.interruption import Interruption, handle_signals


def read_log(folder):
    return pd.read_csv(folder / "log.csv")


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def steps_of_checkpoints(folder):
    return [step for step, _ in list_checkpoints(folder / "checkpoints")]


def assert_same_weights(one, other):
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of a finished training, to be changed."""
    return shutil.copytree(trained.folder, tmp_path / "copy")


def test_train_leaves_a_whole_folder(trained):
    files = {"config.json", "run.json", "weights.weights.h5", "scaling.npz", "log.csv", "checkpoints"}
    assert {path.name for path in trained.folder.iterdir()} == files
    assert steps_of_checkpoints(trained.folder) == [4, 2]
    run = trained.run
    assert run["complete"] and run["steps"] == 4 and run["command"] == sys.argv
    assert {c: s["cells"] for c, s in run["stores"].items()} == {"anna": 12, "bert": 9, "cleo": 7}
    assert run["source_centre"] == "anna" and trained.detector_hash == "detector-a"


def test_train_logs_means_that_add_up(trained):
    rows = read_log(trained.folder)
    assert {*rows} == {"epoch", "step", *metric_names(trained.config), "seconds"} and rows["step"].tolist() == [2, 4]
    np.testing.assert_allclose(
        rows["loss"], rows["feature_loss"] + rows["image_loss"] + 5 * rows["adaptation_loss"], rtol=1e-4
    )
    assert rows["loss"][1] < rows["loss"][0]


def test_train_again_returns_the_finished_run_untouched(trained, stores):
    before = snapshot(trained.folder)
    # It is only read, as from a read-only disk.
    with OutputLock(trained.folder, inside=True):
        again = train_autoencoder(trained.config, stores, trained.folder)
    assert snapshot(trained.folder) == before
    np.testing.assert_array_equal(again.model.get_weights()[0], trained.model.get_weights()[0])


def test_train_refuses_a_folder_with_another_config_or_stores(trained, stores):
    before = snapshot(trained.folder)
    with pytest.raises(InputError, match="config.beta 5.0, not 1.0; .*--overwrite"):
        train_autoencoder(trained.config.replace(beta=1.0), stores, trained.folder)
    for others in ({c: stores[c] for c in ("anna", "bert")}, dict(reversed(stores.items()))):
        with pytest.raises(InputError, match="centres"):
            train_autoencoder(trained.config, others, trained.folder)
    assert snapshot(trained.folder) == before


def test_records_of_earlier_versions_need_no_identity(trained, stores, copy):
    run = {name: value for name, value in trained.run.items() if name != "identity"}
    (copy / "run.json").write_text(json.dumps(run))
    assert train_autoencoder(trained.config, stores, copy).run["steps"] == 4
    with pytest.raises(InputError, match="beta"):
        train_autoencoder(trained.config.replace(beta=1.0), stores, copy)


def test_train_without_resume_replaces_its_own_files_only(trained, stores, copy):
    (copy / "notes.txt").write_text("mine")
    fresh = train_autoencoder(trained.config.replace(steps=1, adaptation="none"), stores, copy, resume=False)
    assert fresh.run["steps"] == 1 and (copy / "notes.txt").read_text() == "mine"
    rows = read_log(copy)
    assert (rows["step"].tolist(), rows["adaptation_loss"].tolist()) == ([1], [0.0])


def test_interrupted_training_keeps_the_step_at_hand_and_ends_where_an_unbroken_one_does(
    trained, stores, tmp_path, caplog
):
    folder = tmp_path / "autoencoder"

    class SignalInTheThirdStep(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.steps_done == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interruption), handle_signals():
        train_autoencoder(trained.config, stores, folder, callbacks=[SignalInTheThirdStep()])
    assert steps_of_checkpoints(folder) == [3, 2] and not (folder / ".lock").exists()
    with pytest.raises(InputError, match="not finished"):
        load_autoencoder(folder)
    with OutputLock(folder, inside=True), pytest.raises(InputError, match="is writing it"):
        train_autoencoder(trained.config, stores, folder)
    with caplog.at_level("INFO"):
        resumed = train_autoencoder(trained.config, stores, folder)
    assert "resuming after step 3" in caplog.text
    assert_same_weights(resumed, trained)
    assert read_log(folder)["step"].tolist() == [2, 3, 4]


def test_training_killed_after_its_last_step_notes_its_losses(trained, stores, copy):
    (copy / "run.json").write_text(json.dumps({**trained.run, "complete": False, "losses": {}}))
    (copy / "weights.weights.h5").unlink()
    (copy / ".9999.tmp.weights.weights.h5").write_bytes(b"of a killed process")
    (copy / "checkpoints" / ".9999.tmp.00000006.weights.h5").write_bytes(b"of a killed process")
    resumed = train_autoencoder(trained.config, stores, copy)
    assert resumed.run["losses"] == trained.run["losses"]
    assert_same_weights(resumed, trained)
    assert not [path for path in copy.rglob("*") if path.name.startswith(".")]


def test_train_goes_on_from_a_whole_checkpoint_where_a_finished_run_asks_for_more_steps(trained, stores, copy, caplog):
    newest = copy / "checkpoints" / "00000004.weights.h5"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    extended = train_autoencoder(trained.config.replace(steps=5), stores, copy)
    assert "00000004.weights.h5: " in caplog.text
    assert extended.run["steps"] == 5 and read_log(copy)["step"].tolist() == [2, 4, 5]
    np.testing.assert_allclose(read_log(copy)["loss"][:2], read_log(trained.folder)["loss"], rtol=1e-4)
    with pytest.raises(InputError, match="trained for 5 steps already, more than 4; choose another output"):
        train_autoencoder(trained.config, stores, copy)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(InputError, match="checkpoints/ is gone"):
        train_autoencoder(trained.config.replace(steps=8), stores, copy)


def test_training_that_a_callback_stops_is_finished(stores, tiny_settings, tmp_path):
    config = AutoencoderConfig(**{**tiny_settings, "steps": 50})
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=0, min_delta=1e9, start_from_epoch=1)
    run = train_autoencoder(config, stores, tmp_path / "stopped", callbacks=[stop]).run
    assert run["complete"] and run["stopped_after"] == read_log(tmp_path / "stopped")["step"].iloc[-1] == 6
    assert steps_of_checkpoints(tmp_path / "stopped") == [6, 4]
    assert train_autoencoder(config, stores, tmp_path / "stopped").run == run


def test_loss_that_is_not_finite_stops_the_training(stores, tiny_settings, tmp_path):
    config = AutoencoderConfig(**tiny_settings, feature_scaling="channel", learning_rate=1e30)
    with pytest.raises(InputError, match="feature_loss is (nan|inf) at step 2: lower learning_rate"):
        train_autoencoder(config, {"anna": stores["anna"]}, tmp_path / "nan")


def test_train_refuses_stores_and_centres_that_do_not_fit(store_maker, stores, tiny_settings, tmp_path):
    config = AutoencoderConfig(**tiny_settings)
    other = store_maker(tmp_path / "dora.h5", "dora", 3, detector="detector-b")
    with pytest.raises(InputError, match="dora.h5: made by another detector"):
        train_autoencoder(config, {**stores, "dora": other}, tmp_path / "x")
    with pytest.raises(InputError, match="source_centre 'zoe' is not among the centres .anna, bert, cleo"):
        train_autoencoder(config.replace(source_centre="zoe"), stores, tmp_path / "x")
    with pytest.raises(InputError, match="holds centre 'anna', not 'otto'"):
        train_autoencoder(config, {"otto": stores["anna"]}, tmp_path / "x")
    assert not (tmp_path / "x").exists()
