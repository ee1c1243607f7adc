"""The command `aecfe centres`: what it takes."""

import argparse
from collections.abc import Callable

from aecfe.commands.options import START_AGAIN, add_centre_options


def add_centres(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    group = commands.add_parser("centres", help="look at the data before they are used")
    centres = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(
        centres,
        "check",
        "centres_check",
        "tell how a centre is read, and what is wrong with its images: labels and cell types, files that cannot be "
        "read, duplicates, sizes",
        overwrite=False,
    )
    parser.add_argument("roots", nargs="+", metavar="ROOT", help="folder of a centre, or a folder of centres")
    add_centre_options(parser)
    parser.add_argument("--json", metavar="FILE", default=None, help="also write what was found to this file")
    parser.add_argument(
        "--no-decode",
        action="store_true",
        help="do not decode the images; their headers are read, and their files compared",
    )
    parser.set_defaults(after_interrupt=START_AGAIN)
