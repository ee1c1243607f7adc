"""Bars on a terminal, lines in a file, and nothing where they are hidden."""

import io

import pytest

from mrcnn.files.progress import Bar, hide_bars


@pytest.fixture(autouse=True)
def shown():
    hide_bars(False)
    yield
    hide_bars()


def show(monkeypatch, is_terminal):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr("sys.stderr", stream)
    with Bar(total=412, initial=12, desc="extract north", unit="image") as bar:
        bar.update(400)
    return stream.getvalue()


def test_bar_is_drawn_over_itself_on_a_terminal(monkeypatch):
    assert "\r" in show(monkeypatch, True)


def test_bar_is_plain_lines_elsewhere(monkeypatch):
    lines = show(monkeypatch, False).strip().splitlines()
    assert lines[0].startswith("extract north: 12 of 412") and lines[-1].startswith("extract north: 412 of 412")
    assert "\r" not in "".join(lines) and "image/s" in lines[-1]


def test_bars_can_be_hidden(monkeypatch):
    hide_bars()
    assert show(monkeypatch, True) == show(monkeypatch, False) == ""
