import importlib
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from autoencoder.adaptation import adaptation_loss, check_custom_loss, find_custom_loss
from autoencoder.config import AutoencoderConfig
from autoencoder.embedding import embed
from autoencoder.training import train_autoencoder
from mrcnn.files.errors import InputError


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Function of a name and code that makes a module to import, for one test."""
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (tmp_path / "modules").mkdir()

    def write(name, code):
        # Whatever else of the name was imported before comes back afterwards.
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "modules" / f"{name}.py").write_text(code)
        importlib.invalidate_caches()

    return write


def loss_and_gradient(latents, centre_ids, method):
    variable = tf.Variable(latents)

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            loss = adaptation_loss(variable, tf.constant(centre_ids), 0, 3, method=method)
        return loss, tf.convert_to_tensor(tape.gradient(loss, variable))

    loss, gradient = compute()
    return float(loss), gradient.numpy()


def test_adaptation_loss_of_a_function_equals_the_method_made_of_it():
    latents = np.random.default_rng(0).uniform(-1, 1, (11, 4)).astype(np.float32)
    centre_ids = np.array([0, 1, 2, 0, 2, 1, 2, 2, 0, 0, 1], np.int32)
    methods = ("autoencoder.adaptation:coral_loss", "coral")
    own, coral = (loss_and_gradient(latents, centre_ids, method) for method in methods)
    assert own[0] == pytest.approx(coral[0], rel=1e-5) and own[0] > 0
    np.testing.assert_allclose(own[1], coral[1], rtol=1e-4, atol=1e-7)


def test_a_function_is_not_called_for_a_centre_with_few_samples(write_module):
    # One over the number of further rows: infinite for one row, and its gradient not a number.
    write_module(
        "few",
        "import tensorflow as tf\n"
        "def loss(source, target):\n"
        "    numbers = [tf.cast(tf.shape(rows)[0] - 1, tf.float32) for rows in (source, target)]\n"
        "    return sum(tf.reduce_sum(rows) / n for rows, n in zip((source, target), numbers))\n",
    )
    for centre_ids in ([0, 0, 0, 1], [1, 1, 2, 2]):
        loss, gradient = loss_and_gradient(np.ones((4, 2), np.float32), np.array(centre_ids, np.int32), "few:loss")
        assert loss == 0
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, "No module named 'broken'; set PYTHONPATH"),
        ("def other(source, target): ...\n", "has no attribute 'loss'"),
        ("def loss(source, target):\n    raise ValueError('two\\nlines')\n", "two lines"),
        ("def loss(source, target):\n    return source[0]\n", "array of shape"),
        ("def loss(source, target):\n    return float('nan')\n", "got nan"),
    ],
)
def test_what_cannot_be_used_is_one_line(code, reason, write_module):
    if code is not None:
        write_module("broken", code)
    with pytest.raises(InputError, match=f"^adaptation broken:loss: .*{reason}") as caught:
        check_custom_loss("broken:loss", 5)
    assert "\n" not in str(caught.value)


def test_find_custom_loss_finds_functions_of_the_running_program(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "loss_of_a_notebook", max, raising=False)
    assert find_custom_loss("__main__:loss_of_a_notebook") is max


def test_training_uses_a_function_and_embedding_needs_none(stores, tiny_settings, tmp_path, write_module):
    config = AutoencoderConfig(**{**tiny_settings, "steps": 1}, adaptation="constant:loss", beta=2.0, balance="centre")
    with pytest.raises(InputError, match="constant"):
        train_autoencoder(config, stores, tmp_path / "ae")
    assert not (tmp_path / "ae").exists()
    write_module("constant", "def loss(source, target):\n    return 0.25 + 0 * source[0, 0] * target[0, 0]\n")
    train_autoencoder(config, stores, tmp_path / "ae")
    run = json.loads((tmp_path / "ae" / "run.json").read_text())
    assert run["losses"]["adaptation_loss"] == pytest.approx(0.5)  # two targets
    write_module("constant", "raise RuntimeError('imported')\n")
    assert embed(tmp_path / "ae", stores, tmp_path / "latents.h5ad").n_obs == 28
