import json
import shutil

import numpy as np
import pytest

from autoencoder.folder import list_checkpoints, load_autoencoder, load_newest_checkpoint, read_run, save_checkpoint
from mrcnn.files.errors import InputError

VALUES = [np.arange(6.0, dtype=np.float32).reshape(2, 3), np.int64(7), np.zeros((0,), np.float32)]
METRICS = np.array([0.5, 0.25], np.float32)


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))


@pytest.mark.parametrize("name", ["config.json", "run.json", "scaling.npz", "weights.weights.h5"])
def test_load_autoencoder_names_what_is_missing_or_cut_short(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=str(copy)):
        load_autoencoder(copy)
    path.unlink()
    with pytest.raises(InputError, match=str(copy)):
        load_autoencoder(copy)


def test_load_autoencoder_refuses_weights_of_another_training(copy):
    with open(copy / "weights.weights.h5", "r+b") as handle:
        handle.seek(-8, 2)
        handle.write(b"\1" * 8)
    with pytest.raises(InputError, match="not the weights that run.json tells of"):
        load_autoencoder(copy)


@pytest.mark.parametrize("stores", [None, ["anna"], {"anna": None}, {"anna": {"cells": 3}}])
def test_read_run_refuses_other_records(tmp_path, stores):
    (tmp_path / "run.json").write_text(json.dumps({"complete": True, "stores": stores}))
    with pytest.raises(InputError, match="run.json: not the record of a trained autoencoder"):
        read_run(tmp_path)


def test_checkpoints_come_back_as_they_were_and_the_newest_two_stay(tmp_path):
    assert load_newest_checkpoint(tmp_path / "none") is None
    for step in (1, 5, 12):
        save_checkpoint(tmp_path, step, [VALUES[0] + step, *VALUES[1:]], METRICS)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [12, 5]
    step, metrics, values = load_newest_checkpoint(tmp_path)
    assert step == 12
    np.testing.assert_array_equal(metrics, METRICS)
    np.testing.assert_array_equal(values[0], VALUES[0] + 12)
    assert [value.dtype for value in values] == [np.float32, np.int64, np.float32]


@pytest.mark.parametrize("damage", ["cut", "flip", "object"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage, caplog):
    for step in (3, 6):
        save_checkpoint(tmp_path, step, VALUES, METRICS)
    path = tmp_path / "step-00000006.npz"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[content.find(VALUES[0].tobytes()) + 5] ^= 0xFF
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "object":
        np.savez(path, **{"step": np.int64(6), "metrics": METRICS, "0000": np.array([{}], object)})
    assert load_newest_checkpoint(tmp_path)[0] == 3
    assert "step-00000006.npz: damaged checkpoint" in caplog.text
    (tmp_path / "step-00000003.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="every checkpoint is damaged; train again with --overwrite"):
        load_newest_checkpoint(tmp_path)
