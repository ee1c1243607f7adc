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
    (line,) = show(monkeypatch, False).splitlines()
    assert line.startswith("extract north: 412 of 412") and "image/s" in line and "\r" not in line


def test_bars_can_be_hidden(monkeypatch):
    hide_bars()
    assert show(monkeypatch, True) == show(monkeypatch, False) == ""
