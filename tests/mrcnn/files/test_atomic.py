import errno
import json

import pytest

from mrcnn.files.atomic import (
    OutputLock,
    atomic_folder,
    atomic_path,
    remove_leftovers,
    tidy_folder,
    write_json,
    write_text,
)
from mrcnn.files.errors import InputError


def test_atomic_path_appears_only_when_the_block_ends(tmp_path):
    final = tmp_path / "new" / "model.weights.h5"
    with atomic_path(final) as temporary:
        assert temporary.parent == final.parent and temporary.name.endswith(".weights.h5")
        temporary.write_bytes(b"whole")
        assert not final.exists()
    assert final.read_bytes() == b"whole"
    assert [p.name for p in final.parent.iterdir()] == ["model.weights.h5"]


def test_atomic_path_keeps_the_old_file_on_an_error(tmp_path):
    final = tmp_path / "log.csv"
    final.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(final) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_atomic_path_complains_when_nothing_was_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())


def write_folder(folder, text, **options):
    with atomic_folder(folder, "model.pb", **options) as temporary:
        (temporary / "parts").mkdir()
        (temporary / "parts" / "model.txt").write_text(text)
        (temporary / "model.pb").write_text(text)
        assert temporary.parent == folder.parent and temporary != folder


def test_atomic_folder_appears_only_when_the_block_ends(tmp_path):
    final = tmp_path / "models" / "1"
    with atomic_folder(final, "model.pb") as temporary:
        (temporary / "model.pb").touch()
        assert not final.exists()
    assert [p.name for p in final.iterdir()] == ["model.pb"]
    assert list(final.parent.iterdir()) == [final]


def test_atomic_folder_replaces_the_whole_older_one_when_asked(tmp_path):
    write_folder(tmp_path / "1", "old")
    (tmp_path / "1" / "extra").touch()
    with pytest.raises(InputError, match="--overwrite"):
        write_folder(tmp_path / "1", "new")
    assert (tmp_path / "1" / "model.pb").read_text() == "old"
    write_folder(tmp_path / "1", "new", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "1").rglob("*")) == ["model.pb", "model.txt", "parts"]
    assert (tmp_path / "1" / "parts" / "model.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "1"]


def test_atomic_folder_takes_an_empty_folder_but_no_other(tmp_path):
    (tmp_path / "1").mkdir()
    write_folder(tmp_path / "1", "new")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    (tmp_path / "file").touch()
    for name in ("letters", "file"):
        with pytest.raises(InputError, match="holds something else"):
            write_folder(tmp_path / name, "new", overwrite=True)
    assert (tmp_path / "letters" / "a.txt").exists() and (tmp_path / "file").is_file()


def test_atomic_folder_keeps_the_old_one_on_an_error(tmp_path):
    write_folder(tmp_path / "1", "old")
    with (
        pytest.raises(RuntimeError, match="stop"),
        atomic_folder(tmp_path / "1", "model.pb", overwrite=True) as temporary,
    ):
        (temporary / "model.pb").touch()
        raise RuntimeError("stop")
    assert (tmp_path / "1" / "model.pb").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "1"]


def test_write_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Zellgröße µm\n")
    assert (tmp_path / "a.txt").read_bytes() == "Zellgröße µm\n".encode()


def test_write_json_round_trip_keeps_the_order(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"c": "ä"}}
    write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert read == value and list(read) == ["b", "a"]


def test_write_json_leaves_nothing_behind_when_a_value_has_no_json_form(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_atomic_path_names_the_file_of_an_error_that_names_none(tmp_path):
    with pytest.raises(OSError, match="No space left on device: .*weights.h5") as caught:
        with atomic_path(tmp_path / "weights.h5") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "weights.h5")
    assert not list(tmp_path.iterdir())


def test_remove_leftovers_removes_what_killed_processes_had_begun(tmp_path):
    for name in ("a.h5", ".7.tmp.a.h5", ".8.tmp.a.h5", ".7.tmp.b.h5", ".hidden", ".tmp.a.h5", ".x.tmp.a.h5"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".9.tmp.a.h5").mkdir()
    (tmp_path / ".9.tmp.a.h5" / "inside").touch()
    remove_leftovers(tmp_path, "a.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".7.tmp.b.h5", ".hidden", ".tmp.a.h5", ".x.tmp.a.h5", "a.h5"]
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", ".tmp.a.h5", ".x.tmp.a.h5", "a.h5"]
    remove_leftovers(tmp_path / "missing")


def test_tidy_folder_leaves_a_folder_alone_that_is_being_written(tmp_path):
    for name in (".lock", ".7.tmp.run.json", "run.json"):
        (tmp_path / name).touch()
    tidy_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    with OutputLock(tmp_path, inside=True):
        (tmp_path / ".7.tmp.run.json").touch()
        tidy_folder(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == [".7.tmp.run.json", ".lock", "run.json"]
    tidy_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_remove_leftovers_brings_an_older_folder_back_that_was_not_replaced(tmp_path):
    for name in (".7.old.1", ".7.old.2", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["1", "1/.7.old.1", "2", "2/2"]


def test_atomic_folder_is_written_by_one_run_at_a_time(tmp_path):
    (tmp_path / ".99999.tmp.1").mkdir()  # of a killed process
    with atomic_folder(tmp_path / "1", "model.pb") as temporary:
        (temporary / "model.pb").touch()
        assert not (tmp_path / ".99999.tmp.1").exists()
        with pytest.raises(InputError, match="is writing it; wait for it"):
            write_folder(tmp_path / "1", "other")
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
