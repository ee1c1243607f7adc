"""The tool that kills commands sees what is cut short, lost or different, and kills where it says."""

import importlib.util
import json
import os
import subprocess
import sys
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
        file["cells/image_id"] = [b"a.png", b"b.png"]
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
    for path in folder.glob("[!.]*"):
        path.write_bytes((whole := path.read_bytes())[: len(whole) // 2])
        with pytest.raises(Exception):  # noqa: B017  whatever the reader raises
            tool.contents(folder)
        path.write_bytes(whole)


RUNS = """
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path({tool}).parent))
import torture

def work(arguments):  # writes ten files, one after the other, but the slow one none
    if arguments[0] == "slow":
        time.sleep(100)
    for number in range(10):
        temporary = Path(arguments[0], ".tmp")
        temporary.touch()
        os.replace(temporary, Path(arguments[0], str(number)))
    return 0

torture.aecfe = work
for name, limit in (("whole", {{}}), ("cut", {{"operation": 4}}), ("slow", {{"seconds": 0.1}})):
    os.mkdir(name)
    done = torture.run([name], Path("log"), **limit)
    print(done["status"], done["operation"])
"""


def test_run_counts_file_operations_and_kills_before_one(tool, tmp_path):
    # In a process of its own: a process with the threads of TensorFlow and of the tests must not fork.
    command = [sys.executable, "-c", RUNS.format(tool=repr(tool.__file__))]
    root = str(Path(tool.__file__).parents[1])
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["0", "10", "-9", "0", "-9", "0"], done.stderr
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [".tmp", "0", "1", "2"]
