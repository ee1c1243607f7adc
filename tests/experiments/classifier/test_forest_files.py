"""Stored classifiers: round trips, and files that somebody made up to harm whoever opens them."""

import functools
import hashlib
import io
import json
import operator
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree._tree import Tree

from experiments.classifier import folder as forest_files
from experiments.classifier import forest_archive
from experiments.classifier.folder import load_classifier, rebuild_forest, rebuild_linear, save_classifier
from experiments.evaluation.classifiers import make_forest
from mrcnn.files.errors import InputError

CLASSES = ["lymphocyte", "monocyte", "smudge_cell"]
LENGTH = 4


def draw(num_classes=3, num_cells=90):
    rng = np.random.default_rng(num_classes)
    numbers = np.arange(num_cells) % num_classes
    x = (rng.normal(size=(num_cells, LENGTH)) + numbers[:, None]).astype(np.float32)
    return x, np.array(CLASSES)[numbers]


@functools.cache
def trained_forest(trees):
    x, y = draw()
    return make_forest(0, n_jobs=1).set_params(n_estimators=trees).fit(x, y)


def small_forest(trees=5):
    forest = trained_forest(trees)
    return forest, rebuild_forest([tree.tree_ for tree in forest.estimators_], CLASSES, LENGTH)


def linear(num_classes=3):
    x, y = draw(num_classes)
    scaler = StandardScaler().fit(x)
    return scaler, LogisticRegression().fit(scaler.transform(x), y)


@pytest.fixture(scope="module")
def stored():
    """Content of a file that is as it should be."""
    return skops.io.dumps(small_forest()[1], compression=zipfile.ZIP_DEFLATED)


def load(path, kind="forest", classes=CLASSES, length=LENGTH):
    return load_classifier(path, kind, classes, length, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def refused(path, *parts, **options):
    with pytest.raises(InputError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 500, message
    for part in parts:
        assert part in message, message
    return message


def put(path, content):
    path.write_bytes(content)
    return path


def rewritten(content, change=lambda members: None, compression=zipfile.ZIP_DEFLATED):
    """The archive after a change of its members, a dict of bytes by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_schema(content, change):
    """The archive after a change of what its JSON says."""

    def change_members(members):
        schema = json.loads(members["schema.json"])
        members["schema.json"] = json.dumps(change(schema) or schema).encode()

    return rewritten(content, change_members)


def say(node, value):
    """Let a node of the JSON say something else, and be none that skops has met before, such as another 1."""
    node.update({"content": json.dumps(value), "__id__": 1 - node["__id__"]})


def first_tree(schema):
    return schema["content"]["content"]["estimators_"]["content"][0]["content"]["content"]["tree_"]


def changed_tree(change, **stated):
    """A forest of which one tree holds what `change` makes of its nodes and shares."""
    forest, _ = small_forest()
    trees = [tree.tree_ for tree in forest.estimators_]
    state = trees[1].__getstate__()
    state = {**state, "nodes": state["nodes"].copy(), "values": state["values"].copy(), **stated}
    change(state["nodes"], state["values"])
    trees[1] = Tree(LENGTH, np.array([len(CLASSES)]), 1)
    trees[1].__setstate__(state)
    return rebuild_forest(trees, CLASSES, LENGTH)


def test_a_forest_names_cells_as_before(tmp_path):
    trained, forest = small_forest()
    digest = save_classifier(forest, tmp_path / "forest.skops")
    loaded = load_classifier(tmp_path / "forest.skops", "forest", CLASSES, LENGTH, sha256=digest)
    x, _ = draw(num_cells=200)
    np.testing.assert_array_equal(loaded.predict_proba(x), trained.predict_proba(x))
    assert loaded.predict(x).tolist() == trained.predict(x).tolist()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_logistic_regression_names_cells_as_before(tmp_path, num_classes):
    scaler, trained = linear(num_classes)
    save_classifier(rebuild_linear(scaler, trained), tmp_path / "logistic.skops")
    loaded = load(tmp_path / "logistic.skops", "logistic", CLASSES[:num_classes])
    x, _ = draw(num_classes)
    np.testing.assert_allclose(loaded.predict_proba(x), trained.predict_proba(scaler.transform(x)), atol=1e-6)


def test_attributes_of_the_files_own_choice_are_dropped(tmp_path):
    _, forest = small_forest()
    forest.predict_proba, forest.n_jobs, forest.verbose = "shadow", 10**6, 10**6
    forest.estimators_[0].predict_proba = "shadow"
    save_classifier(forest, tmp_path / "forest.skops")
    loaded = load(tmp_path / "forest.skops")
    assert (loaded.n_jobs, loaded.verbose) == (None, 0)
    assert np.all(np.isfinite(loaded.predict_proba(draw()[0])))


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    "make",
    [
        lambda: functools.partial(os.system, "touch ran"),
        lambda: operator.methodcaller("system", "touch ran"),
        lambda: os.system,
        lambda: FunctionTransformer(func=os.system),
        lambda: FunctionTransformer(func=np.exp),  # skops trusts it
        lambda: np.random.RandomState(0),
        lambda: b"bytes",
        lambda: np.array([{"a": 1}, None], dtype=object),
    ],
)
@pytest.mark.parametrize("place", ["whole", "attribute"])
def test_types_beyond_those_of_a_forest_are_refused(tmp_path, monkeypatch, make, place):
    monkeypatch.chdir(tmp_path)
    _, forest = small_forest(trees=1)
    if place == "attribute":
        forest.extra = make()
    path = put(tmp_path / "forest.skops", skops.io.dumps(forest if place == "attribute" else make()))
    refused(path, "is not loaded")
    assert os.listdir(tmp_path) == ["forest.skops"]


@pytest.mark.parametrize(
    ("module", "name", "loader"),
    [
        ("os", "system", "ObjectNode"),
        ("builtins", "eval", "FunctionNode"),
        ("builtins", "map", "TypeNode"),
        ("subprocess", "Popen", "ConstructorFromReduceNode"),
        ("sklearn.tree._tree", "Tree", "ReduceNode"),
        ("builtins", "str", "CachedNode"),
        ("builtins", "str", ["JsonNode"]),
    ],
)
def test_a_made_up_type_is_refused_before_anything_is_built(tmp_path, monkeypatch, stored, module, name, loader):
    monkeypatch.setattr(skops.io, "loads", lambda *args, **kwargs: pytest.fail("built"))

    def change(schema):
        first_tree(schema)["__reduce__"]["args"]["content"][0].update(
            {"__module__": module, "__class__": name, "__loader__": loader}
        )

    refused(put(tmp_path / "forest.skops", with_schema(stored, change)), "type")


@pytest.mark.parametrize("protocol", [0, 1, True, "2", None, 99])
def test_other_protocols_are_refused(tmp_path, stored, protocol):
    refused(put(tmp_path / "f.skops", with_schema(stored, lambda schema: schema.update(protocol=protocol))), "protocol")


@pytest.mark.parametrize("name", ["forest.skops", "forest.zip"])
def test_a_pickle_is_not_unpickled(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(put(tmp_path / name, pickle.dumps(Evil())), "is no skops file (a pickle")
    assert os.listdir(tmp_path) == [name]


def test_a_pickled_array_in_the_archive_is_not_unpickled(tmp_path, monkeypatch, stored):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)

    def change(members):
        members[next(iter(members))] = buffer.getvalue()

    refused(put(tmp_path / "f.skops", rewritten(stored, change)), "Python objects")
    assert os.listdir(tmp_path) == ["f.skops"]


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(forest_archive, "MAX_CONTENT_BYTES", 8 * 2**20)
    content = rewritten(stored, lambda members: members.update({"1.npy": bytes(9 * 2**20)}))
    assert len(content) < 2**18
    refused(put(tmp_path / "f.skops", content), "unpacks to 9 MiB, at most 8")


def test_an_archive_that_states_terabytes_is_refused(tmp_path, stored):
    content = bytearray(stored)
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<L", 2**32 - 2)
    refused(put(tmp_path / "f.skops", bytes(content)), "unpacks to 4096 MiB")


def test_an_array_that_is_named_again_and_again_is_refused(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(forest_archive, "MAX_CONTENT_BYTES", 2**20)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2**13))

    def change(members):
        schema = json.loads(members["schema.json"])
        node = {"__module__": "numpy", "__class__": "ndarray", "__loader__": "NdArrayNode"}
        schema["content"]["content"]["estimators_"]["content"] = [{**node, "type": "numpy", "file": "7.npy"}] * 20
        members.update({"7.npy": buffer.getvalue(), "schema.json": json.dumps(schema).encode()})

    refused(put(tmp_path / "f.skops", rewritten(stored, change)), "names arrays of more than 1 MiB")


def test_an_array_that_states_a_size_that_it_has_not_is_refused(tmp_path, stored):
    def change(members):
        name = next(iter(members))
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,)}"
        members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header

    refused(put(tmp_path / "f.skops", rewritten(stored, change)), "states shape (99999999999,)")


def test_an_array_of_another_format_is_refused(tmp_path, stored):
    def change(members):
        name = next(iter(members))
        members[name] = members[name].replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03")

    refused(put(tmp_path / "f.skops", rewritten(stored, change)), "holds an array of format 3.0")


def test_a_schema_of_many_bytes_is_refused(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(forest_archive, "MAX_SCHEMA_BYTES", 2**20)
    content = rewritten(stored, lambda members: members.update({"schema.json": b" " * (2**20 + 1)}))
    refused(put(tmp_path / "f.skops", content), "has a schema.json of more than 1 MiB")


def test_an_archive_that_goes_on_behind_its_directory_is_refused(tmp_path, stored):
    refused(put(tmp_path / "f.skops", stored + b"\0"), "does not end as the archives that skops writes")
    locator = stored[:-22] + b"PK\x06\x07" + bytes(16) + stored[-22:]  # of a directory that may lie and be of any size
    refused(put(tmp_path / "g.skops", locator), "does not end as the archives that skops writes")


def test_more_members_than_the_archive_states_are_refused(tmp_path, stored):
    content = bytearray(rewritten(stored, lambda members: members.update({f"{i}.npy": b"" for i in range(2001)})))
    content[-14:-10] = struct.pack("<HH", 1, 1)
    refused(put(tmp_path / "f.skops", bytes(content)), "files, at most 2000")


def test_too_many_members_are_refused_before_they_are_listed(tmp_path, monkeypatch, stored):
    content = rewritten(stored, lambda members: members.update({f"{i}.npy": b"" for i in range(2001)}))
    path = put(tmp_path / "f.skops", content)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *args: pytest.fail("opened"))
    refused(path, "files, at most 2000")


@pytest.mark.parametrize(
    "name", ["../1.npy", "/etc/1.npy", "a/1.npy", "..", "evil.pkl", "1.NPY", "\u0661.npy", "1\n.npy"]
)
def test_names_that_skops_does_not_write_are_refused(tmp_path, stored, name):
    refused(put(tmp_path / "f.skops", rewritten(stored, lambda members: members.update({name: b""}))), "skops does not")


def test_links_doubles_and_other_packing_are_refused(tmp_path, stored):
    buffer = io.BytesIO(stored)
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("1.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    refused(put(tmp_path / "link.skops", buffer.getvalue()), "'1.npy', which is a link")
    buffer = io.BytesIO(stored)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("schema.json", "{}")
    refused(put(tmp_path / "twice.skops", buffer.getvalue()), "holds a file twice")
    refused(put(tmp_path / "bz.skops", rewritten(stored, compression=zipfile.ZIP_BZIP2)), "packed in a way")


def test_files_that_are_no_ordinary_files_are_refused(tmp_path, monkeypatch, stored):
    put(tmp_path / "f.skops", stored)
    (tmp_path / "link.skops").symlink_to("f.skops")
    (tmp_path / "folder.skops").mkdir()
    os.mkfifo(tmp_path / "pipe.skops")
    for name, part in [("link", "is a link"), ("folder", "no ordinary"), ("pipe", "no ordinary"), ("no", "no such")]:
        with pytest.raises(InputError, match=part):
            load_classifier(tmp_path / f"{name}.skops", "forest", CLASSES, LENGTH, sha256="")
    monkeypatch.setattr(forest_files, "MAX_FILE_BYTES", 1000)
    refused(tmp_path / "f.skops", "at most 0 MiB are read")


def test_another_file_than_the_record_tells_of_is_refused(tmp_path, stored):
    path = put(tmp_path / "f.skops", stored)
    with pytest.raises(InputError, match="is not the file that classifier.json tells of"):
        load_classifier(path, "forest", CLASSES, LENGTH, sha256="0" * 64)


def point(field, value, row=0):
    def change(nodes, values):
        rows = np.flatnonzero(nodes["left_child"] != -1)  # those with branches
        nodes[field][rows[row]] = value

    return change


def make_cycle(nodes, values):
    # The last inner node leads back to the root.
    point("left_child", 0, row=-1)(nodes, values)


def point_twice(nodes, values):
    nodes["right_child"][0] = nodes["left_child"][0]


def spoil_shares(value):
    def change(nodes, values):
        values[-1, 0, 0] = value

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (make_cycle, "has a branch that leads back"),
        (point("left_child", 0), "has a branch that leads back"),
        (point("right_child", 10**9), "has a branch to a node that is not there"),
        (point("left_child", 2**62), "has a branch to a node that is not there"),
        (point("right_child", -2), "has a branch to a node that is not there"),
        (point("left_child", -(2**40)), "has a branch to a node that is not there"),
        (point("left_child", -1), "has a node with one branch"),
        (point("right_child", -1), "has a node with one branch"),
        (point_twice, "has a node that two branches lead to"),
        (point("feature", LENGTH), "asks for a feature"),
        (point("feature", -1), "asks for a feature"),
        (point("feature", 2**40), "asks for a feature"),
        (point("threshold", np.nan), "has a threshold that is not finite"),
        (point("threshold", np.inf), "has a threshold that is not finite"),
        (point("missing_go_to_left", 7), "has a mark for missing values"),
        (spoil_shares(np.nan), "has shares of classes"),
        (spoil_shares(-1.0), "has shares of classes"),
        (spoil_shares(1e300), "has shares of classes"),
    ],
)
def test_a_tree_that_cannot_be_walked_is_refused(tmp_path, change, part):
    save_classifier(changed_tree(change), tmp_path / "forest.skops")
    refused(tmp_path / "forest.skops", f"tree 1 {part}")


def test_a_tree_that_is_left_alone_is_taken(tmp_path):
    save_classifier(changed_tree(lambda nodes, values: None), tmp_path / "forest.skops")
    load(tmp_path / "forest.skops")


def test_a_tree_of_another_depth_or_of_no_end_is_refused(tmp_path, monkeypatch):
    save_classifier(changed_tree(lambda nodes, values: None, max_depth=3000), tmp_path / "depth.skops")
    refused(tmp_path / "depth.skops", "tree 1 states a depth of 3000")
    count = 2001  # a chain: every right branch goes on
    nodes = np.zeros(count, small_forest(1)[0].estimators_[0].tree_.__getstate__()["nodes"].dtype)
    nodes["left_child"] = nodes["right_child"] = -1
    inner = np.arange(0, count - 1, 2)
    nodes["left_child"][inner], nodes["right_child"][inner] = inner + 1, inner + 2
    tree = Tree(LENGTH, np.array([len(CLASSES)]), 1)
    tree.__setstate__({"max_depth": 1000, "node_count": count, "nodes": nodes, "values": np.full((count, 1, 3), 1 / 3)})
    save_classifier(rebuild_forest([tree], CLASSES, LENGTH), tmp_path / "chain.skops")
    load(tmp_path / "chain.skops")
    monkeypatch.setattr("experiments.classifier.forest_checks.MAX_DEPTH", 999)
    refused(tmp_path / "chain.skops", "more than 999 levels deep")


@pytest.mark.parametrize("count", [1, 0, -5, 2**80, 1.5, "7"])
def test_a_tree_that_states_other_nodes_than_it_has_is_refused(tmp_path, stored, count):
    def change(schema):
        say(first_tree(schema)["content"]["content"]["node_count"], count)

    part = f"states {count} nodes and has" if count in (1, 0, -5) else "damaged or made up"
    refused(put(tmp_path / "f.skops", with_schema(stored, change)), part)


def test_a_tree_with_a_node_that_no_branch_leads_to_is_refused(tmp_path):
    forest, _ = small_forest()
    trees = [tree.tree_ for tree in forest.estimators_]
    state = trees[1].__getstate__()
    state = {name: np.append(state[name], state[name][-1:], axis=0) for name in ("nodes", "values")} | {
        "max_depth": state["max_depth"], "node_count": state["node_count"] + 1
    }  # fmt: skip
    trees[1] = Tree(LENGTH, np.array([len(CLASSES)]), 1)
    trees[1].__setstate__(state)
    save_classifier(rebuild_forest(trees, CLASSES, LENGTH), tmp_path / "forest.skops")
    refused(tmp_path / "forest.skops", "tree 1 has a node that no branch leads to")


def test_a_tree_never_has_more_nodes_than_its_file(tmp_path, stored):
    def change(schema):
        say(first_tree(schema)["content"]["content"]["node_count"], 10**6)

    tree = load(put(tmp_path / "f.skops", with_schema(stored, change))).estimators_[0].tree_
    assert tree.node_count == tree.capacity < 100  # scikit-learn corrects it, and else it would be refused


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("value", [2, 0, -1, 5, 10**9, 2**40, 2**62, 2**70, "1", None])
def test_a_tree_that_states_other_outputs_or_features_is_refused(tmp_path, stored, place, value):
    def change(schema):
        say(first_tree(schema)["__reduce__"]["args"]["content"][place], value)

    refused(put(tmp_path / "f.skops", with_schema(stored, change)))


@pytest.mark.parametrize("classes", [[0], [-1], [2], [4], [2**62], [2, 3], [3, 2**40], []])
def test_a_tree_of_other_classes_is_refused(tmp_path, stored, classes):
    def change(members):
        schema = json.loads(members["schema.json"])
        buffer = io.BytesIO()
        np.save(buffer, np.array(classes, np.int64))
        members[first_tree(schema)["__reduce__"]["args"]["content"][1]["file"]] = buffer.getvalue()

    refused(put(tmp_path / "f.skops", rewritten(stored, change)))


def test_a_forest_of_other_classes_features_or_kind_is_refused(tmp_path, stored):
    path = put(tmp_path / "f.skops", stored)
    refused(path, "names other cell types", classes=["a", "b", "c"])
    refused(path, "names other cell types", classes=CLASSES[:2])
    refused(path, "has n_features_in_ 4, its classifier.json 5", length=5)
    refused(path, "no scaling with a logistic regression", kind="logistic")
    save_classifier(rebuild_linear(*linear()), tmp_path / "l.skops")
    refused(tmp_path / "l.skops", "is no random forest")
    with pytest.raises(ValueError, match="kind"):
        load(path, kind="svm")


def test_a_forest_without_trees_or_with_other_things_for_trees_is_refused(tmp_path, monkeypatch):
    _, forest = small_forest()
    monkeypatch.setattr(forest_files, "MAX_TREES", 4)
    save_classifier(forest, tmp_path / "f.skops")
    refused(tmp_path / "f.skops", "must have 1 to 4 trees")
    forest.estimators_ = []
    save_classifier(forest, tmp_path / "none.skops")
    refused(tmp_path / "none.skops", "must have 1 to 4 trees")
    forest.estimators_ = ["tree"]
    save_classifier(forest, tmp_path / "text.skops")
    refused(tmp_path / "text.skops", "tree 0 is no decision tree")


@pytest.mark.parametrize(
    ("name", "values", "part"),
    [
        ("coef_", np.zeros((3, LENGTH + 1)), "no coef_ of shape (3, 4)"),
        ("coef_", np.full((3, LENGTH), np.nan), "coef_ that is not finite"),
        ("intercept_", np.zeros(2), "no intercept_ of shape (3,)"),
        ("intercept_", np.zeros(3, dtype="<U4"), "no intercept_ of shape (3,)"),
        ("scale_", np.zeros(LENGTH), "scale_ that is not above 0"),
        ("mean_", np.full(LENGTH, np.inf), "mean_ that is not finite"),
    ],
)
def test_a_logistic_regression_of_other_numbers_is_refused(tmp_path, name, values, part):
    scaler, logistic = linear()
    setattr(scaler if hasattr(scaler, name) else logistic, name, values)
    path = put(tmp_path / "l.skops", skops.io.dumps({"scaler": scaler, "logistic": logistic}))
    refused(path, part, kind="logistic")


def test_a_schema_that_is_nested_too_deep_is_refused(tmp_path, stored):
    deep = b"[" * 100_000 + b"]" * 100_000
    refused(put(tmp_path / "a.skops", rewritten(stored, lambda members: members.update({"schema.json": deep}))))
    nested = {"protocol": 2, "a": functools.reduce(lambda inner, _: [inner], range(80), 0)}
    content = rewritten(stored, lambda members: members.update({"schema.json": json.dumps(nested).encode()}))
    refused(put(tmp_path / "b.skops", content), "nested more than 64 deep")

    def change(schema):  # what skops reads as JSON within the JSON
        schema["content"]["content"]["n_jobs"].update({"content": "[" * 100_000, "__id__": 1})

    refused(put(tmp_path / "c.skops", with_schema(stored, change)))


def test_a_file_that_is_damaged_anywhere_is_refused_in_one_line(tmp_path, stored):
    rng = np.random.default_rng(0)
    plain = rewritten(stored, compression=zipfile.ZIP_STORED)
    for number in range(60):
        content = bytearray(plain if number % 2 else stored)
        for place in rng.integers(0, len(content), 1 + number % 3):
            content[place] ^= 1 << int(rng.integers(8))
        if number % 10 == 0:
            del content[int(rng.integers(len(content))) :]
        path = put(tmp_path / "f.skops", bytes(content))
        try:
            forest = load(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:  # a mark that nobody looks at
            assert np.isfinite(forest.predict_proba(draw()[0])).all()
