"""Places where nothing can be written: refused before the work, or told in one line."""

import errno
import os

import pytest
from PIL import Image

from aecfe.cli import main
from aecfe.commands import actions as commands
from aecfe.commands import detector_actions as commands_detector
from mrcnn.files import output_paths
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import LONGEST_NAME, check_output_file, check_output_folder


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A working folder that holds the file `afile`, the folder `adir` and a folder `images` with one image."""
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "adir").mkdir()
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def error_of(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("path", ["new.csv", "afile", "adir/new.csv", "new/deep/er/x.csv", "n" * LONGEST_NAME])
def test_check_output_file_takes_what_can_be_written_and_makes_nothing(places, path):
    before = sorted(places.rglob("*"))
    check_output_file(path)
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize("path", ["adir", "new", "new/deep", "adir/new"])
def test_check_output_folder_takes_what_can_be_written_and_makes_nothing(places, path):
    before = sorted(places.rglob("*"))
    check_output_folder(path)
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize(
    ("check", "path", "message"),
    [
        (check_output_file, "adir", "-o adir: is a folder; name a file"),
        (check_output_file, os.devnull, "is no ordinary file"),
        (check_output_file, "afile/x.csv", "afile is a file, and nothing can lie below it"),
        (check_output_file, "afile/deep/x.csv", "afile is a file, and nothing can lie below it"),
        (check_output_file, "n" * (LONGEST_NAME + 1), "a name of more than 240 bytes"),
        (check_output_file, "ä" * LONGEST_NAME, "a name of more than 240 bytes"),
        (check_output_file, "n" * 300 + "/x.csv", "a name of more than 240 bytes"),
        (check_output_folder, "afile", "-o afile: is a file; name a folder"),
        (check_output_folder, "afile/new", "afile is a file, and nothing can lie below it"),
        (check_output_folder, "gone", "-o gone: is a file; name a folder"),
    ],
)
def test_checks_refuse_where_nothing_can_be_written(places, check, path, message):
    (places / "gone").symlink_to(places / "nowhere")
    with pytest.raises(InputError) as error:
        check(path)
    assert message in str(error.value)


def test_checks_refuse_folders_that_must_not_be_written_to(places, monkeypatch):
    # In place of a folder without the right, since the superuser has every right.
    monkeypatch.setattr(output_paths.os, "access", lambda path, mode: not str(path).endswith("adir"))
    for check, path in (
        (check_output_file, "adir/new/x"),
        (check_output_folder, "adir/x"),
        (check_output_folder, "adir"),
    ):
        with pytest.raises(InputError, match="adir must not be written to|adir: this folder must not be written to"):
            check(path)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("detect images --detector d --csv afile/c.csv", "--csv afile/c.csv: "),
        ("detect images --detector d --csv adir", "--csv adir: is a folder"),
        ("detect images --detector d --labels afile/c", "--labels afile/c: "),
        ("detect images --detector d --overlay afile", "--overlay afile: is a file"),
        ("extract images --detector d -o afile/x.h5", "-o afile/x.h5: "),
        ("extract images --detector d -o afile/x.h5 --shard 1/2", "-o afile/x.shard-1-of-2.h5: "),
        ("extract images --detector d -o adir --overwrite", "-o adir: is a folder"),
        ("join a.h5 b.h5 -o adir --overwrite", "-o adir: is a folder"),
        ("join a.h5 b.h5 -o afile/x.h5", "-o afile/x.h5: "),
        ("detector evaluate d images -o adir", "-o adir: is a folder"),
        ("detector evaluate d images -o afile/x.json", "-o afile/x.json: "),
        ("detector train images -o afile", "-o afile: is a file"),
        ("detector train images -o afile/d", "-o afile/d: "),
        ("export detector d afile/x", "afile/x: "),
        ("train a.h5 -o afile/x", "-o afile/x: "),
        ("embed ae a.h5 -o adir", "-o adir: is a folder"),
        ("evaluate a.h5 -o afile", "-o afile: is a file"),
        ("synth afile/x", "afile/x: "),
        ("run run.yaml -o afile/x", "-o afile/x: "),
    ],
)
def test_commands_check_their_output_before_anything_else(places, capsys, command, message):
    (places / "run.yaml").write_text("centres: {one: {root: images}}\ndetector: {train_on: [one]}\n")
    before = sorted(places.rglob("*"))
    assert run(*command.split()) == 2
    error = error_of(capsys)
    assert error.startswith("aecfe: error: ") and message in error
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
def test_main_tells_what_the_system_refuses_in_one_line(tmp_path, monkeypatch, capsys, error, message):
    def fail(arguments):
        raise error

    monkeypatch.setattr(commands, "report", fail)
    assert run("report", tmp_path) == 2
    assert error_of(capsys).startswith(f"aecfe: error: {message}")


def test_main_keeps_the_traceback_of_other_errors_of_the_system(tmp_path, monkeypatch):
    def fail(arguments):
        raise OSError("unknown")

    monkeypatch.setattr(commands, "report", fail)
    with pytest.raises(OSError, match="unknown"):
        run("report", tmp_path)


def test_evaluate_prints_before_it_writes(places, monkeypatch, capsys):
    def fill_the_disk(path, value):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    measured = {"images": {"truth": "presence", "detection_rate": 0.875}}
    monkeypatch.setattr("experiments.cells.detector.evaluate_detector", lambda *a, **k: measured)
    monkeypatch.setattr(commands_detector, "write_json", fill_the_disk)
    assert run("detector", "evaluate", "d", "images", "-o", "x.json") == 2
    printed = capsys.readouterr()
    assert "0.8750" in printed.out and "x.json: No space left" in printed.err
