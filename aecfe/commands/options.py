"""What several commands take and say: options, types of arguments, and how to go on after an interruption."""

import argparse

from mrcnn.files.errors import InputError

GO_ON = "run the same command again to go on from here"
GO_ON_WITHOUT_OVERWRITE = "run the same command without --overwrite to go on from here"
START_AGAIN = "nothing was written; the same command starts again"


def add_centre_options(parser: argparse.ArgumentParser) -> None:
    """Add the options `--layout` and `--scheme`: how the images of a centre are read."""
    parser.add_argument(
        "--layout",
        default="auto",
        help="how the folder is built: csv (labels.csv with columns image,label), folders (one per class), matek19, "
        "int20, mll23, acevedo20, unlabelled, or auto",
    )
    parser.add_argument(
        "--scheme", default="thesis13", help="cell types to map labels to: thesis13, eleven, five, or a YAML file"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the option `--set`, whose texts are the argument `overrides`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, for example --set detector.epochs=3 (may be repeated)",
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Add the option `--protocol`, the set of classifiers."""
    parser.add_argument(
        "--protocol",
        choices=("thesis", "dinobloom", "random-forest"),
        default="thesis",
        help="settings of the classifiers that stand beside the forest",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the option `--seed`, which is 0 if left out."""
    parser.add_argument("--seed", type=whole, default=0, help="fixes everything random")


def add_deterministic(parser: argparse.ArgumentParser) -> None:
    """Add the option `--deterministic`."""
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="compute on one thread, so that the same seed gives the same numbers to the last bit (slower; CPU only)",
    )


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add the options `-v` and `-q`, of which neither gives a verbosity of 0."""
    group = parser.add_mutually_exclusive_group()
    for flags, verbosity, text in (
        (("-v", "--verbose"), 1, "say more, and let TensorFlow and other libraries say what they will"),
        (("-q", "--quiet"), -1, "show warnings, errors and results alone"),
    ):
        group.add_argument(
            *flags, dest="verbosity", action="store_const", const=verbosity, default=argparse.SUPPRESS, help=text
        )
    parser.set_defaults(verbosity=0)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults to the help where they say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


def add_detection_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options `--min-score` and `--max-detections`, None if left out."""
    parser.add_argument("--min-score", type=float, default=None, help="least score of a cell; default: the detector's")
    parser.add_argument(
        "--max-detections",
        type=positive,
        default=None,
        metavar="N",
        help="most cells of an image; default: the detector's",
    )


def shard(text: str):
    """Read I/N as a `mrcnn.feature_store.shards.Shard`."""
    from mrcnn.feature_store.shards import Shard

    try:
        return Shard.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def whole(text: str) -> int:
    """Read a whole number of 0 or more."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must not be negative")
    return value
