"""The tool that kills commands sees what is cut short, doubled, lost or left over, and kills where it says."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrcnn.feature_store import Cell, FeatureStoreWriter

TOOLS = Path(__file__).parents[2] / "tools" / "torture"


@pytest.fixture(scope="module")
def tool():
    """The modules `commands` and `inspect_files` of the tool."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import commands
        import inspect_files

        yield commands, inspect_files
        for name in ("commands", "inspect_files"):
            sys.modules.pop(name)


def write_store(path, keys, level=1.0):
    cell = Cell(
        features=np.full((14, 14, 256), level),
        crop=np.zeros((128, 128, 3), np.uint8),
        image=np.zeros((128, 128, 3), np.uint8),
        box=np.array([1, 2, 30, 40], np.float32),
        score=0.9,
        class_id=1,
        image_shape=(64, 64),
    )
    with FeatureStoreWriter(path, centre="north", detector={"hash": "a"}) as writer:
        for key in keys:
            writer.add(key, [cell])


def write_output(folder):
    (folder / "autoencoder" / "checkpoints").mkdir(parents=True)
    write_store(folder / "north.h5", ["a.png", "b.png"])
    (folder / "autoencoder" / "run.json").write_text(json.dumps({"seconds": folder.name, "losses": [0.5]}))
    (folder / "autoencoder" / "log.csv").write_text(f"step\n1\n{folder.name}")
    np.savez(folder / "autoencoder" / "checkpoints" / "step-00000001.npz", a=np.arange(3.0))
    with h5py.File(folder / "autoencoder" / "weights.weights.h5", "w") as file:
        for number in range(12):
            file[f"layers/{number}"] = np.full(4, number, np.float32)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "name",
    [
        "north.h5",
        "autoencoder/run.json",
        "autoencoder/checkpoints/step-00000001.npz",
        "autoencoder/weights.weights.h5",
    ],
)
def test_check_whole_finds_a_file_that_is_cut_short(tool, tmp_path, name):
    folder = write_output(tmp_path / "out")
    (folder / "autoencoder" / ".5.tmp.run.json").write_text("{")  # has not its final name
    there, faults = tool[1].check_whole(folder)
    assert not faults and name in there and "tmp" not in there
    cut(folder / name)
    (fault,) = tool[1].check_whole(folder)[1]
    assert fault.startswith(name)


def test_check_whole_finds_a_changed_byte_and_an_unknown_file(tool, tmp_path):
    folder = write_output(tmp_path / "out")
    data = bytearray((folder / "north.h5").read_bytes())
    data[len(data) // 2] ^= 255
    (folder / "north.h5").write_bytes(data)
    (folder / "core").touch()
    faults = tool[1].check_whole(folder)[1]
    assert [fault.partition(":")[0] for fault in faults] == ["core", "north.h5"]
    assert tool[1].check_whole(tmp_path / "missing") == ("nothing", [])


def test_compare_takes_two_runs_for_the_same_but_for_their_times(tool, tmp_path):
    assert tool[1].compare(write_output(tmp_path / "a"), write_output(tmp_path / "b")) == []


def test_compare_finds_what_is_lost_left_over_and_different(tool, tmp_path):
    expected, folder = write_output(tmp_path / "a"), write_output(tmp_path / "b")
    (folder / "autoencoder" / "run.json").unlink()
    np.savez(folder / "autoencoder" / "checkpoints" / "step-00000001.npz", a=np.arange(3.0) + 1e-12)
    (folder / "north.h5").unlink()
    write_store(folder / "north.h5", ["b.png", "a.png"])
    (folder / ".7.tmp.north.h5").touch()
    differences = tool[1].compare(expected, folder)
    assert [text.partition(":")[0] for text in differences] == [
        "autoencoder/run.json",
        ".7.tmp.north.h5",
        "autoencoder/checkpoints/step-00000001.npz",
        "north.h5",
    ]
    assert "is missing" in differences[0] and "is left over" in differences[1]


def work(arguments):
    """A command that writes ten files, one after the other."""
    folder = Path(arguments[0])
    folder.mkdir(exist_ok=True)
    for number in range(10):
        temporary = folder / f".tmp.{number}"
        temporary.touch()
        os.replace(temporary, folder / str(number))
        time.sleep(float(arguments[1]))
    return 0


def run(commands, folder, monkeypatch, kill=None, seconds=0.0):
    monkeypatch.setattr(commands, "main", work)
    command = commands.Command([str(folder), str(seconds)], folder, kill)
    status = commands.start(command).wait(60)
    return command, status, sorted(p.name for p in folder.iterdir())


def test_command_counts_its_file_operations_and_is_killed_before_one(tool, tmp_path, monkeypatch):
    commands = tool[0]
    command, status, names = run(commands, tmp_path / "whole", monkeypatch)
    assert status == 0 and not command.was_killed and command.operations == 10 and len(names) == 10
    command, status, names = run(commands, tmp_path / "cut", monkeypatch, commands.Kill(operation=4))
    assert status == -9 and command.was_killed and names == [".tmp.3", "0", "1", "2"]


def test_command_is_killed_at_a_moment(tool, tmp_path, monkeypatch):
    commands = tool[0]
    kill = commands.Kill(after=0.2, after_first_file=True)
    command, status, names = run(commands, tmp_path / "cut", monkeypatch, kill, seconds=0.1)
    assert status == -9 and command.was_killed and 0 < len(names) < 10
    command, status, names = run(commands, tmp_path / "late", monkeypatch, commands.Kill(after=60.0))
    assert status == 0 and not command.was_killed


@pytest.mark.slow
def test_torture_of_a_few_kills_finds_nothing(tmp_path):
    command = [sys.executable, f"{TOOLS}.py", "--kills", "4", "--stages", "extract", "embed"]
    done = subprocess.run([*command, "--folder", str(tmp_path / "work")], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill ") == 4 and "as undisturbed" in done.stdout
