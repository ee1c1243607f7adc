"""HDF5 on a disk that gets full: one clean error, nothing under the final name, nothing said by the way."""

import errno
import io
import os
import sys

import h5py
import numpy as np
import pytest

from mrcnn.files import hdf5 as hdf5_files
from mrcnn.files.atomic import atomic_path
from mrcnn.files.hdf5 import atomic_hdf5, save_weights

ROWS = np.arange(40 * 1024, dtype=np.int32).reshape(40, 1024)


def fill(file, check):
    """Chunks with checksums, strings, groups and attributes, as stores have them."""
    cells = file.create_group("cells")
    cells.create_dataset("features", ROWS.shape, ROWS.dtype, chunks=(1, 1024), fletcher32=True)
    file.attrs["format"] = "test"
    for start in range(0, 40, 8):
        file["cells"]["features"][start : start + 8] = ROWS[start : start + 8]
        check()
    file.create_group("images").create_dataset("key", data=np.array([b"%d.png" % i for i in range(40)]))


@pytest.fixture
def ignored(monkeypatch):
    """Errors that HDF5's objects raise where nobody can catch them."""
    found = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


class Disk(io.FileIO):
    """A file on a disk that takes `room` bytes."""

    room, is_full_for = 0, 10**9

    def __init__(self, path, mode, buffering):
        assert buffering == 0
        super().__init__(path, mode)

    def write(self, data):
        if Disk.room <= 0 and Disk.is_full_for > 0:
            Disk.is_full_for -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = len(data) if Disk.room <= 0 else min(len(data), Disk.room)
        Disk.room -= taken
        return super().write(data[:taken])


@pytest.fixture
def disk(monkeypatch):
    """Function that lets the disk take so many bytes, and be full for so many writes then."""

    def limit(room, is_full_for=10**9):
        monkeypatch.setattr(Disk, "room", room)
        monkeypatch.setattr(Disk, "is_full_for", is_full_for)
        monkeypatch.setattr(hdf5_files, "open", Disk, raising=False)

    return limit


def test_file_holds_what_was_written(tmp_path, ignored):
    with atomic_hdf5(tmp_path / "new" / "a.h5") as (file, check):
        fill(file, check)
        assert not (tmp_path / "new" / "a.h5").exists()
    with h5py.File(tmp_path / "new" / "a.h5", "r") as file:
        np.testing.assert_array_equal(file["cells/features"][...], ROWS)
        assert file["images/key"][39] == b"39.png" and file.attrs["format"] == "test"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.h5"] and not ignored


@pytest.mark.parametrize("room", [0, 7, 100, 600, 2048, 5000, 30_000, 100_000, 150_000, 160_000, 163_840, 165_000])
def test_full_disk_is_one_clean_error_wherever_it_comes(tmp_path, disk, capfd, ignored, room):
    disk(room)
    with pytest.raises(OSError, match="No space left on device") as raised, atomic_hdf5(tmp_path / "a.h5") as writing:
        fill(*writing)
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir()) and not ignored and not capfd.readouterr().err


@pytest.mark.parametrize("room", [1, 2048, 50_000, 120_000])
def test_disk_that_is_full_for_a_moment_leaves_no_gap(tmp_path, disk, ignored, room):
    disk(room, is_full_for=1)
    with pytest.raises(OSError, match="No space left on device"), atomic_hdf5(tmp_path / "a.h5") as (file, _):
        fill(file, lambda: None)  # though nobody looks
    assert Disk.is_full_for == 0 and not list(tmp_path.iterdir()) and not ignored


def test_what_the_disk_did_not_take_is_read_back(tmp_path):
    with open(tmp_path / "x", "wb+", buffering=0) as handle:
        stream = hdf5_files._Stream(handle)
        stream.write(b"abcdef")
        stream.error = OSError(errno.ENOSPC, "full")
        for place, data in ((4, b"EFGH"), (10, b"xy"), (5, b"f")):
            stream.seek(place)
            stream.write(data)
        assert stream.seek(0, os.SEEK_END) == 12
        stream.seek(2)
        assert stream.read(10) == b"cdEfGH\x00\x00xy" and stream.tell() == 12
        with pytest.raises(OSError, match="full"):
            stream.check()


class Variable:
    """Three float32 numbers."""

    def __init__(self):
        self.value = self
        self.dtype, self.shape, self.size = self, self, 4

    def num_elements(self):
        return 3


class Model:
    """A model of two variables with an optimiser of one."""

    def __init__(self, optimizer=None):
        self.variables = [Variable(), Variable()]
        if optimizer is not None:
            self.optimizer = optimizer

    def save_weights(self, path):
        path.write_bytes(b"weights")


def test_save_weights_asks_for_room_first(tmp_path, monkeypatch):
    asked = []

    def reserve(handle, start, size):
        asked.append(size - hdf5_files._ROOM_FOR_NAMES)
        if len(asked) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hdf5_files.os, "posix_fallocate", reserve, raising=False)
    path = tmp_path / "a.weights.h5"
    save_weights(Model(), path)
    save_weights(Model(Model()), path)
    assert asked == [24, 48] and path.read_bytes() == b"weights"
    path.unlink()
    with pytest.raises(OSError, match="No space left on device: .*/a.weights.h5'"):
        save_weights(Model(), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
@pytest.mark.parametrize("is_cause", [False, True])
def test_atomic_path_makes_one_line_of_what_hdf5_says(tmp_path, kind, is_cause):
    text = f"Can't decrement id ref count (file write failed: time = now\n, filename = '{tmp_path}/.1.tmp.x', file "
    text += "descriptor = 6, errno = 122, error message = 'Disk quota exceeded', buf = 0x1, offset = 9)"
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "x") as temporary:
        temporary.write_bytes(b"half")
        if is_cause:
            raise RuntimeError("unable to close") from kind(text)
        raise kind(text)
    assert str(raised.value) == f"[Errno 122] {os.strerror(122)}: '{tmp_path / 'x'}'"
    assert not list(tmp_path.iterdir())
