"""The command `aecfe evaluate`: what it takes."""

import argparse
from collections.abc import Callable

from aecfe.commands.options import add_protocol, add_seed, positive


def add_evaluate(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    parser = command(
        commands, "evaluate", "evaluate", "train classifiers on each centre and test them on all", overwrite=False
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE",
        help="embeddings (.h5ad), vectors made elsewhere (.npz) or feature stores (.h5) of the same cells; their types "
        "are those of the stores, or else of the first file that has some",
    )
    parser.add_argument("-o", "--output", required=True, help="folder for the tables as CSV, JSON, Markdown and LaTeX")
    parser.add_argument("--runs", type=positive, default=5, help="forests for each row")
    parser.add_argument("--test-on", choices=("test", "all"), default="test", help="cells of the other centres")
    parser.add_argument("--raw-features", choices=("mean", "flat"), default="mean", help="vector of a feature store")
    parser.add_argument(
        "--standardise",
        nargs="+",
        choices=("none", "centre"),
        default=["none"],
        help="columns of the comparison: features as they are, standardised within each centre without labels, or both",
    )
    add_protocol(parser)
    add_seed(parser)
