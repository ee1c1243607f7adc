"""The commands `aecfe classifier train` and `aecfe classifier apply`: what they take."""

import argparse
from collections.abc import Callable

from aecfe.commands.options import START_AGAIN, add_seed

FILES = "embeddings (.h5ad), vectors made elsewhere (.npz) or feature stores (.h5), all of one kind"


def add_classifier(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the two commands to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    group = commands.add_parser("classifier", help="train a classifier of cell types, or name the types of new cells")
    classifier = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(classifier, "train", "classifier_train", "train a classifier on the labelled cells of some files")
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=FILES)
    parser.add_argument("-o", "--output", required=True, help="folder of the classifier")
    parser.add_argument(
        "--train-on", nargs="+", default=[], metavar="CENTRE", help="centres to learn from; all with labels if left out"
    )
    parser.add_argument(
        "--classifier",
        choices=("forest", "logistic"),
        default="forest",
        help="the thesis' random forest, or logistic regression",
    )
    parser.add_argument(
        "--standardise",
        choices=("none", "centre"),
        default="none",
        help="vectors as they are, or each number brought to mean 0 and deviation 1 within each centre, new ones too",
    )
    add_seed(parser)
    parser.set_defaults(after_interrupt=START_AGAIN)

    parser = command(classifier, "apply", "classifier_apply", "name the types of the cells of some files")
    parser.add_argument("classifier", metavar="FOLDER", help="folder of a trained classifier")
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=f"{FILES}, as the classifier learned from")
    parser.add_argument("-o", "--output", required=True, help="table with a row for each cell, for example calls.csv")
    parser.set_defaults(after_interrupt=START_AGAIN)
