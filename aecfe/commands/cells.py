"""The command `aecfe features`: what it takes."""

import argparse
from collections.abc import Callable

from aecfe.commands.options import GO_ON, add_detection_limits, positive


def add_features(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    parser = command(
        commands,
        "features",
        "features",
        "from images to a vector for each cell in one command, with a table and a picture of what was found",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="folders of images, or image files")
    parser.add_argument(
        "--detector", required=True, metavar="RUN", help="folder of a trained detector, or of a run that has one"
    )
    parser.add_argument(
        "--autoencoder",
        default=None,
        metavar="RUN",
        help="folder of an autoencoder of its features, or of a run that has one: the vectors are its latents; without "
        "it they are the detector's features, averaged over the cell",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help=".h5ad file to write, for example mine.h5ad; mine.csv, mine.overlay.png and mine.h5 come beside it",
    )
    parser.add_argument(
        "--centre", default=None, metavar="NAME", help="where the images are from; the name of their folder if left out"
    )
    parser.add_argument("--all-cells", action="store_true", help="keep every cell of an image, not one")
    add_detection_limits(parser)
    parser.add_argument("--batch-size", type=positive, default=8, help="images in a batch")
    parser.add_argument("--no-csv", action="store_true", help="write no table")
    parser.add_argument("--no-overlay", action="store_true", help="draw no picture")
    parser.set_defaults(after_interrupt=GO_ON)
