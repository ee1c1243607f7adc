import csv
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.files.errors import InputError
from mrcnn.model import WEIGHTS_NAME, MaskRCNN, load_detector
from mrcnn.training.folder import checkpoints
from mrcnn.training.step import LOSS_NAMES


@pytest.fixture(scope="module")
def build(small_resnet):
    def make(config, folder):
        with small_resnet():
            return MaskRCNN("training", config, folder)

    return make


@contextmanager
def eager_steps():
    """Takes steps without compiling them first, which pays for a few of them."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def uninterrupted(build, tiny_config_class, cell_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    overrides = {"AUGMENTATION": "strong", "AUGMENTATION_SHARE": 0.8, "VALIDATION_STEPS": 1}
    model = build(make_config(overrides, tiny_config_class), folder)
    with eager_steps():
        rows = model.train(cell_dataset(5), cell_dataset(3, 50), 1e-3, 2, "all", folder=folder)
    return SimpleNamespace(model=model, folder=folder, rows=rows)


def test_train_overfits_two_images(build, tiny_config_class, cell_dataset, tmp_path):
    config = make_config({"STEPS_PER_EPOCH": 8, "LEARNING_RATE_WARMUP_STEPS": 4}, tiny_config_class)
    rows = build(config, tmp_path).train(cell_dataset(2), [], 3e-3, 3, "all", folder=tmp_path)
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint", "config.json", "log.csv", "tensorboard", WEIGHTS_NAME}


def test_train_writes_a_row_for_each_epoch(uninterrupted):
    with open(uninterrupted.folder / "log.csv", newline="") as handle:
        read = list(csv.DictReader(handle))
    assert [(row["epoch"], row["step"]) for row in read] == [("1", "2"), ("2", "4")]
    assert read == [{name: str(value) for name, value in row.items()} for row in uninterrupted.rows]
    assert {"loss", "val_loss", *LOSS_NAMES, *(f"val_{name}" for name in LOSS_NAMES)} <= set(read[0])
    for row in read:
        for prefix in ("", "val_"):
            terms = sum(float(row[prefix + name]) for name in LOSS_NAMES)
            assert float(row[f"{prefix}loss"]) == pytest.approx(terms, rel=1e-3)
    assert [epoch for epoch, _ in checkpoints(uninterrupted.folder)] == [2]


def test_train_writes_curves_for_tensorboard(uninterrupted):
    (path,) = (uninterrupted.folder / "tensorboard").iterdir()
    points = [
        (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    for row in uninterrupted.rows:
        curve = {tag: value for step, tag, value in points if step == row["epoch"]}
        assert set(curve) == set(row) - {"epoch", "step"}
        assert curve["loss"] == pytest.approx(float(row["loss"]), rel=1e-4)


def test_train_does_nothing_when_all_epochs_are_done(build, uninterrupted, cell_dataset, small_resnet):
    again = build(uninterrupted.model.config, uninterrupted.folder)
    rows = again.train(cell_dataset(5), [], 1e-3, 2, "all", folder=uninterrupted.folder)
    assert rows == uninterrupted.rows
    with small_resnet():
        loaded = load_detector(uninterrupted.folder)
    for a, b, c in zip(*(m.parts.get_weights() for m in (again, loaded, uninterrupted.model)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def kernel_of(model, name) -> np.ndarray:
    return next(layer for layer in model.parts.named_layers() if layer.name == name).kernel.numpy()


@pytest.fixture(scope="module")
def two_stages(build, tiny_config_class, cell_dataset, tmp_path_factory):
    """A run as Matterport's scripts do it: an epoch of the heads, one of all layers, in a dated folder."""
    config = make_config({"STEPS_PER_EPOCH": 1}, tiny_config_class)
    model = build(config, tmp_path_factory.mktemp("logs"))
    seen = []

    class Watcher(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            run = Path(model.log_dir)
            seen.append((len(list(run.glob("mask_rcnn*.h5"))), [number for number, _ in checkpoints(run)]))

    names = ("res2a_branch2a", "fpn_p3", "mrcnn_mask_conv1")
    kernels = [[kernel_of(model, name) for name in names]]
    rows = []
    with eager_steps():
        for epochs, layers in ((1, "heads"), (2, "all")):
            rows.append(model.train(cell_dataset(2), [], 1e-3, epochs, layers, custom_callbacks=[Watcher()]))
            kernels.append([kernel_of(model, name) for name in names])
    return SimpleNamespace(model=model, config=config, rows=rows, kernels=kernels, seen=seen)


def test_train_heads_then_all_keeps_counting_steps(two_stages):
    start, after_heads, after_all = two_stages.kernels
    assert [np.array_equal(a, b) for a, b in zip(start, after_heads, strict=True)] == [True, False, False]
    assert [np.array_equal(a, b) for a, b in zip(after_heads, after_all, strict=True)] == [False, False, False]
    assert [[(row["epoch"], row["step"]) for row in rows] for rows in two_stages.rows] == [[(1, 1)], [(1, 1), (2, 2)]]
    assert two_stages.model.epoch == 2


def test_train_keeps_every_epoch_in_a_dated_folder(two_stages):
    model = two_stages.model
    log_dir = Path(model.log_dir)
    assert str(log_dir.parent) == model.model_dir and log_dir.name.startswith("tiny20")
    names = {path.name for path in log_dir.glob("*.h5")}
    assert names == {"mask_rcnn_tiny_0001.h5", "mask_rcnn_tiny_0002.h5", WEIGHTS_NAME}
    assert two_stages.seen == [(1, []), (2, [1])]  # the checkpoint of an epoch is written last
    assert model.find_last() == str(log_dir / "mask_rcnn_tiny_0002.h5")
    assert model.checkpoint_path.format(epoch=2) == model.find_last()


class WatchRate(keras.callbacks.Callback):
    """Notes the learning rate at the end of each epoch and saves the model, as scripts' callbacks do."""

    def __init__(self, path):
        super().__init__()
        self.path, self.rates = path, []

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))
        self.model.save_weights(self.path)


def test_callbacks_of_scripts_change_the_rate_and_save_the_model(build, tiny_config_class, cell_dataset, tmp_path):
    # Steps that a script has divided for.
    model = build(make_config({}, type("Mine", (tiny_config_class,), {"STEPS_PER_EPOCH": 3 / 2})), tmp_path)
    watch = WatchRate(tmp_path / "best.h5")
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    with eager_steps():
        model.train(cell_dataset(2), [], 1e-3, 2, "heads", custom_callbacks=[halve, watch])
        assert watch.rates == pytest.approx([5e-4, 2.5e-4])
        last = kernel_of(model, "mrcnn_mask_conv1")
        model.train(cell_dataset(2), [], 1e-4, 3, "heads", custom_callbacks=[watch])
    assert watch.rates[2] == pytest.approx(1e-4)  # what the second call asks for
    again = build(model.config, tmp_path / "again")
    again.load_weights(watch.path, by_name=True)
    np.testing.assert_array_equal(kernel_of(again, "mrcnn_mask_conv1"), kernel_of(model, "mrcnn_mask_conv1"))
    assert not np.array_equal(last, kernel_of(model, "mrcnn_mask_conv1"))


class StopHere(Exception):
    pass


@pytest.mark.parametrize(
    ("last", "first_step"),
    [
        (2, 2),
        (1, 1),  # an earlier epoch is taken up, without the optimiser's state
        # Killed after the weights of an epoch were written, but before its checkpoint: the epoch is done again.
        (3, 2),
    ],
)
def test_train_goes_on_after_the_epoch_that_was_loaded(
    two_stages, build, cell_dataset, tmp_path, monkeypatch, last, first_step
):
    run = tmp_path / Path(two_stages.model.log_dir).name
    shutil.copytree(two_stages.model.log_dir, run)
    shutil.copy(run / "mask_rcnn_tiny_0002.h5", run / "mask_rcnn_tiny_0003.h5")
    model = build(two_stages.config, tmp_path)
    model.load_weights(run / f"mask_rcnn_tiny_{last:04d}.h5")

    def stop(datasets, config, batch_size, augmentation, start_step, **kwargs):
        raise StopHere(start_step)

    monkeypatch.setattr("mrcnn.training.loop.training_batches", stop)
    with pytest.raises(StopHere) as caught:
        model.train(cell_dataset(2), [], 1e-3, 4, "all")
    assert caught.value.args == (first_step,)


def test_train_refuses_a_checkpoint_of_another_architecture(build, uninterrupted, tiny_config_class, cell_dataset):
    other = build(make_config({"NUM_CLASSES": 3}, tiny_config_class), uninterrupted.folder)
    with pytest.raises(InputError, match="cannot resume from it") as caught:
        other.train(cell_dataset(2), [], 1e-3, 3, "all", folder=uninterrupted.folder)
    assert "\n" not in str(caught.value)
