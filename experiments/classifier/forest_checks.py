"""Whether the numbers of a stored classifier can be computed with: trees that end, arrays that are what they state.

scikit-learn follows the branches of a tree without looking whether they lead anywhere. A branch to a node that is not
there reads foreign memory, and one that leads back never ends.
"""

import math
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from sklearn.tree._tree import Tree

MAX_DEPTH = 1000  # of a tree; those of the thesis have 16
LEAF = -1  # as scikit-learn marks the children of one
_SUM_TOLERANCE = 1e-6


class Unfit(Exception):
    """A stored classifier is not used; the text goes on from "file: "."""


def check_array(member: IO[bytes], num_bytes: int) -> None:
    """Refuse an array of Python objects, or one that states another size than it has.

    Args:
        member: the .npy file, at its start.
        num_bytes: its size.

    Raises:
        Unfit: if it is one.
        ValueError: if it is no .npy file.
    """
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise Unfit(f"holds an array of format {version[0]}.{version[1]}")
    shape, _, dtype = read[version](member)
    if dtype.hasobject:
        raise Unfit("holds an array of Python objects")
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != num_bytes - member.tell():
        raise Unfit(f"holds an array that states shape {shape} and has another")


def check_tree(tree: Tree, num_classes: int, num_features: int) -> None:
    """Refuse a tree that cannot be walked from the root to a leaf for every vector.

    Args:
        tree: as scikit-learn takes it from a file, that is, with arrays of the right types and shapes.
        num_classes: classes that its leaves must share out.
        num_features: features that it may ask for.

    Raises:
        Unfit: naming what is wrong.
    """
    # These first: the arrays below are views of as many nodes as the tree states, whether or not it has them.
    if not 1 <= tree.node_count == tree.capacity:
        raise Unfit(f"states {tree.node_count} nodes and has {tree.capacity}")
    if (tree.n_outputs, tree.max_n_classes, tree.n_features) != (1, num_classes, num_features):
        raise Unfit(
            f"has {tree.n_outputs} outputs of {tree.max_n_classes} classes on {tree.n_features} features, "
            f"its classifier.json 1 of {num_classes} on {num_features}"
        )
    if tree.n_classes.tolist() != [num_classes]:
        raise Unfit(f"has {tree.n_classes.tolist()} classes, not {num_classes}")
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = left != LEAF
    if np.any((right != LEAF) != inner):
        raise Unfit("has a node with one branch")
    for children in (left, right):
        if np.any(children[inner] >= tree.node_count) or np.any(children[inner] < 0):
            raise Unfit("has a branch to a node that is not there")
        if np.any(children[inner] <= np.flatnonzero(inner)):
            raise Unfit("has a branch that leads back")
    children = np.concatenate([left[inner], right[inner]])
    if len(np.unique(children)) < len(children):
        raise Unfit("has a node that two branches lead to")
    if len(children) < tree.node_count - 1:
        raise Unfit("has a node that no branch leads to")
    if np.any(feature[inner] < 0) or np.any(feature[inner] >= num_features):
        raise Unfit(f"asks for a feature that is none of the {num_features}")
    if not np.isfinite(tree.threshold[inner]).all():
        raise Unfit("has a threshold that is not finite")
    if np.any(tree.missing_go_to_left > 1):
        raise Unfit("has a mark for missing values that is neither 0 nor 1")
    _check_depth(left, right, tree.max_depth)
    shares = tree.value
    if not np.isfinite(shares).all() or np.any(shares < 0) or np.any(np.abs(shares.sum(axis=2) - 1) > _SUM_TOLERANCE):
        raise Unfit("has shares of classes that are none")


def check_linear(scaler: Mapping[str, Any], logistic: Mapping[str, Any], num_classes: int, num_features: int) -> None:
    """Refuse a scaling and logistic regression whose numbers do not fit.

    Args:
        scaler: attributes of the fitted scaler.
        logistic: attributes of the trained regression.
        num_classes: classes that it names; of two it has a single row of coefficients.
        num_features: features that it takes.

    Raises:
        Unfit: naming what is wrong.
    """
    num_rows = 1 if num_classes == 2 else num_classes
    wanted = {
        "mean_": (scaler, (num_features,)),
        "scale_": (scaler, (num_features,)),
        "var_": (scaler, (num_features,)),
        "coef_": (logistic, (num_rows, num_features)),
        "intercept_": (logistic, (num_rows,)),
    }
    for name, (attributes, shape) in wanted.items():
        values = attributes.get(name)
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.shape != shape:
            raise Unfit(f"has no {name} of shape {shape}")
        if not np.isfinite(values).all():
            raise Unfit(f"has a {name} that is not finite")
    if np.any(scaler["scale_"] <= 0):
        raise Unfit("has a scale_ that is not above 0")


def _check_depth(left: np.ndarray, right: np.ndarray, stated: int) -> None:
    """Walk down a tree level by level, which takes as many steps as it has levels."""
    level, depth = np.zeros(1, np.int64), 0
    while True:
        level = level[left[level] != LEAF]
        if not len(level):
            break
        depth += 1
        if depth > MAX_DEPTH:
            raise Unfit(f"is more than {MAX_DEPTH} levels deep")
        level = np.concatenate([left[level], right[level]])
    if depth != stated:
        raise Unfit(f"states a depth of {stated} and has {depth}")
