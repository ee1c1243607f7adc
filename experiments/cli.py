"""The command line `aecfe`: one command for each stage, and one for all of them.

TensorFlow is imported after the arguments have been understood, so that help and mistakes answer at once.
"""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from tqdm import tqdm

from experiments.cli_centres import add_centres
from experiments.cli_detector import add_detector
from experiments.cli_evaluate import add_evaluate
from experiments.cli_options import (
    GO_ON,
    OVERRIDE_HELP,
    START_AGAIN,
    add_deterministic,
    add_seed,
    positive,
    shard,
    whole,
)
from experiments.cli_reproduce import add_reproduce
from experiments.cli_train import add_train
from mrcnn.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        Exit status: 0 done, 2 a mistake that the user can mend, 130 interrupted.
    """
    arguments = build_parser().parse_args(argv)
    _quiet_libraries()
    _log_to_terminal()
    signal.signal(signal.SIGTERM, _interrupt)
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except InputError as error:
        print(f"aecfe: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = _place_fault(error)
        if reason is None:
            raise
        print(f"aecfe: error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = getattr(arguments, "after_interrupt", "run the same command again")
        if getattr(arguments, "overwrite", False):
            advice = getattr(arguments, "after_interrupted_overwrite", advice)
        print(f"\naecfe: interrupted; {advice}", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="aecfe",
        description="Features of single white blood cells that agree across laboratories: find the cells, extract "
        "their features, align the centres, compare.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_centres(commands, _command)
    _add_run(commands)
    _add_synth(commands)
    add_detector(commands, _command)
    _add_detect(commands)
    _add_extract(commands)
    _add_join(commands)
    add_train(commands, _command)
    _add_embed(commands)
    add_evaluate(commands, _command)
    add_reproduce(commands, _command, OVERRIDE_HELP)
    _add_report(commands)
    _add_export(commands)
    return parser


def _command(commands, name: str, function: str, summary: str, *, overwrite: bool = True) -> argparse.ArgumentParser:
    """Add a command that calls `experiments.commands.<function>`."""
    parser = commands.add_parser(
        name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )

    def call(arguments: argparse.Namespace) -> None:
        from experiments import commands as implementation

        getattr(implementation, function)(arguments)

    parser.set_defaults(command=call)
    if overwrite:
        parser.add_argument("--overwrite", action="store_true", help="make it again although a result is there")
    return parser


def _add_centre(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="name of the centre; the folder's name if left out", default=None)
    parser.add_argument(
        "--layout",
        default="auto",
        help="how the folder is built: csv (labels.csv with columns image,label), folders (one per class), matek19, "
        "int20, mll23, acevedo20, unlabelled, or auto",
    )
    parser.add_argument(
        "--scheme", default="thesis13", help="cell types to map labels to: thesis13, eleven, five, or a YAML file"
    )


def _add_run(commands) -> None:
    parser = _command(commands, "run", "run", "run every stage of a configuration, from smears to the report")
    parser.add_argument("config", help="YAML file, for example experiments/configs/demo.yaml")
    parser.add_argument("--data", help="folder that the centres' roots are relative to")
    parser.add_argument("-o", "--output", help="folder of the run")
    parser.add_argument("--seed", type=whole, default=None, help="fixes everything random; default: the file's")
    add_deterministic(parser)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=OVERRIDE_HELP)
    # With --overwrite every stage is made again, and later ones may hold what belongs to an earlier run.
    parser.set_defaults(after_interrupt=GO_ON, after_interrupted_overwrite="the same command starts again")


def _add_synth(commands) -> None:
    parser = _command(commands, "synth", "synth", "draw synthetic smear centres with exact masks and labels")
    parser.add_argument("output", help="folder; each centre becomes a folder in it")
    parser.add_argument(
        "--centres", nargs="+", default=["north", "river", "harbour"], metavar="NAME", help="which of the centres"
    )
    parser.add_argument("--images", type=positive, default=150, metavar="N", help="images of each centre")
    parser.add_argument("--size", type=positive, default=None, help="side in pixels; default: the centre's own")
    add_seed(parser)


def _add_detect(commands) -> None:
    parser = _command(
        commands, "detect", "detect", "only find the cells: write a table, label images, outlines or overlays of them"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    parser.add_argument("--detector", required=True, help="folder of a trained detector")
    parser.add_argument("--overlay", metavar="DIR", help="folder for pictures with boxes, scores and outlines")
    parser.add_argument("--csv", metavar="FILE", help="table with a row for each cell")
    parser.add_argument("--labels", metavar="DIR", help="folder for label images (TIFF): 0 background, then the cells")
    parser.add_argument("--geojson", metavar="DIR", help="folder for outlines that QuPath opens")
    parser.add_argument("--pixel-size", type=float, metavar="UM", help="side of a pixel in micrometres, adds sizes")
    parser.add_argument("--min-score", type=float, default=None, help="least score of a cell; default: the detector's")
    parser.add_argument("--batch-size", type=positive, default=4, help="images in a batch")
    parser.set_defaults(after_interrupt="the same command with --overwrite starts again from the first image")


def _add_extract(commands) -> None:
    parser = _command(commands, "extract", "extract", "find the cells of a centre and store their features")
    parser.add_argument("centre", metavar="FOLDER", help="the centre's images")
    parser.add_argument("--detector", required=True, help="folder of a trained detector")
    parser.add_argument("-o", "--output", required=True, help="feature store to write, for example features/north.h5")
    _add_centre(parser)
    parser.add_argument("--all-cells", action="store_true", help="keep every cell of an image, not one")
    parser.add_argument("--no-masks", action="store_true", help="leave masks out, which is faster")
    parser.add_argument("--min-score", type=float, default=None, help="least score of a cell; default: the detector's")
    parser.add_argument("--batch-size", type=positive, default=8, help="images in a batch")
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="extract only part I of N, to a store of its own named after the output; join makes one of all N",
    )
    parser.set_defaults(after_interrupt=GO_ON)


def _add_join(commands) -> None:
    parser = _command(commands, "join", "join", "join the shards of a centre into one feature store")
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="every shard that extract --shard I/N wrote")
    parser.add_argument("-o", "--output", required=True, help="feature store to write, for example features/north.h5")


def _add_embed(commands) -> None:
    parser = _command(commands, "embed", "embed", "write the latents of every cell to an .h5ad file", overwrite=False)
    parser.add_argument("autoencoder", help="folder of a trained autoencoder")
    parser.add_argument("stores", nargs="+", metavar="STORE", help="feature store of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help=".h5ad file to write")
    parser.add_argument("--splits", default=None, help="folder of splits (a run's splits/) to note in the embedding")


def _add_report(commands) -> None:
    parser = _command(commands, "report", "report", "write report.html of a run", overwrite=False)
    parser.add_argument("run", help="folder of a run that `aecfe run` made")


def _add_export(commands) -> None:
    group = commands.add_parser("export", help="write a trained model for use without this software")
    export = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = _command(
        export, "detector", "export_detector", "write a detector as a SavedModel: raw images in, cells out"
    )
    parser.add_argument("run", metavar="RUN", help="folder of a trained detector, or of a run that has one")
    parser.add_argument("output", metavar="OUT", help="folder of the SavedModel, for example models/detector/1")
    _add_detection_limits(parser)
    parser.set_defaults(after_interrupt=START_AGAIN)

    parser = _command(
        export, "autoencoder", "export_autoencoder", "write an autoencoder as a SavedModel: features in, latents out"
    )
    parser.add_argument("run", metavar="RUN", help="folder of a trained autoencoder, or of a run that has one")
    parser.add_argument("output", metavar="OUT", help="folder of the SavedModel, for example models/autoencoder/1")
    parser.set_defaults(after_interrupt=START_AGAIN)

    parser = _command(
        export,
        "pipeline",
        "export_pipeline",
        "write a detector and an autoencoder as one SavedModel: raw images in, cells with their latents out",
    )
    parser.add_argument("detector", metavar="DETECTOR_RUN", help="folder of a trained detector, or of a run with one")
    parser.add_argument("autoencoder", metavar="AE_RUN", help="folder of an autoencoder of its features, or of a run")
    parser.add_argument("output", metavar="OUT", help="folder of the SavedModel, for example models/pipeline/1")
    _add_detection_limits(parser)
    parser.add_argument(
        "--centre",
        metavar="NAME",
        default=None,
        help="centre that all images come from, where features are scaled per centre; default: an input of the model",
    )
    parser.set_defaults(after_interrupt=START_AGAIN)


def _add_detection_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--min-score", type=float, default=None, help="least score of a cell; default: the detector's")
    parser.add_argument(
        "--max-detections",
        type=positive,
        default=None,
        metavar="N",
        help="most cells of an image, and rows of the result; default: the detector's",
    )


def _place_fault(error: OSError) -> str | None:
    """What to tell of a file or folder that could not be read or written, or None if the error names none."""
    # Of a file that could not be moved the second name is the final one.
    place = error.filename2 or error.filename
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{_text(place) + ': ' if place else ''}{error.strerror}; make room, or choose another place"
    return f"{_text(place)}: {error.strerror}; choose another place" if place else None


def _text(place: object) -> str:
    return os.fsdecode(place) if isinstance(place, (str, bytes, os.PathLike)) else str(place)


def _quiet_libraries() -> None:
    """Keep TensorFlow's start-up notes from drowning ours; whoever sets the variable gets them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def _log_to_terminal() -> None:
    handler = _TerminalHandler()
    handler.setFormatter(_LevelFormatter())
    for package in ("mrcnn", "autoencoder", "experiments"):
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _TerminalHandler(logging.Handler):
    """Writes above the progress bar, if there is one, to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class _LevelFormatter(logging.Formatter):
    """The message alone, with its level where it is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def _interrupt(number, frame) -> None:
    raise KeyboardInterrupt
