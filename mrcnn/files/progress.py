"""How far a long work is, and how fast: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

BAR_SECONDS = 30.0


class Bar(tqdm):
    """A tqdm bar that can be hidden everywhere at once, and that fills no log file.

    Where stderr is no terminal, each state of a bar stays in the file that it is written to; there it is drawn twice
    a minute only. Arguments are those of tqdm.
    """

    hidden = False
    """Whether no bar is shown, whatever the one that opens it asks for. Set by `hide_bars`."""

    def __init__(self, *args, disable: bool | None = False, **options):
        if not sys.stderr.isatty():
            options.setdefault("mininterval", BAR_SECONDS)
        super().__init__(*args, disable=True if Bar.hidden else disable, **options)


def hide_bars(hidden: bool = True) -> None:
    """Show no bar from now on, or show them again."""
    Bar.hidden = hidden


log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Tell items per second and the time left while the block lasts, and what it came to at the end.

    Where stderr is a terminal this is a bar, else a line in the log every minute or so: a bar in a file is one long
    line of control characters. The last line is logged either way.

    Args:
        name: of the work.
        unit: what is counted, in the plural.
        total: items in all.
        done: of them, those that an earlier run dealt with.
        clock: seconds from any start.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        total: int,
        *,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.unit, self.total = name, unit, total
        self._before, self._now, self._clock = done, done, clock
        # None leaves the bar out where stderr is no terminal.
        self._bar = Bar(total=total, initial=done, desc=name, unit=f" {unit}", disable=None)
        self._logs_lines = self._bar.disable and not Bar.hidden
        self._started = self._last_line = clock()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._bar.close()
        done, seconds = self._now - self._before, self._clock() - self._started
        if done:
            log.info("%s: %d %s in %s (%s)", self.name, done, self.unit, format_seconds(seconds), self._rate())

    def advance(self, number: int) -> None:
        """Count `number` more items as done."""
        self._now += number
        self._bar.update(number)
        if not self._logs_lines or self._clock() - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = self._clock()
        left = (self._last_line - self._started) / max(self._now - self._before, 1) * (self.total - self._now)
        log.info(
            "%s: %d of %d %s, %s, %s left",
            self.name,
            self._now,
            self.total,
            self.unit,
            self._rate(),
            format_seconds(left),
        )

    def _rate(self) -> str:
        seconds = max(self._clock() - self._started, 1e-9)
        return f"{(self._now - self._before) / seconds:.1f} {self.unit}/s"


def format_seconds(seconds: float) -> str:
    """A duration in words: "31 s", "4 min 5 s", "2 h 7 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
