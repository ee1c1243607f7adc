"""On one thread the same seed gives the same training to the last bit, killed on the way or not."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrcnn.files.determinism import compute_on_one_thread
from mrcnn.files.errors import InputError
from mrcnn.model import WEIGHTS_NAME
from mrcnn.training.folder import checkpoints

SCRIPT = Path(__file__).with_name("training_process.py")
EPOCHS = 5


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(EPOCHS)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
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


def assert_same_run(folder: Path, other: Path) -> None:
    assert (folder / "log.csv").read_text() == (other / "log.csv").read_text()
    ours, theirs = weights_of(folder), weights_of(other)
    assert ours.keys() == theirs.keys() and len(ours) > 50
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder))
    return folder


@pytest.mark.slow
def test_same_seed_gives_the_same_curve_and_weights(undisturbed, tmp_path):
    finish(start(tmp_path))
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
def test_killed_training_ends_where_an_undisturbed_one_does(undisturbed, tmp_path):
    rng, kills = random.Random(0), 0
    for epoch in (1, 3):
        process = start(tmp_path)
        # Somewhere in the epoch after this one, of which nothing may be left.
        while process.poll() is None and max(dict(checkpoints(tmp_path)), default=0) < epoch:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.2))
        process.kill()
        kills += process.wait() != 0
        process.stderr.close()
        assert not (tmp_path / WEIGHTS_NAME).exists()
    assert kills == 2
    finish(start(tmp_path))
    assert_same_run(tmp_path, undisturbed)


def test_compute_on_one_thread_comes_before_everything_else():
    import tensorflow as tf

    tf.constant(1.0)
    with pytest.raises(InputError, match="before TensorFlow"):
        compute_on_one_thread()
