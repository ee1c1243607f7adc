"""What each command of `experiments.cli` does with its arguments."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from experiments.centres import Centre, load_centre
from experiments.masked_images import AnnotationChoice, Outlines, masked_images
from experiments.output_paths import check_output_file, check_output_folder
from experiments.settings import DetectorSettings, build, load_settings, read_section, set_value
from experiments.trained_folders import autoencoder_folder, detector_folder
from mrcnn.atomic import check_folder_is_free, write_json
from mrcnn.errors import InputError

log = logging.getLogger(__name__)

# Options of `aecfe train` that are called as the settings.
AUTOENCODER_FLAGS = (
    "adaptation",
    "adaptation_units",
    "balance",
    "beta",
    "feature_scaling",
    "group_norm",
    "image_colours",
    "image_loss",
    "image_size",
    "image_source",
    "latent_size",
    "precision",
    "seed",
    "ssim",
    "steps",
)

# Micrometres. Pixels of microscopes have hundredths to tenths of one; what lies outside was given in another unit.
SMALLEST_PIXEL, LARGEST_PIXEL = 1e-4, 1e4


def run(arguments: argparse.Namespace) -> None:
    """`aecfe run`: every stage of a configuration."""
    from experiments.pipeline import Pipeline

    overrides = list(arguments.overrides)
    for name in ("data", "output", "seed"):
        if getattr(arguments, name) is not None:
            overrides.append(f"{name}={json.dumps(getattr(arguments, name))}")
    settings = load_settings(arguments.config, overrides)
    check_output_folder(settings.output)
    if arguments.deterministic:
        _compute_on_one_thread()
    report = Pipeline(settings, overwrite=arguments.overwrite).run()
    print((Path(settings.output) / "tables" / "cross_centre.txt").read_text(encoding="utf-8"))
    print(f"report: {report}")


def synth(arguments: argparse.Namespace) -> None:
    """`aecfe synth`: draw synthetic centres."""
    from tqdm import tqdm

    from experiments.synthetic import generate_centre

    check_output_folder(arguments.output, "output")
    for name in arguments.centres:
        with tqdm(total=arguments.images, desc=f"draw {name}", unit="image") as bar:

            def advance(done: int, total: int, bar: tqdm = bar) -> None:
                bar.update(done - bar.n)

            folder = generate_centre(
                name,
                Path(arguments.output) / name,
                num_images=arguments.images,
                seed=arguments.seed,
                image_size=arguments.size,
                overwrite=arguments.overwrite,
                progress=advance,
            )
        print(folder)


def detector_train(arguments: argparse.Namespace) -> None:
    """`aecfe detector train`: train a detector."""
    values: dict[str, Any] = {"detector": read_section(arguments.config, "detector") if arguments.config else {}}
    for override in arguments.overrides:
        set_value(values, override if override.startswith("detector.") else f"detector.{override}")
    flags = {"weights": arguments.weights, "exclude": arguments.exclude, "layers": arguments.layers}
    values["detector"].update({name: value for name, value in flags.items() if value is not None})
    settings = build(DetectorSettings, values["detector"], "detector")
    settings.validate()
    if not arguments.multi_worker:  # of several processes only one writes, and the folder may be on its machine alone
        _check_run_folder(arguments)
    centres = _named_centres(arguments.centres, "auto", arguments.annotations)
    images = masked_images(centres, dict.fromkeys(centres, _annotation_choice(arguments)), strict=arguments.strict)
    if arguments.instances:
        for outlined in (i.centre for i in images if isinstance(i.source, Outlines)):
            log.info("%s: each outline is a cell of its own; --instances has no effect", outlined)

    from experiments.detector_stage import train_detector  # imports TensorFlow, which takes longer than most checks
    from mrcnn.parallel_model import multi_worker_strategy

    if arguments.deterministic:
        _compute_on_one_thread()
    train_detector(
        images,
        Path(arguments.output),
        settings=settings,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        strategy=multi_worker_strategy() if arguments.multi_worker else None,
    )
    print(arguments.output)


def _compute_on_one_thread() -> None:
    from mrcnn.determinism import compute_on_one_thread

    compute_on_one_thread()


def detector_evaluate(arguments: argparse.Namespace) -> None:
    """`aecfe detector evaluate`: measure a detector."""
    if arguments.output:
        check_output_file(arguments.output)

    from experiments.detector_stage import evaluate_detector

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


def detect(arguments: argparse.Namespace) -> None:
    """`aecfe detect`: find cells and write them down, without features."""
    from experiments.cell_files import CellFiles
    from experiments.detect_images import detect_images, find_images

    score = arguments.min_score
    _check_score(score)
    _check_pixel_size(arguments.pixel_size)
    kinds = {kind: getattr(arguments, kind) for kind in ("csv", "labels", "geojson", "overlay")}
    for kind, place in kinds.items():
        if place:
            (check_output_file if kind == "csv" else check_output_folder)(place, f"--{kind}")
    files = CellFiles(**{kind: Path(place) for kind, place in kinds.items() if place})
    images = find_images(arguments.images)
    files.check(images, arguments.overwrite)

    from mrcnn.model import load_detector

    detector = load_detector(arguments.detector, {} if score is None else {"DETECTION_MIN_CONFIDENCE": score})
    counts = detect_images(detector, images, files, pixel_size=arguments.pixel_size, batch_size=arguments.batch_size)
    print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items()))


def extract(arguments: argparse.Namespace) -> None:
    """`aecfe extract`: find cells and store their features."""
    from mrcnn.shards import check_shard_count, shard_path

    output, shard = Path(arguments.output), arguments.shard
    if shard is not None:
        check_shard_count(output, shard)
        output = shard_path(output, shard)
    if arguments.overwrite or not output.is_file():  # a finished store is used as it is, wherever it lies
        check_output_file(output)

    from mrcnn.features import extract_features
    from mrcnn.model import load_detector

    name = arguments.name or Path(arguments.centre).resolve().name
    centre = load_centre(name, arguments.centre, arguments.layout, arguments.scheme)
    overrides = {} if arguments.min_score is None else {"DETECTION_MIN_CONFIDENCE": arguments.min_score}
    counts = extract_features(
        load_detector(arguments.detector, overrides),
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


def train(arguments: argparse.Namespace) -> None:
    """`aecfe train`: train an autoencoder."""
    values: dict[str, Any] = {"autoencoder": read_section(arguments.config, "autoencoder") if arguments.config else {}}
    for override in arguments.overrides:
        set_value(values, override if override.startswith("autoencoder.") else f"autoencoder.{override}")
    renamed = {
        "adaptation_reduction": arguments.reduction,
        "source_centre": arguments.source,
        "global_batch_size": arguments.batch_size,
    }
    alike = {name: getattr(arguments, name) for name in AUTOENCODER_FLAGS}
    values["autoencoder"].update({key: value for key, value in (renamed | alike).items() if value is not None})
    if not arguments.multi_worker:  # of several processes only one writes, and the folder may be on its machine alone
        _check_run_folder(arguments)
    stores = _named_stores(arguments.stores)

    from autoencoder.config import AutoencoderConfig

    config = AutoencoderConfig.from_dict(values["autoencoder"])
    if arguments.deterministic:
        _compute_on_one_thread()
    strategy = _strategy(arguments)  # before TensorFlow has computed anything

    from autoencoder.training import train_autoencoder

    output, resume = Path(arguments.output), not arguments.overwrite
    train_autoencoder(config, stores, output, strategy=strategy, resume=resume, command=sys.argv)
    print(arguments.output)


def _strategy(arguments: argparse.Namespace):
    """How several devices share a batch, if they do."""
    from mrcnn.parallel_model import mirrored_strategy, multi_worker_strategy

    if arguments.multi_worker and arguments.gpus:
        raise InputError(
            "--gpus and --multi-worker exclude each other; CUDA_VISIBLE_DEVICES chooses the GPUs of a worker"
        )
    if arguments.multi_worker:
        return multi_worker_strategy()
    return mirrored_strategy(arguments.gpus, option="--gpus") if arguments.gpus else None


def embed(arguments: argparse.Namespace) -> None:
    """`aecfe embed`: write latents."""
    from experiments.splits import load_split

    check_output_file(arguments.output)
    stores = _named_stores(arguments.stores)
    splits = None
    if arguments.splits:
        splits = {name: load_split(Path(arguments.splits) / f"{name}.json").part_of for name in stores}

    from autoencoder.embedding import embed as embed_stores

    table = embed_stores(arguments.autoencoder, stores, arguments.output, splits=splits)
    print(f"{arguments.output}: {table.n_obs} cells, {table.n_vars} latents each")


def evaluate(arguments: argparse.Namespace) -> None:
    """`aecfe evaluate`: the cross-centre tables of some embeddings, other vectors and stores."""
    check_output_folder(arguments.output)

    from experiments.comparison import Protocol
    from experiments.evaluate_files import evaluate_files, sort_inputs

    stores, files = sort_inputs(arguments.inputs)
    evaluate_files(
        _named_stores(stores),
        files,
        Path(arguments.output),
        Protocol(arguments.protocol, arguments.runs, arguments.seed, arguments.test_on, jobs=os.cpu_count() or 1),
        standardise=arguments.standardise,
        raw_features=arguments.raw_features,
        command=sys.argv,
    )
    print((Path(arguments.output) / "cross_centre.txt").read_text(encoding="utf-8"))


def reproduce(arguments: argparse.Namespace) -> None:
    """`aecfe reproduce`: tables and figures of the thesis."""
    from experiments.cli_reproduce import reproduce_command

    reproduce_command(arguments)


def centres_check(arguments: argparse.Namespace) -> None:
    """`aecfe centres check`: look at centres before they are used."""
    from experiments.centre_check import centres_check as check

    check(arguments)


def report(arguments: argparse.Namespace) -> None:
    """`aecfe report`: the page of a run."""
    from experiments.pipeline import CONFIG, Pipeline

    path = Path(arguments.run) / CONFIG
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that `aecfe run` made")
    settings = load_settings(path)
    settings.output = arguments.run
    check_output_folder(arguments.run, "run")
    print(f"report: {Pipeline(settings).report()}")


def export_detector(arguments: argparse.Namespace) -> None:
    """`aecfe export detector`: a detector as a SavedModel."""
    _check_score(arguments.min_score)
    _check_export_folder(arguments)
    folder = detector_folder(arguments.run)

    from mrcnn.export import export_detector as export
    from mrcnn.model import detector_hash, load_detector

    overrides = {} if arguments.min_score is None else {"DETECTION_MIN_CONFIDENCE": arguments.min_score}
    written = export(
        load_detector(folder, overrides),
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
    _check_score(arguments.min_score)
    _check_export_folder(arguments)
    folders = detector_folder(arguments.detector), autoencoder_folder(arguments.autoencoder)

    from experiments.export_pipeline import export_pipeline as export

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


def _check_score(score: float | None) -> None:
    if score is not None and not 0.0 <= score <= 1.0:
        raise InputError(f"--min-score must lie between 0 and 1; got {score:g}")


def _check_pixel_size(size: float | None) -> None:
    if size is not None and not SMALLEST_PIXEL <= size <= LARGEST_PIXEL:
        raise InputError(f"--pixel-size is in micrometres, {SMALLEST_PIXEL:g} to {LARGEST_PIXEL:g}; got {size:g}")


def _check_run_folder(arguments: argparse.Namespace) -> None:
    """Check the folder of a training, unless it holds one: a finished one is used as it is, wherever it lies."""
    if arguments.overwrite or not (Path(arguments.output) / "run.json").is_file():
        check_output_folder(arguments.output)


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


def _named_stores(paths: list[str]) -> dict[str, Path | tuple[Path, ...]]:
    """Stores by the name of the centre that each of them holds; the shards of a centre as a tuple."""
    from mrcnn.feature_store import stores_by_centre

    return stores_by_centre(paths)
