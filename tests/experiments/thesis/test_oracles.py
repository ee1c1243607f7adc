"""An oracle learns what is easy, is kept in a folder, and is not taken for another."""

import json

import numpy as np
import pytest
import tensorflow as tf

from experiments.settings import OracleConfig
from experiments.thesis import oracles
from experiments.thesis.oracles import augment, load_oracle, row_batches, train_oracle
from mrcnn.files.errors import InputError

CONFIG = OracleConfig(
    image_size=32,
    blocks=[1],
    base_filters=8,
    cardinality=4,
    width_per_group=2,
    steps=24,
    batch_size=8,
    learning_rate=3e-3,
    seed=1,
)


def coloured_cells(num_red: int, num_blue: int, seed: int):
    """Noisy red and blue images of 40 x 40 px, and their names."""
    random = np.random.default_rng(seed)
    labels = np.array(["red"] * num_red + ["blue"] * num_blue)
    images = random.integers(60, 120, (len(labels), 40, 40, 3))
    images[labels == "red", :, :, 0] += 100
    images[labels == "blue", :, :, 2] += 100
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained oracle; "red" is ten times as frequent as "blue"."""
    folder = tmp_path_factory.mktemp("oracle") / "new" / "red-blue"
    train_oracle(CONFIG, *coloured_cells(30, 3, seed=0), folder, inputs_hash="abc")
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of its folder."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_oracle_predicts_unseen_images_rightly(folder):
    oracle = load_oracle(folder)
    assert oracle.classes == ("blue", "red") and oracle.config == CONFIG
    images, labels = coloured_cells(9, 9, seed=5)
    np.testing.assert_array_equal(oracle.predict(images, batch_size=7), labels)
    assert oracle.predict(images[:0]).shape == (0,)


def test_oracle_folder_says_what_was_trained(folder):
    run = json.loads((folder / "run.json").read_text())
    assert run["complete"] is True and run["identity"] == {"config": CONFIG.to_dict(), "inputs": "abc"}
    assert run["classes"] == ["blue", "red"] and run["cells"] == {"blue": 3, "red": 30}
    assert run["versions"]["tensorflow"] == tf.__version__
    header, *rows = (folder / "log.csv").read_text().splitlines()
    assert header == "step,loss,accuracy,learning_rate,seconds"
    rows = [[float(value) for value in row.split(",")] for row in rows]
    assert [row[0] for row in rows] == [20, 24]
    assert rows[-1][1] == pytest.approx(run["loss"], rel=1e-5)
    assert 0 < rows[1][3] < rows[0][3] < 3e-3
    assert {path.name for path in folder.iterdir()} == {"config.json", "log.csv", "run.json", "weights.weights.h5"}


@pytest.mark.parametrize("is_of_earlier_version", [False, True])
def test_finished_oracle_is_reused_and_another_refused(copied, is_of_earlier_version, monkeypatch):
    monkeypatch.setattr(oracles, "_run_steps", lambda *_: pytest.fail("trained again"))
    if is_of_earlier_version:
        run = json.loads((copied / "run.json").read_text())
        run["inputs_hash"] = run.pop("identity")["inputs"]
        (copied / "run.json").write_text(json.dumps(run))
    cells = coloured_cells(30, 3, seed=0)
    train_oracle(CONFIG, *cells, copied, inputs_hash="abc")
    for config, inputs_hash, message in [(CONFIG, "abd", "inputs"), (CONFIG.replace(steps=25), "abc", "steps 24")]:
        with pytest.raises(InputError, match=message):
            train_oracle(config, *cells, copied, inputs_hash=inputs_hash)


def test_unfinished_oracle_is_not_loaded_but_begun_anew(copied, monkeypatch):
    run = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**run, "complete": False}))
    with pytest.raises(InputError, match="not finished"):
        load_oracle(copied)
    (copied / "weights.weights.h5").write_bytes(b"cut short")
    monkeypatch.setattr(oracles, "_run_steps", lambda *_: {"seconds": 1.0, "loss": 2.0})
    first, again = (
        train_oracle(CONFIG, *coloured_cells(30, 3, seed=0), path, inputs_hash="abc")
        for path in (copied / "other", copied)
    )
    for a, b in zip(first.model.weights, again.model.weights, strict=True):  # the seed fixes them
        np.testing.assert_array_equal(a, b)


def test_damaged_oracles_are_refused(copied):
    weights = copied / "weights.weights.h5"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(InputError, match=r"weights.weights.h5: damaged") as caught:
        load_oracle(copied)
    assert "\n" not in str(caught.value)
    for text in ("[1]", "{", "{}"):
        (copied / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run.json: not "):
            load_oracle(copied)
    with pytest.raises(InputError, match="absent"):
        load_oracle(copied / "absent")


def test_an_oracle_needs_two_classes_and_a_finite_loss(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="two classes or more, got red"):
        train_oracle(CONFIG, *coloured_cells(4, 0, seed=0), tmp_path, inputs_hash="")
    monkeypatch.setattr(oracles, "_make_train_step", lambda *_: lambda *_: tf.constant([np.nan, 0.0]))
    with pytest.raises(InputError, match="loss is nan at step 20"):
        train_oracle(CONFIG, *coloured_cells(4, 4, seed=0), tmp_path, inputs_hash="")
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


@pytest.mark.parametrize(
    "values", [{"image_size": 16}, {"blocks": []}, {"blocks": [0]}, {"learning_rate": 0}, {"augment": 1}, {"depth": 3}]
)
def test_config_names_the_setting_that_is_wrong(values):
    with pytest.raises(InputError, match=next(iter(values))):
        OracleConfig(**values)
