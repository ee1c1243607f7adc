import json
import shutil

import pytest

from autoencoder.folder import load_autoencoder, read_run
from mrcnn.files.errors import InputError


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
