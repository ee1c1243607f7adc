"""The command `aecfe qc`: what it takes."""

import argparse
from collections.abc import Callable

from aecfe.commands.options import START_AGAIN, add_seed, positive


def add_qc(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    parser = command(
        commands,
        "qc",
        "qc",
        "write a page on which a person checks feature stores by eye: images without a cell, odd cells, maps",
        overwrite=False,
    )
    parser.add_argument("stores", nargs="+", metavar="STORE", help="feature store of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help="page to write, for example qc.html; flags go to a .csv")
    parser.add_argument(
        "--embedding",
        metavar="FILE",
        default=None,
        help=".h5ad file with the latents of the same cells; default: the detector's features, averaged",
    )
    parser.add_argument("--images", metavar="DIR", default=None, help="folder below which the images lie, to show them")
    parser.add_argument("--min-score", type=float, default=0.8, help="flag cells of a lower score")
    parser.add_argument("--edge", type=float, default=1.0, metavar="PX", help="flag boxes so near to the image's edge")
    parser.add_argument("--max-aspect", type=float, default=1.8, help="flag boxes so many times longer than wide")
    parser.add_argument(
        "--max-deviation", type=float, default=3.5, help="flag sizes and contrasts so many robust deviations off"
    )
    parser.add_argument(
        "--max-outlier", type=float, default=3.5, help="flag cells so many robust deviations farther from all others"
    )
    parser.add_argument("--neighbours", type=positive, default=10, help="nearest cells that outliers are measured by")
    parser.add_argument("--max-rows", type=positive, default=200, help="most flagged cells in the page")
    parser.add_argument("--max-points", type=positive, default=3000, help="most cells in a plot")
    parser.add_argument("--max-pictures", type=positive, default=60, help="most pictures of images without a cell")
    add_seed(parser)
    parser.set_defaults(after_interrupt=START_AGAIN)
