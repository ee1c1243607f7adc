import numpy as np
import pytest

from experiments.cache import Cache
from mrcnn.files.errors import InputError


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
    cache = Cache(tmp_path, overwrite=True)
    for _ in range(2):
        assert cache.arrays("kind", {"n": 1, "m": "x"}, lambda: {"a": np.ones(1)})["a"] == 1
    assert cache.num_made == 1
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


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
