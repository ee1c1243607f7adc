"""An oracle learns what is easy, is kept in a folder, and is not taken for another."""

import json

import numpy as np
import pytest
import tensorflow as tf

from experiments.thesis import oracles
from experiments.thesis.oracles import Oracle, OracleConfig, augment, load_oracle, train_oracle
from mrcnn.files.errors import InputError

TINY = {"image_size": 32, "blocks": (1, 1), "base_filters": 8, "cardinality": 4, "width_per_group": 2}
CONFIG = OracleConfig(**TINY, steps=40, batch_size=8, learning_rate=3e-3, seed=1)


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


def check_names_right(oracle: Oracle):
    images, labels = coloured_cells(9, 9, seed=5)
    named = oracle.predict(images, batch_size=7)
    assert named.dtype.kind == "U"
    np.testing.assert_array_equal(named, labels)


def test_oracle_names_unseen_images_rightly(folder):
    oracle = load_oracle(folder)
    assert oracle.classes == ("blue", "red")
    check_names_right(oracle)
    assert oracle.predict(np.zeros((0, 40, 40, 3), np.uint8)).shape == (0,)
    with pytest.raises(ValueError, match="uint8"):
        oracle.predict(np.zeros((1, 40, 40, 3)))


def test_oracle_with_group_norm_names_unseen_images_rightly(tmp_path):
    config = OracleConfig(**{**CONFIG.to_dict(), "normalization": "group", "augment": False, "blocks": (1,)})
    check_names_right(train_oracle(config, *coloured_cells(12, 4, seed=0), tmp_path, inputs_hash=""))


def test_oracle_folder_says_what_was_trained(folder):
    run = json.loads((folder / "run.json").read_text())
    assert run["complete"] is True and run["inputs_hash"] == "abc"
    assert run["classes"] == ["blue", "red"] and run["cells"] == {"blue": 3, "red": 30}
    assert run["versions"]["tensorflow"] == tf.__version__
    assert OracleConfig.from_dict(json.loads((folder / "config.json").read_text())) == CONFIG
    header, *rows = (folder / "log.csv").read_text().splitlines()
    assert header == "step,loss,accuracy,learning_rate,seconds"
    rows = [[float(value) for value in row.split(",")] for row in rows]
    assert [row[0] for row in rows] == [20, 40]
    assert rows[-1][1] == pytest.approx(run["loss"], rel=1e-5) and rows[-1][1] < rows[0][1]
    assert 0 < rows[1][3] < rows[0][3] < 3e-3
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "log.csv",
        "run.json",
        "weights.weights.h5",
    ]


def test_finished_oracle_is_reused_and_another_refused(folder, monkeypatch):
    cells = coloured_cells(30, 3, seed=0)
    monkeypatch.setattr(oracles, "_run_steps", lambda *_: pytest.fail("trained again"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    train_oracle(CONFIG, *cells, folder, inputs_hash="abc")
    with pytest.raises(InputError, match="its cells are others"):
        train_oracle(CONFIG, *cells, folder, inputs_hash="abd")
    longer = OracleConfig(**{**CONFIG.to_dict(), "steps": 41})
    with pytest.raises(InputError, match="steps is 40 there"):
        train_oracle(longer, *cells, folder, inputs_hash="abc")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_unfinished_oracle_is_not_loaded_but_begun_anew(tmp_path):
    short = OracleConfig(**{**CONFIG.to_dict(), "steps": 1, "blocks": [1]})
    cells = coloured_cells(4, 4, seed=0)
    first = train_oracle(short, *cells, tmp_path, inputs_hash="abc")
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**run, "complete": False}))
    with pytest.raises(InputError, match="not finished"):
        load_oracle(tmp_path)
    (tmp_path / "weights.weights.h5").write_bytes(b"cut short")
    again = train_oracle(short, *cells, tmp_path, inputs_hash="abd")
    assert again.run["inputs_hash"] == "abd" and again.run["complete"]
    for a, b in zip(first.model.weights, again.model.weights, strict=True):  # the seed fixes everything
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_folder_of_something_else_is_left_alone(tmp_path):
    cells = coloured_cells(4, 4, seed=0)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        train_oracle(CONFIG, *cells, tmp_path, inputs_hash="")
    for text, message in [("{}", "not the record of an oracle"), ("[1]", "JSON object"), ("{", "not valid JSON")]:
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(InputError, match=message):
            train_oracle(CONFIG, *cells, tmp_path, inputs_hash="")
    with pytest.raises(InputError, match="no such file"):
        load_oracle(tmp_path / "absent")


def test_damaged_weights_are_refused(folder, tmp_path):
    for name in ("run.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match="no such file"):
        load_oracle(tmp_path)
    whole = (folder / "weights.weights.h5").read_bytes()
    (tmp_path / "weights.weights.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged") as caught:
        load_oracle(tmp_path)
    assert "\n" not in str(caught.value)


def test_train_oracle_checks_its_cells(tmp_path):
    images, labels = coloured_cells(4, 0, seed=0)
    with pytest.raises(InputError, match="two classes or more, got red"):
        train_oracle(CONFIG, images, labels, tmp_path, inputs_hash="")
    for wrong in (labels[:3], np.array(["red", "", "red", "red"])):
        with pytest.raises(ValueError, match="4 names"):
            train_oracle(CONFIG, images, wrong, tmp_path, inputs_hash="")
    assert not list(tmp_path.iterdir())


def test_loss_that_is_not_finite_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(oracles, "_make_train_step", lambda *_: lambda *_: tf.constant([np.nan, 0.0]))
    with pytest.raises(InputError, match="loss is nan at step 20"):
        train_oracle(CONFIG, *coloured_cells(4, 4, seed=0), tmp_path, inputs_hash="")
    assert json.loads((tmp_path / "run.json").read_text())["complete"] is False


def test_batches_hold_classes_equally_and_every_image_in_turn():
    class_ids = np.array([0] * 50 + [1] * 5 + [2] * 1)
    config = OracleConfig(batch_size=10)
    batches = oracles.row_batches(class_ids, config, np.random.default_rng(0))
    rows = np.array([next(batches) for _ in range(15)])
    for batch in rows:
        assert set(np.bincount(class_ids[batch], minlength=3)) <= {3, 4}
    drawn = np.bincount(rows.ravel(), minlength=56)
    assert drawn[:50].tolist() == [1] * 50 and drawn[50:55].tolist() == [10] * 5 and drawn[55] == 50
    plain = oracles.row_batches(class_ids, OracleConfig(batch_size=8, balance_classes=False), np.random.default_rng(0))
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
    same = augment(tf.constant(np.tile(image, (400, 1, 1, 1))), tf.constant([1, 2]))
    np.testing.assert_array_equal(same, images)


def test_config_round_trips_through_json():
    config = OracleConfig(blocks=(2, 1), steps=7, augment=False)
    assert OracleConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 3}, "unknown setting 'step'; did you mean 'steps'"),
        ({"image_size": 16}, "image_size must be a whole number of at least 32"),
        ({"steps": True}, "steps must be"),
        ({"blocks": [1, 0]}, "blocks must be"),
        ({"blocks": 3}, "blocks must be"),
        ({"normalization": "layer"}, "one of batch, group"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"augment": 1}, "augment must be true or false"),
    ],
)
def test_config_refuses(values, message):
    with pytest.raises(InputError, match=message) as caught:
        OracleConfig.from_dict(values, where="my.json")
    assert str(caught.value).startswith("my.json: ") and "\n" not in str(caught.value)
