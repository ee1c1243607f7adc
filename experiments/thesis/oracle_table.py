"""Table 3.3 of the thesis: networks trained on one centre, tested on all, beside the random forest on AE-CFE."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evaluation.comparison import (
    MAIN_PROBE,
    NETWORK,
    Comparison,
    Protocol,
    choose_standardised,
    compare_columns,
)
from experiments.evaluation.transfer import Cells, Pair
from experiments.settings import HANDCRAFTED, HANDCRAFTED_LAB, RCNN, OracleConfig
from experiments.thesis.ablation import own_columns
from experiments.thesis.study import HASH_LENGTH, Study
from mrcnn.data.images import read_image
from mrcnn.feature_store import open_store
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import file_hash, hash_arrays, hash_json
from mrcnn.files.run_folder import RunFolder

NAMES = {"batch": "ResNeXt", "group": "ResNeXt (GroupNorm)"}
LAYERS = {"batch": "BatchNorm", "group": "GroupNorm"}
PUBLISHED = "Matek et al."
# Representations of Table 3.2 that stand beside the reference here too, where its settings have them.
BASELINES = (HANDCRAFTED, HANDCRAFTED_LAB, RCNN, "AE-RF")


@dataclass(frozen=True)
class Published:
    """A published classifier, as the user names it.

    Attributes:
        model: its file.
        classes: file of its classes, in the order of its outputs.
        centre: the centre that it was trained on; None takes the one of layout matek19; "none" is neither of them, and
            its predictions stand in every row.
        pixels: range of the values that it takes.
        image_size: side in pixels to which images are brought; None where the model says it.
    """

    model: Path
    classes: Path
    centre: str | None = None
    pixels: str = "0..1"
    image_size: int | None = None


def make_oracles(study: Study, protocol: Protocol, published: Published | None = None) -> Comparison:
    """Train a network on each centre, test it on all, and compare with AE-CFE and the simple baselines.

    The protocol is that of the random forest; its `test_on` holds for the networks and the published classifier too.
    """
    settings = study.settings.reproduce
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
    notes, networks, crops = dict(compared.notes), {}, _stored_crops(study)
    cardinality, runs = OracleConfig.from_dict(settings.oracle.network).cardinality, settings.oracle.training_runs
    for normalization in settings.oracle.normalizations:
        name = NAMES[normalization]
        networks[name, NETWORK] = _train_and_test(study, cells, crops, normalization, protocol)
        notes[name] = (
            f"{name}: ResNeXt of cardinality {cardinality} with {LAYERS[normalization]}, trained on the labels of the "
            f"training part of one centre; {runs} training{'s' * (runs > 1)} each."
        )
    if opened is not None:
        networks[PUBLISHED, NETWORK] = _test_published(study, cells, *opened, protocol)
        notes[PUBLISHED] = f"{PUBLISHED}: the classifier {published.model.name}."
    forests = {(name, MAIN_PROBE): compared.predictions[name, MAIN_PROBE] for name in compared.columns}
    return Comparison(
        columns=tuple(column for column, _ in (*networks, *forests)),
        notes=notes,
        probes=(MAIN_PROBE,),
        cells=cells,
        protocol=protocol,
        predictions={**networks, **forests},
        mixing=compared.mixing,
    )


def _stored_crops(study: Study) -> dict[str, np.ndarray]:
    """Crop of each cell by centre, uint8 of shape (n, 128, 128, 3)."""
    crops = {}
    for centre, path in study.stores().items():
        with open_store(path) as store:
            crops[centre] = store.read("crop", 0, len(store))
    return crops


def _train_and_test(
    study: Study, cells: Cells, crops: Mapping[str, np.ndarray], normalization: str, protocol: Protocol
) -> dict[Pair, np.ndarray]:
    """Train on each centre, predict the tested cells of all: class numbers of shape (training runs, n) by pair."""
    from experiments.thesis.oracles import train_oracle  # imports TensorFlow

    settings = study.settings.reproduce.oracle
    predicted: dict[Pair, list[np.ndarray]] = {pair: [] for pair in cells.pairs}
    for trained_on in cells.centres:
        rows = cells.train_rows(trained_on)
        images, labels = crops[trained_on][rows], cells.types[trained_on][rows]
        for run in range(settings.training_runs):
            values = {**settings.network, "normalization": normalization, "seed": study.settings.seed + run}
            config = OracleConfig.from_dict(values)
            identity = {"config": config.to_dict(), "inputs": hash_arrays(images, labels)}
            name = hash_json(identity)[:HASH_LENGTH]
            folder = RunFolder(study.output / "oracles" / f"{trained_on}-{normalization}-{name}", "oracle", identity)
            # Not even loaded where all that it predicts is known.
            oracle = cache(partial(train_oracle, config, images, labels, folder))
            for tested_on in cells.centres:
                tested = crops[tested_on][cells.test_rows((trained_on, tested_on), protocol.test_on)]
                found = _predict(study, "oracle", {"oracle": name, "images": hash_arrays(tested)}, oracle, tested)
                predicted[trained_on, tested_on].append(cells.class_numbers(found).astype(np.int16))
    return {pair: np.stack(runs) for pair, runs in predicted.items()}


def _predict(
    study: Study, kind: str, inputs: Mapping[str, Any], classifier: Callable[[], Any], images: Iterable[np.ndarray]
) -> np.ndarray:
    """Names that a classifier gives to images, from the cache where they are known."""
    return study.cache.arrays(kind, inputs, lambda: {"named": classifier().predict(images)})["named"]


def _open_published(study: Study, cells: Cells, published: Published) -> tuple[Any, dict[str, str], Sequence[str]]:
    """The classifier, the cell type of each of its classes, and the centres in whose rows it stands."""
    from experiments.thesis.image_classifier import load_published

    size, pixels = published.image_size, published.pixels
    classifier = load_published(published.model, published.classes, image_size=size, pixels=pixels)
    centre, known = published.centre, ", ".join(cells.centres)
    if centre is None:
        found = [name for name in cells.centres if study.centres[name].layout == "matek19"]
        if len(found) != 1:
            raise InputError(f"--oracle: say with --oracle-centre which centre it was trained on: {known}, or none")
        centre = found[0]
    elif centre not in (*cells.centres, "none"):
        raise InputError(f"--oracle-centre {centre}: is none of {known}, none")
    has_centre = centre != "none"
    class_map = study.centres[centre].class_map if has_centre else study.class_map
    type_of = {name: class_map.cell_type(name) for name in classifier.classes}
    if not any(type_of.values()):
        shown = ", ".join(list(type_of)[:6])
        raise InputError(f"class map {class_map.name}: has no cell type for any class of the classifier ({shown})")
    return classifier, type_of, [centre] if has_centre else cells.centres


def _test_published(
    study: Study, cells: Cells, classifier: Any, type_of: Mapping[str, str], centres: Sequence[str], protocol: Protocol
) -> dict[Pair, np.ndarray]:
    """Class numbers of the tested cells, of shape (1, n), by pair; the whole original images are shown to it."""
    identity = {"model": file_hash(classifier.path), "classes": list(classifier.classes)}
    identity |= {"pixels": classifier.pixels, "image_size": list(classifier.image_size)}
    predicted = {}
    for pair in cells.pairs:
        trained_on, tested_on = pair
        if trained_on in centres:
            image_ids = cells.image_ids[tested_on][cells.test_rows(pair, protocol.test_on)].tolist()
            paths = {record.image_id: record.path for record in study.centres[tested_on].records}
            inputs = {**identity, "keys": image_ids, "store": study.described()[tested_on]}
            images = (read_image(paths[image_id]) for image_id in image_ids)
            found = _predict(study, "published", inputs, lambda: classifier, images)
            types = np.array([type_of[str(name)] for name in found])
            predicted[pair] = cells.class_numbers(types).astype(np.int16)[np.newaxis]
    return predicted
