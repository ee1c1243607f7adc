"""What `aecfe detect`, `features`, `extract` and `join` do with their arguments: from images to cells and features."""

import argparse
from pathlib import Path

from aecfe.commands.checks import check_score, score_override
from experiments.cells.models import autoencoder_folder, detector_folder
from experiments.centres.centre import load_centre
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import check_output_file, check_output_folder

# Micrometres. Pixels of microscopes have hundredths to tenths of one; what lies outside was given in another unit.
SMALLEST_PIXEL, LARGEST_PIXEL = 1e-4, 1e4


def detect(arguments: argparse.Namespace) -> None:
    """`aecfe detect`: find cells and write them down, without features."""
    from experiments.cells.detect import detect_images, find_images
    from experiments.cells.writers import CellFiles

    check_score(arguments.min_score)
    _check_pixel_size(arguments.pixel_size)
    kinds = {kind: getattr(arguments, kind) for kind in ("csv", "labels", "geojson", "overlay")}
    for kind, place in kinds.items():
        if place:
            (check_output_file if kind == "csv" else check_output_folder)(place, f"--{kind}")
    files = CellFiles(**{kind: Path(place) for kind, place in kinds.items() if place})
    images = find_images(arguments.images)
    files.check(images, arguments.overwrite)

    from mrcnn.model import load_detector

    detector = load_detector(arguments.detector, score_override(arguments.min_score), arguments.max_detections)
    counts = detect_images(detector, images, files, pixel_size=arguments.pixel_size, batch_size=arguments.batch_size)
    print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items()))


def features(arguments: argparse.Namespace) -> None:
    """`aecfe features`: from images to vectors, a table and a picture."""
    from experiments.cells.detect import find_images
    from experiments.cells.features import FeatureFiles, centre_name

    check_score(arguments.min_score)
    files = FeatureFiles.beside(arguments.output, csv=not arguments.no_csv, overlay=not arguments.no_overlay)
    images = find_images(arguments.images)
    files.check(images)
    centre = centre_name(images, arguments.centre)
    autoencoder = autoencoder_folder(arguments.autoencoder) if arguments.autoencoder else None

    from experiments.cells.features import embed_images

    counts, is_new = embed_images(
        images,
        files,
        detector_folder(arguments.detector),
        autoencoder,
        centre=centre,
        all_cells=arguments.all_cells,
        min_score=arguments.min_score,
        max_detections=arguments.max_detections,
        batch_size=arguments.batch_size,
        overwrite=arguments.overwrite,
    )
    listed = ", ".join(str(path) for path in files.listed() if path.exists())
    print(
        f"{counts['cells']} cells, {counts['missed']} images without a cell, {counts['unreadable']} unreadable images; "
        f"{'written' if is_new else 'is there already'}: {listed}"
    )


def extract(arguments: argparse.Namespace) -> None:
    """`aecfe extract`: find cells and store their features."""
    from mrcnn.feature_store.shards import shard_path

    check_score(arguments.min_score)
    output, shard = Path(arguments.output), arguments.shard
    if shard is not None:
        output = shard_path(output, shard)
    if arguments.overwrite or not output.is_file():  # a finished store is used as it is, wherever it lies
        check_output_file(output)

    from mrcnn.features import extract_features
    from mrcnn.model import load_detector

    name = arguments.name or Path(arguments.centre).resolve().name
    centre = load_centre(name, arguments.centre, arguments.layout, arguments.scheme)
    counts = extract_features(
        load_detector(arguments.detector, score_override(arguments.min_score), arguments.max_detections),
        centre.records,
        output,
        centre=name,
        all_cells=arguments.all_cells,
        with_masks=not arguments.no_masks,
        batch_size=arguments.batch_size,
        shard=shard,
        overwrite=arguments.overwrite,
    )
    print(f"{output}: " + ", ".join(f"{key} {value}" for key, value in counts.items()))


def join(arguments: argparse.Namespace) -> None:
    """`aecfe join`: one store from the shards of a centre."""
    from mrcnn.feature_store import join_shards

    if arguments.overwrite or not Path(arguments.output).is_file():
        check_output_file(arguments.output)
    counts = join_shards(arguments.shards, arguments.output, overwrite=arguments.overwrite)
    print(f"{arguments.output}: " + ", ".join(f"{key} {value}" for key, value in counts.items()))


def _check_pixel_size(size: float | None) -> None:
    if size is not None and not SMALLEST_PIXEL <= size <= LARGEST_PIXEL:
        raise InputError(f"--pixel-size is in micrometres, {SMALLEST_PIXEL:g} to {LARGEST_PIXEL:g}; got {size:g}")
