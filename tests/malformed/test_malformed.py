"""No malformed input ends in a traceback, a hang or a wrong value: the cases of every module beside this file."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOOL = HERE.parents[1] / "tools" / "malformed.py"


def run(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


@pytest.mark.parametrize("module", sorted(p.stem for p in HERE.glob("*_cases.py") if p.stem != "run_cases"))
def test_no_malformed_input_is_read_badly(module):
    done = run("--module", module)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


CASES = """
import time
from pathlib import Path

from case import Case, file_of
from mrcnn.errors import InputError

AT_LEAST = {at_least}
MAX_SECONDS = 3
MAX_MEMORY = 200_000_000


def read(path):
    name = path.name
    if name == "traceback":
        raise KeyError("a")
    if name == "hang":
        time.sleep(60)
    if name == "crash":
        import os
        os.abort()
    if name == "memory":
        return len(b"a" * 300_000_000)
    if name == "greedy":
        return bytearray(50_000_000_000)
    if name == "nameless":
        raise InputError("something is wrong")
    if name == "outside":
        (path.parent.parent / "stray").write_text("a")
    if name == "refused":
        raise InputError("refused: as it must be")
    return 1


READERS = {{"read": read}}


def is_one(value):
    assert value == 1


def cases(reader, seed):
    for name in {names}:
        yield Case(name, file_of(name, b""), "refused" if name in {refused} else "accepted", is_one)
"""


def table_of(tmp_path, names, refused=(), at_least=1):
    path = tmp_path / "made_cases.py"
    path.write_text(CASES.format(names=names, refused=refused, at_least=at_least))
    return run("--module", path)


def test_every_way_to_read_badly_is_found(tmp_path):
    bad = ["traceback", "crash", "memory", "greedy", "nameless", "outside", "silent"]
    done = table_of(tmp_path, ["good", *bad, "refused"], refused=["refused", "nameless", "silent"])
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].split() == ["all", "9", "1", "1", "7"]
    reasons = dict(line.split(": ")[1:3] for line in done.stderr.splitlines())
    assert list(reasons) == bad
    assert reasons["silent"].startswith("accepted instead of refused")
    assert "0.3 GB" in reasons["memory"]
    assert reasons["outside"] == "made stray outside its folder"


def test_a_hang_is_found_and_the_rest_still_runs(tmp_path):
    done = table_of(tmp_path, ["hang", "good"])
    assert "read: hang: no end after 3 s" in done.stderr
    assert done.stdout.splitlines()[-1].split() == ["all", "2", "0", "1", "1"]


def test_too_few_cases_are_a_failure(tmp_path):
    done = table_of(tmp_path, ["good"], at_least=2)
    assert done.returncode == 1 and "only 1 cases instead of 2" in done.stderr
