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
            options = {"mininterval": SECONDS_BETWEEN_LINES, "bar_format": _LINE, **options}
        super().__init__(*args, disable=True if Bar.hidden else disable, **options)

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Print a state over the last one on a terminal, below it elsewhere."""
        if file.isatty():
            return tqdm.status_printer(file)
        return lambda text: print(text, file=file, flush=True) if text else None


def hide_bars(hidden: bool = True) -> None:
    """Show no bar from now on, or show them again."""
    Bar.hidden = hidden
