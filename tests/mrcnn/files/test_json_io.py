"""JSON of unknown origin: what is plain is read, and anything else is refused in a line that says why."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.files.errors import InputError
from mrcnn.files.json_io import parse_json, read_json_file

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(PLAIN, st.integers(0, 10**6), st.binary(max_size=3))
def test_plain_values_come_back_and_damaged_text_is_refused_in_one_line(value, place, inserted):
    text = json.dumps({"a": value}).encode()
    assert parse_json(text) == {"a": value}
    damaged = text[: place % len(text)] + inserted + text[place % len(text) + 1 :]
    try:
        parse_json(damaged)
    except ValueError as error:
        assert len(str(error)) < 300 and "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"b": {"a": 1, "c": 2, "a": 1}}]', "key 'a' twice"),
        ("[" * 100_000, "nested too deep"),
        (b'"\xff"', "not UTF-8 text, byte 1"),
        ("{'a': 1}", "double quotes"),
        ("", "Expecting value"),
    ],
)
def test_parse_json_refuses(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_read_json_file_names_the_file_and_what_to_do(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a\.json: no such file; make one"):
        read_json_file(path, missing="make one", advice="make it again")
    path.write_bytes('\ufeff{"a": [1, null, "é"]}'.encode())
    assert read_json_file(path) == {"a": [1, None, "é"]}
    path.write_text("{")
    with pytest.raises(InputError, match=r"a\.json: not valid JSON \(.*\); make it again"):
        read_json_file(path, missing="", advice="make it again")
    with pytest.raises(InputError, match="cannot be read"):
        read_json_file(tmp_path, missing="", advice="")
