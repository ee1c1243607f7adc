"""Places where nothing can be written are refused before the work."""

import os

import pytest

from mrcnn.files import output_paths
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import LONGEST_NAME, check_output_file, check_output_folder, is_file_name


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
        (check_output_folder, "afile", "-o afile: is a file; name a folder"),
        (check_output_folder, "gone", "-o gone: is a file; name a folder"),
        (check_output_file, "closed/new/x", "closed must not be written to"),
        (check_output_folder, "closed", "closed: this folder must not be written to"),
    ],
)
def test_checks_refuse_where_nothing_can_be_written(places, monkeypatch, check, path, message):
    (places / "gone").symlink_to(places / "nowhere")
    (places / "closed").mkdir()
    # In place of a folder without the right, since the superuser has every right.
    monkeypatch.setattr(output_paths.os, "access", lambda path, mode: not str(path).endswith("closed"))
    with pytest.raises(InputError) as error:
        check(path)
    assert message in str(error.value)


def test_names_of_files_lead_nowhere():
    assert is_file_name("Center North 2")
    assert not any(map(is_file_name, ("", "../a", "a/b", "a\\b", ".a", "a\nb")))
