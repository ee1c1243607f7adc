"""The command `aecfe centres`: what it takes."""

import argparse
from collections.abc import Callable


def add_centres(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `experiments.commands`, see `experiments.cli`.
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
    parser.add_argument(
        "--layout",
        default="auto",
        help="how the folders are built: csv (labels.csv with columns image,label), folders (one per class), matek19, "
        "int20, mll23, acevedo20, unlabelled, or auto",
    )
    parser.add_argument(
        "--scheme", default="thesis13", help="cell types to map labels to: thesis13, eleven, five, or a YAML file"
    )
    parser.add_argument("--json", metavar="FILE", default=None, help="also write what was found to this file")
    parser.add_argument(
        "--no-decode",
        action="store_true",
        help="do not decode the images; their headers are read, and their files compared",
    )
    parser.set_defaults(after_interrupt="nothing was written; the same command starts again")
