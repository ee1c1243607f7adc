"""An oracle learns what is easy, is kept in a folder, and is not taken for another."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from experiments.settings import OracleConfig
from experiments.thesis import oracles
from experiments.thesis.oracles import augment, row_batches, train_oracle
from mrcnn.files.errors import InputError
from mrcnn.files.run_folder import RunFolder

NETWORK = {"image_size": 32, "blocks": [1], "base_filters": 8, "cardinality": 4, "width_per_group": 2}
CONFIG = OracleConfig(**NETWORK, steps=24, batch_size=8, learning_rate=3e-3, seed=1)


def coloured_cells(num_red: int, num_blue: int, seed: int):
    """Noisy red and blue images of 40 x 40 px, and their names."""
    random = np.random.default_rng(seed)
    labels = np.array(["red"] * num_red + ["blue"] * num_blue)
    images = random.integers(60, 120, (len(labels), 40, 40, 3))
    images[labels == "red", :, :, 0] += 100
    images[labels == "blue", :, :, 2] += 100
    return images.astype(np.uint8), labels


def train(path, config=CONFIG, cells=(30, 3), inputs="abc"):
    folder = RunFolder(path, "oracle", {"config": config.to_dict(), "inputs": inputs})
    return train_oracle(config, *coloured_cells(*cells, seed=0), folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained oracle; "red" is ten times as frequent as "blue"."""
    return train(tmp_path_factory.mktemp("oracle") / "new" / "red-blue")


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of its folder."""
    return Path(shutil.copytree(trained.path, tmp_path / "copy"))


def test_oracle_predicts_unseen_images_and_says_what_it_was_trained_on(trained):
    images, labels = coloured_cells(9, 9, seed=5)
    np.testing.assert_array_equal(trained.predict(images, batch_size=7), labels)
    run = json.loads((trained.path / "run.json").read_text())
    assert run["complete"] is True and run["cells"] == {"blue": 3, "red": 30}
    log = pd.read_csv(trained.path / "log.csv")
    assert {*log} == {"epoch", "step", "loss", "accuracy", "learning_rate", "seconds"} and log.step.tolist() == [20, 24]
    assert log.loss[1] == pytest.approx(run["loss"], rel=1e-5)
    assert 0 < log.learning_rate[1] < log.learning_rate[0] < CONFIG.learning_rate
    assert {path.name for path in trained.path.iterdir()} == {"log.csv", "run.json", "weights.weights.h5"}


def test_oracle_opens_again_from_a_keras_file(trained, tmp_path):
    trained.model.save(tmp_path / "oracle.keras")
    again, images = keras.saving.load_model(tmp_path / "oracle.keras"), coloured_cells(2, 2, seed=5)[0]
    resized = tf.image.resize(images, (32, 32), antialias=True)
    np.testing.assert_allclose(again(resized), trained.model(resized), atol=1e-5)


def test_finished_oracle_is_reused_and_another_refused(trained, copied, monkeypatch):
    monkeypatch.setattr(oracles, "_run_steps", lambda *_: pytest.fail("trained again"))
    for ours, theirs in zip(train(copied).model.weights, trained.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match="inputs"):
        train(copied, inputs="abd")
    with pytest.raises(InputError, match="steps 24"):
        train(copied, CONFIG.replace(steps=25))
    weights = copied / "weights.weights.h5"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(InputError, match=r"weights.weights.h5: damaged"):
        train(copied)


def test_unfinished_oracle_is_begun_anew(copied, monkeypatch):
    run = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**run, "complete": False}))
    monkeypatch.setattr(oracles, "_run_steps", lambda *_: {"seconds": 1.0, "loss": 2.0})
    for a, b in zip(train(copied / "other").model.weights, train(copied).model.weights, strict=True):
        np.testing.assert_array_equal(a, b)  # the seed fixes them


def test_an_oracle_needs_two_classes_and_a_finite_loss(tmp_path):
    with pytest.raises(InputError, match="two classes or more, got red"):
        train(tmp_path, cells=(4, 0))
    with pytest.raises(InputError, match="loss is (nan|inf) at step [234]"):
        train(tmp_path, CONFIG.replace(learning_rate=1e38), cells=(4, 4))
    assert json.loads((tmp_path / "run.json").read_text())["complete"] is False


def test_batches_hold_classes_equally_and_every_image_in_turn():
    class_ids = np.array([0] * 50 + [1] * 5 + [2] * 1)
    config = OracleConfig(batch_size=10)
    batches = row_batches(class_ids, config, np.random.default_rng(0))
    rows = np.array([next(batches) for _ in range(15)])
    for batch in rows:
        assert set(np.bincount(class_ids[batch], minlength=3)) <= {3, 4}
    drawn = np.bincount(rows.ravel(), minlength=56)
    assert drawn[:50].tolist() == [1] * 50 and drawn[50:55].tolist() == [10] * 5 and drawn[55] == 50
    plain = row_batches(class_ids, OracleConfig(batch_size=8, balance_classes=False), np.random.default_rng(0))
    assert sorted(np.concatenate([next(plain) for _ in range(7)])) == list(range(56))


def test_augment_turns_flips_and_jitters_within_the_range():
    image = np.zeros((8, 8, 3), np.float32)
    image[:3, :2] = 200  # in one corner, and not its own mirror image
    images = augment(tf.constant(np.tile(image, (400, 1, 1, 1))), tf.constant([1, 2])).numpy()
    assert images.min() >= 0 and images.max() <= 255
    shapes = {tuple((one[..., 0] > one[..., 0].mean()).ravel()) for one in images}
    turned = [np.rot90(side, k) for side in (image[..., 0], image[:, ::-1, 0]) for k in range(4)]
    assert shapes == {tuple((one > one.mean()).ravel()) for one in turned}
    peaks = images.max(axis=(1, 2, 3))
    assert 138 < peaks.min() < 150 and 240 < peaks.max() <= 255  # (200 - 19) * (0.8 to 1.2) + 19 -+ 25.5
