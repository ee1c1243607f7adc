"""Places where nothing can be written are refused before the work."""

import os

import pytest

from mrcnn.files import output_paths
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import LONGEST_NAME, check_output_file, check_output_folder


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A working folder that holds the file `afile` and the folder `adir`."""
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "adir").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["new.csv", "afile", "adir/new.csv", "new/deep/er/x.csv", "n" * LONGEST_NAME])
def test_checks_take_what_can_be_written_and_make_nothing(places, path):
    before = sorted(places.rglob("*"))
    check_output_file(path)
    check_output_folder("adir" if path == "afile" else path)
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize(
    ("check", "path", "message"),
    [
        (check_output_file, "adir", "-o adir: is a folder; name a file"),
        (check_output_file, os.devnull, "is no file; name a file"),
        (check_output_file, "afile/x.csv", "afile is a file, and nothing can lie below it"),
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
