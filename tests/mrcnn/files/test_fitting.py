"""What stands around Keras' `fit`: batches, logs and checkpoints."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.files.errors import InputError
from mrcnn.files.fitting import (
    ReplicaBatches,
    ReplicaSteps,
    StepLog,
    fit,
    list_checkpoints,
    load_newest_checkpoint,
    read_log,
    save_checkpoint,
)

LOG = "epoch,loss,step,seconds\n0,0.5,10,1.0\n1,nan,20,2.0\n"


class Line(ReplicaSteps, keras.Model):
    """A number that steps move by what the batch says."""

    def __init__(self):
        super().__init__()
        self.number = self.add_weight((), initializer="zeros")
        self.built = True

    def train_step(self, batch):
        self.number.assign_add(tf.reduce_mean(batch["by"]))
        self.optimizer.iterations.assign_add(1)
        return {"loss": self.number + 0.0}

    def test_step(self, batch):
        return {"loss": tf.reduce_mean(batch["by"])}


class Numbers(keras.utils.PyDataset):
    """Batches of two, of which number i holds 2 i and 2 i + 2."""

    def __init__(self, num_batches=None):
        super().__init__(workers=1, max_queue_size=2)
        self.num_batches = num_batches

    num_batches = None

    def __getitem__(self, number):
        return {"by": np.float32([2 * number, 2 * number + 2])}


@pytest.fixture
def line():
    model = Line()
    model.compile(optimizer="sgd")
    return model


def run(model, path, first, epochs, **options):
    log = StepLog(path, first)
    batches = ReplicaBatches(Numbers(), tf.distribute.get_strategy(), 3 * first)
    lengths = {"steps_per_epoch": 3, "initial_epoch": first, "epochs": epochs}
    fit(model, batches, callbacks=[log, *options.pop("callbacks", ())], **lengths, **options)


def test_fit_goes_on_with_batches_and_log_and_gives_means_of_the_epochs(line, tmp_path):
    path = tmp_path / "log.csv"
    held_out = ReplicaBatches(Numbers(2), tf.distribute.get_strategy())
    run(line, path, 0, 2, validation=held_out)
    # By 1, 3, 5, 7, 9, 11 from 0 on; the held-out batches are the same two in each epoch.
    assert line.history.history["loss"] == [pytest.approx((1 + 4 + 9) / 3), pytest.approx((16 + 25 + 36) / 3)]
    assert line.history.history["val_loss"] == [2.0, 2.0]
    with open(path, "a") as file:
        file.write("2,0.1")  # a row that a kill cut short
    run(line, path, 2, 3, validation=held_out)
    rows = read_log(path)
    assert [row["epoch"] for row in rows] == [0, 1, 2] and [row["step"] for row in rows] == [3, 6, 9]
    assert rows[2]["loss"] == pytest.approx((49 + 64 + 81) / 3, rel=1e-6) and float(line.number) == 81


def test_keras_own_way_takes_the_same_batches(line):
    line.fit(Numbers(3), epochs=1, verbose=0, shuffle=False)
    assert float(line.number) == 9


class Fail(keras.callbacks.Callback):
    ended = 0

    def on_train_batch_end(self, batch, logs=None):
        raise InputError("stop")

    def on_train_end(self, logs=None):
        self.ended += 1


def test_callbacks_are_ended_where_a_training_fails(line, tmp_path):
    failing = Fail()
    with pytest.raises(InputError, match="stop"):
        run(line, tmp_path / "log.csv", 0, 1, callbacks=[failing])
    assert failing.ended == 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [(LOG + "2,0.1,30", 2), (LOG + "2,0.1,30,a\n", 2), ("step,other\n10,0.5\n", 0), ("\0\x7f", 0), (LOG, 2)],
)
def test_read_log_keeps_what_is_whole(tmp_path, text, kept):
    (tmp_path / "log.csv").write_text(text)
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [10, 20][:kept]
    assert read_log(tmp_path / "none.csv") == []


def test_newest_checkpoint_that_is_whole_is_loaded(line, tmp_path, caplog):
    assert load_newest_checkpoint(line, tmp_path / "none") == 0
    for number in (3, 6, 9):
        line.number.assign(number)
        save_checkpoint(line, tmp_path, number, kept=2)
    assert [number for number, _ in list_checkpoints(tmp_path)] == [9, 6]
    (_, newest), (_, other) = list_checkpoints(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-50])
    assert load_newest_checkpoint(line, tmp_path) == 6 and float(line.number) == 6
    assert newest.name in caplog.text
    other.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="no checkpoint there is whole"):
        load_newest_checkpoint(line, tmp_path)
