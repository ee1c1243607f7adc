import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoencoder.folder import load_autoencoder, read_run
from mrcnn.files.errors import InputError


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))


def test_load_autoencoder_gives_back_what_was_trained(trained):
    loaded = load_autoencoder(trained.folder)
    assert loaded.config == trained.config
    for a, b in zip(loaded.model.get_weights(), trained.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.encoder.output_shape == (None, 8)


@pytest.mark.parametrize("name", ["config.json", "run.json", "scaling.npz", "weights.weights.h5"])
@pytest.mark.parametrize("size", [None, 100])
def test_load_autoencoder_names_what_is_missing_or_cut_short(copy, name, size):
    path = copy / name
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=str(copy)):
        load_autoencoder(copy)


def test_load_autoencoder_refuses_weights_of_another_training(copy):
    with open(copy / "weights.weights.h5", "r+b") as handle:
        handle.seek(-8, 2)
        handle.write(b"\1" * 8)
    with pytest.raises(InputError, match="not the weights that run.json tells of"):
        load_autoencoder(copy)


JSON = st.recursive(st.none() | st.booleans() | st.text(), lambda values: st.dictionaries(st.text(), values))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stores=JSON, complete=st.booleans() | st.text())
def test_read_run_reads_right_or_refuses(tmp_path, stores, complete):
    (tmp_path / "run.json").write_text(json.dumps({"complete": complete, "stores": stores}))
    try:
        run = read_run(tmp_path)
    except InputError as error:
        assert "run.json" in str(error)
    else:
        assert run["complete"] is complete and all(store["detector_hash"] for store in run["stores"].values())
