"""Disks that are full or read-only: one line, exit status 2, nothing half-done, and the same command goes on later."""

import csv
import subprocess

import numpy as np
import pytest

from aecfe.cli import main
from mrcnn.feature_store import Cell, FeatureStore, FeatureStoreWriter
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError


class SmallDisk:
    """A file system in memory that gets full, mounted on a folder."""

    def __init__(self, folder, size):
        self.folder = folder
        folder.mkdir()
        self._call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)

    def change(self, options):
        """Mount it again with other options, such as size=64m or ro."""
        self._call("mount", "-o", f"remount,{options}", self.folder)

    def unmount(self):
        self._call("umount", "--lazy", self.folder)

    def _call(self, *command):
        subprocess.run(command, capture_output=True, check=True)


@pytest.fixture
def disk(tmp_path):
    """Function of a size in bytes that mounts a disk of it."""
    mounted = []

    def mount(size):
        try:
            mounted.append(SmallDisk(tmp_path / f"disk{len(mounted)}", size))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no disk can be mounted here: {error}")
        return mounted[-1]

    yield mount
    for each in mounted:
        each.unmount()


def run(*arguments):
    return main([str(argument) for argument in arguments])


def last_line(capsys):
    return capsys.readouterr().err.strip().rpartition("\n")[2]


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_store(path, num_images):
    cell = Cell(
        features=np.ones((14, 14, 256)),
        crop=np.zeros((128, 128, 3), np.uint8),
        image=np.zeros((128, 128, 3), np.uint8),
        box=np.array([1, 2, 30, 40], np.float32),
        score=0.9,
        class_id=1,
        image_shape=(64, 64),
    )
    with FeatureStoreWriter(path, centre="north", detector={"hash": "a"}, part_size=2) as writer:
        for number in range(num_images):
            if f"{number}.png" not in writer.done_keys:
                writer.add(f"{number}.png", [cell])


def test_store_on_a_full_disk_keeps_its_parts(disk):
    small = disk(1_500_000)
    path = small.folder / "north.h5"
    with pytest.raises(OSError, match="No space left on device: .*/north.h5.parts/part-0000"):
        write_store(path, 10)
    parts = everything(small.folder)
    assert len(parts) > 2 and all(name.startswith("north.h5.parts") and "tmp" not in name for name in parts)
    for name in parts[1:]:
        FeatureStore(small.folder / name).close()
    small.change("size=16m")
    write_store(path, 10)
    with FeatureStore(path) as store:
        assert store.keys.tolist() == [f"{number}.png" for number in range(10)]
        assert np.all(store.read("features", 0, 10) == 1)
    assert everything(small.folder) == ["north.h5"]


def test_train_on_a_full_disk_goes_on_once_there_is_room(disk, study_data, capsys):
    small = disk(300 * 1024)
    steps = ["--steps", 2, "--batch-size", 4, "--image-size", 32, "--set=log_every=1", "--set=checkpoint_every=1"]
    command = ("train", *study_data[1].values(), "-o", small.folder / "ae", *steps)
    assert run(*command) == 2
    error = last_line(capsys)
    assert error.startswith(f"aecfe: error: {small.folder}/ae") and "make room" in error
    assert not [name for name in everything(small.folder) if "tmp" in name or "lock" in name]
    assert not (small.folder / "ae" / "weights.weights.h5").exists()
    small.change("size=256m")
    assert run(*command) == 0
    with open(small.folder / "ae" / "log.csv", newline="") as handle:
        assert [row["step"] for row in csv.DictReader(handle)] == ["1", "2"]


def test_curves_on_a_full_disk_are_one_line(disk):
    from mrcnn.files.tensorboard import SummaryWriter

    small = disk(8 * 1024)
    writer = SummaryWriter(small.folder / "tensorboard")
    with pytest.raises(OSError, match="No space left on device: .*/tensorboard"):
        for step in range(1000):
            writer.write({f"loss {number}": 1.0 for number in range(20)}, step)
    writer.close()
    small.change("ro")
    with pytest.raises(InputError, match="tensorboard: cannot be written .*choose another place") as error:
        SummaryWriter(small.folder / "more" / "tensorboard").write({"a": 1.0}, 1)
    assert "\n" not in str(error.value)


def test_evaluate_on_a_full_disk(disk, study_data, capsys):
    small = disk(8 * 1024)
    command = ("evaluate", *study_data[1].values(), "-o", small.folder / "table", "--runs", 1)
    assert run(*command) == 2
    error = last_line(capsys)
    assert error.startswith(f"aecfe: error: {small.folder}/table") and "make room" in error
    assert not [name for name in everything(small.folder) if "tmp" in name or "lock" in name]


COMMANDS = [
    "extract centre --detector d -o {}/new/north.h5 --shard 1/2",
    "detector train centre -o {}/detector",
    "embed autoencoder a.h5 -o {}/embedding.h5ad",
    "evaluate a.h5 -o {}",
    "run run.yaml -o {}/run",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_read_only_disk_is_refused_before_the_work(disk, tmp_path, monkeypatch, capsys, command):
    small = disk(64 * 1024)
    small.change("ro")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("centres: {one: {root: images}}\ndetector: {train_on: [one]}\n")
    assert run(*command.format(small.folder).split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aecfe: error: ") and str(small.folder) in line and "must not be written to" in line


def test_lock_names_the_output_where_nothing_can_be_written(disk):
    small = disk(64 * 1024)
    small.change("ro")
    for inside in (False, True):
        with pytest.raises(InputError, match=r"/x: cannot be written \(Read-only file system\); choose another place"):
            OutputLock(small.folder / "x", inside=inside)
