"""Classifiers on disk: written with skops, and read back whoever wrote the file.

A pickle runs whatever its author liked. A skops file is an archive of JSON and arrays that names the types to build,
and skops refuses types that it does not know. That is not enough for a file from a stranger: among the types that it
trusts are all of scikit-learn's, what they hold is not looked at, and a forest whose branches point outside of their
tree crashes the process when it is asked. So a file is read in steps, none of which trusts what comes after it:

1. the file: an ordinary one, of a size that can be held, with the hash that its classifier.json states;
2. the archive: few members of known names, which do not unpack to more than can be held;
3. the types: the few that a forest or a logistic regression consists of, and no others;
4. the arrays: numbers and text of the size that they state, never Python objects;
5. the values: every branch leads down its tree to a leaf, every number is finite and fits the classes and features.

What is handed on is made here, of the numbers alone: no attribute of the file's own choice reaches scikit-learn.
"""

import hashlib
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from experiments.forest_archive import check_archive
from experiments.forest_checks import Unfit, check_linear, check_tree
from mrcnn.atomic import atomic_path
from mrcnn.errors import InputError, first_line

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
