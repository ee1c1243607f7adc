"""Classifiers as folders: what is written reads back the same, and what somebody tampered with is refused by name."""

import hashlib
import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree._tree import Tree

from experiments.classifier.folder import read_classifier
from experiments.classifier.inputs import CentreCells, Source
from experiments.classifier.train import train_classifier
from experiments.evaluation.classifiers import LOGISTIC, make_forest
from mrcnn.files.errors import InputError

CLASSES = ["lymphocyte", "monocyte", "smudge_cell"]
LENGTH = 4


def draw(seed=0, num_cells=90):
    rng = np.random.default_rng(seed)
    numbers = np.arange(num_cells) % 3
    x = (rng.normal(size=(num_cells, LENGTH)) + numbers[:, None]).astype(np.float32)
    return x, np.array(CLASSES)[numbers]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random forest of five trees and a logistic regression, by kind."""
    place = tmp_path_factory.mktemp("classifiers")
    x, y = draw()
    cells = {"north": CentreCells(x, np.arange(90).astype(str), y, place / "north.npz")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.evaluation.classifiers.NUM_TREES", 5)
        for kind in ("forest", "logistic"):
            train_classifier(Source("vectors", LENGTH), cells, place / kind, kind=kind)
    return {kind: place / kind for kind in ("forest", "logistic")}


@pytest.fixture
def copy(folders, tmp_path):
    return shutil.copytree(folders["forest"], tmp_path / "copy")


def put(folder, content, **changes):
    """Exchange the classifier, with a record that fits the new file."""
    record = json.loads((folder / "classifier.json").read_text())
    record |= {"sha256": hashlib.sha256(content).hexdigest(), **changes}
    (folder / "classifier.json").write_text(json.dumps(record))
    (folder / f"{record['classifier']}.skops").write_bytes(content)


def refused(folder, *parts):
    with pytest.raises(InputError) as caught:
        read_classifier(folder)
    message = str(caught.value)
    assert message.startswith(str(folder)) and "\n" not in message, message
    assert all(part in message for part in parts), message


def test_classifiers_predict_as_they_did_before_they_were_written(folders):
    x, y = draw()
    new = draw(seed=1)[0]
    forest = make_forest(0, 1).set_params(n_estimators=5).fit(x, y)
    model = read_classifier(folders["forest"]).model
    np.testing.assert_allclose(model.predict_proba(new), forest.predict_proba(new), atol=1e-12)
    assert not hasattr(model, "oob_decision_function_"), "this would tell of single training cells"
    logistic = LOGISTIC.make(0, 1).fit(x, y)
    expected = logistic.model_.predict_proba(logistic.scaler_.transform(new))
    np.testing.assert_allclose(read_classifier(folders["logistic"]).model.predict_proba(new), expected, atol=1e-5)


def test_a_tampered_file_is_refused_by_name(copy):
    path = copy / "forest.skops"
    path.write_bytes(path.read_bytes() + b"\0")
    refused(copy, "forest.skops: ", "is not the file that classifier.json tells of")
    path.unlink()
    refused(copy, "forest.skops: ", "No such file")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_no_code_of_a_file_runs(copy, tmp_path):
    mark = tmp_path / "mark"
    put(copy, pickle.dumps(Trap(mark)))
    refused(copy, "no classifier that can be used")
    put(copy, skops.io.dumps(FunctionTransformer(np.save)))
    refused(copy, "holds the type numpy.save")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        node = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "__id__": 1}
        node["content"] = {"module_path": "os", "function": "system"}
        archive.writestr("schema.json", json.dumps({**node, "protocol": 2, "_skops_version": "0.11"}))
    put(copy, (tmp_path / "a.zip").read_bytes())
    refused(copy, "no classifier that can be used")
    assert not mark.exists()


def changed_forest(folder, change):
    """The forest, one tree of which has other nodes."""
    forest = read_classifier(folder).model
    state = forest.estimators_[1].tree_.__getstate__()
    state = {**state, "nodes": state["nodes"].copy()}
    change(state["nodes"])
    forest.estimators_[1].tree_ = Tree(LENGTH, np.array([len(CLASSES)]), 1)
    forest.estimators_[1].tree_.__setstate__(state)
    return skops.io.dumps(forest)


@pytest.mark.parametrize(
    ("field", "value"), [("left_child", 10**6), ("right_child", -2), ("left_child", 0), ("feature", 4), ("feature", -5)]
)
def test_a_tree_that_cannot_be_followed_is_refused(copy, field, value):
    def change(nodes):
        nodes[field][0] = value

    put(copy, changed_forest(copy, change))
    refused(copy, "whose branches cannot be followed")


def test_other_models_than_the_record_tells_of_are_refused(copy, folders):
    forest, logistic = ((folders[kind] / f"{kind}.skops").read_bytes() for kind in ("forest", "logistic"))
    for content, changes, part in (
        (logistic, {}, "is no random forest"),
        (forest, {"classifier": "logistic"}, "no classifier that can be used"),
        (forest, {"classifier": "forest", "classes": ["a", "b", "c"]}, "predicts other cell types"),
        (forest, {"vectors": {"kind": "vectors", "length": 5}}, "other classes or features"),
    ):
        put(copy, content, **changes)
        refused(copy, part)


def test_a_folder_that_is_no_classifier_is_refused(copy, tmp_path):
    refused(tmp_path / "none", "give a whole folder that `aecfe classifier train` wrote")
    for content in (b"[" * 100_000, b"[]", b"\xff\xfe", b"null"):
        (copy / "classifier.json").write_bytes(content)
        refused(copy, "classifier.json: ")
