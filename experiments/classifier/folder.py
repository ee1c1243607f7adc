"""A trained classifier as a folder: writing it, and reading it back.

forest.skops       the classifier (logistic.skops of a logistic regression)
classifier.json    what it takes, what it predicts, what it was trained on and how well it did
MODEL_CARD.md      the same for people
"""

import hashlib
import io
import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import skops.io
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from experiments.cells.models import CARD, classifier_card
from experiments.classifier.inputs import Source
from mrcnn.files.atomic import atomic_folder, write_json, write_text
from mrcnn.files.errors import InputError, one_line

RECORD = "classifier.json"
FORMAT = "aecfe classifier 1"
LONGEST_NAME = 100
MAX_CONTENT_BYTES = 2**30  # unpacked; the thesis' forest on its 65,693 cells stays below a third of it
# The only type beyond those that skops trusts by itself: it does not look into the branches, which `_check_tree` does.
TRUSTED = ["sklearn.tree._tree.Tree"]
_LEAF = -1  # as scikit-learn marks the children of one


def check_name(name: str) -> str:
    """Refuse a cell type that cannot stand in tables: spreadsheets take what begins so for a formula."""
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable() and name[0] not in "=+-@ "):
        raise InputError(
            f"cell type {name[:LONGEST_NAME]!r}: must be of 1 to {LONGEST_NAME} printable characters and not begin "
            "with a space or one of = + - @; rename it in the labels"
        )
    return name


class Record(BaseModel):
    """What is used of classifier.json."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Literal["aecfe classifier 1"]
    classifier: Literal["forest", "logistic"]
    standardise: Literal["none", "centre"]
    classes: Annotated[list[Annotated[str, AfterValidator(check_name)]], Field(min_length=2, max_length=1000)]
    centres: list[str]
    vectors: Source
    sha256: str


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier read from its folder: its checked record, and a model with classes in the record's order."""

    folder: Path
    record: Record
    model: ClassifierMixin


def write_classifier(
    stored: RandomForestClassifier | dict[str, Any],
    record: dict[str, Any],
    output: str | os.PathLike,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a classifier's folder, whole or not at all, and return the content of its classifier.json.

    Stored is a random forest, or the "scaler" and the "logistic" regression on what it gives. The `record` gets the
    format and the file. Where `output` holds something else, or an older classifier without `overwrite`, it is refused.
    """
    content = skops.io.dumps(stored, compression=zipfile.ZIP_DEFLATED)
    record = {"format": FORMAT, **record, "file": f"{record['classifier']}.skops"}
    record["sha256"] = hashlib.sha256(content).hexdigest()
    with atomic_folder(output, RECORD, overwrite) as folder:
        (folder / record["file"]).write_bytes(content)
        write_text(folder / CARD, classifier_card(record))
        write_json(folder / RECORD, record)
    return record


def read_classifier(folder: str | os.PathLike) -> TrainedClassifier:
    """Read what `train_classifier` wrote, by whomever it was written; no code from a file runs.

    Raises:
        InputError: if a file is missing, damaged, another than the one meant, or anything but such a classifier.
    """
    folder = Path(folder)
    path = folder / RECORD
    try:
        record = Record.model_validate_json(path.read_bytes())
        path = folder / f"{record.classifier}.skops"
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise ValueError(f"is not the file that {RECORD} tells of")
        return TrainedClassifier(folder, record, _load_model(content, record))
    except Exception as error:  # of pydantic, skops, NumPy and scikit-learn, whatever a made-up file brings about
        advice = "give a whole folder that `aecfe classifier train` wrote, or train again"
        raise InputError(f"{path}: no classifier that can be used: {one_line(error)}; {advice}") from None


def _load_model(content: bytes, record: Record) -> ClassifierMixin:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_CONTENT_BYTES:
            raise ValueError(f"unpacks to more than {MAX_CONTENT_BYTES >> 20} MiB")
    if untrusted := set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED):
        raise ValueError(f"holds the type {min(untrusted)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)  # what is read is checked below
        model = skops.io.loads(content, trusted=TRUSTED)
    num_classes, num_features = len(record.classes), record.vectors.length
    if record.classifier == "forest":
        if type(model) is not RandomForestClassifier or {*map(type, model.estimators_)} != {DecisionTreeClassifier}:
            raise ValueError("is no random forest")
        for estimator in model.estimators_:
            _check_tree(estimator.tree_, num_classes, num_features)
    else:
        if type(model) is not dict or [type(part) for part in model.values()] != [StandardScaler, LogisticRegression]:
            raise ValueError("is no scaling with a logistic regression")
        model = make_pipeline(*model.values())
    shape = model.predict_proba(np.zeros((1, num_features), np.float32)).shape
    if model.classes_.tolist() != record.classes or shape != (1, num_classes):
        raise ValueError(f"predicts other cell types than its {RECORD} says")
    return model


def _check_tree(tree: Tree, num_classes: int, num_features: int) -> None:
    """Refuse branches that lead nowhere, which read foreign memory, or back, which never end."""
    if type(tree) is not Tree or not 1 <= tree.node_count == tree.capacity:
        raise ValueError("holds a tree of another size than it states")
    if (tree.n_outputs, tree.max_n_classes, tree.n_features) != (1, num_classes, num_features):
        raise ValueError(f"holds a tree of other classes or features than its {RECORD} says")
    inner = np.flatnonzero(tree.children_left != _LEAF)
    children = np.stack([tree.children_left[inner], tree.children_right[inner]])
    features = tree.feature[inner]
    is_sound = np.all(children > inner) and np.all(children < tree.node_count)
    if not is_sound or np.any(features < 0) or np.any(features >= num_features):
        raise ValueError("holds a tree whose branches cannot be followed")
