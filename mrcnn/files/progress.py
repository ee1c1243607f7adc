"""Progress of a long work: a bar on a terminal, a line now and then in a log file."""

import sys
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
_LINE = "{desc}: {n_fmt} of {total_fmt} in {elapsed}, {remaining} left, {rate_fmt}{postfix}"


class Bar(tqdm):
    """A tqdm bar that can be hidden everywhere at once, and that is plain lines where stderr is no terminal.

    Arguments are those of tqdm.
    """

    hidden = False
    """Whether no bar is shown, whatever the one that opens it asks for. Set by `hide_bars`."""

    def __init__(self, *args, disable: bool | None = False, **options):
        if not sys.stderr.isatty():
            # The delay leaves out the line of a work that has not begun.
            options = {"mininterval": SECONDS_BETWEEN_LINES, "bar_format": _LINE, "delay": 1e-3, **options}
        super().__init__(*args, disable=True if Bar.hidden else disable, **options)

    def close(self) -> None:
        """Show the last state: on a terminal it stays, elsewhere it is a line without an empty one behind it."""
        if self.disable or self.fp.isatty():
            super().close()
            return
        self.display()
        self.disable = True
        self._decr_instances(self)

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Print a state over the last one on a terminal, below it elsewhere."""
        if file.isatty():
            return tqdm.status_printer(file)
        return lambda text: print(text, file=file, flush=True) if text else None


def hide_bars(hidden: bool = True) -> None:
    """Show no bar from now on, or show them again."""
    Bar.hidden = hidden
