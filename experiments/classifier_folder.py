"""A trained classifier as a folder: training it, writing it, and reading it back.

forest.skops       the classifier (logistic.skops of a logistic regression), see `forest_files`
classifier.json    what it takes, what it names, what it learned from and how well it did
MODEL_CARD.md      the same for people
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from experiments.classifier_inputs import HOW_TO_MAKE, STANDARDISE, CentreCells, Source, prepare_vectors
from experiments.classifier_scores import cross_validated, left_out_centres, out_of_bag
from experiments.forest_files import (
    KINDS,
    Classifier,
    load_classifier,
    read_plain_file,
    rebuild_forest,
    rebuild_linear,
    save_classifier,
)
from experiments.model_card import CARD, FEW_CELLS, classifier_card
from experiments.probes import MAX_DEPTH, PROTOCOLS, make_forest
from experiments.versions import versions
from mrcnn.atomic import atomic_folder, write_json, write_text
from mrcnn.errors import InputError, first_line
from mrcnn.json_values import parse_json

log = logging.getLogger(__name__)

RECORD = "classifier.json"
FORMAT = "aecfe classifier 1"
MAX_RECORD_BYTES = 4 * 2**20
MAX_CLASSES = 1000
LONGEST_NAME = 100


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier that was read from its folder.

    Attributes:
        folder: where it lies.
        record: content of classifier.json, checked.
        model: for `predict_proba`.
    """

    folder: Path
    record: dict[str, Any]
    model: Classifier

    @property
    def source(self) -> Source:
        """The vectors that it takes."""
        return Source(**self.record["vectors"])

    @property
    def classes(self) -> list[str]:
        """Cell types, in the order of the probabilities."""
        return self.record["classes"]


def train_classifier(
    source: Source,
    cells: Mapping[str, CentreCells],
    output: str | os.PathLike,
    *,
    train_on: Sequence[str] = (),
    kind: str = "forest",
    standardise: str = "none",
    seed: int = 0,
    overwrite: bool = False,
    command: Sequence[str] = (),
    n_jobs: int = 2,
) -> dict[str, Any]:
    """Train a classifier on the labelled cells of some centres, and write its folder.

    Args:
        source: what the vectors are.
        cells: by centre, as from `classifier_inputs.read_cells`.
        output: the folder.
        train_on: centres; all that have labelled cells if empty.
        kind: "forest", that of thesis section 3.4, or "logistic".
        standardise: "none" or "centre", see `classifier_inputs.prepare_vectors`.
        seed: of the forest, 0 or more.
        overwrite: replace an older classifier.
        command: the command line, for the record.
        n_jobs: cores.

    Returns:
        What classifier.json says.

    Raises:
        InputError: if a centre is unknown or has no labelled cell, there are fewer than two types, a type has a name
            that cannot be used, there are too few cells to standardise, or `output` holds something else.
    """
    centres = _choose_centres(cells, train_on)
    labelled = {centre: np.flatnonzero(cells[centre].types != "") for centre in centres}
    types = {centre: cells[centre].types[labelled[centre]] for centre in centres}
    classes = _class_names(types)
    # Statistics are those of all cells of a centre, as they will be of a centre that has no labels.
    vectors = {c: prepare_vectors(cells[c], c, standardise)[labelled[c]] for c in centres}
    x, y = np.concatenate([vectors[c] for c in centres]), np.concatenate([types[c] for c in centres])
    model, scores = _train_forest(x, y, seed, n_jobs) if kind == "forest" else _train_logistic(x, y, seed)
    scores |= left_out_centres(lambda: _untrained(kind, seed, n_jobs), vectors, types)
    record = {
        "format": FORMAT,
        "classifier": kind,
        "vectors": asdict(source),
        "standardise": standardise,
        "classes": classes,
        "centres": centres,
        "counts": {c: {name: int(np.sum(types[c] == name)) for name in classes} for c in centres},
        "scores": scores,
        "settings": {"trees": len(model), "max_depth": MAX_DEPTH, "seed": seed} if kind == "forest" else {},
        "versions": {**versions(), "skops": version("skops"), "aecfe": version("aecfe")},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
    }
    with atomic_folder(output, RECORD, overwrite) as folder:
        record["file"] = f"{kind}.skops"
        record["sha256"] = save_classifier(model, folder / record["file"])
        write_text(folder / CARD, classifier_card(record))
        write_json(folder / RECORD, record)
    return record


def read_classifier(folder: str | os.PathLike) -> TrainedClassifier:
    """Read what `train_classifier` wrote, by whomever it was written.

    Raises:
        InputError: if a file is missing, damaged, or anything but such a classifier.
    """
    folder = Path(folder)
    record = _read_record(folder)
    model = load_classifier(
        folder / f"{record['classifier']}.skops",
        record["classifier"],
        record["classes"],
        record["vectors"]["length"],
        sha256=record["sha256"],
    )
    return TrainedClassifier(folder, record, model)


def _choose_centres(cells: Mapping[str, CentreCells], train_on: Sequence[str]) -> list[str]:
    labelled = [centre for centre, own in cells.items() if np.any(own.types != "")]
    if not labelled:
        files = ", ".join(dict.fromkeys(str(own.path) for own in cells.values()))
        raise InputError(f"{files}: no cell has a cell_type, and there is nothing to learn; give files with labels")
    for centre in train_on:
        if centre not in labelled:
            fault = "has no labelled cell" if centre in cells else "is in none of the files"
            raise InputError(f"--train-on {centre}: {fault}; choose from {', '.join(labelled)}")
    if not train_on and len(labelled) < len(cells):
        log.info("without labels, and not learned from: %s", ", ".join(c for c in cells if c not in labelled))
    return [centre for centre in labelled if not train_on or centre in train_on]


def _class_names(types: Mapping[str, np.ndarray]) -> list[str]:
    """The types that are learned, in alphabetical order."""
    names, counts = np.unique(np.concatenate(list(types.values())), return_counts=True)
    classes = [str(name) for name in names]
    if len(classes) < 2:
        raise InputError(f"all labelled cells are of type {classes[0]}; a classifier needs two types or more")
    if len(classes) > MAX_CLASSES:
        raise InputError(f"the labelled cells are of {len(classes)} types, at most {MAX_CLASSES}; check the labels")
    for name in classes:
        if not _is_usable(name):
            raise InputError(
                f"cell type {name[:LONGEST_NAME]!r}: must be of 1 to {LONGEST_NAME} printable characters and not begin "
                "with a space or one of = + - @; rename it in the labels"
            )
    few = [f"{name} {count}" for name, count in zip(classes, counts.tolist(), strict=True) if count < FEW_CELLS]
    if few:
        log.warning("types with fewer than %d cells, of which little is learned: %s", FEW_CELLS, ", ".join(few))
    return classes


def _is_usable(name: object) -> bool:
    """Whether a name can stand in tables: spreadsheets take what begins with these signs for a formula."""
    is_text = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME
    return is_text and name.isprintable() and name[0] not in "=+-@ "


def _untrained(kind: str, seed: int, n_jobs: int) -> Any:
    (logistic,) = (probe for probe in PROTOCOLS["thesis"] if probe.name == "logistic")
    return make_forest(seed, n_jobs) if kind == "forest" else logistic.make(seed, n_jobs)


def _train_forest(x: np.ndarray, y: np.ndarray, seed: int, n_jobs: int) -> tuple[Classifier, dict[str, Any]]:
    forest = make_forest(seed, n_jobs).set_params(oob_score=True).fit(x, y)
    trees = [estimator.tree_ for estimator in forest.estimators_]
    return rebuild_forest(trees, forest.classes_, x.shape[1]), out_of_bag(forest, y)


def _train_logistic(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[Classifier, dict[str, Any]]:
    probe = _untrained("logistic", seed, 1).fit(x, y)
    return rebuild_linear(probe.scaler_, probe.model_), cross_validated(probe, x, y, seed)


def _read_record(folder: Path) -> dict[str, Any]:
    """classifier.json, with every entry that is used checked."""
    path = folder / RECORD
    advice = "give a folder that `aecfe classifier train` wrote"
    content = read_plain_file(path, MAX_RECORD_BYTES, advice)
    try:
        record = parse_json(content)
        if not isinstance(record, dict) or record["format"] != FORMAT:
            raise ValueError(f"not of the format {FORMAT!r}")
        names, source = record["classes"], Source(**record["vectors"])
        texts = (source.kind, source.detector, source.autoencoder, record["sha256"])
        is_right = {
            "classifier": record["classifier"] in KINDS,
            "standardise": record["standardise"] in STANDARDISE,
            "classes": isinstance(names, list)
            and 2 <= len(names) <= MAX_CLASSES
            and all(map(_is_usable, names))
            and names == sorted(set(names)),
            "vectors": type(source.length) is int and source.length > 0 and source.kind in HOW_TO_MAKE,
            "vectors and sha256": all(isinstance(text, str) and text.isprintable() for text in texts),
            "centres": isinstance(record["centres"], list) and all(isinstance(c, str) for c in record["centres"]),
        }
        wrong = [name for name, right in is_right.items() if not right]
        if wrong:
            raise ValueError(f"odd {wrong[0]}")
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: not the record of a classifier ({first_line(error)}); {advice}") from None
    return record
