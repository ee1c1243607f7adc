"""The commands `aecfe export detector`, `autoencoder` and `pipeline`: trained models as SavedModels."""

import argparse

from aecfe.commands import options


def add_parser(commands) -> None:
    """Add the commands."""
    group = options.new_group(commands, "export", "write a trained model for use without this software")
    summary = "write a detector as a SavedModel: raw images in, cells out"
    parser = options.new_command(group, "detector", detector, summary)
    parser.add_argument("run", nargs="?", metavar="RUN", help=options.DETECTOR)
    parser.add_argument("output", metavar="OUT", help="folder of the SavedModel, for example models/detector/1")
    options.add_detection_limits(parser)

    summary = "write an autoencoder as a SavedModel: features in, latents out"
    parser = options.new_command(group, "autoencoder", autoencoder, summary)
    parser.add_argument("run", metavar="RUN", help="folder of a trained autoencoder, or of a run that has one")
    parser.add_argument("output", metavar="OUT", help="folder of the SavedModel, for example models/autoencoder/1")

    summary = "write a detector and an autoencoder as one SavedModel: raw images in, cells with their latents out"
    parser = options.new_command(group, "pipeline", pipeline, summary)
    parser.add_argument("detector", nargs="?", metavar="DETECTOR_RUN", help=options.DETECTOR)
    parser.add_argument("autoencoder", metavar="AE_RUN", help="folder of an autoencoder of its features, or of a run")
    parser.add_argument("output", metavar="OUT", help="folder of the SavedModel, for example models/pipeline/1")
    options.add_detection_limits(parser)
    centre = "centre that all images come from, where features are scaled per centre (default: an input of the model)"
    options.add(parser, {"--centre NAME": centre})


def detector(arguments: argparse.Namespace) -> None:
    """Write a detector as a SavedModel."""
    from experiments.cells.models import detector_folder

    _check_output(arguments)
    folder = detector_folder(arguments.run)

    from mrcnn.export import export_detector
    from mrcnn.model import detector_hash, load_detector

    model = load_detector(folder, options.score_override(arguments.min_score))
    given = options.chosen(arguments, "overwrite", "max_detections")
    print(export_detector(model, arguments.output, detector=detector_hash(folder), **given))


def autoencoder(arguments: argparse.Namespace) -> None:
    """Write an autoencoder as a SavedModel."""
    from experiments.cells.models import autoencoder_folder

    _check_output(arguments)
    folder = autoencoder_folder(arguments.run)

    from autoencoder.export import export_autoencoder
    from autoencoder.folder import load_autoencoder

    print(export_autoencoder(load_autoencoder(folder), arguments.output, overwrite=arguments.overwrite))


def pipeline(arguments: argparse.Namespace) -> None:
    """Write a detector and an autoencoder as one SavedModel."""
    from experiments.cells.models import autoencoder_folder, detector_folder

    _check_output(arguments)
    folders = detector_folder(arguments.detector), autoencoder_folder(arguments.autoencoder)

    from experiments.cells.export import export_pipeline

    given = options.chosen(arguments, "overwrite", "min_score", "max_detections", "centre")
    print(export_pipeline(*folders, arguments.output, **given))


def _check_output(arguments: argparse.Namespace) -> None:
    from mrcnn.files.atomic import check_folder_is_free
    from mrcnn.files.output_paths import check_output_folder

    check_output_folder(arguments.output, "output")
    check_folder_is_free(arguments.output, "saved_model.pb", arguments.overwrite)
