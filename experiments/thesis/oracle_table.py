"""Table 3.3 of the thesis: networks trained on one centre, tested on all, beside the random forest on AE-CFE."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np

from experiments.evaluation.columns import choose_standardised
from experiments.evaluation.comparison import MAIN_PROBE, NETWORK, Comparison, Protocol, compare_columns
from experiments.evaluation.transfer import Cells, Pair
from experiments.settings import HANDCRAFTED, HANDCRAFTED_LAB, RCNN, OracleConfig
from experiments.thesis.ablation import own_columns
from experiments.thesis.study import HASH_LENGTH, Study
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays, hash_json

NAMES = {"batch": "ResNeXt", "group": "ResNeXt (GroupNorm)"}
LAYERS = {"batch": "BatchNorm", "group": "GroupNorm"}
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
        centre: the centre that it was trained on; None takes the one of layout matek19; "none" is neither of them, and
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
        protocol: of the random forest; its `test_on` holds for the networks too.
        published: a classifier to test beside them.

    Raises:
        InputError: if a file or setting does not fit.
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
    notes, networks, images = dict(compared.notes), {}, _stored_crops(study)
    cardinality = OracleConfig.from_dict(settings.oracle.network).cardinality
    for normalization in settings.oracle.normalizations:
        name = NAMES[normalization]
        networks[name, NETWORK] = _train_and_test(study, cells, images, normalization, protocol)
        notes[name] = (
            f"{name}: ResNeXt of cardinality {cardinality} with {LAYERS[normalization]}, trained on the labels of the "
            f"training part of one centre; {settings.oracle.training_runs} "
            f"training{'s' * (settings.oracle.training_runs > 1)} each."
        )
    if opened is not None:
        networks[published.name, NETWORK] = _test_published(study, cells, opened, published, protocol)
        notes[published.name] = f"{published.name}: the classifier {published.model.name}."
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


def _train_and_test(
    study: Study, cells: Cells, images: dict[str, np.ndarray], normalization: str, protocol: Protocol
) -> dict[Pair, np.ndarray]:
    """Train on each centre, predict the tested cells of all: class numbers of shape (training runs, n) by pair."""
    from experiments.thesis.oracles import train_oracle  # imports TensorFlow

    settings = study.settings.reproduce.oracle
    predicted: dict[Pair, list[np.ndarray]] = {pair: [] for pair in cells.pairs}
    for trained_on in cells.centres:
        rows = cells.train_rows(trained_on)
        crops, labels = images[trained_on][rows], cells.types[trained_on][rows]
        inputs_hash = hash_arrays(crops, labels)
        for run in range(settings.training_runs):
            values = {**settings.network, "normalization": normalization, "seed": study.settings.seed + run}
            config = OracleConfig.from_dict(values)
            identity = hash_json({"config": config.to_dict(), "inputs": inputs_hash})[:HASH_LENGTH]
            folder = study.output / "oracles" / f"{trained_on}-{normalization}-{identity}"
            # Not even loaded where all that it predicts is known.
            oracle = cache(partial(train_oracle, config, crops, labels, folder, inputs_hash=inputs_hash))
            for tested_on in cells.centres:
                pair = (trained_on, tested_on)
                tested = images[tested_on][cells.test_rows(pair, protocol.test_on)]
                inputs = {"oracle": identity, "images": hash_arrays(tested)}
                found = study.cache.arrays("oracle", inputs, partial(_predict_crops, oracle, tested))["named"]
                predicted[pair].append(cells.class_numbers(found).astype(np.int16))
    return {pair: np.stack(runs) for pair, runs in predicted.items()}


def _predict_crops(oracle, images: np.ndarray) -> dict[str, np.ndarray]:
    return {"named": oracle().predict(images)}


def _stored_crops(study: Study) -> dict[str, np.ndarray]:
    """Crop of each cell by centre, uint8 of shape (n, 128, 128, 3)."""
    from mrcnn.feature_store import open_store

    crops = {}
    for centre, path in study.stores().items():
        with open_store(path) as store:
            crops[centre] = store.read("crop", 0, len(store))
    return crops


def _open_published(study: Study, cells: Cells, published: Published):
    """The classifier, the cell type of each of its classes, and the centres in whose rows it stands."""
    from experiments.thesis.published_classifier import load_published, map_classes

    classifier = load_published(
        published.model, published.classes, image_size=published.image_size, pixels=published.pixels
    )
    centre, known = published.centre, ", ".join(cells.centres)
    if centre is None:
        found = [name for name in cells.centres if study.centres[name].layout == "matek19"]
        if len(found) != 1:
            raise InputError(
                f"--oracle: say with --oracle-centre which centre it was trained on: {known}, or {NO_CENTRE}"
            )
        centre = found[0]
    elif centre not in (*cells.centres, NO_CENTRE):
        raise InputError(f"--oracle-centre {centre}: is none of {known}, {NO_CENTRE}")
    has_centre = centre != NO_CENTRE
    class_map = study.centres[centre].class_map if has_centre else study.class_map
    return classifier, map_classes(classifier.classes, class_map), [centre] if has_centre else cells.centres


def _test_published(
    study: Study, cells: Cells, opened, published: Published, protocol: Protocol
) -> dict[Pair, np.ndarray]:
    """Class numbers of the tested cells, of shape (1, n), by pair; the whole original images are shown to it."""
    from mrcnn.files.provenance import file_hash

    classifier, type_of, centres = opened
    identity = {
        "model": file_hash(published.model),
        "classes": list(classifier.classes),
        "pixels": published.pixels,
        "image_size": list(classifier.image_size),
    }
    predicted = {}
    for trained_on in centres:
        for tested_on in cells.centres:
            pair = (trained_on, tested_on)
            keys = cells.image_ids[tested_on][cells.test_rows(pair, protocol.test_on)].tolist()
            paths = {record.image_id: record.path for record in study.centres[tested_on].records}
            predict = partial(_predict_images, classifier, [paths[key] for key in keys])
            inputs = {**identity, "keys": keys, "store": study.described()[tested_on]}
            found = study.cache.arrays("published", inputs, predict)["named"]
            types = np.array([type_of[str(name)] for name in found])
            predicted[pair] = cells.class_numbers(types).astype(np.int16)[np.newaxis]
    return predicted


def _predict_images(classifier, paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Classes of original images, str array of shape (n,)."""
    found = [classifier.predict(batch) for batch in _batches(paths)]
    return {"named": np.concatenate(found) if found else np.array([], str)}


def _batches(paths: Sequence[Path], batch_size: int = 32) -> Iterator[np.ndarray]:
    """Images in their order; neighbours of one size share a batch."""
    from mrcnn.data.images import read_image

    for start in range(0, len(paths), batch_size):
        for _, images in groupby(map(read_image, paths[start : start + batch_size]), lambda image: image.shape):
            yield np.stack(list(images))
