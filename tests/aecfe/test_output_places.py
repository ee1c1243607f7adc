"""Commands refuse places where nothing can be written before the work, and tell what the system refuses in one line."""

import errno

import pytest
from PIL import Image

from aecfe.commands import run as run_commands


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A working folder that holds the file `afile`, the folder `adir` and a folder `images` with one image."""
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "adir").mkdir()
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("detect images --detector d --csv afile/c.csv", "--csv afile/c.csv: "),
        ("detect images --detector d --overlay afile", "--overlay afile: is a file"),
        ("extract images --detector d -o afile/x.h5", "-o afile/x.h5: "),
        ("extract images --detector d -o afile/x.h5 --shard 1/2", "-o afile/x.shard-1-of-2.h5: "),
        ("merge a.h5 b.h5 -o adir --overwrite", "-o adir: is a folder"),
        ("detector evaluate d images -o adir", "-o adir: is a folder"),
        ("detector train images -o afile", "-o afile: is a file"),
        ("export detector d afile/x", "afile/x: "),
        ("train a.h5 -o afile/x", "-o afile/x: "),
        ("embed ae a.h5 -o adir", "-o adir: is a folder"),
        ("evaluate a.h5 -o afile", "-o afile: is a file"),
        ("synth afile/x", "afile/x: "),
        ("run run.yaml -o afile/x", "-o afile/x: "),
    ],
)
def test_commands_check_their_output_before_anything_else(places, refused, command, message):
    (places / "run.yaml").write_text("centres: {one: {root: images}}\ndetector: {train_on: [one]}\n")
    before = sorted(places.rglob("*"))
    assert message in refused(*command.split())
    assert sorted(places.rglob("*")) == before and (places / "afile").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EACCES, "Permission denied", "a/x"), "a/x: Permission denied; choose another place"),
        (OSError(errno.EISDIR, "Is a directory", "a/.1.tmp.x", None, "a/x"), "a/x: Is a directory; choose another"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (OSError(errno.ENOSPC, "No space left on device", b"a/x"), "a/x: No space left on device; make room"),
    ],
)
def test_main_tells_what_the_system_refuses_in_one_line(tmp_path, monkeypatch, refused, error, message):
    def fail(arguments):
        raise error

    monkeypatch.setattr(run_commands, "report", fail)
    assert refused("report", tmp_path).startswith(message)
