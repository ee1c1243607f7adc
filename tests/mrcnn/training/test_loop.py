import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.data.batches import TrainingImages
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import list_checkpoints, read_log
from mrcnn.model import WEIGHTS_NAME, MaskRCNN, load_detector
from mrcnn.training.folder import CHECKPOINTS
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
        model.train(cell_dataset(5), cell_dataset(3, 50), 1e-3, 2, "all", folder=folder)
    return SimpleNamespace(model=model, folder=folder, rows=read_log(folder / "log.csv"))


def test_train_overfits_two_images_and_compiles_once(build, tiny_config_class, cell_dataset, tmp_path):
    model = build(make_config({"STEPS_PER_EPOCH": 8}, tiny_config_class), tmp_path)
    model.train(cell_dataset(2), [], 3e-3, 2, "all", folder=tmp_path)
    compiled = model.keras_model.train_function
    model.train(cell_dataset(2), [], 2e-3, 3, "all", folder=tmp_path)
    assert model.keras_model.train_function is compiled
    rows = read_log(tmp_path / "log.csv")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "config.json", "log.csv", WEIGHTS_NAME}


def test_train_writes_a_row_for_each_epoch(uninterrupted):
    assert [(row["epoch"], row["step"]) for row in uninterrupted.rows] == [(0, 2), (1, 4)]
    history = uninterrupted.model.keras_model.history.history
    assert history.keys() >= {"loss", "val_loss", *LOSS_NAMES, *(f"val_{name}" for name in LOSS_NAMES)}
    for number, row in enumerate(uninterrupted.rows):
        assert {name: values[number] for name, values in history.items()} == pytest.approx(
            {name: value for name, value in row.items() if name != "epoch"}, rel=1e-6
        )
        for prefix in ("", "val_"):
            assert row[f"{prefix}loss"] == pytest.approx(sum(row[prefix + name] for name in LOSS_NAMES), rel=1e-3)
    assert [epoch for epoch, _ in list_checkpoints(uninterrupted.folder / CHECKPOINTS)] == [2]


def test_batches_and_model_of_a_training_serve_in_keras_own_evaluate(uninterrupted, cell_dataset):
    model, config = uninterrupted.model.keras_model, uninterrupted.model.config
    images = TrainingImages([cell_dataset(3, 50)], config, config.BATCH_SIZE, shuffle=False, num_batches=1)
    with eager_steps():
        measured = model.evaluate(images, return_dict=True, verbose=0)
    for name, value in measured.items():
        assert value == pytest.approx(uninterrupted.rows[-1][f"val_{name}"], rel=1e-4)


def test_train_does_nothing_when_all_epochs_are_done(build, uninterrupted, cell_dataset, small_resnet):
    again = build(uninterrupted.model.config, uninterrupted.folder)
    again.train(cell_dataset(5), [], 1e-3, 2, "all", folder=uninterrupted.folder)
    assert read_log(uninterrupted.folder / "log.csv") == uninterrupted.rows
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
            seen.append((len(list(run.glob("mask_rcnn*.h5"))), [n for n, _ in list_checkpoints(run / CHECKPOINTS)]))

    names = ("res2a_branch2a", "fpn_p3", "mrcnn_mask_conv1")
    kernels = [[kernel_of(model, name) for name in names]]
    with eager_steps():
        for epochs, layers in ((1, "heads"), (2, "all")):
            model.train(cell_dataset(2), [], 1e-3, epochs, layers, custom_callbacks=[Watcher()])
            kernels.append([kernel_of(model, name) for name in names])
    return SimpleNamespace(model=model, config=config, kernels=kernels, seen=seen)


def test_train_heads_then_all_keeps_counting_steps(two_stages):
    start, after_heads, after_all = two_stages.kernels
    assert [np.array_equal(a, b) for a, b in zip(start, after_heads, strict=True)] == [True, False, False]
    assert [np.array_equal(a, b) for a, b in zip(after_heads, after_all, strict=True)] == [False, False, False]
    rows = read_log(Path(two_stages.model.log_dir) / "log.csv")
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 1), (1, 2)] and two_stages.model.epoch == 2


def test_train_keeps_every_epoch_in_a_dated_folder(two_stages):
    model = two_stages.model
    log_dir = Path(model.log_dir)
    assert str(log_dir.parent) == model.model_dir and log_dir.name.startswith("tiny20")
    assert {path.name for path in log_dir.glob("*.h5")} == {
        *("mask_rcnn_tiny_0001.h5", "mask_rcnn_tiny_0002.h5", WEIGHTS_NAME)
    }
    assert two_stages.seen == [(0, []), (1, [1])]  # the files of an epoch are written last
    assert list((log_dir / "tensorboard").rglob("events.out.tfevents.*"))
    assert model.find_last() == str(log_dir / "mask_rcnn_tiny_0002.h5")
    assert model.checkpoint_path.format(epoch=2) == model.find_last()


class WatchRate(keras.callbacks.Callback):
    """Notes the learning rate at the end of each epoch and saves the model, as scripts' callbacks do."""

    def __init__(self, path):
        super().__init__()
        self.path, self.rates, self.epochs = path, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))
        self.epochs.append((epoch, len(self.model.history.history.get("loss", ()))))
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
    assert watch.epochs == [(0, 0), (1, 1), (2, 0)]
    again = build(model.config, tmp_path / "again")
    again.load_weights(watch.path, by_name=True)
    np.testing.assert_array_equal(kernel_of(again, "mrcnn_mask_conv1"), kernel_of(model, "mrcnn_mask_conv1"))
    assert not np.array_equal(last, kernel_of(model, "mrcnn_mask_conv1"))


class Worsen(keras.callbacks.Callback):
    """Gives validation losses that rise from the second epoch on."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = abs(epoch - 1.0)


def test_weights_set_between_two_trainings_are_gone_on_with(build, tiny_config_class, cell_dataset, tmp_path):
    """After an early stop the best weights are live, and `epochs` is the number reached, as in Matterport's."""
    model = build(make_config({"STEPS_PER_EPOCH": 1}, tiny_config_class), tmp_path)
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    files = [tmp_path / "best.weights.h5", tmp_path / "best.keras", tmp_path / "best.h5"]
    best = [keras.callbacks.ModelCheckpoint(path, save_best_only=True) for path in files]
    watch = WatchRate(tmp_path / "last.h5")
    with eager_steps():
        model.train(cell_dataset(2), [], 1e-3, 9, "heads", custom_callbacks=[Worsen(), watch, stop, *best])
        assert watch.epochs[-1] == (3, 3) and model.epoch == 9
        restored = model.parts.get_weights()
        model.train(cell_dataset(2), [], 0.0, 10, "heads", custom_callbacks=[watch])
    assert watch.epochs[-1] == (9, 0) and model.epoch == 10
    for value, expected in zip(model.parts.get_weights(), restored, strict=True):
        np.testing.assert_array_equal(value, expected)
    for path in files:
        again = build(model.config, tmp_path / "again")
        if path.suffix == ".keras":
            again.keras_model.set_weights(keras.saving.load_model(path).get_weights())
        else:
            again.load_weights(path)
        for value, expected in zip(again.parts.get_weights(), restored, strict=True):
            np.testing.assert_array_equal(value, expected)


class StopHere(Exception):
    pass


@pytest.mark.parametrize(("last", "steps"), [(2, 2), (1, 0)])  # an earlier epoch has no state of the optimiser left
def test_train_goes_on_after_the_epoch_that_was_loaded(two_stages, build, cell_dataset, tmp_path, last, steps):
    run = tmp_path / Path(two_stages.model.log_dir).name
    shutil.copytree(two_stages.model.log_dir, run)
    model = build(two_stages.config, tmp_path)
    model.load_weights(run / f"mask_rcnn_tiny_{last:04d}.h5")

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise StopHere(epoch, int(self.model.optimizer.iterations), kernel_of(model, "mrcnn_mask_conv1"))

    with pytest.raises(StopHere) as caught:
        model.train(cell_dataset(2), [], 1e-3, 4, "all", custom_callbacks=[Stop()])
    assert caught.value.args[:2] == (last, steps)
    np.testing.assert_array_equal(caught.value.args[2], two_stages.kernels[last][2])


def test_train_names_the_term_that_is_not_finite(build, tiny_config_class, cell_dataset, tmp_path):
    model = build(make_config({"STEPS_PER_EPOCH": 1}, tiny_config_class), tmp_path)
    layer = next(layer for layer in model.parts.named_layers() if layer.name == "mrcnn_mask")
    layer.bias.assign(np.full(layer.bias.shape, np.nan))
    with eager_steps(), pytest.raises(InputError, match="mrcnn_mask_loss is nan at step 1"):
        model.train(cell_dataset(2), [], 1e-3, 1, "all", folder=tmp_path)


def test_train_refuses_a_checkpoint_of_another_architecture(build, uninterrupted, tiny_config_class, cell_dataset):
    other = build(make_config({"NUM_CLASSES": 3}, tiny_config_class), uninterrupted.folder)
    with pytest.raises(InputError, match="no checkpoint there is whole and of this network") as caught:
        other.train(cell_dataset(2), [], 1e-3, 3, "all", folder=uninterrupted.folder)
    assert "\n" not in str(caught.value)
