"""The commands `aecfe detect`, `features`, `extract` and `merge`: from images to cells and their features."""

import argparse
from pathlib import Path

from aecfe.commands import options
from mrcnn.files.errors import InputError

ALL_CELLS = {"--all-cells": "keep every cell of an image, not one"}


def add_parser(commands) -> None:
    """Add the commands."""
    _add_detect(commands)
    _add_features(commands)
    _add_extract(commands)
    summary = "merge the shards of a centre into one feature file"
    parser = options.new_command(commands, "merge", merge, summary, aliases=["join"])  # an earlier name
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="every shard that extract --shard I/N wrote")
    parser.add_argument("-o", "--output", required=True, help="feature file to write, such as features/north.h5")


def _add_detect(commands) -> None:
    summary = "only find the cells: write a table, label images, outlines or overlays of them"
    parser = options.new_command(commands, "detect", detect, summary)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    texts = {
        "--detector RUN": options.DETECTOR,
        "--overlay DIR": "folder for pictures with boxes, scores and outlines",
        "--csv FILE": "table with a row for each cell",
        "--labels DIR": "folder for label images (TIFF): 0 background, then the cells",
        "--geojson DIR": "folder for outlines that QuPath opens",
    }
    options.add(parser, texts)
    # Pixels of microscopes have hundredths to tenths of a micrometre; what lies outside was given in another unit.
    micrometres = options.number(float, 1e-4, 1e4)
    options.add(parser, {"--pixel-size UM": "side of a pixel in micrometres, adds sizes"}, type=micrometres)
    options.add_detection_limits(parser)
    parser.add_argument("--batch-size", type=options.positive, default=4, help="images in a batch")


def _add_features(commands) -> None:
    summary = "from images to a vector for each cell in one command, with a table and a picture of what was found"
    parser = options.new_command(commands, "features", features, summary)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="folders of images, or image files")
    options.add(parser, {"--detector RUN": options.DETECTOR})
    vectors = "the vectors are its latents; without it they are the detector's features, averaged over the cell"
    models = {"--autoencoder RUN": f"folder of an autoencoder of its features, or of a run that has one: {vectors}"}
    options.add(parser, models)
    kinds = "without an autoencoder: the detector's features, or measurements of cell and nucleus (docs/morphology.md)"
    parser.add_argument("--kind", choices=("features", "morphology"), default="features", help=kinds)
    output = ".h5ad file to write, for example mine.h5ad; mine.csv, mine.overlay.png and mine.h5 come beside it"
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=output)
    texts = {"--centre NAME": "where the images are from (default: their folder's name)", **ALL_CELLS}
    options.add(parser, texts)
    options.add_detection_limits(parser)
    parser.add_argument("--batch-size", type=options.positive, default=8, help="images in a batch")
    options.add(parser, {"--no-csv": "write no table", "--no-overlay": "write no picture"})


def _add_extract(commands) -> None:
    summary = "find the cells of a centre and store their features"
    parser = options.new_command(commands, "extract", extract, summary)
    parser.add_argument("centre", metavar="FOLDER", help="the centre's images")
    options.add(parser, {"--detector RUN": options.DETECTOR})
    parser.add_argument("-o", "--output", required=True, help="feature file to write, for example features/north.h5")
    parser.add_argument("--name", help="name of the centre (default: the folder's name)")
    options.add_centre_options(parser)
    options.add(parser, {**ALL_CELLS, "--no-masks": "leave masks out, which is faster"})
    options.add_detection_limits(parser)
    parser.add_argument("--batch-size", type=options.positive, default=8, help="images in a batch")
    shard = "extract only part I of N, to a file of its own named after the output; merge makes one of all N"
    options.add(parser, {"--shard I/N": shard})


def detect(arguments: argparse.Namespace) -> None:
    """Find cells and write them down, without features."""
    from experiments.cells.detect import detect_images, find_images
    from experiments.cells.models import detector_folder
    from experiments.cells.writers import CellFiles
    from mrcnn.files.output_paths import check_output_file, check_output_folder

    kinds = options.chosen(arguments, "csv", "labels", "geojson", "overlay")
    for kind, place in kinds.items():
        if place:
            (check_output_file if kind == "csv" else check_output_folder)(place, f"--{kind}")
    files = CellFiles(**{kind: Path(place) for kind, place in kinds.items() if place})
    images = find_images(arguments.images)
    files.check(images, arguments.overwrite)
    folder = detector_folder(arguments.detector)

    from mrcnn.model import load_detector

    detector = load_detector(folder, options.score_override(arguments.min_score), arguments.max_detections)
    counts = detect_images(detector, images, files, pixel_size=arguments.pixel_size, batch_size=arguments.batch_size)
    print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items()))


def features(arguments: argparse.Namespace) -> None:
    """From images to vectors, a table and a picture."""
    from experiments.cells.detect import find_images
    from experiments.cells.features import centre_name, embed_images, feature_files
    from experiments.cells.models import autoencoder_folder, detector_folder

    if arguments.autoencoder and arguments.kind == "morphology":
        raise InputError("--kind morphology: has no use for an autoencoder; leave --autoencoder out")
    images = find_images(arguments.images)
    without = [kind for kind in ("csv", "overlay") if getattr(arguments, f"no_{kind}")]
    files = feature_files(arguments.output, images, without)
    counts, is_new = embed_images(
        images,
        files,
        detector_folder(arguments.detector),
        autoencoder_folder(arguments.autoencoder) if arguments.autoencoder else None,
        centre=centre_name(images, arguments.centre),
        **options.chosen(arguments, "kind", "all_cells", "min_score", "max_detections", "batch_size", "overwrite"),
    )
    listed = ", ".join(str(path) for path in files.values() if path.exists())
    print(
        f"{counts['cells']} cells, {counts['missed']} images without a cell, {counts['unreadable']} unreadable images; "
        f"{'written' if is_new else 'is there already'}: {listed}"
    )


def extract(arguments: argparse.Namespace) -> None:
    """Find cells and store their features."""
    from mrcnn.feature_store.shards import Shard, shard_path
    from mrcnn.files.output_paths import check_output_file

    shard = None if arguments.shard is None else Shard.parse(arguments.shard)
    output = Path(arguments.output) if shard is None else shard_path(arguments.output, shard)
    if arguments.overwrite or not output.is_file():  # a finished file is used as it is, wherever it lies
        check_output_file(output)

    from experiments.cells.models import detector_folder
    from experiments.centres.centre import load_centre
    from mrcnn.features import extract_features
    from mrcnn.model import load_detector

    name = arguments.name or Path(arguments.centre).resolve().name
    centre = load_centre(name, arguments.centre, arguments.layout, arguments.scheme)
    folder = detector_folder(arguments.detector)
    counts = extract_features(
        load_detector(folder, options.score_override(arguments.min_score), arguments.max_detections),
        centre.records,
        output,
        centre=name,
        with_masks=not arguments.no_masks,
        shard=shard,
        **options.chosen(arguments, "all_cells", "batch_size", "overwrite"),
    )
    _print_counts(output, counts)


def merge(arguments: argparse.Namespace) -> None:
    """Make one feature file of the shards of a centre."""
    from mrcnn.feature_store import join_shards
    from mrcnn.files.output_paths import check_output_file

    if arguments.overwrite or not Path(arguments.output).is_file():
        check_output_file(arguments.output)
    _print_counts(arguments.output, join_shards(arguments.shards, arguments.output, overwrite=arguments.overwrite))


def _print_counts(output: str | Path, counts: dict[str, int]) -> None:
    print(f"{output}: " + ", ".join(f"{key} {value}" for key, value in counts.items()))
