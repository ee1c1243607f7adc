"""HDF5 files: one clean error on a full disk, and arrays inside of a file itself or nothing."""

import os
from unittest.mock import MagicMock

import h5py
import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import atomic_hdf5, load_weights, open_plain, read_note, save_weights

ROWS = np.arange(40 * 1024, dtype=np.int32).reshape(40, 1024)


def fill(file):
    """Chunks with checksums, strings, groups and attributes, as feature stores have them."""
    file.create_group("cells").create_dataset("features", ROWS.shape, ROWS.dtype, chunks=(1, 1024), fletcher32=True)
    file.attrs["format"] = "test"
    for start in range(0, 40, 8):
        file["cells"]["features"][start : start + 8] = ROWS[start : start + 8]
        file.flush()
    file.create_group("images").create_dataset("image_id", data=np.array([b"%d.png" % i for i in range(40)]))


@pytest.mark.parametrize("version", ["earliest", "v110"])
def test_file_holds_what_was_written(tmp_path, version):
    with atomic_hdf5(tmp_path / "new" / "a.h5", version) as file:
        fill(file)
        assert not (tmp_path / "new" / "a.h5").exists()
    with h5py.File(tmp_path / "new" / "a.h5", "r") as file:
        np.testing.assert_array_equal(file["cells/features"][...], ROWS)
        assert file["images/image_id"][39] == b"39.png" and file.attrs["format"] == "test"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.h5"]


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_what_hdf5_says_of_a_full_disk_becomes_one_line(tmp_path, kind):
    text = f"Unable to flush (file write failed: time = now\n, filename = '{tmp_path}/.1.tmp.x', errno = 122, error"
    with pytest.raises(OSError) as raised, atomic_hdf5(tmp_path / "x.h5") as file:
        fill(file)
        raise kind(text)
    assert str(raised.value) == f"[Errno 122] {os.strerror(122)}: '{tmp_path / 'x.h5'}'"
    assert not list(tmp_path.iterdir())


def test_save_weights_asks_for_room_first(tmp_path, monkeypatch):
    model = MagicMock(optimizer=None, variables=[])
    model.save_weights = lambda path: path.write_bytes(b"weights")
    path = tmp_path / "a.weights.h5"
    save_weights(model, path)
    assert path.read_bytes() == b"weights"
    path.unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: MagicMock(free=100))
    with pytest.raises(OSError, match="No space left on device: .*/a.weights.h5'"):
        save_weights(model, path)
    assert not list(tmp_path.iterdir())


def make(path, change=lambda file: None):
    with h5py.File(path, "w") as file:
        file.create_group("layers/a/vars")["0"] = np.ones((3, 2), np.float32)
        file["layers"].attrs["names"] = np.array([b"a"])
        change(file)
    return path


def refused(path, reason):
    with pytest.raises(InputError, match=reason) as caught:
        load_weights(MagicMock(), path, advice="get it again")
    assert str(caught.value).startswith(str(path)) and len(str(caught.value).splitlines()) == 1


def test_plain_files_are_let_through(tmp_path):
    path = make(tmp_path / "a.h5", lambda f: f.create_dataset("c", data=np.eye(99), compression="gzip", chunks=(9, 9)))
    load_weights(MagicMock(), path, advice="")
    load_weights(MagicMock(), make(path, lambda f: f.create_dataset("empty", (0, 3))), advice="")
    load_weights(MagicMock(), make(path, lambda f: f.create_dataset("texts", data=["a", "b" * 100])), advice="")
    load_weights(MagicMock(), make(path, lambda f: f.__setitem__("layers/up", f["/"])), advice="")  # a way in circles


def virtual(file):
    layout = h5py.VirtualLayout((3,), "float32")
    layout[...] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.__setitem__("x", h5py.SoftLink("/layers")), "x lies elsewhere"),
        (lambda f: f.__setitem__("layers/x", h5py.ExternalLink("/etc/hostname", "/")), "layers/x lies elsewhere"),
        (lambda f: f.create_dataset("x", (3,), "f4", external=[("/etc/hostname", 0, 12)]), "in another file"),
        (virtual, "in another file"),
        (lambda f: f.create_dataset("x", (2**40, 3), "f4", chunks=(100, 3)), "does not hold it"),
        (lambda f: f.create_dataset("x", (2**30,), "f4", chunks=(100,), compression="gzip"), "does not hold it"),
        (lambda f: f.create_dataset("x", (3,), "f4", chunks=(2**23,), maxshape=(None,)), "chunks larger than itself"),
        (lambda f: f.create_dataset("x", (3,), h5py.ref_dtype), "not numbers"),
        (lambda f: f.create_dataset("x", data=np.zeros(3, "V4")), "not numbers"),
    ],
)
def test_everything_else_is_refused(change, reason, tmp_path):
    refused(make(tmp_path / "a.h5", change), reason)


def test_files_that_are_none_are_refused(tmp_path):
    refused(tmp_path / "absent.h5", "no such file; get it again")
    refused(tmp_path, "damaged or refused")
    (tmp_path / "a.h5").write_text("text")
    refused(tmp_path / "a.h5", "damaged or refused")
    data = make(tmp_path / "c.h5").read_bytes()
    (tmp_path / "c.h5").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "c.h5", "damaged or refused")
    with pytest.raises(InputError, match="damaged or refused"), open_plain(make(tmp_path / "d.h5"), advice=""):
        raise KeyError("nothing of this name")


def test_read_note_reads_one_text_and_nothing_else(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["uns/run"] = "text"
        file["uns/number"] = 3
        file["obs"] = h5py.ExternalLink("/etc/hostname", "/")
    assert read_note(path, "uns/run") == "text"
    for name in ("uns/number", "uns/none", "uns", "obs", "obs/x"):
        with pytest.raises(InputError, match=f"a.h5: .*; it has no text {name}"):
            read_note(path, name)
