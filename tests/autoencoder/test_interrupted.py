"""An interrupted training leaves the step at hand; its folder has one writer at a time."""

import json
import os
import shutil
import signal

import h5py
import numpy as np
import pytest

from autoencoder import embedding, training
from autoencoder.config import AutoencoderConfig
from autoencoder.embedding import embed
from autoencoder.state import list_checkpoints
from autoencoder.training import train_autoencoder
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.interruption import Interruption, handle_signals


@pytest.fixture(scope="module")
def config(tiny_settings):
    return AutoencoderConfig(**{**tiny_settings, "steps": 5, "checkpoint_every": 4})


@pytest.fixture(scope="module")
def trained(stores, config, tmp_path_factory):
    """A finished training, not to be changed."""
    return train_autoencoder(config, stores, tmp_path_factory.mktemp("trained") / "autoencoder")


def weights_of(folder):
    found = {}
    with h5py.File(folder / "weights.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    return found


def signal_at(patch, step):
    check = training._check_finite

    def check_and_signal(names, metrics, number):
        check(names, metrics, number)
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(training, "_check_finite", check_and_signal)


def test_interrupted_training_keeps_the_step_at_hand(trained, stores, config, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "autoencoder"
    with monkeypatch.context() as patch, pytest.raises(Interruption), handle_signals():
        signal_at(patch, 3)
        train_autoencoder(config, stores, folder)
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["step-00000003.npz"]
    assert not (folder / ".lock").exists()
    with caplog.at_level("INFO"):
        train_autoencoder(config, stores, folder)
    assert "resuming after step 3" in caplog.text
    ours, theirs = weights_of(folder), weights_of(trained.folder)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-6, err_msg=name)


def test_training_killed_after_its_last_step_notes_its_losses(trained, stores, config, tmp_path):
    folder = tmp_path / "autoencoder"
    write = training.write_json

    def die(path, value):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "write_json", die)
        train_autoencoder(config, stores, folder)
    assert training.write_json is write
    assert not json.loads((folder / "run.json").read_text())["complete"]
    (folder / ".9999.tmp.weights.weights.h5").write_bytes(b"of a killed process")
    for step in (2, 3):  # of one that was killed between writing a checkpoint and removing older ones
        shutil.copy(list_checkpoints(folder / "checkpoints")[0], folder / "checkpoints" / f"step-{step:08d}.npz")
    losses = train_autoencoder(config, stores, folder).run["losses"]
    assert losses == pytest.approx(trained.run["losses"], rel=1e-4) and len(losses) > 3
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == [
        "step-00000005.npz",
        "step-00000004.npz",
    ]


def test_folder_is_trained_by_one_run_at_a_time(trained, stores, config, tmp_path):
    with OutputLock(tmp_path / "a", inside=True):
        with pytest.raises(InputError, match=r"a: another run \(pid \d+ on .*\) is writing it"):
            train_autoencoder(config, stores, tmp_path / "a")
    # A finished one is only read, as from a read-only disk.
    with OutputLock(trained.folder, inside=True):
        assert train_autoencoder(config, stores, trained.folder).run == trained.run


def test_interrupted_embedding_writes_nothing(trained, stores, tmp_path, monkeypatch):
    output = tmp_path / "new" / "embedding.h5ad"
    compiled = embedding.compiled_encoder

    def encode_and_signal(trained):
        encode = compiled(trained)

        def call(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            calls.append(1)
            return encode(*arguments)

        return call

    calls = []
    monkeypatch.setattr(embedding, "compiled_encoder", encode_and_signal)
    with pytest.raises(Interruption), handle_signals():
        embed(trained.folder, stores, output, batch_size=4)
    assert len(calls) == 1 and not list(tmp_path.iterdir())
    with OutputLock(output), pytest.raises(InputError, match="is writing it"):
        embed(trained.folder, stores, output)
