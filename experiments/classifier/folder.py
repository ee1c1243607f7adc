"""A trained classifier as a folder: training it, writing it, and reading it back.

forest.skops       the classifier (logistic.skops of a logistic regression), see `forest_files`
classifier.json    what it takes, what it names, what it learned from and how well it did
MODEL_CARD.md      the same for people
"""

import hashlib
import logging
import os
import stat
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.base import ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from experiments.cells.models import CARD, FEW_CELLS, classifier_card
from experiments.classifier.forest_archive import check_archive
from experiments.classifier.forest_checks import Unfit, check_linear, check_tree
from experiments.classifier.inputs import HOW_TO_MAKE, STANDARDISE, CentreCells, Source, prepare_vectors
from experiments.evaluation.classifiers import MAX_DEPTH, PROTOCOLS, make_forest
from experiments.evaluation.comparison import score_predictions
from mrcnn.files.atomic import atomic_folder, atomic_path, write_json, write_text
from mrcnn.files.errors import InputError, first_line
from mrcnn.files.json_io import parse_json
from mrcnn.files.provenance import versions

KINDS = ("forest", "logistic")
MAX_FILE_BYTES = 512 * 2**20
MAX_TREES = 300  # the thesis' forest has 100

# The only type beyond those that skops trusts by itself: it does not look into the branches, which `check_tree` does.
TRUSTED = ("sklearn.tree._tree.Tree",)
# What zipfile, json, NumPy, skops and scikit-learn raise on files that are damaged or made up.
_UNREADABLE = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ImportError,
    MemoryError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

Classifier = RandomForestClassifier | Pipeline


def save_classifier(model: Classifier, path: str | os.PathLike) -> str:
    """Store a trained classifier.

    Args:
        model: a forest; or scaling and logistic regression, as from `rebuild_linear`.
        path: the file, whose name should end in .skops.

    Returns:
        SHA-256 of the file.
    """
    stored: Any = model
    if isinstance(model, Pipeline):
        scaler, logistic = (step for _, step in model.steps)
        stored = {"scaler": scaler, "logistic": logistic}
    content = skops.io.dumps(stored, compression=zipfile.ZIP_DEFLATED)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def load_classifier(
    path: str | os.PathLike, kind: str, classes: Sequence[str], num_features: int, *, sha256: str
) -> Classifier:
    """Read a classifier that `save_classifier` wrote, or refuse the file.

    Args:
        path: the file.
        kind: "forest" or "logistic".
        classes: cell types that it must name, in its order.
        num_features: length of the vectors that it must take.
        sha256: what the file must hash to.

    Returns:
        The classifier, ready for `predict_proba`.

    Raises:
        InputError: if the file is missing, a link, too large, another than the one meant, damaged, or holds anything
            but such a classifier.
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    path = Path(path)
    content = read_plain_file(path, MAX_FILE_BYTES, "copy the classifier's folder again, or train it again")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{path}: is not the file that classifier.json tells of; copy the whole folder again, or train again"
        )
    try:
        check_archive(content)
        untrusted = set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED)
        if untrusted:  # whatever `check_archive` lets pass
            raise Unfit(f"holds the type {min(untrusted)}")
        with warnings.catch_warnings():
            # Trees of another release are checked like any others.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            stored = skops.io.loads(content, trusted=list(TRUSTED))
        rebuild = _rebuild_forest if kind == "forest" else _rebuild_stored_linear
        return rebuild(stored, [str(name) for name in classes], num_features)
    except Unfit as error:
        raise InputError(f"{path}: {error}, and is not loaded; train the classifier again") from None
    except _UNREADABLE as error:
        raise InputError(f"{path}: damaged or made up ({first_line(error)}); train the classifier again") from None


def read_plain_file(path: Path, max_bytes: int, advice: str) -> bytes:
    """Content of an ordinary file; a link may lead anywhere, and a device may never end.

    Args:
        path: the file.
        max_bytes: most that is read.
        advice: what to do if it is missing, for the message.

    Raises:
        InputError: if it is missing, no ordinary file, or larger.
    """
    try:
        state = path.lstat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {advice}") from None
    if stat.S_ISLNK(state.st_mode):
        raise InputError(f"{path}: is a link, which is not followed; put the file itself there")
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{path}: is no ordinary file; {advice}")
    if state.st_size > max_bytes:
        size, most = (f"{num_bytes / 2**20:.0f} MiB" for num_bytes in (state.st_size, max_bytes))
        raise InputError(f"{path}: has {size}, at most {most} are read; {advice}")
    with open(path, "rb") as handle:
        return handle.read(max_bytes)


def rebuild_linear(scaler: StandardScaler, logistic: LogisticRegression) -> Pipeline:
    """Scaling and logistic regression as one classifier, made of their numbers.

    Args:
        scaler: fitted on the training cells.
        logistic: trained on what it gives.

    Returns:
        The classifier, with float64 statistics and coefficients.
    """
    new_scaler, new_logistic = StandardScaler(), LogisticRegression()
    for name in ("mean_", "scale_", "var_"):
        setattr(new_scaler, name, np.array(getattr(scaler, name), np.float64))
    new_logistic.coef_ = np.array(logistic.coef_, np.float64)
    new_logistic.intercept_ = np.array(logistic.intercept_, np.float64)
    new_logistic.classes_ = np.array(logistic.classes_, str)
    new_scaler.n_features_in_ = new_logistic.n_features_in_ = new_logistic.coef_.shape[1]
    new_scaler.n_samples_seen_ = 1  # only for adding further cells, which nobody does
    return make_pipeline(new_scaler, new_logistic)


def rebuild_forest(trees: Sequence[Tree], classes: Sequence[str], num_features: int) -> RandomForestClassifier:
    """A forest made of its trees alone, without what training leaves beside them, such as votes on training cells.

    Args:
        trees: of one output each.
        classes: names, in the trees' order.
        num_features: length of the vectors that the trees take.
    """
    forest = RandomForestClassifier(n_estimators=len(trees), max_depth=max(tree.max_depth for tree in trees))
    forest.estimators_ = [_tree_classifier(tree, len(classes), num_features) for tree in trees]
    forest.estimator_ = DecisionTreeClassifier()
    forest.classes_ = np.array(classes, str)
    forest.n_classes_, forest.n_features_in_, forest.n_outputs_ = len(classes), num_features, 1
    return forest


def _tree_classifier(tree: Tree, num_classes: int, num_features: int) -> DecisionTreeClassifier:
    classifier = DecisionTreeClassifier()
    classifier.tree_ = tree
    classifier.classes_ = np.arange(num_classes, dtype=np.float64)
    classifier.n_classes_, classifier.n_features_in_, classifier.n_outputs_ = np.int64(num_classes), num_features, 1
    classifier.max_features_ = num_features
    return classifier


def _rebuild_forest(stored: Any, classes: list[str], num_features: int) -> RandomForestClassifier:
    if type(stored) is not RandomForestClassifier:
        raise Unfit("is no random forest")
    found = vars(stored)
    _check_stated(found, classes, num_features)
    estimators = found.get("estimators_")
    if not isinstance(estimators, list) or not 1 <= len(estimators) <= MAX_TREES:
        raise Unfit(f"must have 1 to {MAX_TREES} trees")
    for number, estimator in enumerate(estimators):
        if type(estimator) is not DecisionTreeClassifier or type(vars(estimator).get("tree_")) is not Tree:
            raise Unfit(f"tree {number} is no decision tree")
        try:
            check_tree(vars(estimator)["tree_"], len(classes), num_features)
        except Unfit as error:
            raise Unfit(f"tree {number} {error}") from None
    return rebuild_forest([vars(estimator)["tree_"] for estimator in estimators], classes, num_features)


def _rebuild_stored_linear(stored: Any, classes: list[str], num_features: int) -> Pipeline:
    if type(stored) is not dict or set(stored) != {"scaler", "logistic"}:
        raise Unfit("is no scaling with a logistic regression")
    scaler, logistic = stored["scaler"], stored["logistic"]
    if type(scaler) is not StandardScaler or type(logistic) is not LogisticRegression:
        raise Unfit("is no scaling with a logistic regression")
    _check_stated(vars(logistic), classes, num_features)
    check_linear(vars(scaler), vars(logistic), len(classes), num_features)
    return rebuild_linear(scaler, logistic)


def _check_stated(found: dict[str, Any], classes: list[str], num_features: int) -> None:
    """Compare classes and features with what classifier.json says."""
    names = found.get("classes_")
    if not isinstance(names, np.ndarray) or names.dtype.kind != "U" or names.tolist() != classes:
        raise Unfit("names other cell types than its classifier.json")
    numbers = {"n_features_in_": num_features, **({"n_classes_": len(classes)} if "n_classes_" in found else {})}
    for name, wanted in numbers.items():
        value = found.get(name)
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value != wanted:
            raise Unfit(f"has {name} {str(value)[:40]}, its classifier.json {wanted}")


NUM_FOLDS = 5


def out_of_bag(forest: RandomForestClassifier, types: np.ndarray) -> dict[str, float]:
    """Balanced accuracy where each cell is named by those trees alone that did not learn from it (Breiman 2001).

    Args:
        forest: trained with `oob_score`.
        types: of its training cells, of shape (n,).
    """
    votes = forest.oob_decision_function_
    voted = np.isfinite(votes).all(axis=1) & (votes.sum(axis=1) > 0)  # of few cells one may be in every tree
    if not voted.any():
        return {}
    named = forest.classes_[votes[voted].argmax(axis=1)]
    return {"out_of_bag_balanced_accuracy": _balanced(types[voted], named)}


def cross_validated(classifier: ClassifierMixin, x: np.ndarray, types: np.ndarray, seed: int) -> dict[str, float]:
    """Balanced accuracy where each cell is named by a classifier that learned from four fifths of the others.

    Args:
        classifier: its settings are used.
        x: vectors of shape (n, d).
        types: of shape (n,).
        seed: of the shares.

    Returns:
        The score; nothing where a type has fewer cells than there are shares.
    """
    if np.unique(types, return_counts=True)[1].min() < NUM_FOLDS:
        return {}
    named = np.empty_like(types)
    for train, test in StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(x, types):
        named[test] = clone(classifier).fit(x[train], types[train]).predict(x[test])
    return {"cross_validated_balanced_accuracy": _balanced(types, named)}


def left_out_centres(
    make: Callable[[], Any], vectors: Mapping[str, np.ndarray], types: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Balanced accuracy on each centre of a classifier that learned from the other centres alone.

    It is the one number that says something of a laboratory to come. Types that the others lack count as named wrongly.

    Args:
        make: makes an untrained classifier.
        vectors: by centre, of shape (n, d).
        types: by centre, of shape (n,).

    Returns:
        The scores by centre; nothing where there is a single centre.
    """
    scores = {}
    for centre in vectors:
        others = [other for other in vectors if other != centre]
        if not others:
            return {}
        learned = np.concatenate([types[other] for other in others])
        if len(np.unique(learned)) > 1:
            classifier = make().fit(np.concatenate([vectors[other] for other in others]), learned)
            scores[centre] = _balanced(types[centre], classifier.predict(vectors[centre]))
    return {"left_out_centre_balanced_accuracy": scores} if scores else {}


def _balanced(truth: np.ndarray, named: np.ndarray) -> float:
    classes = sorted({*truth.tolist(), *named.tolist()})
    return round(float(score_predictions(truth, named, classes)["balanced_accuracy"]), 4)


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
        "versions": versions("skops", "aecfe"),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
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
