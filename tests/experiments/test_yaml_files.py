"""YAML that users write: plain values are read, and what YAML does behind one's back is refused."""

import time

import pytest

from experiments.settings import MAX_BYTES, parse_yaml, read_yaml_file
from mrcnn.files.errors import InputError


def test_plain_values_are_read():
    text = "a: 1\nb: [1.5, true, ~, 1.0e-3, -2]\nc: {d: 'yes', e: 2020-01-01}\nf: &f {g: h}\ni: {<<: *f, j: k}\n"
    assert parse_yaml(text) == {
        "a": 1,
        "b": [1.5, True, None, 1e-3, -2],
        "c": {"d": "yes", "e": "2020-01-01"},
        "f": {"g": "h"},
        "i": {"g": "h", "j": "k"},
    }
    assert parse_yaml("") is None


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: key 'a' twice"),
        ("a: {b: 1, b: 1}", "key 'b' twice"),
        ("yes: 1\non: 2", "key True twice"),
        ("? [a]\n: b", "a key must be text"),
        ("a: 010", "write it plainly, or put it in quotes"),
        ("a: 1:30", "base 8 or 60"),
        ("a: .nan", "out of range"),
        ("a: -.inf", "out of range"),
        ("a: 1.0e+999", "out of range"),
        ("a: " + "9" * 30, "out of range"),
        ("a: 0x" + "f" * 4000, "out of range"),
        ("a: !!python/object/apply:os.system ['true']", "python/object/apply"),
        ("a: !!python/name:os.system", "python/name"),
        ("a: !!binary aGFsbG8=", "binary"),
        ("a: !!set {b}", "set"),
        ("a: !!int x", "not what its tag says"),
        ("a: !!float ''", "not what its tag says"),
        ("a: !!bool maybe", "not what its tag says"),
        ("a: !!null x", "is not null"),
        ('a: "\\ud800"', "surrogates"),
        ("a: \0", "special characters"),
        ("a:\n\tb: 1", "cannot start any token"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: *b", "undefined alias"),
        ("&a [*a]", "stands for something that holds it"),
        (LAUGHS, "more than 50000 values"),
    ],
)
def test_anything_else_is_refused_in_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text", ["[" * 10_000, "{a: " * 10_000, "- " * 10_000, "? " * 10_000, "".join(" " * n + "a:\n" for n in range(500))]
)
def test_deep_nesting_is_refused_at_once(text):
    started = time.monotonic()
    with pytest.raises(ValueError, match="nested more than 30 deep"):
        parse_yaml(text)
    assert time.monotonic() - started < 5


def test_read_yaml_file_names_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    with pytest.raises(InputError, match=r"a\.yaml: give one"):
        read_yaml_file(path, missing="give one")
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_yaml_file(path, missing="") == {"a": 1}
    for content, reason in (
        (b"a: \xff", "not UTF-8 text, byte 3"),
        (b"a: [", "not a YAML file"),
        (b"#" * (MAX_BYTES + 1), "bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=reason) as caught:
            read_yaml_file(path, missing="")
        assert str(caught.value).startswith(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml_file(tmp_path, missing="")
