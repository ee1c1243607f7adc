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
from experiments.cli_reproduce import add_reproduce
from mrcnn.errors import InputError

GO_ON = "run the same command again to go on from here"
GO_ON_WITHOUT_OVERWRITE = "run the same command without --overwrite to go on from here"
START_AGAIN = "nothing was written; the same command starts again"
OVERRIDE_HELP = "override a setting, for example --set detector.epochs=3 (may be repeated)"


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
    _add_detector(commands)
    _add_detect(commands)
    _add_extract(commands)
    _add_join(commands)
    _add_train(commands)
    _add_embed(commands)
    _add_evaluate(commands)
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


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_whole, default=0, help="fixes everything random")


def _add_deterministic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="compute on one thread, so that the same seed gives the same numbers to the last bit (slower; CPU only)",
    )


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


def _add_annotations(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations",
        metavar="PATH",
        default=None,
        help="COCO or VIA file, or folder of labelme files or of masks; looked for here, then in each centre's folder; "
        "default: masks/, or else what lies beside the images",
    )
    parser.add_argument(
        "--annotation-format",
        choices=("auto", "masks", "coco", "via", "labelme"),
        default="auto",
        help="format of the annotations; auto tells it by their content",
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", default=[], help="labels of the outlines that are cells (default: all)"
    )


def _add_run(commands) -> None:
    parser = _command(commands, "run", "run", "run every stage of a configuration, from smears to the report")
    parser.add_argument("config", help="YAML file, for example experiments/configs/demo.yaml")
    parser.add_argument("--data", help="folder that the centres' roots are relative to")
    parser.add_argument("-o", "--output", help="folder of the run")
    parser.add_argument("--seed", type=_whole, default=None, help="fixes everything random; default: the file's")
    _add_deterministic(parser)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=OVERRIDE_HELP)
    # With --overwrite every stage is made again, and later ones may hold what belongs to an earlier run.
    parser.set_defaults(after_interrupt=GO_ON, after_interrupted_overwrite="the same command starts again")


def _add_synth(commands) -> None:
    parser = _command(commands, "synth", "synth", "draw synthetic smear centres with exact masks and labels")
    parser.add_argument("output", help="folder; each centre becomes a folder in it")
    parser.add_argument(
        "--centres", nargs="+", default=["north", "river", "harbour"], metavar="NAME", help="which of the centres"
    )
    parser.add_argument("--images", type=_positive, default=150, metavar="N", help="images of each centre")
    parser.add_argument("--size", type=_positive, default=None, help="side in pixels; default: the centre's own")
    _add_seed(parser)


def _add_detector(commands) -> None:
    group = commands.add_parser("detector", help="train or evaluate the cell detector (Mask R-CNN)")
    detector = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = _command(detector, "train", "detector_train", "train a detector on images with masks (no labels needed)")
    parser.add_argument("centres", nargs="+", metavar="FOLDER", help="centre with images and masks/ or outlines")
    parser.add_argument("-o", "--output", required=True, help="folder of the detector")
    parser.add_argument("--config", help="YAML file whose section `detector` gives the settings")
    parser.add_argument(
        "--instances", action="store_true", help="each value of a mask is a cell of its own (default: above 0 is cell)"
    )
    _add_annotations(parser)
    parser.add_argument(
        "--weights", metavar="FILE", help="begin with these weights: an .h5 file in Matterport's layout, or imagenet"
    )
    parser.add_argument(
        "--exclude", nargs="+", metavar="LAYER", help="layers that do not take them, as heads of other classes"
    )
    parser.add_argument("--layers", help="layers that learn: heads, 3+, 4+, 5+, all or a regular expression")
    _add_deterministic(parser)
    parser.add_argument(
        "--multi-worker", action="store_true", help="share each batch with the processes that TF_CONFIG names"
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop if masks or outlines have faults, after listing them"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=OVERRIDE_HELP)
    _add_seed(parser)
    parser.set_defaults(after_interrupt=GO_ON, after_interrupted_overwrite=GO_ON_WITHOUT_OVERWRITE)

    parser = _command(
        detector, "evaluate", "detector_evaluate", "measure a detector on centres it did not see", overwrite=False
    )
    parser.add_argument("detector", help="folder of the detector")
    parser.add_argument("centres", nargs="+", metavar="FOLDER", help="centre with masks, outlines, boxes or none")
    parser.add_argument("--layout", default="auto", help="as in `aecfe extract`")
    parser.add_argument("--instances", action="store_true", help="each value of a mask is a cell of its own")
    _add_annotations(parser)
    parser.add_argument("--box-names", nargs="+", default=["WBC"], help="objects of the annotations that are cells")
    parser.add_argument("-o", "--output", default=None, help="also write the measures to this JSON file")
    parser.set_defaults(after_interrupt=START_AGAIN)


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
    parser.add_argument("--batch-size", type=_positive, default=4, help="images in a batch")
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
    parser.add_argument("--batch-size", type=_positive, default=8, help="images in a batch")
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="extract only part I of N, to a store of its own named after the output; join makes one of all N",
    )
    parser.set_defaults(after_interrupt=GO_ON)


def _add_join(commands) -> None:
    parser = _command(commands, "join", "join", "join the shards of a centre into one feature store")
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="every shard that extract --shard I/N wrote")
    parser.add_argument("-o", "--output", required=True, help="feature store to write, for example features/north.h5")


def _add_train(commands) -> None:
    parser = _command(commands, "train", "train", "train the autoencoder on feature stores of one or more centres")
    parser.add_argument("stores", nargs="+", metavar="STORE", help="feature store of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help="folder of the autoencoder")
    parser.add_argument("--config", help="YAML file whose section `autoencoder` gives the settings")
    _add_adaptation(parser.add_argument_group("alignment of the centres"))
    _add_network(parser.add_argument_group("network and losses"))
    parser.add_argument("--steps", type=_positive, default=None, help="training steps")
    parser.add_argument("--batch-size", type=_positive, default=None, help="cells in a step, over all devices")
    parser.add_argument(
        "--gpus", type=_positive, default=None, metavar="N", help="GPUs of this machine that share a batch"
    )
    parser.add_argument(
        "--multi-worker", action="store_true", help="share each batch with the processes that TF_CONFIG names"
    )
    _add_deterministic(parser)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=OVERRIDE_HELP)
    parser.add_argument("--seed", type=_whole, default=None, help="fixes everything random; default: the config's")
    parser.set_defaults(after_interrupt=GO_ON, after_interrupted_overwrite=GO_ON_WITHOUT_OVERWRITE)


def _add_adaptation(group) -> None:
    group.add_argument(
        "--adaptation",
        choices=("none", "mmd", "normal", "adversarial", "kernel-mmd", "coral"),
        default=None,
        help="mmd: match the first two moments (thesis 2.14); normal: those of N(0, I); adversarial: hide the centre "
        "from a discriminator; kernel-mmd: Gaussian kernels; coral: covariances",
    )
    group.add_argument(
        "--reduction",
        choices=("mean", "sum"),
        default=None,
        help="of the divergence in mmd and normal: mean as the reference implementation, sum as the equation",
    )
    group.add_argument("--beta", type=float, default=None, help="weight of the alignment")
    group.add_argument("--source", default=None, help="centre that the others are brought to; default: the first")
    group.add_argument(
        "--balance",
        choices=("none", "centre", "type"),
        default=None,
        help="cells of a batch: by the sizes of the centres, as many of each centre, or also as many of each cell type "
        "of the source (labels of the others are not looked at)",
    )


def _add_network(group) -> None:
    group.add_argument("--latent-size", type=_positive, default=None, help="length of the latent")
    group.add_argument("--image-size", type=int, choices=(128, 64, 32), default=None, help="reconstructed image, px")
    group.add_argument(
        "--image-source", choices=("crop", "image"), default=None, help="reconstruct the cell's box or the whole image"
    )
    group.add_argument(
        "--image-colours",
        choices=("stored", "standardised"),
        default=None,
        help="reconstruct images as they are, or with each channel of each brought to one mean and deviation",
    )
    group.add_argument("--image-loss", choices=("ssim", "mse"), default=None, help="loss of the image")
    group.add_argument(
        "--ssim",
        choices=("tf", "reference"),
        default=None,
        help="SSIM of TensorFlow or of the reference implementation",
    )
    group.add_argument(
        "--group-norm", choices=("keras", "reference"), default=None, help="GroupNorm of Keras or of the reference"
    )
    group.add_argument(
        "--feature-scaling", choices=("minmax", "channel", "centre"), default=None, help="how features are scaled"
    )
    group.add_argument(
        "--precision",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
        default=None,
        help="of the network; losses of the alignment and SSIM stay float32",
    )


def _add_embed(commands) -> None:
    parser = _command(commands, "embed", "embed", "write the latents of every cell to an .h5ad file", overwrite=False)
    parser.add_argument("autoencoder", help="folder of a trained autoencoder")
    parser.add_argument("stores", nargs="+", metavar="STORE", help="feature store of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help=".h5ad file to write")
    parser.add_argument("--splits", default=None, help="folder of splits (a run's splits/) to note in the embedding")


def _add_evaluate(commands) -> None:
    parser = _command(
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
    parser.add_argument("--runs", type=_positive, default=5, help="forests for each row")
    parser.add_argument("--test-on", choices=("test", "all"), default="test", help="cells of the other centres")
    parser.add_argument("--raw-features", choices=("mean", "flat"), default="mean", help="vector of a feature store")
    parser.add_argument(
        "--standardise",
        nargs="+",
        choices=("none", "centre"),
        default=["none"],
        help="columns of the comparison: features as they are, standardised within each centre without labels, or both",
    )
    parser.add_argument(
        "--protocol",
        choices=("thesis", "dinobloom"),
        default="thesis",
        help="settings of the classifiers that stand beside the forest",
    )
    _add_seed(parser)


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
        type=_positive,
        default=None,
        metavar="N",
        help="most cells of an image, and rows of the result; default: the detector's",
    )


def _shard(text: str):
    from mrcnn.shards import Shard

    try:
        return Shard.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must not be negative")
    return value


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
