"""The bar of a long work, as every stage of this project shows it."""

import sys

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Bar(tqdm):
    """A tqdm bar that can be hidden everywhere at once, and that fills no log file.

    Where stderr is no terminal, each state of a bar stays in the file that it is written to; there it is drawn twice
    a minute only. Arguments are those of tqdm.
    """

    hidden = False
    """Whether no bar is shown, whatever the one that opens it asks for. Set by `hide_bars`."""

    def __init__(self, *args, disable: bool | None = False, **options):
        if not sys.stderr.isatty():
            options.setdefault("mininterval", SECONDS_BETWEEN_LINES)
        super().__init__(*args, disable=True if Bar.hidden else disable, **options)


def hide_bars(hidden: bool = True) -> None:
    """Show no bar from now on, or show them again."""
    Bar.hidden = hidden
