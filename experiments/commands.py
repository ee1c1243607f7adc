"""What each command of `experiments.cli` does with its arguments."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from experiments.centres import Centre, load_centre
from experiments.settings import DetectorSettings, build, load_settings, read_yaml, set_value
from mrcnn.atomic import write_json
from mrcnn.errors import InputError


def run(arguments: argparse.Namespace) -> None:
    """`aecfe run`: every stage of a configuration."""
    from experiments.pipeline import Pipeline

    overrides = list(arguments.overrides)
    for name in ("data", "output", "seed"):
        if getattr(arguments, name) is not None:
            overrides.append(f"{name}={json.dumps(getattr(arguments, name))}")
    settings = load_settings(arguments.config, overrides)
    report = Pipeline(settings, overwrite=arguments.overwrite).run()
    print((Path(settings.output) / "tables" / "cross_centre.txt").read_text(encoding="utf-8"))
    print(f"report: {report}")


def synth(arguments: argparse.Namespace) -> None:
    """`aecfe synth`: draw synthetic centres."""
    from tqdm import tqdm

    from experiments.synthetic import generate_centre

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
    from experiments.detector_stage import masked_images, train_detector

    section = read_yaml(arguments.config).get("detector", {}) if arguments.config else {}
    values: dict[str, Any] = {"detector": section or {}}
    for override in arguments.overrides:
        set_value(values, override if override.startswith("detector.") else f"detector.{override}")
    settings = build(DetectorSettings, values["detector"], "detector")
    semantics = "instances" if arguments.instances else "cell"
    centres = _named_centres(arguments.centres, "auto")
    train_detector(
        [masked_images(centre, semantics) for centre in centres.values()],
        Path(arguments.output),
        settings=settings.settings,
        epochs=settings.epochs,
        train_share=settings.train_share,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
    )
    print(arguments.output)


def detector_evaluate(arguments: argparse.Namespace) -> None:
    """`aecfe detector evaluate`: measure a detector."""
    from experiments.detector_stage import evaluate_detector

    centres = _named_centres(arguments.centres, arguments.layout)
    semantics = dict.fromkeys(centres, "instances" if arguments.instances else "cell")
    measured = evaluate_detector(
        Path(arguments.detector), centres, semantics, dict.fromkeys(centres, arguments.box_names)
    )
    if arguments.output:
        write_json(arguments.output, measured)
    for name, values in measured.items():
        print(name)
        for key, value in values.items():
            print(f"  {key:18} {value:.4f}" if isinstance(value, float) else f"  {key:18} {value}")


def extract(arguments: argparse.Namespace) -> None:
    """`aecfe extract`: find cells and store their features."""
    from mrcnn.features import extract_features
    from mrcnn.model import load_detector

    name = arguments.name or Path(arguments.centre).resolve().name
    centre = load_centre(name, arguments.centre, arguments.layout, arguments.scheme)
    overrides = {} if arguments.min_score is None else {"DETECTION_MIN_CONFIDENCE": arguments.min_score}
    counts = extract_features(
        load_detector(arguments.detector, overrides),
        centre.records,
        arguments.output,
        centre=name,
        all_cells=arguments.all_cells,
        with_masks=not arguments.no_masks,
        batch_size=arguments.batch_size,
        overwrite=arguments.overwrite,
    )
    print(f"{arguments.output}: " + ", ".join(f"{key} {value}" for key, value in counts.items()))


def train(arguments: argparse.Namespace) -> None:
    """`aecfe train`: train an autoencoder."""
    values: dict[str, Any] = {"autoencoder": {}}
    if arguments.config:
        values["autoencoder"] = read_yaml(arguments.config).get("autoencoder", {}) or {}
    for override in arguments.overrides:
        set_value(values, override if override.startswith("autoencoder.") else f"autoencoder.{override}")
    flags = {
        "adaptation": arguments.adaptation,
        "beta": arguments.beta,
        "source_centre": arguments.source,
        "latent_size": arguments.latent_size,
        "image_size": arguments.image_size,
        "feature_scaling": arguments.feature_scaling,
        "steps": arguments.steps,
        "global_batch_size": arguments.batch_size,
        "seed": arguments.seed,
    }
    values["autoencoder"].update({key: value for key, value in flags.items() if value is not None})
    stores = _named_stores(arguments.stores)

    from autoencoder.config import AutoencoderConfig
    from autoencoder.training import train_autoencoder

    config = AutoencoderConfig.from_dict(values["autoencoder"])
    train_autoencoder(config, stores, Path(arguments.output), resume=not arguments.overwrite, command=sys.argv)
    print(arguments.output)


def embed(arguments: argparse.Namespace) -> None:
    """`aecfe embed`: write latents."""
    from experiments.splits import load_split

    stores = _named_stores(arguments.stores)
    splits = None
    if arguments.splits:
        splits = {name: load_split(Path(arguments.splits) / f"{name}.json").part_of for name in stores}

    from autoencoder.embedding import embed as embed_stores

    table = embed_stores(arguments.autoencoder, stores, arguments.output, splits=splits)
    print(f"{arguments.output}: {table.n_obs} cells, {table.n_vars} latents each")


def evaluate(arguments: argparse.Namespace) -> None:
    """`aecfe evaluate`: the cross-centre table of some embeddings and stores."""
    from experiments.settings import EvaluateSettings
    from experiments.table_stage import make_table, splits_of_inputs

    stores = _named_stores([path for path in arguments.inputs if not path.endswith(".h5ad")])
    embeddings = {Path(p).stem if Path(p).stem != "embedding" else Path(p).parent.name: Path(p)
                  for p in arguments.inputs if p.endswith(".h5ad")}  # fmt: skip
    methods = [*(["R-CNN-RF"] if stores else []), *embeddings]
    settings = EvaluateSettings(methods, arguments.runs, arguments.test_on, arguments.raw_features)
    splits = splits_of_inputs(stores, embeddings, Path(arguments.output) / "splits")
    make_table(settings, stores, embeddings, splits, Path(arguments.output), arguments.seed)
    print((Path(arguments.output) / "cross_centre.txt").read_text(encoding="utf-8"))


def report(arguments: argparse.Namespace) -> None:
    """`aecfe report`: the page of a run."""
    from experiments.pipeline import CONFIG, Pipeline

    path = Path(arguments.run) / CONFIG
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that `aecfe run` made")
    settings = load_settings(path)
    settings.output = arguments.run
    print(f"report: {Pipeline(settings).report()}")


def _named_centres(folders: list[str], layout: str) -> dict[str, Centre]:
    centres: dict[str, Centre] = {}
    for folder in folders:
        name = Path(folder).resolve().name
        if name in centres:
            raise InputError(f"{folder}: two centres are called {name}; rename a folder")
        centres[name] = load_centre(name, folder, layout)
    return centres


def _named_stores(paths: list[str]) -> dict[str, Path]:
    """Stores by the name of the centre that each of them holds."""
    from mrcnn.feature_store import FeatureStore

    stores: dict[str, Path] = {}
    for path in paths:
        with FeatureStore(path) as store:
            if store.centre in stores:
                raise InputError(f"{path}: {stores[store.centre]} already holds centre {store.centre}")
            stores[store.centre] = Path(path)
    return stores
