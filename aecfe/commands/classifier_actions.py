"""What `aecfe classifier train` and `aecfe classifier apply` do with their arguments."""

import argparse
import os
from pathlib import Path

from mrcnn.files.atomic import check_folder_is_free
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import check_output_file, check_output_folder


def classifier_train(arguments: argparse.Namespace) -> None:
    """`aecfe classifier train`: a classifier of the labelled cells of some files."""
    check_output_folder(arguments.output)
    check_folder_is_free(arguments.output, "classifier.json", arguments.overwrite)

    from experiments.classifier.inputs import read_cells
    from experiments.classifier.train import train_classifier

    source, cells = read_cells(arguments.inputs)
    record = train_classifier(
        source,
        cells,
        Path(arguments.output),
        train_on=arguments.train_on,
        kind=arguments.classifier,
        standardise=arguments.standardise,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        n_jobs=os.cpu_count() or 1,
    )
    num_cells = sum(sum(counts.values()) for counts in record["counts"].values())
    centres = ", ".join(record["centres"])
    print(f"{arguments.output}: {len(record['classes'])} types from {num_cells} cells of {centres}")
    for name, score in record["scores"].items():
        shown = ", ".join(f"{c} {v:.3f}" for c, v in score.items()) if isinstance(score, dict) else f"{score:.3f}"
        print(f"  {name.replace('_', ' ')}: {shown}")


def classifier_apply(arguments: argparse.Namespace) -> None:
    """`aecfe classifier apply`: types of the cells of some files."""
    from experiments.classifier.apply import describe_predictions, predict_cells, write_predictions
    from experiments.classifier.folder import read_classifier
    from experiments.classifier.inputs import read_cells

    check_output_file(arguments.output)
    if Path(arguments.output).exists() and not arguments.overwrite:  # it may be somebody's labels
        raise InputError(f"-o {arguments.output}: already there; name another file, or give --overwrite")
    classifier = read_classifier(arguments.classifier)
    predictions = predict_cells(classifier, *read_cells(arguments.inputs))
    write_predictions(predictions, arguments.output)
    print(f"{arguments.output}: {len(predictions)} cells")
    print(describe_predictions(classifier, predictions))
