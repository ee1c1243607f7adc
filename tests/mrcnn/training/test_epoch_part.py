"""A detector's training that is interrupted within an epoch goes on with the next step."""

import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.files.errors import InputError
from mrcnn.files.interruption import Interruption, handle_signals
from mrcnn.model import MaskRCNN
from mrcnn.training.epoch_part import find_part, remove_parts, save_part


class Model:
    """Writes a few bytes as its weights."""

    variables = ()

    def save_weights(self, path):
        path.write_bytes(b"weights")


def losses_of(steps):
    return [{"loss": 1 / 3 + step} for step in range(steps)]


def names(folder):
    return sorted(path.name for path in (folder / "checkpoint").iterdir())


def test_part_is_found_with_its_losses_to_the_last_bit(tmp_path):
    assert find_part(tmp_path, 0, 9) is None
    save_part(tmp_path, Model(), 2, losses_of(4))
    part = find_part(tmp_path, 2, 9)
    assert part.epoch == 2 and part.losses == losses_of(4) and part.path.read_bytes() == b"weights"
    assert find_part(tmp_path, 1, 9) is None and find_part(tmp_path, 3, 9) is None
    assert find_part(tmp_path, 2, 3) is None, "epochs have fewer steps now"
    assert find_part(tmp_path, 2, 4) == part, "all steps are done, the validation is not"


def test_part_replaces_the_one_before(tmp_path):
    save_part(tmp_path, Model(), 1, losses_of(3))
    save_part(tmp_path, Model(), 1, losses_of(5))
    assert names(tmp_path) == ["part-0001-000005.losses.json", "part-0001-000005.weights.h5"]
    (tmp_path / "checkpoint" / "epoch-0001.weights.h5").touch()
    remove_parts(tmp_path)
    assert names(tmp_path) == ["epoch-0001.weights.h5"]


def test_part_whose_weights_were_not_written_is_none(tmp_path):
    class Killed:
        variables = ()

        def save_weights(self, path):
            path.write_bytes(b"wei")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_part(tmp_path, Killed(), 1, losses_of(3))
    assert find_part(tmp_path, 1, 9) is None


@pytest.mark.parametrize("text", [None, "[", "[]", "7"])
def test_part_without_its_losses_says_what_to_do(tmp_path, text):
    save_part(tmp_path, Model(), 1, losses_of(3))
    path = tmp_path / "checkpoint" / "part-0001-000003.losses.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"remove part-0001-000003.weights.h5, and this epoch begins again") as error:
        find_part(tmp_path, 1, 9)
    assert "\n" not in str(error.value)


class Stop(keras.callbacks.Callback):
    """Sends SIGTERM in one step, and keeps the state at the beginning and the end."""

    def __init__(self, step=None):
        super().__init__()
        self.step, self.steps = step, []

    def state(self):
        return [v.numpy() for v in (*self.model.parts.weights, *self.model.optimizer.variables)]

    def on_train_begin(self, logs=None):
        self.first = self.state()

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append(batch)
        if batch == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_end(self, logs=None):
        self.last = self.state()


def test_interrupted_epoch_goes_on_with_its_next_step(small_resnet, tiny_config_class, cell_dataset, tmp_path):
    config = make_config({"STEPS_PER_EPOCH": 3, "IMAGES_PER_GPU": 1}, tiny_config_class)

    def train(name, callback):
        with small_resnet():
            model = MaskRCNN("training", config, tmp_path / name)
        folder = tmp_path / name
        return model.train(cell_dataset(3), [], 1e-3, 1, "all", folder=folder, custom_callbacks=[callback])

    tf.config.run_functions_eagerly(True)
    try:
        expected = train("whole", Stop())
        stopped, resumed = Stop(1), Stop()
        with pytest.raises(Interruption), handle_signals():
            train("stopped", stopped)
        assert names(tmp_path / "stopped") == ["part-0000-000002.losses.json", "part-0000-000002.weights.h5"]
        rows = train("stopped", resumed)
    finally:
        tf.config.run_functions_eagerly(False)
    assert stopped.steps == [0, 1] and resumed.steps == [2]
    for a, b in zip(stopped.last, resumed.first, strict=True):
        np.testing.assert_array_equal(a, b)
    assert names(tmp_path / "stopped") == ["epoch-0001.weights.h5"]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3)]
    # The mean is that of all three steps.
    assert float(rows[0]["loss"]) == pytest.approx(float(expected[0]["loss"]), rel=0.02)
