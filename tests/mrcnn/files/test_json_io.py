"""JSON of unknown origin: what is plain is read, and anything else is refused in a line that says why."""

import pytest

from mrcnn.files.errors import InputError
from mrcnn.files.json_io import parse_json, read_json_file


def test_parse_json_gives_the_value():
    text = '\ufeff{"a": [1, -2.5, true, null, "\\u00e9"], "b": {"a": 9007199254740993}}'
    assert parse_json(text.encode()) == {"a": [1, -2.5, True, None, "é"], "b": {"a": 9007199254740993}}
    assert parse_json("NaN", allow_nan=True) != parse_json("0")
    assert parse_json('"\\ud83d\\ude00"') == "😀"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "key 'a' twice"),
        ('[{"b": {"a": 1, "c": 2, "a": 1}}]', "key 'a' twice"),
        ("[" * 100_000, "nested too deep"),
        ("[" * 100 + "]" * 100, "nested too deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested too deep"),
        ("[1e999]", "number 1e999 out of range"),
        ("9" * 30, "out of range"),
        ("-" + "9" * 5000, "out of range"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"a": {"\\udfff": 1}}', "half of a surrogate pair"),
        (b'"\xff"', "not UTF-8 text, byte 1"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 text"),
        ("{'a': 1}", "double quotes"),
        ("", "Expecting value"),
    ],
)
def test_parse_json_refuses(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_read_json_file_names_the_file_and_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a\.json: no such file; make one"):
        read_json_file(path, missing="make one", advice="make it again")
    path.write_bytes(b'{"a": 1}')
    assert read_json_file(path, missing="", advice="") == {"a": 1}
    path.write_bytes(b"{")
    with pytest.raises(InputError, match=r"a\.json: not valid JSON \(.+\); make it again"):
        read_json_file(path, missing="", advice="make it again")
    with pytest.raises(InputError, match="cannot be read"):
        read_json_file(tmp_path, missing="", advice="")
    monkeypatch.setattr("mrcnn.files.json_io.MAX_BYTES", 0)
    with pytest.raises(InputError, match="larger than"):
        read_json_file(path, missing="", advice="")
