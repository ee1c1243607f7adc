"""The commands `aecfe detector train`, `evaluate` and `import`."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aecfe.commands import options
from mrcnn.files.errors import InputError

if TYPE_CHECKING:
    from experiments.centres.centre import Centre
    from experiments.centres.masks import AnnotationChoice

log = logging.getLogger(__name__)

WEIGHTS = "weights.weights.h5"


def add_parser(commands) -> None:
    """Add the commands."""
    group = options.new_group(commands, "detector", "train or evaluate the cell detector (Mask R-CNN)")
    summary = "train a detector on images with masks (no labels needed)"
    parser = options.new_command(group, "train", train, summary)
    parser.add_argument("centres", nargs="+", metavar="FOLDER", help="centre with images and masks/ or outlines")
    parser.add_argument("-o", "--output", required=True, help="folder of the detector")
    parser.add_argument("--config", help="YAML file whose section `detector` gives the settings")
    _add_annotations(parser)
    texts = {
        "--start START": "begin with the detector that ships (smear-small), another one's folder, scratch, imagenet "
        "or an .h5 file in Matterport's layout (default: smear-small for fewer than 300 images, else scratch)",
        "--exclude LAYER...": "layers that do not take them, as heads of other classes",
        "--layers LAYERS": "layers that learn: heads, 3+, 4+, 5+, all or a regular expression (default: all)",
    }
    options.add(parser, texts)
    parser.add_argument("--weights", dest="start", help=argparse.SUPPRESS)  # an earlier name
    options.add_deterministic(parser)
    options.add_tracker(parser)
    flags = {
        "--multi-worker": "share each batch with the processes that TF_CONFIG names",
        "--strict": "stop if masks or outlines have faults, after listing them",
    }
    options.add(parser, flags)
    options.add_overrides(parser)
    options.add_seed(parser)

    summary = "measure a detector on centres it did not see"
    parser = options.new_command(group, "evaluate", evaluate, summary, overwrite=False)
    parser.add_argument("centres", nargs="+", metavar="FOLDER", help="centre with masks, outlines, boxes or none")
    options.add(parser, {"--detector RUN": options.DETECTOR})
    parser.add_argument("--layout", default="auto", help="as in `aecfe extract`")
    _add_annotations(parser)
    parser.add_argument("--box-names", nargs="+", default=["WBC"], help="objects of the annotations that are cells")
    shifts = "show each image under N strong changes of colour instead of as it is (needs masks)"
    options.add(parser, {"--colour-shifts N": shifts}, type=options.positive, default=0)
    parser.add_argument("-o", "--output", help="also write the measures to this JSON file")

    summary = "make a detector of weights that Matterport's Mask R-CNN left, for the other commands to open"
    parser = options.new_command(group, "import", import_weights, summary)
    parser.add_argument("weights", metavar="FILE", help="Matterport's .h5 file, with the heads")
    parser.add_argument("-o", "--output", required=True, help="folder of the detector")
    what = "a setting that the weights were trained with, such as IMAGE_MAX_DIM=512 (default: Matterport's)"
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=what)


def _add_annotations(parser: argparse.ArgumentParser) -> None:
    texts = {
        "--instances": "each value of a mask is a cell of its own (default: above 0 is cell)",
        "--annotations PATH": "COCO or VIA file, or folder of labelme or GeoJSON files or of masks; looked for here, "
        "then in each centre's folder (default: masks/, or else what lies beside the images)",
    }
    options.add(parser, texts)
    formats = ("auto", "masks", "coco", "via", "labelme", "geojson")
    what = "format of the annotations; auto tells it by content"
    parser.add_argument("--annotation-format", choices=formats, default="auto", help=what)
    names = {
        "--names NAME...": "labels of the outlines that are cells (default: all but nuclei)",
        "--nucleus-names NAME...": "labels of the outlines that are nuclei of cells (default: nucleus and nuclei)",
    }
    options.add(parser, names, default=[])


def train(arguments: argparse.Namespace) -> None:
    """Train a detector."""
    from experiments.cells.models import add_cards
    from experiments.centres.masks import Outlines, masked_images
    from experiments.settings import DetectorSettings

    values = options.section_values(arguments, "detector")
    flags = options.chosen(arguments, "start", "exclude", "layers")
    values.update({name: value for name, value in flags.items() if value is not None})
    settings = DetectorSettings.from_dict(values, where="detector")
    options.check_run_folder(arguments)
    centres, choices = _centres(arguments, "auto")
    images = masked_images(centres, choices, strict=arguments.strict)
    if arguments.instances:
        for outlined in (i.centre for i in images if isinstance(i.source, Outlines)):
            log.info("%s: each outline is a cell of its own; --instances has no effect", outlined)

    # They import TensorFlow, which takes longer than most checks.
    from experiments.cells.detector import choose_start, detector_config, train_detector
    from mrcnn.files.devices import multi_worker_strategy

    options.obey_deterministic(arguments)
    strategy = multi_worker_strategy() if arguments.multi_worker else None
    given = options.chosen(arguments, "seed", "overwrite")
    settings = choose_start(settings, images)
    tracked = {"epochs": settings.epochs, "layers": settings.layers}
    tracked |= detector_config(settings, arguments.seed).to_dict()
    with options.tracking(arguments, tracked, strategy) as callbacks:
        given |= {"strategy": strategy, "callbacks": callbacks}
        train_detector(images, Path(arguments.output), settings=settings, **given)
    add_cards(Path(arguments.output))
    print(arguments.output)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a detector."""
    from mrcnn.files.atomic import write_json
    from mrcnn.files.output_paths import check_output_file

    if arguments.output:
        check_output_file(arguments.output)

    from experiments.cells.detector import evaluate_detector
    from experiments.cells.models import detector_folder

    # In earlier releases the detector was the first of the folders.
    if arguments.detector is None and arguments.centres[1:] and (Path(arguments.centres[0]) / WEIGHTS).is_file():
        arguments.detector = arguments.centres.pop(0)
    folder = detector_folder(arguments.detector)
    centres, choices = _centres(arguments, arguments.layout)
    box_names = dict.fromkeys(centres, arguments.box_names)
    shifts = arguments.colour_shifts
    measured = evaluate_detector(folder, centres, choices, box_names, colour_shifts=shifts)
    for name, values in measured.items():
        print(name)
        for key, value in values.items():
            print(f"  {key:18} {value:.4f}" if isinstance(value, float) else f"  {key:18} {value}")
    # After the printing, so that what cannot be written is not lost.
    if arguments.output:
        write_json(arguments.output, measured)


def import_weights(arguments: argparse.Namespace) -> None:
    """Make a detector of Matterport's weights."""
    from experiments.settings import parse_changes
    from mrcnn.files.atomic import check_folder_is_free
    from mrcnn.files.output_paths import check_output_folder

    changes = parse_changes(arguments.overrides)
    check_output_folder(arguments.output)
    check_folder_is_free(arguments.output, WEIGHTS, arguments.overwrite)

    from mrcnn.training.keras_h5 import read_architecture

    found = read_architecture(arguments.weights)

    from mrcnn.config import Config, make_config
    from mrcnn.model import MaskRCNN

    model = MaskRCNN("inference", make_config({"NAME": "imported", **found, **changes}, Config), arguments.output)
    report = model.load_weights(arguments.weights, by_name=True)
    if report.missing:
        missing = ", ".join(report.missing)
        raise InputError(f"{arguments.weights}: lacks the weights of {missing}; give the file of the whole detector")
    model.save(arguments.output)
    told = ", ".join(f"{name} {found[name]}" for name in ("BACKBONE", "NUM_CLASSES", "NORMALIZATION"))
    print(f"{arguments.output}: {told}")


def _centres(arguments: argparse.Namespace, layout: str) -> "tuple[dict[str, Centre], dict[str, AnnotationChoice]]":
    """The centres by name, and what the arguments say of the masks of each."""
    from experiments.centres.centre import load_centres
    from experiments.centres.masks import AnnotationChoice

    centres = load_centres(map(Path, arguments.centres), layout, annotations=arguments.annotations)
    semantics = "instances" if arguments.instances else "cell"
    choice = AnnotationChoice(arguments.annotations, arguments.annotation_format, tuple(arguments.names), semantics)
    if arguments.nucleus_names:
        choice = replace(choice, nucleus_names=tuple(arguments.nucleus_names))
    return centres, dict.fromkeys(centres, choice)
