"""Disks that are full or read-only: one line, exit status 2, nothing half-done, and the same command resumes later."""

import subprocess

import numpy as np
import pytest

from mrcnn.feature_store import Cell, FeatureStore, FeatureStoreWriter
from mrcnn.files.atomic import OutputLock


def call(*command):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A folder that is a disk of 64 KB; `remount` changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    call("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
    yield folder
    call("umount", "--lazy", folder)


def remount(folder, options):
    call("mount", "-o", f"remount,{options}", folder)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_synth_on_a_full_disk(disk, aecfe, refused):
    command = ("synth", disk / "smears", "--centres", "north", "--images", 8, "--size", 64)
    error = refused(*command)
    assert error.startswith(f"{disk}/smears/north") and "make room" in error
    assert everything(disk) in ([], ["smears"])
    remount(disk, "size=4m")
    assert aecfe(*command) == 0


def test_store_on_a_full_disk_keeps_its_parts(disk):
    picture = np.zeros((128, 128, 3), np.uint8)
    box = np.array([1, 2, 30, 40], np.float32)
    cell = Cell(np.ones((14, 14, 256)), picture, picture, box, score=0.9, class_id=1, image_shape=(64, 64))
    path = disk / "north.h5"

    def write():
        with FeatureStoreWriter(path, centre="north", detector={"hash": "a"}, part_size=2) as writer:
            for number in range(10):
                if f"{number}.png" not in writer.done_ids:
                    writer.add(f"{number}.png", [cell])

    remount(disk, "size=1500k")
    with pytest.raises(OSError, match="No space left on device: .*/north.h5.parts/part-0000"):
        write()
    parts = everything(disk)
    assert len(parts) > 2 and all(name.startswith("north.h5.parts") and "tmp" not in name for name in parts)
    remount(disk, "size=16m")
    write()
    with FeatureStore(path) as store:
        assert store.image_ids.tolist() == [f"{number}.png" for number in range(10)]
        assert np.all(store.read("features", 0, 10) == 1)
    assert everything(disk) == ["north.h5"]


def test_evaluate_on_a_full_disk(disk, study_data, refused):
    remount(disk, "size=8k")
    error = refused("evaluate", *study_data[1].values(), "-o", disk / "table", "--runs", 1)
    assert error.startswith(f"{disk}/table") and "make room" in error
    assert not [name for name in everything(disk) if "tmp" in name]


def test_read_only_disk_is_refused_before_the_work(disk, refused):
    remount(disk, "ro")
    for command in ("train a.h5 -o {}/autoencoder", "embed autoencoder a.h5 -o {}/embedding.h5ad", "synth {}"):
        assert f"{disk} must not be written to" in refused(*command.format(disk).split()).replace(": this folder", "")
    for inside in (False, True):
        with pytest.raises(OSError, match="Read-only file system: .*/x"):
            OutputLock(disk / "x", inside=inside)
