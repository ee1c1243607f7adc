"""One run at a time writes an output, whoever ends how."""

import errno
import os
import signal

import pytest

from mrcnn.files import atomic as output_lock
from mrcnn.files.atomic import OutputLock, remove_stale_lock
from mrcnn.files.errors import InputError

fcntl = pytest.importorskip("fcntl")


@pytest.fixture(autouse=True)
def command(monkeypatch):
    monkeypatch.setattr(output_lock.sys, "argv", ["/usr/bin/aecfe", "extract", "my smears", "-o", "north.h5"])
    monkeypatch.setattr(output_lock.socket, "gethostname", lambda: "lab7")
    monkeypatch.setattr(output_lock, "_told_of_no_locks", False)


def refused(path, **options):
    with pytest.raises(InputError) as error:
        OutputLock(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_lock_tells_the_second_who_is_writing(tmp_path):
    path = tmp_path / "features" / "north.h5"
    with OutputLock(path) as lock:
        assert lock.is_held
        now = output_lock.datetime.now().strftime("%H:")
        message = refused(path)
        assert message.startswith(f"{path}: another run (pid {os.getpid()} on lab7 since {now}")
        assert message.endswith(
            ": aecfe extract 'my smears' -o north.h5) is writing it; wait for it, or choose another output"
        )
        with OutputLock(path.with_name("river.h5")):  # another output is free
            pass
    with OutputLock(path):
        pass


def test_lock_leaves_nothing_behind(tmp_path):
    for path, options in ((tmp_path / "a" / "b" / "north.h5", {}), (tmp_path / "a" / "run", {"inside": True})):
        with OutputLock(path, **options):
            assert len(list((tmp_path / "a").rglob("*lock"))) == 1
        assert not list(tmp_path.iterdir())
        with OutputLock(path, **options):
            (tmp_path / "a" / "result").touch()
        assert [p.name for p in tmp_path.rglob("*")] == ["a", "result"]
        (tmp_path / "a" / "result").unlink()
        (tmp_path / "a").rmdir()


def test_lock_of_a_killed_process_is_in_nobodys_way(tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            OutputLock(tmp_path / "north.h5")
            os.write(write, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.read(read, 1)
    assert f"pid {child} " in refused(tmp_path / "north.h5")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / ".north.h5.lock").exists()
    with OutputLock(tmp_path / "north.h5") as lock:
        assert lock.is_held and f"pid {os.getpid()} " in refused(tmp_path / "north.h5")
    assert not list(tmp_path.iterdir())


def test_remove_stale_lock_leaves_that_of_a_run_that_goes_on(tmp_path):
    path = tmp_path / "x"
    path.touch()
    with OutputLock(path):
        remove_stale_lock(path)
        assert (tmp_path / ".x.lock").exists() and "is writing it" in refused(path)
    (tmp_path / ".x.lock").write_text("of a killed run")
    remove_stale_lock(path)
    remove_stale_lock(path)
    remove_stale_lock(tmp_path / "missing" / "x")
    assert sorted(tmp_path.rglob("*")) == [path]


def test_lock_on_a_file_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    flock, taken = fcntl.flock, []

    def flock_late(handle, flags):
        if not taken:
            # Between opening and locking, the one who had it has removed it with its lock.
            (tmp_path / ".north.h5.lock").unlink()
        taken.append(handle)
        flock(handle, flags)

    monkeypatch.setattr(output_lock.fcntl, "flock", flock_late)
    with OutputLock(tmp_path / "north.h5"):
        assert len(taken) == 2 and (tmp_path / ".north.h5.lock").exists()
        assert "is writing it" in refused(tmp_path / "north.h5")


@pytest.mark.parametrize("note", [b"", b"\x00\xff", b"[1]", b'{"pid": 3', b'{"pid": "3\\n4", "started": 7}'])
def test_lock_with_an_odd_note_is_still_a_lock(tmp_path, note):
    with OutputLock(tmp_path / "x.h5"):
        (tmp_path / ".x.h5.lock").write_bytes(note)
        message = refused(tmp_path / "x.h5")
    assert message.startswith(f"{tmp_path / 'x.h5'}: another run") and "is writing it; wait for it" in message


def test_lock_cuts_long_commands_and_tells_the_day_of_old_runs(tmp_path):
    with OutputLock(tmp_path / "x.h5"):
        note = '{"pid": 5, "host": "h", "started": "2020-01-02T03:04:05", "command": "%s"}' % ("a\\n" * 500)
        (tmp_path / ".x.h5.lock").write_text(note)
        message = refused(tmp_path / "x.h5")
    assert "(pid 5 on h since 2020-01-02 03:04: a a a" in message and len(message) < 500


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_file_systems_without_locks_are_told_of_once(tmp_path, monkeypatch, caplog, number):
    def flock(handle, flags):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output_lock.fcntl, "flock", flock)
    for name in ("a", "b"):
        with OutputLock(tmp_path / "new" / name) as lock:
            assert not lock.is_held
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "has no locks" in record.getMessage()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("function", "number", "advice"),
    [
        ("open", errno.EROFS, "(Read-only file system); choose another place"),
        ("open", errno.EACCES, "(Permission denied); choose another place"),
        ("write", errno.ENOSPC, "(No space left on device); make room, or choose another place"),
    ],
)
def test_lock_where_nothing_can_be_written_is_one_line(tmp_path, monkeypatch, function, number, advice):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(output_lock.os, function, fail)
        assert refused(tmp_path / "new" / "x.h5") == f"{tmp_path / 'new' / 'x.h5'}: cannot be written {advice}"
    assert not list(tmp_path.iterdir())
