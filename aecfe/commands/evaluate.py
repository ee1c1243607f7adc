"""The command `aecfe evaluate`: the cross-centre tables of some embeddings, other vectors and feature files."""

import argparse
import os
from pathlib import Path

from aecfe.commands.options import add_protocol, add_seed, new_command, positive


def add_parser(commands) -> None:
    """Add the command."""
    summary = "train classifiers on each centre and test them on all"
    parser = new_command(commands, "evaluate", evaluate, summary, overwrite=False)
    files = "embeddings (.h5ad), vectors made elsewhere (.npz) or feature files (.h5) of the same cells"
    types = "their types are those of the feature files, or else of the first file that has some"
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=f"{files}; {types}")
    parser.add_argument("-o", "--output", required=True, help="folder for the tables as CSV, JSON, Markdown and LaTeX")
    parser.add_argument("--runs", type=positive, default=5, help="random forests for each row")
    parser.add_argument("--test-on", choices=("test", "all"), default="test", help="cells of the other centres")
    parser.add_argument("--raw-features", choices=("mean", "flat"), default="mean", help="vector of a feature file")
    columns = "columns: features as they are, standardised within each centre without labels, or both"
    parser.add_argument("--standardise", nargs="+", choices=("none", "centre"), default=["none"], help=columns)
    add_protocol(parser)
    add_seed(parser)


def evaluate(arguments: argparse.Namespace) -> None:
    """Compare representations across centres."""
    from mrcnn.files.atomic import OutputLock
    from mrcnn.files.output_paths import check_output_folder

    check_output_folder(arguments.output)

    from experiments.evaluation.comparison import Protocol
    from experiments.evaluation.evaluate import evaluate_files, sort_inputs
    from mrcnn.feature_store import stores_by_centre

    stores, files = sort_inputs(arguments.inputs)
    output = Path(arguments.output)
    with OutputLock(output, inside=True):
        evaluate_files(
            stores_by_centre(stores),
            files,
            output,
            Protocol(arguments.protocol, arguments.runs, arguments.seed, arguments.test_on, jobs=os.cpu_count() or 1),
            standardise=arguments.standardise,
            raw_features=arguments.raw_features,
        )
    print((output / "cross_centre.txt").read_text(encoding="utf-8"))
