"""What the trackers are told of a training: read back from their files, without a network."""

import json
import struct
import sys
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.files.errors import InputError
from mrcnn.files.trackers import tracker_callback

SETTINGS = {"beta": 5.0, "RPN_ANCHOR_SCALES": [8, 16], "source_centre": None}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Everything is written here; what a tracker sets in the environment goes with the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    if "wandb" in sys.modules:  # it reads its variables once, and has a process of its own
        sys.modules["wandb"].teardown()


class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def follow(name, folder, *others):
    """Train for two epochs; the losses are returned by name, each a list."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)), "mse")
    data = np.ones((4, 3)), np.zeros((4, 1))
    with pytest.raises(KeyboardInterrupt) if others else nullcontext():
        with tracker_callback(name, folder, SETTINGS) as callback:
            model.fit(*data, epochs=2, validation_data=data, verbose=0, callbacks=[callback, *others])
    return model.history.history


def test_mlflow_has_curves_settings_and_end_of_each_run(here):
    mlflow = pytest.importorskip("mlflow")
    curves = follow("mlflow", here / "first")
    follow("mlflow", here / "second", Kill())
    client = mlflow.MlflowClient((here / "mlruns").as_uri())
    first, second = client.search_runs(["0"], order_by=["attributes.start_time"])
    assert (first.info.run_name, first.info.status) == ("first", "FINISHED")
    assert (second.info.run_name, second.info.status) == ("second", "FAILED")
    for name in ("loss", "val_loss"):
        points = client.get_metric_history(first.info.run_id, name)
        assert [point.step for point in points] == [0, 1]
        np.testing.assert_allclose([point.value for point in points], curves[name], rtol=1e-6)
    assert first.data.params.items() >= {"beta": "5.0", "RPN_ANCHOR_SCALES": "[8, 16]"}.items()
    assert mlflow.active_run() is None


def records(folder):
    """The records of W&B's file of an offline run: LevelDB's log format after 7 bytes, each record a message."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, record = path.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block is too short for a header
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


@pytest.mark.parametrize("others", [(), (Kill(),)])
def test_wandb_has_curves_settings_and_end_offline(here, others):
    wandb = pytest.importorskip("wandb")
    curves = follow("wandb", here / "first", *others)
    assert wandb.run is None
    wandb.teardown()  # its process writes the rest of the file after the end of the run
    found = list(records(here))
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.display_name, run.project) == ("first", "aecfe")
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {name: settings[name] for name in SETTINGS} == SETTINGS
    points = [
        {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    assert [point["epoch/epoch"] for point in points] == [0, 1]
    for name, values in curves.items():
        np.testing.assert_allclose([point[f"epoch/{name}"] for point in points][: len(values)], values, rtol=1e-6)
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [len(others)]


def test_tensorboard_has_the_curves(here):
    curves = follow("tensorboard", here / "run")
    for part, name in (("train", "loss"), ("validation", "val_loss")):
        (path,) = (here / "run" / "tensorboard" / part).iterdir()
        values = [v for event in tf.compat.v1.train.summary_iterator(str(path)) for v in event.summary.value]
        points = [float(tf.make_ndarray(value.tensor)) for value in values if value.tag == "epoch_loss"]
        np.testing.assert_allclose(points, curves[name], rtol=1e-6)


@pytest.mark.parametrize(("name", "module"), [("wandb", "wandb.integration.keras"), ("mlflow", "mlflow.keras")])
def test_tracker_that_is_not_installed_is_told_in_one_line(here, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"--tracker {name}: .*pip install 'aecfe\[tracking\]'"):
        tracker_callback(name, here, {})


def test_run_is_opened_by_the_training_alone_and_its_refusal_told(here, monkeypatch):
    wandb = pytest.importorskip("wandb")
    with tracker_callback("wandb", here, {}):
        pass
    assert not list(here.glob("wandb/*run-*"))

    def refuse(**settings):
        raise wandb.errors.UsageError("no API key\nconfigured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match="--tracker wandb: no API key configured"):
        follow("wandb", here)
