"""Provenance of a result: words, and hashes."""

import numpy as np

from mrcnn.files.provenance import command_text, hash_arrays, hash_json


def test_command_text_can_be_typed_again(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/aecfe", "evaluate", "my file.h5", "--set=a=b"])
    assert command_text() == "aecfe evaluate 'my file.h5' --set=a=b"


def test_hashes_tell_values_types_and_shapes():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})
    zeros = np.zeros((2, 3), np.float32)
    others = [zeros.astype(np.float64), zeros.reshape(3, 2), zeros + 1]
    assert len({hash_arrays(array) for array in (zeros, *others)}) == 4
    assert hash_arrays(zeros.T.copy().T) == hash_arrays(zeros)
