"""Trainings that must end alike: killed or not, on one device or several, in one process or two."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from mrcnn.files.devices import compute_on_one_thread, mirrored_strategy, multi_worker_strategy
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import list_checkpoints
from mrcnn.training.folder import CHECKPOINTS, WEIGHTS_NAME

# Of the largest change of a weight in the step: the last digit of a weight near 0.5 is 1.3e-4 of it.
TOLERANCE = 4e-4


def start(kind: str, folder: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("training_process.py")), kind, str(folder)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-3000:]


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    values = {}
    with h5py.File(folder / WEIGHTS_NAME) as file:
        file.visititems(lambda name, item: values.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    return values


@pytest.mark.slow
def test_same_seed_gives_the_same_curve_and_weights_killed_on_the_way_or_not(tmp_path):
    undisturbed, killed, rng = tmp_path / "undisturbed", tmp_path / "killed", random.Random(0)
    finish(start("thread", undisturbed))
    process = start("thread", killed)
    # Somewhere in the third epoch, of which nothing may be left.
    while process.poll() is None and max(dict(list_checkpoints(killed / CHECKPOINTS)), default=0) < 2:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.2))
    process.kill()
    assert process.wait() != 0
    process.stderr.close()
    assert not (killed / WEIGHTS_NAME).exists()
    finish(start("thread", killed))
    logs = [pd.read_csv(folder / "log.csv").drop(columns="seconds") for folder in (killed, undisturbed)]
    pd.testing.assert_frame_equal(*logs)
    ours, theirs = weights_of(killed), weights_of(undisturbed)
    assert ours.keys() == theirs.keys() and len(ours) > 50
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def change_and_losses(folder: Path) -> tuple[list[np.ndarray], np.ndarray]:
    with np.load(f"{folder}.npz") as saved:
        losses, *arrays = saved["losses"], *(saved[f"arr_{i}"] for i in range(len(saved.files) - 1))
    half = len(arrays) // 2
    return [after - before for before, after in zip(arrays[:half], arrays[half:], strict=True)], losses


def assert_same_step(folder: Path, single: tuple[list[np.ndarray], np.ndarray]) -> None:
    changes, losses = change_and_losses(folder)
    (training, validation), (expected, expected_later) = np.split(losses, 2), np.split(single[1], 2)
    np.testing.assert_allclose(training, expected, rtol=1e-4)
    # Sorted by name, the anchors' two losses come last.
    np.testing.assert_allclose(validation[-2:], expected_later[-2:], rtol=1e-3)
    # After the step its last digits decide which of two near-equal proposals stays: seen to move a head's loss by 4 %.
    np.testing.assert_allclose(validation[:-2], expected_later[:-2], rtol=0.15)
    # The rate times the norm that the whole gradient is clipped to.
    assert np.sqrt(sum(np.square(change).sum() for change in changes)) == pytest.approx(1e-2 * 0.5, rel=0.01)
    largest = max(np.abs(change).max() for change in single[0])
    for change, expected in zip(changes, single[0], strict=True):
        np.testing.assert_allclose(change, expected, atol=TOLERANCE * largest)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The step of one device: changes of the weights, and losses of training and validation."""
    folder = tmp_path_factory.mktemp("single") / "run"
    finish(start("1", folder))
    return change_and_losses(folder)


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", [2, 3])
def test_replicas_take_the_step_of_one_device(num_replicas, single, tmp_path):
    finish(start(str(num_replicas), tmp_path / "run"))
    assert_same_step(tmp_path / "run", single)


@pytest.mark.slow
def test_two_workers_take_the_step_of_one_and_only_the_chief_writes(single, tmp_path):
    with socket.socket() as first, socket.socket() as second:
        first.bind(("localhost", 0)), second.bind(("localhost", 0))
        addresses = [f"localhost:{s.getsockname()[1]}" for s in (first, second)]
    workers = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(start("workers", tmp_path / f"run{index}", TF_CONFIG=json.dumps(task)))
    for worker in workers:
        finish(worker)
    for index in range(2):
        assert_same_step(tmp_path / f"run{index}", single)
    assert {path.name for path in (tmp_path / "run0").iterdir()} >= {"config.json", "log.csv", "weights.weights.h5"}
    assert not (tmp_path / "run1").exists()


@pytest.mark.parametrize("text", ["", "{", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'])
def test_multi_worker_strategy_wants_tf_config(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG"):
        multi_worker_strategy()


def test_devices_are_those_of_the_machine_and_settled_before_tensorflow_starts():
    with pytest.raises(InputError, match="GPU_COUNT is 64"):
        mirrored_strategy(64)
    with pytest.raises(InputError, match="before TensorFlow"):
        compute_on_one_thread()
