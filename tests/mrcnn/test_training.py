import csv

import keras
import numpy as np
import pytest

from mrcnn.config import Config, make_config
from mrcnn.data.annotations import CellMaskDataset
from mrcnn.data.batches import training_batches
from mrcnn.errors import InputError
from mrcnn.model import WEIGHTS_NAME, MaskRCNN, load_detector
from mrcnn.training import (
    LOSS_NAMES,
    DetectorTrainer,
    StopOnNonFinite,
    WarmupDrop,
    checkpoints,
    make_optimizer,
    write_rows,
)


@pytest.fixture(scope="module")
def build(small_resnet):
    def make(config, folder):
        with small_resnet():
            return MaskRCNN("training", config, folder)

    return make


def weights_of(model) -> list[np.ndarray]:
    return [np.array(w) for w in model.parts.get_weights()]


def log_of(folder) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def strong_config(tiny_config_class):
    overrides = {"AUGMENTATION": "strong", "AUGMENTATION_SHARE": 0.8, "VALIDATION_STEPS": 1}
    return make_config(overrides, tiny_config_class)


@pytest.fixture(scope="module")
def uninterrupted(build, strong_config, cell_dataset, tmp_path_factory):
    model = build(strong_config, tmp_path_factory.mktemp("whole"))
    rows = model.train(cell_dataset(5), cell_dataset(3, 50), 1e-3, 2, "all", progress=False)
    return model, rows


def test_train_overfits_two_images(build, tiny_config_class, cell_dataset, tmp_path):
    config = make_config({"STEPS_PER_EPOCH": 8, "LEARNING_RATE_WARMUP_STEPS": 4}, tiny_config_class)
    dataset = cell_dataset(2)
    rows = build(config, tmp_path).train(dataset, [], 3e-3, 3, "all", progress=False)
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < 0.8 * losses[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint",
        "config.json",
        "log.csv",
        WEIGHTS_NAME,
    ]


def test_train_writes_a_row_for_each_epoch(uninterrupted):
    model, rows = uninterrupted
    read = log_of(model.model_dir)
    assert [(row["epoch"], row["step"]) for row in read] == [("1", "2"), ("2", "4")]
    assert read == [{name: str(value) for name, value in row.items()} for row in rows]
    assert {"loss", "val_loss", *LOSS_NAMES, *(f"val_{name}" for name in LOSS_NAMES)} <= set(read[0])
    for row in read:
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in LOSS_NAMES), rel=1e-3)
    assert [epoch for epoch, _ in checkpoints(model.model_dir)] == [2]


class StateRecorder(keras.callbacks.Callback):
    """Keeps what a training step depends on, besides the batch: weights, optimiser state and step count."""

    def on_train_begin(self, logs=None):
        self.at_start = self._state()

    def on_train_end(self, logs=None):
        self.at_end = self._state()

    def _state(self):
        return [v.numpy() for v in (*self.model.parts.weights, *self.model.optimizer.variables)]


def test_train_goes_on_where_it_was_interrupted(build, strong_config, cell_dataset, tmp_path, monkeypatch):
    first_steps = []

    def recording_batches(datasets, config, batch_size, augmentation=None, first_step=0, **kwargs):
        if kwargs.get("shuffle", True):
            first_steps.append(first_step)
        return training_batches(datasets, config, batch_size, augmentation, first_step, **kwargs)

    monkeypatch.setattr("mrcnn.training.training_batches", recording_batches)
    train, validation = cell_dataset(5), cell_dataset(3, 50)
    before, after = StateRecorder(), StateRecorder()
    first = build(strong_config, tmp_path).train(
        train, validation, 1e-3, 1, "all", progress=False, custom_callbacks=[before]
    )
    # As if it had been killed between the log and the checkpoint of the second epoch.
    write_rows(tmp_path / "log.csv", [*first, {**first[0], "epoch": 2, "loss": "99"}])
    model = build(strong_config, tmp_path)
    rows = model.train(train, validation, 1e-3, 2, "all", progress=False, custom_callbacks=[after])
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 2), (2, 4)] and len(log_of(tmp_path)) == 2
    assert float(rows[1]["loss"]) < 99
    # Rounding differs from run to run and grows from step to step, so what is compared is where the steps begin.
    assert first_steps == [0, 2]
    for a, b in zip(before.at_end, after.at_start, strict=True):
        np.testing.assert_array_equal(a, b)
    changed = [not np.array_equal(a, b) for a, b in zip(after.at_start, after.at_end, strict=True)]
    assert np.mean(changed) > 0.9


def test_initial_weights_and_losses_follow_the_seed(build, strong_config, cell_dataset, tmp_path):
    models = [build(strong_config, tmp_path / name) for name in ("a", "b")]
    for a, b in zip(*map(weights_of, models), strict=True):
        np.testing.assert_array_equal(a, b)
    batch = next(iter(training_batches([cell_dataset(3)], strong_config, 2)))
    losses = [DetectorTrainer(model.parts, strong_config)(batch) for model in models]
    for name in LOSS_NAMES:
        assert float(losses[0][name]) == pytest.approx(float(losses[1][name]), rel=1e-4)


def test_train_does_nothing_when_all_epochs_are_done(build, strong_config, uninterrupted, cell_dataset):
    whole, rows = uninterrupted
    again = build(strong_config, whole.model_dir)
    assert again.train(cell_dataset(5), [], 1e-3, 2, "all", progress=False) == rows
    for a, b in zip(weights_of(again), weights_of(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_train_leaves_a_detector_that_loads(uninterrupted, small_resnet):
    whole, _ = uninterrupted
    with small_resnet():
        loaded = load_detector(whole.model_dir)
    for a, b in zip(weights_of(loaded), weights_of(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_train_heads_then_all_keeps_counting_steps(build, tiny_config_class, cell_dataset, tmp_path):
    model = build(make_config({"STEPS_PER_EPOCH": 1}, tiny_config_class), tmp_path)

    def kernel_of(name):
        layer = next(layer for layer in model.parts.named_layers() if layer.name == name)
        return layer.kernel.numpy()

    names = ("res2a_branch2a", "mrcnn_mask_conv1")
    start = [kernel_of(name) for name in names]
    model.train(cell_dataset(2), [], 1e-3, 1, "heads", progress=False)
    after_heads = [kernel_of(name) for name in names]
    rows = model.train(cell_dataset(2), [], 1e-3, 2, "all", progress=False)
    after_all = [kernel_of(name) for name in names]
    assert [np.array_equal(a, b) for a, b in zip(start, after_heads, strict=True)] == [True, False]
    assert [np.array_equal(a, b) for a, b in zip(after_heads, after_all, strict=True)] == [False, False]
    assert [row["step"] for row in rows] == [1, 2]


def test_train_refuses_a_checkpoint_of_another_architecture(build, uninterrupted, tiny_config_class, cell_dataset):
    whole, _ = uninterrupted
    other = build(make_config({"NUM_CLASSES": 3}, tiny_config_class), whole.model_dir)
    with pytest.raises(InputError, match="cannot go on from this checkpoint"):
        other.train(cell_dataset(2), [], 1e-3, 3, "all", progress=False)


def test_train_needs_images(build, tiny_config_class, tmp_path):
    empty = CellMaskDataset([], tmp_path)
    with pytest.raises(InputError, match="no image to train on"):
        build(tiny_config_class(), tmp_path).train(empty, [], 1e-3, 1, "all")


def test_stop_on_non_finite_names_the_term():
    class Model:
        class optimizer:
            iterations = 7

    callback = StopOnNonFinite()
    callback.set_model(Model())
    logs = dict.fromkeys(("loss", *LOSS_NAMES), 1.0)
    callback.on_train_batch_end(0, logs)
    with pytest.raises(InputError, match="mrcnn_bbox_loss is not finite at step 7"):
        callback.on_train_batch_end(0, logs | {"loss": np.nan, "mrcnn_bbox_loss": np.inf})


def test_warmup_drop_known_answers():
    rate = WarmupDrop(0.1, 4, 10, 0.2)
    values = [float(rate(step)) for step in (0, 1, 3, 4, 9, 10, 50)]
    np.testing.assert_allclose(values, [0.025, 0.05, 0.1, 0.1, 0.1, 0.02, 0.02], rtol=1e-6)
    assert WarmupDrop.from_config(rate.get_config()).get_config() == rate.get_config()


@pytest.mark.parametrize(("drop_after", "last"), [(1.0, 0.1), (0.5, 0.02)])
def test_make_optimizer_drops_the_rate_only_when_asked(drop_after, last):
    config = make_config({"LEARNING_RATE_DROP_AFTER": drop_after}, Config)
    optimizer = make_optimizer(config, 0.1, 100)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert optimizer.momentum == 0.9 and optimizer.clipnorm == 5.0
    optimizer.build([keras.Variable(1.0)])
    optimizer.iterations.assign(99)
    assert float(optimizer.learning_rate) == pytest.approx(last)


def test_make_optimizer_adam_clips_the_joint_norm():
    optimizer = make_optimizer(make_config({"OPTIMIZER": "adam"}, Config), 0.1, 100)
    assert isinstance(optimizer, keras.optimizers.Adam) and optimizer.global_clipnorm == 5.0


def test_write_rows_adds_new_columns_at_the_end(tmp_path):
    write_rows(tmp_path / "log.csv", [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.5, "val_loss": 3}])
    assert (tmp_path / "log.csv").read_text() == "epoch,loss,val_loss\n1,2.5,\n2,1.5,3\n"


def test_checkpoints_are_sorted_by_epoch(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in (
        "epoch-0010.weights.h5",
        "epoch-0009.weights.h5",
        ".7.tmp.epoch-0011.weights.h5",
        "epoch-x.weights.h5",
    ):
        (folder / name).touch()
    assert [epoch for epoch, _ in checkpoints(tmp_path)] == [9, 10]
