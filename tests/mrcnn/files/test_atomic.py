"""Files and folders that are whole or absent, and written by one run at a time."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from mrcnn.files import atomic
from mrcnn.files.atomic import OutputLock, atomic_folder, atomic_path, remove_leftovers, write_json, write_text
from mrcnn.files.errors import InputError


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_atomic_path_appears_only_when_the_block_ends(tmp_path):
    final = tmp_path / "new" / "model.weights.h5"
    with atomic_path(final) as temporary:
        assert temporary.parent == final.parent and temporary.name.endswith(".weights.h5")
        temporary.write_bytes(b"whole")
        assert not final.exists()
    assert final.read_bytes() == b"whole" and names(final.parent) == ["model.weights.h5"]


def test_atomic_path_keeps_the_old_file_on_an_error_and_names_it(tmp_path):
    final = tmp_path / "log.csv"
    final.write_text("old")
    with pytest.raises(OSError, match="No space left on device: .*log.csv"), atomic_path(final) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert final.read_text() == "old" and names(tmp_path) == ["log.csv"]


def test_write_json_round_trip_keeps_the_order(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"c": "ä"}}
    write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert read == value and list(read) == ["b", "a"]
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    write_text(tmp_path / "a.txt", "Zellgröße µm\n")
    assert (tmp_path / "a.txt").read_bytes() == "Zellgröße µm\n".encode() and names(tmp_path) == ["a.json", "a.txt"]


def write_folder(folder, text, **options):
    with atomic_folder(folder, "model.pb", **options) as temporary:
        (temporary / "parts").mkdir()
        (temporary / "parts" / "model.txt").write_text(text)
        (temporary / "model.pb").write_text(text)
        assert temporary.parent == folder.parent and temporary != folder


def test_atomic_folder_replaces_the_whole_older_one_when_asked(tmp_path):
    write_folder(tmp_path / "new" / "1", "old")
    (tmp_path / "new" / "1" / "extra").touch()
    with pytest.raises(InputError, match="--overwrite"):
        write_folder(tmp_path / "new" / "1", "new")
    assert (tmp_path / "new" / "1" / "model.pb").read_text() == "old"
    write_folder(tmp_path / "new" / "1", "new", overwrite=True)
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "new" / "1", "model.pb", overwrite=True) as temporary:
        (temporary / "model.pb").touch()
        raise RuntimeError("stop")
    assert names(tmp_path / "new") == ["1", "1/model.pb", "1/parts", "1/parts/model.txt"]
    assert (tmp_path / "new" / "1" / "parts" / "model.txt").read_text() == "new"


def test_atomic_folder_takes_an_empty_folder_but_no_other(tmp_path):
    (tmp_path / "1").mkdir()
    write_folder(tmp_path / "1", "new")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    with pytest.raises(InputError, match="holds something else"):
        write_folder(tmp_path / "letters", "new", overwrite=True)


def test_atomic_folder_is_written_by_one_run_at_a_time(tmp_path):
    (tmp_path / ".99999.tmp.1").mkdir()  # of a killed process
    with atomic_folder(tmp_path / "1", "model.pb") as temporary:
        (temporary / "model.pb").touch()
        assert not (tmp_path / ".99999.tmp.1").exists()
        with pytest.raises(InputError, match="is writing it; wait for it"):
            write_folder(tmp_path / "1", "other")
    assert names(tmp_path) == ["1", "1/model.pb"]


def test_remove_leftovers_removes_what_killed_processes_had_begun(tmp_path):
    for name in ("a.h5", ".7.tmp.a.h5", ".7.tmp.b.h5", ".hidden", ".x.tmp.a.h5"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".9.tmp.a.h5").mkdir()
    remove_leftovers(tmp_path, "a.h5")
    assert names(tmp_path) == [".7.tmp.b.h5", ".hidden", ".x.tmp.a.h5", "a.h5"]
    # Of folders that were to be replaced, the one that never was gets its name back.
    for name in (".7.old.1", ".7.old.2", "2"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", ".x.tmp.a.h5", "1", "2", "a.h5"]
    remove_leftovers(tmp_path / "missing")


def refused(path, **options):
    with pytest.raises(InputError) as error:
        OutputLock(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("inside", [False, True])
def test_lock_tells_the_second_who_is_writing_and_leaves_nothing_behind(tmp_path, monkeypatch, inside):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/aecfe", "extract", "my smears", "-o", "north.h5"])
    monkeypatch.setattr(atomic.socket, "gethostname", lambda: "lab7")
    path = tmp_path / "north.h5"
    with OutputLock(path, inside=inside):
        message = refused(path, inside=inside)
        assert message.startswith(f"{path}: another run (pid {os.getpid()} on lab7 since 2")
        assert "aecfe extract 'my smears' -o north.h5) is writing it; wait for it, or choose another" in message
        with OutputLock(tmp_path / "river.h5", inside=inside):  # another output is free
            pass
    with OutputLock(path, inside=inside):
        pass
    assert names(tmp_path) == (["north.h5", "river.h5"] if inside else [])


def test_lock_of_a_killed_process_is_in_nobodys_way(tmp_path):
    path = tmp_path / "north.h5"
    script = "import sys; from mrcnn.files.atomic import OutputLock; lock = OutputLock(sys.argv[1]); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        process.stdout.readline()
        (tmp_path / f".{process.pid}.tmp.north.h5").touch()
        assert f"pid {process.pid} " in refused(path)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / ".north.h5.lock").exists()
    with OutputLock(path):
        assert f"pid {os.getpid()} " in refused(path)
    assert not names(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EROFS])
def test_file_systems_without_locks_are_told_of_and_others_that_fail_are_named(tmp_path, monkeypatch, caplog, number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.FileLock, "acquire", fail)
    if number == errno.EROFS:
        with pytest.raises(OSError, match="Read-only file system: .*/a"):
            OutputLock(tmp_path / "a")
    else:
        with OutputLock(tmp_path / "a"):
            pass
        assert "no locks here" in caplog.text
    assert not names(tmp_path)
