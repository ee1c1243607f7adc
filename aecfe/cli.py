"""The command line `aecfe`: its parser, its exit status, and what the terminal says.

TensorFlow is imported after the arguments have been understood, so that help and mistakes answer at once.
"""

import argparse
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from aecfe.commands import (
    autoencoder,
    cells,
    centres,
    classifier,
    detector,
    doctor,
    evaluate,
    export,
    qc,
    reproduce,
    run,
)
from aecfe.commands.options import Parser
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.interruption import handle_signals
from mrcnn.files.progress import Bar, hide_bars
from mrcnn.files.start_up import hold_back_notes, show_notes

COMMANDS = (run, centres, detector, cells, autoencoder, qc, evaluate, classifier, reproduce, export, doctor)
PACKAGES = ("mrcnn", "autoencoder", "experiments", "aecfe")
QUIET, NORMAL, VERBOSE = -1, 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        Exit status: 0 done, 2 a mistake that the user can mend, 130 interrupted, 143 ended by SIGTERM.
    """
    arguments = build_parser().parse_args(argv)
    set_up_terminal(arguments.verbosity)
    try:
        with handle_signals(_tell_of_signal):
            arguments.command(arguments)
        return 0
    except KeyboardInterrupt as interruption:
        number = getattr(interruption, "number", signal.SIGINT)
        what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        anew = "; --overwrite begins anew" if getattr(arguments, "overwrite", False) else ""
        print(f"\naecfe: {what}; run the same command again{anew}", file=sys.stderr)
        return 128 + number
    except (InputError, OSError, ImportError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        print(f"aecfe: error: {reason}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = Parser(
        prog="aecfe",
        description="Features of single white blood cells that agree across laboratories: find the cells, extract "
        "their features, align the centres, compare.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version. Reading it takes longer than the rest of the parser, so that only this option does."""

    def __call__(self, parser: argparse.ArgumentParser, *values) -> None:
        from importlib.metadata import version

        print(f"aecfe {version('aecfe')}")
        parser.exit()


def _reason(error: Exception) -> str | None:
    """What the user can mend, or None for a fault of this software."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ImportError):
        if (error.name or "").split(".")[0] in PACKAGES:
            return None
        return f"{error.name or 'a library'} does not import ({one_line(error)}); aecfe doctor says what to do"
    # Of a file that could not be moved the second name is the final one.
    place = error.filename2 or error.filename
    name = os.fsdecode(place) if isinstance(place, (str, bytes, os.PathLike)) else str(place)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{f'{name}: ' if place else ''}{error.strerror}; make room, or choose another place"
    return f"{name}: {error.strerror}; choose another place" if place else None


def _tell_of_signal(number: int) -> None:
    # Past sys.stderr, which may be in the middle of a line of its own.
    os.write(2, f"\naecfe: {signal.Signals(number).name}: saving after this step; once more ends at once\n".encode())


def set_up_terminal(verbosity: int = NORMAL) -> None:
    """Send the log of our packages to stderr, and keep the libraries' notes from drowning it.

    Args:
        verbosity: `QUIET` shows warnings and errors alone, and no progress bar; `NORMAL` adds what is done and bars;
            `VERBOSE` adds our debug lines, TensorFlow's start-up notes and the warnings of all libraries.
    """
    handler = _TerminalHandler()
    handler.setFormatter(_LevelFormatter())
    level = {QUIET: logging.WARNING, NORMAL: logging.INFO}.get(verbosity, logging.DEBUG)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    hide_bars(verbosity <= QUIET)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if verbosity < VERBOSE:
        _quiet_libraries()
    else:
        show_notes()


def _quiet_libraries() -> None:
    """Hold back what libraries warn of and what TensorFlow says at its start; whoever sets its variable gets it."""
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"  # for processes that a command starts
    hold_back_notes()


class _TerminalHandler(logging.Handler):
    """Writes above the progress bar, if there is one, to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            Bar.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class _LevelFormatter(logging.Formatter):
    """The message alone, with its level where it is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"
