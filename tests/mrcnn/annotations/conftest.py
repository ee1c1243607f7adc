"""The fixture that all tests of annotation files share."""

import json

import pytest


@pytest.fixture
def write(tmp_path):
    """Function that writes a JSON value, or text, into a file and returns its path."""

    def write_file(value, name="a.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write_file
