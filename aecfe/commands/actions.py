"""What each command of `aecfe.cli` does with its arguments: the function of its name here.

The commands of one subject stand together in a file of their own, `commands_detector` and so on; those that begin
something as a whole, look at it or show it stand below.
"""

import argparse
import json
import os
from pathlib import Path

from aecfe.commands.autoencoder_actions import embed, train
from aecfe.commands.cells_actions import detect, extract, features, join
from aecfe.commands.checks import named_stores, obey_deterministic
from aecfe.commands.classifier_actions import classifier_apply, classifier_train
from aecfe.commands.detector_actions import detector_evaluate, detector_train
from aecfe.commands.export_actions import export_autoencoder, export_detector, export_pipeline
from experiments.cells.models import add_cards
from experiments.settings import load_settings
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import check_output_file, check_output_folder

__all__ = [
    "centres_check",
    "classifier_apply",
    "classifier_train",
    "detect",
    "detector_evaluate",
    "detector_train",
    "doctor",
    "embed",
    "evaluate",
    "export_autoencoder",
    "export_detector",
    "export_pipeline",
    "extract",
    "features",
    "join",
    "qc",
    "report",
    "reproduce",
    "run",
    "synth",
    "train",
]


def run(arguments: argparse.Namespace) -> None:
    """`aecfe run`: every stage of a configuration."""
    from experiments.pipeline import Pipeline

    overrides = list(arguments.overrides)
    for name in ("data", "output", "seed"):
        if getattr(arguments, name) is not None:
            overrides.append(f"{name}={json.dumps(getattr(arguments, name))}")
    settings = load_settings(arguments.config, overrides)
    check_output_folder(settings.output)
    obey_deterministic(arguments)
    report = Pipeline(settings, overwrite=arguments.overwrite).run()
    add_cards(Path(settings.output))
    print((Path(settings.output) / "tables" / "cross_centre.txt").read_text(encoding="utf-8"))
    print(f"report: {report}")


def doctor(arguments: argparse.Namespace) -> None:
    """`aecfe doctor`: look at this machine."""
    from aecfe.commands.doctor import doctor as look

    if not Path(arguments.folder).is_dir():
        raise InputError(f"--folder {arguments.folder}: no such folder; name the one that results will be written to")
    if not look(arguments.folder):
        raise SystemExit(1)


def synth(arguments: argparse.Namespace) -> None:
    """`aecfe synth`: draw synthetic centres."""
    from experiments.synthetic.centre import generate_centre

    check_output_folder(arguments.output, "output")
    for name in arguments.centres:
        folder = generate_centre(
            name,
            Path(arguments.output) / name,
            num_images=arguments.images,
            seed=arguments.seed,
            image_size=arguments.size,
            overwrite=arguments.overwrite,
        )
        print(folder)


def centres_check(arguments: argparse.Namespace) -> None:
    """`aecfe centres check`: look at centres before they are used."""
    from experiments.centres.check import centres_check as check

    check(arguments)


def qc(arguments: argparse.Namespace) -> None:
    """`aecfe qc`: a page to check feature stores by eye."""
    from experiments.reports.qc import Shown, write_qc_page
    from experiments.reports.quality import Limits, check_stores, write_flags

    output = Path(arguments.output)
    flags = output.with_suffix(".csv")
    if flags == output:
        raise InputError(f"-o {output}: the flags are written beside the page with this ending; end it in .html")
    check_output_file(output)
    check_output_file(flags)
    names = ("min_score", "edge", "max_aspect", "max_deviation", "max_outlier", "neighbours")
    limits = Limits(**{name: getattr(arguments, name) for name in names})
    limits.validate()
    images = None if arguments.images is None else Path(arguments.images)
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: no such folder; give the one with the images of the centres")
    embedding = None if arguments.embedding is None else Path(arguments.embedding)
    checks = check_stores(named_stores(arguments.stores), limits, embedding)
    shown = Shown(arguments.max_rows, arguments.max_points, arguments.max_pictures, arguments.seed)
    write_flags(flags, checks)
    write_qc_page(output, checks, limits, shown, images=images, embedding=embedding, flags_file=flags.name)
    print(f"{output}: {sum(len(check.by_row) for check in checks)} cells to look at, all flags in {flags}")


def evaluate(arguments: argparse.Namespace) -> None:
    """`aecfe evaluate`: the cross-centre tables of some embeddings, other vectors and stores."""
    check_output_folder(arguments.output)

    from experiments.evaluation.comparison import Protocol
    from experiments.evaluation.evaluate import evaluate_files, sort_inputs

    stores, files = sort_inputs(arguments.inputs)
    with OutputLock(arguments.output, inside=True):
        evaluate_files(
            named_stores(stores),
            files,
            Path(arguments.output),
            Protocol(arguments.protocol, arguments.runs, arguments.seed, arguments.test_on, jobs=os.cpu_count() or 1),
            standardise=arguments.standardise,
            raw_features=arguments.raw_features,
        )
    print((Path(arguments.output) / "cross_centre.txt").read_text(encoding="utf-8"))


def reproduce(arguments: argparse.Namespace) -> None:
    """`aecfe reproduce`: tables and figures of the thesis."""
    from aecfe.commands.reproduce import reproduce_command

    reproduce_command(arguments)


def report(arguments: argparse.Namespace) -> None:
    """`aecfe report`: the page of a run."""
    from experiments.pipeline import CONFIG, Pipeline

    path = Path(arguments.run) / CONFIG
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that `aecfe run` made")
    settings = load_settings(path)
    settings.output = arguments.run
    check_output_folder(arguments.run, "run")
    with OutputLock(arguments.run, inside=True):
        written = Pipeline(settings).report()
    print(f"report: {written}")
