import math
import os

import pytest

from mrcnn.files import json_files
from mrcnn.files.errors import InputError
from mrcnn.files.json_files import read_json


def test_values_come_back_with_or_without_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + '{"name": "Zölle", "x": [1, NaN]}'.encode())
        value = read_json(path)
        assert value["name"] == "Zölle" and math.isnan(value["x"][1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b"[1, 2", "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "key 'b' appears twice"),
        (b"[" * 200_000, "nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, data, message):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"a.json: .*{message}") as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_missing_folder_and_huge_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)
    monkeypatch.setattr(json_files, "MAX_BYTES", 10)
    (tmp_path / "a.json").write_text("[1, 2, 3, 4]")
    with pytest.raises(InputError, match="split the file"):
        read_json(tmp_path / "a.json")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="a.json: cannot be read, since it is a pipe"):
        read_json(tmp_path / "a.json")
