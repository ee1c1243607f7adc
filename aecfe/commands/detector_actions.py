"""What `aecfe detector train` and `aecfe detector evaluate` do with their arguments."""

import argparse
import logging
from pathlib import Path

from aecfe.commands.checks import check_run_folder, obey_deterministic, section_values
from experiments.cells.models import add_cards
from experiments.centres.centre import Centre, load_centre
from experiments.centres.masks import AnnotationChoice, Outlines, masked_images
from experiments.settings import DetectorSettings, build
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import check_output_file

log = logging.getLogger(__name__)


def detector_train(arguments: argparse.Namespace) -> None:
    """`aecfe detector train`: train a detector."""
    values = section_values(arguments, "detector")
    flags = {"weights": arguments.weights, "exclude": arguments.exclude, "layers": arguments.layers}
    values.update({name: value for name, value in flags.items() if value is not None})
    settings = build(DetectorSettings, values, "detector")
    settings.validate()
    check_run_folder(arguments)
    centres = _named_centres(arguments.centres, "auto", arguments.annotations)
    images = masked_images(centres, dict.fromkeys(centres, _annotation_choice(arguments)), strict=arguments.strict)
    if arguments.instances:
        for outlined in (i.centre for i in images if isinstance(i.source, Outlines)):
            log.info("%s: each outline is a cell of its own; --instances has no effect", outlined)

    from experiments.cells.detector import train_detector  # imports TensorFlow, which takes longer than most checks
    from mrcnn.files.devices import multi_worker_strategy

    obey_deterministic(arguments)
    train_detector(
        images,
        Path(arguments.output),
        settings=settings,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        strategy=multi_worker_strategy() if arguments.multi_worker else None,
    )
    add_cards(Path(arguments.output))
    print(arguments.output)


def detector_evaluate(arguments: argparse.Namespace) -> None:
    """`aecfe detector evaluate`: measure a detector."""
    if arguments.output:
        check_output_file(arguments.output)

    from experiments.cells.detector import evaluate_detector

    centres = _named_centres(arguments.centres, arguments.layout, arguments.annotations)
    choices = dict.fromkeys(centres, _annotation_choice(arguments))
    measured = evaluate_detector(
        Path(arguments.detector), centres, choices, dict.fromkeys(centres, arguments.box_names)
    )
    for name, values in measured.items():
        print(name)
        for key, value in values.items():
            print(f"  {key:18} {value:.4f}" if isinstance(value, float) else f"  {key:18} {value}")
    # After the printing, so that what cannot be written is not lost.
    if arguments.output:
        write_json(arguments.output, measured)


def _annotation_choice(arguments: argparse.Namespace) -> AnnotationChoice:
    """What the arguments say of the masks of each centre."""
    semantics = "instances" if arguments.instances else "cell"
    return AnnotationChoice(arguments.annotations, arguments.annotation_format, tuple(arguments.names), semantics)


def _named_centres(folders: list[str], layout: str, annotations: str | None) -> dict[str, Centre]:
    centres: dict[str, Centre] = {}
    for folder in folders:
        name = Path(folder).resolve().name
        if name in centres:
            raise InputError(f"{folder}: two centres are called {name}; rename a folder")
        centres[name] = load_centre(name, folder, layout, annotations=annotations)
    return centres
