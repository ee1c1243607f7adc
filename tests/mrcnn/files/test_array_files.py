"""Arrays of unknown origin: nothing is unpickled, and no size is believed that is not held."""

import io
import zipfile

import numpy as np
import pytest

from mrcnn.files.array_files import read_arrays
from mrcnn.files.errors import InputError

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array("text"), "c": np.zeros((0, 4))}


def read(path, **options):
    return read_arrays(path, **{"max_bytes": 2**20, "missing": "make it", "advice": "make it again", **options})


def refused(path, reason, **options):
    with pytest.raises(InputError, match=reason) as caught:
        read(path, **options)
    assert str(caught.value).startswith(str(path)) and "make it" in str(caught.value)


def write(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def stated(shape, body=b"", dtype="<f4"):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def test_arrays_may_be_named_after_two_centres(tmp_path):
    np.savez(tmp_path / "a.npz", **{"north\nriver": ARRAYS["a"]})
    assert list(read(tmp_path / "a.npz")) == ["north\nriver"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(save, tmp_path):
    save(tmp_path / "a.npz", **ARRAYS, f=np.asfortranarray(ARRAYS["a"]))
    found = read(tmp_path / "a.npz")
    assert list(found) == ["a", "b", "c", "f"]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found["f"], ARRAYS["a"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (stated("(2, 3)", bytes(20)), "does not hold it"),
        (stated("(2, 3)", bytes(25)), "does not hold it"),
        (stated("(1099511627776, 3)"), "does not hold it"),
        (stated("(-2, 3)", bytes(24)), r"states shape \(-2, 3\)"),
        (stated("(True, 3)", bytes(12)), "states shape"),
        (stated("(2, 3)", bytes(48), "|O"), "Python objects"),
        (stated("(2, 3)", bytes(24)).replace(b"\x01\x00", b"\x03\x00", 1), "version"),
        (stated("(" * 5000), ".+"),
        (b"", ".+"),
    ],
)
def test_members_that_are_no_arrays_are_refused(content, reason, tmp_path):
    refused(write(tmp_path / "a.npz", {"a.npy": content}), reason)


def test_archives_that_are_none_of_ours_are_refused(tmp_path):
    refused(write(tmp_path / "a.npz", {"a.txt": b"a"}), "odd or doubled member")
    refused(write(tmp_path / "b.npz", {"a\n.npy": stated("(0,)")}), "odd or doubled member")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", stated("(0,)"))
    refused(tmp_path / "c.npz", "odd or doubled member")
    np.savez(tmp_path / "d.npz", a=np.zeros(1000))
    refused(tmp_path / "d.npz", "at most 0 are read", max_bytes=100)
    np.savez_compressed(tmp_path / "e.npz", a=np.zeros(10**6))
    refused(tmp_path / "e.npz", "grows from", max_bytes=2**30)
    assert len(read(tmp_path / "e.npz", max_bytes=2**30, max_ratio=2000)["a"]) == 10**6
    (tmp_path / "f.npz").write_bytes(b"PK nonsense")
    refused(tmp_path / "f.npz", "not an .npz file")
    refused(tmp_path / "absent.npz", "no such file; make it")
    refused(tmp_path, "damaged")


def test_a_flipped_bit_of_a_value_is_found(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(100.0))
    data = bytearray(buffer.getvalue())
    data[500] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    refused(tmp_path / "a.npz", "CRC")
