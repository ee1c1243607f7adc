"""What `aecfe export detector`, `autoencoder` and `pipeline` do with their arguments."""

import argparse

from aecfe.commands.checks import check_score, score_override
from experiments.cells.models import autoencoder_folder, detector_folder
from mrcnn.files.atomic import check_folder_is_free
from mrcnn.files.output_paths import check_output_folder


def export_detector(arguments: argparse.Namespace) -> None:
    """`aecfe export detector`: a detector as a SavedModel."""
    check_score(arguments.min_score)
    _check_export_folder(arguments)
    folder = detector_folder(arguments.run)

    from mrcnn.export import export_detector as export
    from mrcnn.model import detector_hash, load_detector

    written = export(
        load_detector(folder, score_override(arguments.min_score)),
        arguments.output,
        overwrite=arguments.overwrite,
        detector=detector_hash(folder),
        max_detections=arguments.max_detections,
    )
    print(written)


def export_autoencoder(arguments: argparse.Namespace) -> None:
    """`aecfe export autoencoder`: an autoencoder as a SavedModel."""
    _check_export_folder(arguments)
    folder = autoencoder_folder(arguments.run)

    from autoencoder.export import export_autoencoder as export
    from autoencoder.folder import load_autoencoder

    print(export(load_autoencoder(folder), arguments.output, overwrite=arguments.overwrite))


def export_pipeline(arguments: argparse.Namespace) -> None:
    """`aecfe export pipeline`: a detector and an autoencoder as one SavedModel."""
    check_score(arguments.min_score)
    _check_export_folder(arguments)
    folders = detector_folder(arguments.detector), autoencoder_folder(arguments.autoencoder)

    from experiments.cells.export import export_pipeline as export

    written = export(
        *folders,
        arguments.output,
        overwrite=arguments.overwrite,
        min_score=arguments.min_score,
        max_detections=arguments.max_detections,
        centre=arguments.centre,
    )
    print(written)


def _check_export_folder(arguments: argparse.Namespace) -> None:
    check_output_folder(arguments.output, "output")
    check_folder_is_free(arguments.output, "saved_model.pb", arguments.overwrite)
