"""The commands `aecfe classifier train` and `aecfe classifier apply`."""

import argparse
import os
from pathlib import Path

from aecfe.commands.options import add, add_seed, chosen, new_command, new_group
from mrcnn.files.errors import InputError

FILES = "embeddings (.h5ad), vectors made elsewhere (.npz) or feature files (.h5), all of one kind"

# What `--kind` takes of feature files, and what `experiments.classifier.inputs` calls it.
STORE_KINDS = {"features": "mean features", "morphology": "morphology"}


def add_parser(commands) -> None:
    """Add the commands."""
    group = new_group(commands, "classifier", "train a classifier of cell types, or predict the types of new cells")
    summary = "train a classifier on the labelled cells of some files"
    parser = new_command(group, "train", train, summary)
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=FILES)
    parser.add_argument("-o", "--output", required=True, help="folder of the classifier")
    add(parser, {"--train-on CENTRE...": "centres to train on (default: all with labels)"}, default=[])
    kinds = "the thesis' random forest, or logistic regression"
    parser.add_argument("--classifier", choices=("forest", "logistic"), default="forest", help=kinds)
    parser.add_argument(
        "--kind", choices=STORE_KINDS, default="features", help="what of a feature file is learned from"
    )
    how = "vectors as they are, or each number brought to mean 0 and deviation 1 within each centre, new ones too"
    parser.add_argument("--standardise", choices=("none", "centre"), default="none", help=how)
    add_seed(parser)

    summary = "predict the types of the cells of some files"
    parser = new_command(group, "apply", apply, summary)
    parser.add_argument("classifier", metavar="FOLDER", help="folder of a trained classifier")
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=f"{FILES}, as the classifier was trained on")
    parser.add_argument("-o", "--output", required=True, help="table with a row for each cell, such as predictions.csv")


def train(arguments: argparse.Namespace) -> None:
    """Train a classifier on the labelled cells of some files."""
    from mrcnn.files.atomic import check_folder_is_free
    from mrcnn.files.output_paths import check_output_folder

    check_output_folder(arguments.output)
    check_folder_is_free(arguments.output, "classifier.json", arguments.overwrite)

    from experiments.classifier.inputs import read_cells
    from experiments.classifier.train import train_classifier

    source, cells = read_cells(arguments.inputs, STORE_KINDS[arguments.kind])
    record = train_classifier(
        source,
        cells,
        Path(arguments.output),
        kind=arguments.classifier,
        n_jobs=os.cpu_count() or 1,
        **chosen(arguments, "train_on", "standardise", "seed", "overwrite"),
    )
    num_cells = sum(sum(counts.values()) for counts in record["counts"].values())
    centres = ", ".join(record["centres"])
    print(f"{arguments.output}: {len(record['classes'])} types from {num_cells} cells of {centres}")
    for name, score in record["scores"].items():
        shown = ", ".join(f"{c} {v:.3f}" for c, v in score.items()) if isinstance(score, dict) else f"{score:.3f}"
        print(f"  {name.replace('_', ' ')}: {shown}")


def apply(arguments: argparse.Namespace) -> None:
    """Predict the types of the cells of some files."""
    from experiments.classifier.apply import describe_predictions, predict_cells, write_predictions
    from experiments.classifier.folder import read_classifier
    from experiments.classifier.inputs import read_cells
    from mrcnn.files.output_paths import check_output_file

    check_output_file(arguments.output)
    if Path(arguments.output).exists() and not arguments.overwrite:  # it may be somebody's labels
        raise InputError(f"-o {arguments.output}: already there; name another file, or give --overwrite")
    classifier = read_classifier(arguments.classifier)
    kind = classifier.record.vectors.kind
    of_stores = kind if kind in STORE_KINDS.values() else STORE_KINDS["features"]
    predictions = predict_cells(classifier, *read_cells(arguments.inputs, of_stores))
    write_predictions(predictions, arguments.output)
    print(f"{arguments.output}: {len(predictions)} cells")
    print(describe_predictions(classifier, predictions))
