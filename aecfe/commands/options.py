"""Options that several commands take."""

import argparse
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from mrcnn.files.settings import Settings


def number(kind: type, least: float, most: float = math.inf) -> Callable[[str], Any]:
    """Make the type of an option whose value is a number, int or float, within bounds."""
    bounds = f"of {least} or more" if most == math.inf else f"from {least} to {most}"

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' if kind is int else ''}number {bounds}")
        return value

    return read


whole, positive, amount, fraction = number(int, 0), number(int, 1), number(float, 0), number(float, 0, 1)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end with status 2."""
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help tells all options)\n")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults to the help where they say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


def new_command(
    commands, name: str, run: Callable[[argparse.Namespace], None], summary: str, *, overwrite=True, **names
) -> argparse.ArgumentParser:
    """Add to `commands` one that `run` does, with a line of help and, as a rule, `--overwrite`; `names`: aliases."""
    parser = commands.add_parser(name, help=summary, description=summary, formatter_class=HelpFormatter, **names)
    parser.set_defaults(command=run, verbosity=0)
    group = parser.add_mutually_exclusive_group()
    kind = {"dest": "verbosity", "action": "store_const", "default": argparse.SUPPRESS}
    louder = "say more, and let TensorFlow and other libraries say what they will"
    group.add_argument("-v", "--verbose", const=1, help=louder, **kind)
    group.add_argument("-q", "--quiet", const=-1, help="show warnings, errors and results alone", **kind)
    if overwrite:
        add(parser, {"--overwrite": "make it again although a result is there"})
    return parser


def new_group(commands, name: str, summary: str):
    """Add a command that consists of commands, and return its subparsers."""
    parser = commands.add_parser(name, help=summary)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add(parser, options: Mapping[str, str], **common: Any) -> None:
    """Add options of the form "--name METAVAR", "--names METAVAR..." for several values, or "--flag".

    Args:
        parser: the parser or a group of it.
        options: help by option.
        common: what else `add_argument` gets for each.
    """
    for option, text in options.items():
        name, _, metavar = option.partition(" ")
        kind = {"metavar": metavar.removesuffix("...")} if metavar else {"action": "store_true"}
        kind |= {"nargs": "+"} if metavar.endswith("...") else {}
        parser.add_argument(name, help=text, **kind, **common)


def add_centre_options(parser: argparse.ArgumentParser) -> None:
    """Add `--layout` and `--scheme`: how the images of a centre are read."""
    kinds = "csv (labels.csv with columns image,label), folders (one per class), matek19, int20, mll23, acevedo20"
    parser.add_argument("--layout", default="auto", help=f"structure of the folder: {kinds}, unlabelled, or auto")
    schemes = "cell types to map labels to: thesis13, eleven, five, or a YAML file"
    parser.add_argument("--scheme", default="thesis13", help=schemes)


DETECTOR = (
    "folder of a trained detector, or of a run that has one, or the name of one that ships (default: smear-small)"
)


def add_detection_limits(parser: argparse.ArgumentParser) -> None:
    """Add `--min-score` and `--max-detections`, None if left out."""
    parser.add_argument("--min-score", type=fraction, help="minimum score of a cell (default: the detector's)")
    add(parser, {"--max-detections N": "maximum cells per image (default: the detector's)"}, type=positive)


def score_override(score: float | None) -> dict[str, Any]:
    """What `--min-score` changes of a detector's settings; nothing if it is left out."""
    return {} if score is None else {"DETECTION_MIN_CONFIDENCE": score}


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Add `--protocol`, the set of classifiers."""
    protocols, what = ("thesis", "dinobloom", "random-forest"), "settings of the classifiers beside the random forest"
    parser.add_argument("--protocol", choices=protocols, default="thesis", help=what)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`, which is 0 if left out."""
    parser.add_argument("--seed", type=whole, default=0, help="fixes everything random")


def add_deterministic(parser: argparse.ArgumentParser) -> None:
    """Add `--deterministic`."""
    what = "compute on one thread, so that the same seed gives the same numbers to the last bit (slower; CPU only)"
    add(parser, {"--deterministic": what})


def obey_deterministic(arguments: argparse.Namespace) -> None:
    """Compute on one thread if `--deterministic` asks for it; to be called before TensorFlow has computed anything."""
    if arguments.deterministic:
        from mrcnn.files.devices import compute_on_one_thread

        compute_on_one_thread()


def add_tracker(parser: argparse.ArgumentParser) -> None:
    """Add `--tracker`."""
    what = "also log each epoch to Weights & Biases, MLflow or TensorBoard (pip install 'aecfe[tracking]')"
    parser.add_argument("--tracker", choices=("wandb", "mlflow", "tensorboard"), help=what)


@contextmanager
def tracking(
    arguments: argparse.Namespace, settings: Mapping[str, Any], strategy: "tf.distribute.Strategy | None"
) -> "Iterator[list[keras.callbacks.Callback]]":
    """Give the callbacks by which `--tracker` follows a training in a block; none in a process that writes no files."""
    from mrcnn.files.devices import is_chief

    if arguments.tracker is None or not (strategy is None or is_chief(strategy)):
        yield []
        return
    from mrcnn.files.trackers import tracker_callback

    with tracker_callback(arguments.tracker, Path(arguments.output), settings) as callback:
        yield [callback]


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, whose texts are the argument `overrides`."""
    what = "override a setting, for example --set detector.epochs=3 (may be repeated)"
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=what)


def add_settings(parser, cls: "type[Settings]", names: Mapping[str, str]) -> None:
    """Add an option for each field of settings, with its description; None if left out, so that a file's value stays.

    `names` are the options of fields that are not called as the fields.
    """
    for name, field in cls.model_fields.items():
        kinds = [kind for kind in (field.annotation, *typing.get_args(field.annotation)) if kind in (int, float, str)]
        choices = typing.get_args(field.annotation) if not kinds else None
        kind = type(choices[0]) if choices else kinds[0]
        default = "" if field.default is None else f" (default: {field.default})"
        option, metavar = names.get(name, f"--{name.replace('_', '-')}"), {int: "N", float: "X", str: "NAME"}[kind]
        how = {"choices": choices} if choices else {"metavar": metavar}
        parser.add_argument(option, dest=name, type=kind, help=f"{field.description}{default}", **how)


def chosen(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Some of the arguments by name."""
    return {name: getattr(arguments, name) for name in names}


def given_settings(arguments: argparse.Namespace, cls: "type[Settings]") -> dict[str, Any]:
    """What the options of `add_settings` were given."""
    return {name: value for name, value in chosen(arguments, *cls.model_fields).items() if value is not None}


def section_values(arguments: argparse.Namespace, section: str) -> dict[str, Any]:
    """Settings of one section: those of the file of `--config`, changed by `--set`, with or without its name."""
    from experiments.settings import apply_changes, parse_changes, read_section

    values = read_section(arguments.config, section) if arguments.config else {}
    changes = parse_changes(arguments.overrides)
    apply_changes(values, {name.removeprefix(f"{section}."): value for name, value in changes.items()})
    return values


def check_run_folder(arguments: argparse.Namespace) -> None:
    """Check that a training can write its folder, unless it holds one, which is used wherever it lies.

    Of several processes only one writes, and the folder may be on its machine alone, so that none of them looks.
    """
    from mrcnn.files.output_paths import check_output_folder

    is_there = not arguments.overwrite and (Path(arguments.output) / "run.json").is_file()
    if not arguments.multi_worker and not is_there:
        check_output_folder(arguments.output)
