"""What is told of a long work, and when."""

import io
import logging

import pytest

from mrcnn.files.progress import Progress, format_seconds, hide_bars


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def lines(caplog):
    hide_bars(False)
    logger = logging.getLogger("mrcnn")
    # Without the handlers that the command line sets up, which would write to the terminal of the test.
    before, handlers = logger.propagate, logger.handlers
    logger.propagate, logger.handlers = True, []
    caplog.set_level(logging.INFO, logger="mrcnn")
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.propagate, logger.handlers = before, handlers
    hide_bars()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (31.2, "31 s"), (59.6, "1 min 0 s"), (245, "4 min 5 s"), (3600, "1 h 0 min"), (7650, "2 h 7 min")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_progress_logs_a_line_a_minute_without_a_terminal(lines, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    clock = Clock()
    with Progress("extract north", "images", 500, done=100, clock=clock) as progress:
        for _ in range(50):
            clock.now += 4
            progress.advance(8)
    assert lines() == [
        "extract north: 220 of 500 images, 2.0 images/s, 2 min 20 s left",
        "extract north: 340 of 500 images, 2.0 images/s, 1 min 20 s left",
        "extract north: 460 of 500 images, 2.0 images/s, 20 s left",
        "extract north: 400 images in 3 min 20 s (2.0 images/s)",
    ]


def test_progress_is_a_bar_on_a_terminal(lines, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    clock = Clock()
    with Progress("extract north", "images", 412, clock=clock) as progress:
        clock.now += 31
        progress.advance(412)
    assert "412/412" in terminal.getvalue()
    assert lines() == ["extract north: 412 images in 31 s (13.3 images/s)"]


def test_progress_can_be_silent_until_the_end(lines, monkeypatch):
    hide_bars()
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    clock = Clock()
    with Progress("extract north", "images", 10, clock=clock) as progress:
        clock.now += 100
        progress.advance(10)
    with Progress("extract river", "images", 10, done=10, clock=clock):
        pass
    assert terminal.getvalue() == ""
    assert lines() == ["extract north: 10 images in 1 min 40 s (0.1 images/s)"]
