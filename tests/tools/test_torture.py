"""The tool that kills commands sees what is cut short, lost or different, and kills where it says."""

import importlib.util
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).parents[2] / "tools" / "torture.py"
    spec = importlib.util.spec_from_file_location("torture", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_output(folder, value=1.0, seconds=3):
    folder.mkdir()
    with h5py.File(folder / "north.h5", "w") as file:
        file["cells/score"] = np.array([value, np.nan], np.float16)
        file["cells/key"] = [b"a.png", b"b.png"]
    np.savez(folder / "step-1.npz", a=np.arange(3.0))
    (folder / "run.json").write_text(json.dumps({"seconds": seconds, "losses": [0.5]}))
    (folder / ".5.tmp.run.json").write_text("{")  # has not its final name
    return folder


def test_differences_are_what_is_lost_left_over_and_changed(tool, tmp_path):
    expected = tool.contents(write_output(tmp_path / "a"))
    assert tool.differences(expected, tool.contents(write_output(tmp_path / "b", seconds=4))) == []
    folder = write_output(tmp_path / "c", value=1.001)
    (folder / "step-1.npz").unlink()
    np.savez(folder / "step-2.npz", a=np.arange(3.0))
    found = tool.differences(expected, tool.contents(folder))
    assert found == ["step-1.npz:a: missing", "step-2.npz:a: left over", "north.h5:cells/score: differs"]


@pytest.mark.parametrize("name", ["north.h5", "step-1.npz", "run.json"])
def test_contents_fails_on_a_file_that_is_cut_short(tool, tmp_path, name):
    path = write_output(tmp_path / "out") / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Exception):  # noqa: B017  whatever the reader raises
        tool.contents(tmp_path / "out")


def work(arguments):
    """A command that writes ten files, one after the other."""
    for number in range(10):
        temporary = Path(arguments[0], ".tmp")
        temporary.touch()
        os.replace(temporary, Path(arguments[0], str(number)))
    return 0


def test_run_counts_file_operations_and_kills_before_one(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "aecfe", work)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    done = tool.run([str(tmp_path / "whole")], tmp_path / "log")
    assert done["status"] == 0 and done["operation"] == 10
    assert tool.run([str(tmp_path / "cut")], tmp_path / "log", operation=4)["status"] == -9
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [".tmp", "0", "1", "2"]
    assert tool.run([str(tmp_path / "cut")], tmp_path / "log", seconds=0)["status"] == -9
