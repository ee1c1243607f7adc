"""Thesis Table 3.3: networks that were trained on one centre's labels, tested on all, beside the forest on AE-CFE."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from experiments.evaluation.columns import choose_standardised
from experiments.evaluation.comparison import MAIN_PROBE, NETWORK, Comparison, Protocol, compare_columns
from experiments.evaluation.transfer import Cells, Pair
from experiments.settings import HANDCRAFTED, HANDCRAFTED_LAB, RCNN
from experiments.thesis.ablation import own_columns
from experiments.thesis.study import HASH_LENGTH, Study
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays, hash_json

log = logging.getLogger(__name__)

NAMES = {"batch": "ResNeXt", "group": "ResNeXt (GroupNorm)"}
PUBLISHED = "Matek et al."
NO_CENTRE = "none"
# Representations of Table 3.2 that stand beside the reference here too, where its settings have them.
BASELINES = (HANDCRAFTED, HANDCRAFTED_LAB, RCNN, "AE-RF")


@dataclass(frozen=True)
class Published:
    """A published classifier, as the user names it.

    Attributes:
        model: its file.
        classes: file of its classes, in the order of its outputs.
        centre: the centre that it learned from; None takes the one of layout matek19; "none" is neither of them, and
            its predictions stand in every row.
        pixels: range of the values that it takes.
        image_size: side in pixels to which images are brought; None where the model says it.
        name: heading of its column.
    """

    model: Path
    classes: Path
    centre: str | None = None
    pixels: str = "0..1"
    image_size: int | None = None
    name: str = PUBLISHED


def make_oracles(study: Study, protocol: Protocol, published: Published | None = None) -> Comparison:
    """Train a network on each centre, test it on all, and compare with AE-CFE and the simple baselines.

    Args:
        study: detector, stores, splits and autoencoders.
        protocol: of the forest; its `test_on` holds for the networks too.
        published: a classifier to test beside them.

    Raises:
        InputError: if a file or setting does not fit.
    """
    from experiments.thesis.oracles import OracleConfig  # imports TensorFlow

    settings = study.settings.reproduce
    cardinality = OracleConfig.from_dict(settings.oracle.network).cardinality
    cells = study.cells()
    # Checked before hours of training.
    opened = None if published is None else _open_published(study, cells, published)
    reference = settings.ablation.reference
    baselines = [name for name in settings.ablation.columns if name in BASELINES and name != reference]
    columns = own_columns(study, [reference, *baselines])
    # The reference as it is stands in the thesis' table, whatever the settings say of standardising.
    chosen = [columns[0], *choose_standardised(columns, settings.ablation.standardise)]
    chosen = list({column.name: column for column in chosen}.values())
    compared = compare_columns(chosen, cells, protocol, study.cache)
    predictions = {(name, MAIN_PROBE): compared.predictions[name, MAIN_PROBE] for name in compared.columns}
    notes = dict(compared.notes)
    networks = {}
    images = _stored_images(study)
    for normalization in settings.oracle.normalizations:
        name, layers = NAMES[normalization], {"batch": "BatchNorm", "group": "GroupNorm"}[normalization]
        networks[name, NETWORK] = _train_and_test(study, cells, images, normalization, protocol)
        notes[name] = (
            f"{name}: ResNeXt of cardinality {cardinality} with {layers}, trained on the labels of the training part "
            f"of one centre; {settings.oracle.training_runs} training{'s' * (settings.oracle.training_runs > 1)} each."
        )
    if opened is not None:
        networks[published.name, NETWORK] = _test_published(study, cells, opened, published, protocol)
        notes[published.name] = f"{published.name}: the classifier {published.model.name}."
    predictions = {**networks, **predictions}
    return Comparison(
        columns=tuple(column for column, _ in predictions),
        notes=notes,
        probes=(MAIN_PROBE,),
        cells=cells,
        protocol=protocol,
        predictions=predictions,
        mixing=compared.mixing,
    )


def _train_and_test(
    study: Study, cells: Cells, images: dict[str, np.ndarray], normalization: str, protocol: Protocol
) -> dict[Pair, np.ndarray]:
    """Train on each centre, name the tested cells of all: class numbers of shape (training runs, n) by pair."""
    from experiments.thesis.oracles import OracleConfig, train_oracle

    settings = study.settings.reproduce.oracle
    named: dict[Pair, list[np.ndarray]] = {pair: [] for pair in cells.pairs}
    for trained_on in cells.centres:
        rows = cells.train_rows(trained_on)
        learned, labels = images[trained_on][rows], cells.types[trained_on][rows]
        inputs_hash = hash_arrays(learned, labels)
        for run in range(settings.training_runs):
            config = OracleConfig.from_dict(
                {**settings.network, "normalization": normalization, "seed": study.settings.seed + run}
            )
            identity = hash_json({"config": config.to_dict(), "inputs": inputs_hash})[:HASH_LENGTH]
            folder = study.output / "oracles" / f"{trained_on}-{normalization}-{identity}"
            # Not even loaded where all that it names is known.
            oracle = cache(partial(train_oracle, config, learned, labels, folder, inputs_hash=inputs_hash))
            for tested_on in cells.centres:
                pair = (trained_on, tested_on)
                tested = images[tested_on][cells.test_rows(pair, protocol.test_on)]
                inputs = {"oracle": identity, "images": hash_arrays(tested)}
                found = study.cache.arrays("oracle", inputs, partial(_name_crops, oracle, tested))["named"]
                named[pair].append(cells.class_numbers(found).astype(np.int16))
    return {pair: np.stack(runs) for pair, runs in named.items()}


def _name_crops(oracle, images: np.ndarray) -> dict[str, np.ndarray]:
    return {"named": oracle().predict(images)}


def _stored_images(study: Study) -> dict[str, np.ndarray]:
    """Crop of each cell by centre, uint8 of shape (n, 128, 128, 3)."""
    from mrcnn.feature_store import open_store

    images = {}
    for centre, path in study.stores().items():
        with open_store(path) as store:
            images[centre] = store.read("crop", 0, len(store))
    return images


def _open_published(study: Study, cells: Cells, published: Published):
    """Load a published classifier, and map its classes to the cell types of the comparison.

    Returns:
        The classifier, the type of each of its classes, and the centres that it is tested from.
    """
    from experiments.thesis.published_classifier import load_published, map_classes

    classifier = load_published(
        published.model, published.classes, image_size=published.image_size, pixels=published.pixels
    )
    origins = _origin(study, cells, published)
    layout_map = study.class_map
    if len(origins) == 1:
        layout_map = study.centres[origins[0]].class_map
    return classifier, map_classes(classifier.classes, layout_map), origins


def _origin(study: Study, cells: Cells, published: Published) -> Sequence[str]:
    """The centres in whose rows the classifier stands."""
    if published.centre == NO_CENTRE:
        return cells.centres
    if published.centre is not None:
        if published.centre not in cells.centres:
            raise InputError(f"--oracle-centre {published.centre}: is none of {', '.join(cells.centres)}, {NO_CENTRE}")
        return [published.centre]
    found = [name for name in cells.centres if study.centres[name].layout == "matek19"]
    if len(found) != 1:
        raise InputError(
            f"--oracle: say with --oracle-centre which centre it learned from: {', '.join(cells.centres)}, or "
            f"{NO_CENTRE}"
        )
    return found


def _test_published(
    study: Study, cells: Cells, opened, published: Published, protocol: Protocol
) -> dict[Pair, np.ndarray]:
    """Class numbers of the tested cells, of shape (1, n), by pair; the whole original images are shown to it."""
    classifier, type_of, origins = opened
    from mrcnn.files.provenance import file_hash

    identity = {
        "model": file_hash(published.model),
        "classes": list(classifier.classes),
        "pixels": published.pixels,
        "image_size": list(classifier.image_size),
    }
    paths = {name: {record.key: record.path for record in centre.records} for name, centre in study.centres.items()}
    named = {}
    for origin in origins:
        for tested_on in cells.centres:
            rows = cells.test_rows((origin, tested_on), protocol.test_on)
            keys = [str(key) for key in cells.keys[tested_on][rows]]

            def predict(centre: str = tested_on, keys: Sequence[str] = keys) -> dict[str, np.ndarray]:
                return {"named": _name_images(classifier, [paths[centre][key] for key in keys])}

            inputs = {**identity, "keys": keys, "store": study.described()[tested_on]}
            found = study.cache.arrays("published", inputs, predict)["named"]
            types = np.array([type_of[str(name)] for name in found])
            named[origin, tested_on] = cells.class_numbers(types).astype(np.int16)[np.newaxis]
    return named


def _name_images(classifier, paths: Sequence[Path], batch_size: int = 32) -> np.ndarray:
    """Classes of original images, str array of shape (n,); neighbours of one size share a batch."""
    from mrcnn.data.images import read_image

    named: list[np.ndarray] = []
    batch: list[np.ndarray] = []
    for path in paths:
        image = read_image(path)
        if batch and (len(batch) == batch_size or image.shape != batch[0].shape):
            named.append(classifier.predict(np.stack(batch)))
            batch = []
        batch.append(image)
    if batch:
        named.append(classifier.predict(np.stack(batch)))
    return np.concatenate(named) if named else np.array([], str)
