"""Arrays of unknown origin: they come back as they were, or the file is named."""

import numpy as np
import pytest

from mrcnn.files.arrays import read_arrays
from mrcnn.files.errors import InputError

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array("text"), "north\nriver": np.zeros((0, 4))}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(save, tmp_path):
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_arrays(tmp_path / "a.npz", advice="")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_everything_else_is_refused(tmp_path):
    path = tmp_path / "a.npz"

    def refused(reason):
        with pytest.raises(InputError, match=reason) as caught:
            read_arrays(path, advice="make it again", missing="make it")
        assert str(caught.value).startswith(str(path)) and "make it" in str(caught.value)

    refused("no such file; make it$")
    np.savez(path, a=np.array([print], object))
    refused("Object arrays cannot be loaded")
    np.savez(path, **ARRAYS)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[:100], whole[:150] + bytes([whole[150] ^ 8]) + whole[151:]):
        path.write_bytes(damaged)
        refused("damaged, or not an .npz file")
    with open(path, "wb") as handle:
        np.save(handle, ARRAYS["a"])
    refused("damaged, or not an .npz file")
