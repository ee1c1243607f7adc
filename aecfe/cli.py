"""The command line `aecfe`: one command for each stage, and one for all of them.

TensorFlow is imported after the arguments have been understood, so that help and mistakes answer at once.
"""

import argparse
import errno
import importlib.abc
import importlib.util
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec

from aecfe.commands.autoencoder import add_train
from aecfe.commands.cells import add_features
from aecfe.commands.centres import add_centres
from aecfe.commands.classifier import add_classifier
from aecfe.commands.detector import add_detector
from aecfe.commands.evaluate import add_evaluate
from aecfe.commands.options import (
    GO_ON,
    START_AGAIN,
    HelpFormatter,
    add_centre_options,
    add_detection_limits,
    add_deterministic,
    add_overrides,
    add_seed,
    add_verbosity,
    positive,
    shard,
    whole,
)
from aecfe.commands.qc import add_qc
from aecfe.commands.reproduce import add_reproduce
from mrcnn.files.errors import InputError, first_line
from mrcnn.files.interruption import handle_signals
from mrcnn.files.progress import Bar, hide_bars

PACKAGES = ("mrcnn", "autoencoder", "experiments")
QUIET, NORMAL, VERBOSE = -1, 0, 1


def set_up_terminal(verbosity: int = NORMAL) -> None:
    """Send the log of our packages to stderr, and keep the libraries' notes from drowning it.

    Args:
        verbosity: `QUIET` shows warnings and errors alone, and no progress bar; `NORMAL` adds what is done and bars;
            `VERBOSE` adds our debug lines, TensorFlow's start-up notes and the warnings of all libraries.
    """
    handler = _TerminalHandler()
    handler.setFormatter(_LevelFormatter())
    level = {QUIET: logging.WARNING, NORMAL: logging.INFO}.get(verbosity, logging.DEBUG)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    hide_bars(verbosity <= QUIET)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if verbosity < VERBOSE:
        _quiet_libraries()


def _quiet_libraries() -> None:
    """Hold back what libraries warn of and what TensorFlow says at its start; whoever sets its variable gets it."""
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"  # for processes that a command starts
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        return
    if "tensorflow" not in sys.modules and not any(isinstance(f, _QuietFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow once, so that it is loaded with stderr held back.

    Some of what its C++ parts say at that moment comes before they have read `TF_CPP_MIN_LOG_LEVEL`.
    """

    def find_spec(self, name: str, path, target=None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(importlib.abc.Loader):
    """Loads a module as `loader` does. What was written to stderr meanwhile is shown only if that fails."""

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        with _stderr_held_back():
            self._loader.exec_module(module)


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Send what the process writes to file descriptor 2 to a file, and on to stderr if the block fails."""
    sys.stderr.flush()
    shown = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            except BaseException:
                held.seek(0)
                os.write(shown, held.read())
                raise
            finally:
                os.dup2(shown, 2)
    finally:
        os.close(shown)


class _TerminalHandler(logging.Handler):
    """Writes above the progress bar, if there is one, to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            Bar.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class _LevelFormatter(logging.Formatter):
    """The message alone, with its level where it is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        Exit status: 0 done, 2 a mistake that the user can mend, 130 interrupted, 143 ended by SIGTERM.
    """
    arguments = build_parser().parse_args(argv)
    set_up_terminal(arguments.verbosity)
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        with handle_signals(_tell_of_signal):
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
    except ImportError as error:
        if (error.name or "").split(".")[0] in PACKAGES:
            raise
        fault = f"{error.name or 'a library'} does not import ({first_line(error)})"
        print(f"aecfe: error: {fault}; aecfe doctor says what to do", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        advice = getattr(arguments, "after_interrupt", "run the same command again")
        if getattr(arguments, "overwrite", False):
            advice = getattr(arguments, "after_interrupted_overwrite", advice)
        number = getattr(interruption, "number", signal.SIGINT)
        what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        print(f"\naecfe: {what}; {advice}", file=sys.stderr)
        return 128 + number
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="aecfe",
        description="Features of single white blood cells that agree across laboratories: find the cells, extract "
        "their features, align the centres, compare.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_centres(commands, _command)
    _add_run(commands)
    _add_synth(commands)
    add_detector(commands, _command)
    _add_detect(commands)
    add_features(commands, _command)
    _add_extract(commands)
    _add_join(commands)
    add_train(commands, _command)
    _add_embed(commands)
    add_qc(commands, _command)
    add_evaluate(commands, _command)
    add_classifier(commands, _command)
    add_reproduce(commands, _command)
    _add_report(commands)
    _add_export(commands)
    _add_doctor(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version. Reading it takes longer than the rest of the parser, so that only this option does."""

    def __call__(self, parser: argparse.ArgumentParser, *values) -> None:
        from importlib.metadata import version

        print(f"aecfe {version('aecfe')}")
        parser.exit()


def _command(commands, name: str, function: str, summary: str, *, overwrite: bool = True) -> argparse.ArgumentParser:
    """Add a command that calls `aecfe.commands.actions.<function>`."""
    parser = commands.add_parser(name, help=summary, description=summary, formatter_class=HelpFormatter)

    def call(arguments: argparse.Namespace) -> None:
        from aecfe.commands import actions as implementation

        getattr(implementation, function)(arguments)

    parser.set_defaults(command=call)
    add_verbosity(parser)
    if overwrite:
        parser.add_argument("--overwrite", action="store_true", help="make it again although a result is there")
    return parser


def _add_run(commands) -> None:
    parser = _command(commands, "run", "run", "run every stage of a configuration, from smears to the report")
    parser.add_argument("config", help="YAML file, for example experiments/configs/demo.yaml")
    parser.add_argument("--data", help="folder that the centres' roots are relative to")
    parser.add_argument("-o", "--output", help="folder of the run")
    parser.add_argument("--seed", type=whole, default=None, help="fixes everything random; default: the file's")
    add_deterministic(parser)
    add_overrides(parser)
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
    add_detection_limits(parser)
    parser.add_argument("--batch-size", type=positive, default=4, help="images in a batch")
    parser.set_defaults(after_interrupt="the same command with --overwrite starts again from the first image")


def _add_extract(commands) -> None:
    parser = _command(commands, "extract", "extract", "find the cells of a centre and store their features")
    parser.add_argument("centre", metavar="FOLDER", help="the centre's images")
    parser.add_argument("--detector", required=True, help="folder of a trained detector")
    parser.add_argument("-o", "--output", required=True, help="feature store to write, for example features/north.h5")
    parser.add_argument("--name", help="name of the centre; the folder's name if left out", default=None)
    add_centre_options(parser)
    parser.add_argument("--all-cells", action="store_true", help="keep every cell of an image, not one")
    parser.add_argument("--no-masks", action="store_true", help="leave masks out, which is faster")
    add_detection_limits(parser)
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
    add_detection_limits(parser)
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
    add_detection_limits(parser)
    parser.add_argument(
        "--centre",
        metavar="NAME",
        default=None,
        help="centre that all images come from, where features are scaled per centre; default: an input of the model",
    )
    parser.set_defaults(after_interrupt=START_AGAIN)


def _add_doctor(commands) -> None:
    parser = _command(
        commands,
        "doctor",
        "doctor",
        "look at versions, memory, disk and devices, and take one training step on each GPU",
        overwrite=False,
    )
    parser.add_argument("--folder", default=".", help="where results will be written")


def _place_fault(error: OSError) -> str | None:
    """What to tell of a file or folder that could not be read or written, or None if the error names none."""
    # Of a file that could not be moved the second name is the final one.
    place = error.filename2 or error.filename
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{_text(place) + ': ' if place else ''}{error.strerror}; make room, or choose another place"
    return f"{_text(place)}: {error.strerror}; choose another place" if place else None


def _text(place: object) -> str:
    return os.fsdecode(place) if isinstance(place, (str, bytes, os.PathLike)) else str(place)


def _tell_of_signal(number: int) -> None:
    # Past sys.stderr, which may be in the middle of a line of its own.
    os.write(2, f"\naecfe: {signal.Signals(number).name}: saving after this step; once more ends at once\n".encode())
