import os
import re
import socket

import pytest

from mrcnn.files.errors import InputError
from mrcnn.files.ordinary_files import check_ordinary_file


def test_a_file_and_a_link_to_one_are_taken(tmp_path):
    (tmp_path / "a.txt").write_text("four")
    (tmp_path / "b.txt").symlink_to("a.txt")
    check_ordinary_file(tmp_path / "a.txt", max_bytes=4)
    check_ordinary_file(tmp_path / "b.txt")


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such image"),
        (lambda path: path.mkdir(), "is a folder; name a image"),
        (os.mkfifo, "pipe, socket or device"),
        (make_socket, "pipe, socket or device"),
        (lambda path: path.symlink_to("/dev/zero"), "pipe, socket or device"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
        (lambda path: path.symlink_to("gone"), "no such image"),
        (lambda path: path.write_bytes(bytes(3 << 20)), "3 MiB; at most 2 are read"),
    ],
    ids=["nothing", "folder", "pipe", "socket", "device", "circle", "dangling", "large"],
)
def test_what_is_no_file_is_refused_without_opening_it(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make(tmp_path.joinpath("x") if make is not make_socket else os.path.relpath(tmp_path / "x"))
    with pytest.raises(InputError, match=f"x: .*{re.escape(message)}"):
        check_ordinary_file(tmp_path / "x", "image", max_bytes=2 << 20)


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "x/" * 3000], ids=["zero byte", "long name", "long path"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        check_ordinary_file(tmp_path / name)
