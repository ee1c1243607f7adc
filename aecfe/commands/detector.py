"""The commands `aecfe detector train` and `aecfe detector evaluate`: what they take."""

import argparse
from collections.abc import Callable

from aecfe.commands.options import (
    GO_ON,
    GO_ON_WITHOUT_OVERWRITE,
    START_AGAIN,
    add_deterministic,
    add_overrides,
    add_seed,
)


def add_detector(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the two commands to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    group = commands.add_parser("detector", help="train or evaluate the cell detector (Mask R-CNN)")
    detector = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(detector, "train", "detector_train", "train a detector on images with masks (no labels needed)")
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
    add_deterministic(parser)
    parser.add_argument(
        "--multi-worker", action="store_true", help="share each batch with the processes that TF_CONFIG names"
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop if masks or outlines have faults, after listing them"
    )
    add_overrides(parser)
    add_seed(parser)
    parser.set_defaults(after_interrupt=GO_ON, after_interrupted_overwrite=GO_ON_WITHOUT_OVERWRITE)

    parser = command(
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
