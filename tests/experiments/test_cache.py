import numpy as np
import pytest

from experiments.cache import Cache
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays, hash_json


def test_cache_computes_once_for_the_same_inputs(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"a": np.arange(3), "b": np.array(["x", "yy"])}

    first = Cache(tmp_path)
    for cache in (first, first, Cache(tmp_path)):
        found = cache.arrays("kind", {"n": 1, "m": "x"}, make)
        assert found["a"].tolist() == [0, 1, 2] and found["b"].tolist() == ["x", "yy"]
    assert len(calls) == 1 and first.num_made == 1
    first.arrays("kind", {"n": 2, "m": "x"}, make)
    first.arrays("other", {"n": 1, "m": "x"}, make)
    assert len(calls) == 3
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_cache_overwrites_each_result_once(tmp_path):
    Cache(tmp_path).arrays("kind", {}, lambda: {"a": np.zeros(1)})
    cache = Cache(tmp_path, overwrite=True)
    for _ in range(2):
        assert cache.arrays("kind", {}, lambda: {"a": np.ones(1)})["a"] == 1
    assert cache.num_made == 1


def test_cache_leaves_nothing_of_a_computation_that_fails(tmp_path):
    def fail():
        raise InputError("no")

    with pytest.raises(InputError):
        Cache(tmp_path).arrays("kind", {}, fail)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("content", [b"", b"PK and more"])
def test_cache_names_a_damaged_file(tmp_path, content):
    Cache(tmp_path).arrays("kind", {}, lambda: {"a": np.arange(1000)})
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path}: .*delete it, and it is computed again"):
        Cache(tmp_path).arrays("kind", {}, lambda: {"a": np.arange(1000)})


def test_hashes_tell_values_types_and_shapes():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})
    zeros = np.zeros((2, 3), np.float32)
    others = [zeros.astype(np.float64), zeros.reshape(3, 2), zeros + 1]
    assert len({hash_arrays(array) for array in (zeros, *others)}) == 4
    assert hash_arrays(zeros.T.copy().T) == hash_arrays(zeros)
