"""Tables of stores and files of vectors: the same cells in every column, nothing computed twice, faulty files."""

import csv
import json

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from aecfe.cli import main
from experiments.centres.splits import load_split
from experiments.evaluation.classifiers import make_forest
from experiments.evaluation.comparison import Protocol
from experiments.evaluation.evaluate import evaluate_files, sort_inputs
from experiments.pipeline import Pipeline
from experiments.settings import RunSettings
from mrcnn.feature_store import open_store
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.errors import InputError

PROTOCOL = Protocol(runs=1, seed=0, bootstrap=100, jobs=1)
TYPES = np.array(["monocyte", "eosinophil"] * 10)
KEYS = np.array([f"images/{i:02d}.png" for i in range(20)])


def one_hot(types, order=("monocyte", "eosinophil")):
    return np.eye(2, dtype=np.float32)[[order.index(name) for name in types]]


def write_vectors(path, centres=("anna", "bert"), rows=slice(None), vectors=None, types=None):
    """An .npz or .h5ad file of the cells of the stores: by default their types as vectors, and no types."""
    columns = {
        "image_id": np.concatenate([KEYS[rows] for _ in centres]),
        "centre": np.repeat(centres, len(KEYS[rows])),
        "cell_type": np.concatenate([(np.full(20, "") if types is None else types)[rows] for _ in centres]),
    }
    x = np.concatenate([(one_hot(TYPES) if vectors is None else vectors)[rows] for _ in centres])
    if path.suffix == ".npz":
        np.savez(path, X=x, **{name: v for name, v in columns.items() if name != "cell_type" or types is not None})
    else:
        anndata.AnnData(x, obs=pd.DataFrame(columns, index=np.arange(len(x)).astype(str))).write_h5ad(path)
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    """A tenth of the trees, which takes a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.evaluation.classifiers.NUM_TREES", 10)
        yield


@pytest.fixture(scope="module")
def evaluated(study_data, tmp_path_factory):
    """Two stores, and an .npz file in another order, through the command."""
    folder = tmp_path_factory.mktemp("evaluated")
    noise = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    rival = write_vectors(folder / "rival.npz", ("bert", "anna"), np.arange(20)[::-1], vectors=noise)
    command = ["evaluate", *study_data[1].values(), rival, "-o", folder / "out", "--runs", 2, "--seed", 3]
    assert run(*command) == 0
    return folder / "out", command, noise


def test_evaluate_trains_on_each_centre_and_tests_on_all(evaluated, study_data):
    """The same numbers come from scikit-learn alone."""
    out, _, noise = evaluated
    rows = rows_of(out / "cross_centre.csv")
    classifiers = ["random-forest", "logistic", "linear-svm", "knn-1", "knn-20"]
    assert list(dict.fromkeys((r["method"], r["classifier"]) for r in rows)) == [
        (method, classifier) for method in ("R-CNN-RF", "rival") for classifier in classifiers
    ]
    x, types, parts = {"rival": dict.fromkeys(study_data[1], noise), "R-CNN-RF": {}}, {}, {}
    for name, path in study_data[1].items():
        with open_store(path) as store:
            x["R-CNN-RF"][name], types[name] = roi_vectors(store), store.cell_types
            parts[name] = load_split(out / "splits" / f"{name}.json").parts(store.image_ids)
    for row in [row for row in rows if row["classifier"] == "random-forest"]:
        a, b, vectors = row["trained_on"], row["tested_on"], x[row["method"]]
        train, test = parts[a] == "train", parts[b] == "test"
        runs = [make_forest(seed).fit(vectors[a][train], types[a][train]).predict(vectors[b][test]) for seed in (3, 4)]
        accuracies, balanced = (
            [score(types[b][test], run) for run in runs] for score in (accuracy_score, balanced_accuracy_score)
        )
        expected = {"accuracy_mean": np.mean(accuracies), "accuracy_std": np.std(accuracies)}
        expected |= {"balanced_accuracy_mean": np.mean(balanced)}
        assert {name: row[name] for name in expected} == {name: f"{value:.4f}" for name, value in expected.items()}
        assert (int(row["num_train"]), int(row["num_test"])) == (train.sum(), test.sum())
        assert float(row["accuracy_low"]) <= np.mean(accuracies) <= float(row["accuracy_high"])


def test_evaluate_writes_one_set_of_tables(evaluated, capsys):
    out, command, _ = evaluated
    assert sorted(path.suffix for path in out.glob("cross_centre.*")) == [".csv", ".json", ".md", ".tex", ".txt"]
    content = json.loads((out / "cross_centre.json").read_text())
    assert content["settings"]["runs"] == 2 and content["mixing"]["R-CNN-RF"]["silhouette_type"] > 0.2
    assert content["provenance"]["command"] and content["unlabelled"] == {"anna": 0, "bert": 0}
    markdown = (out / "cross_centre.md").read_text()
    assert "rival: vectors of rival.npz." in markdown and "Compared with R-CNN-RF" in markdown
    assert r"\begin{table}" in (out / "cross_centre.tex").read_text()
    assert run(*command) == 0
    assert capsys.readouterr().out == (out / "cross_centre.txt").read_text() + "\n"


def test_evaluate_takes_protocol_standardisation_and_tested_cells(tmp_path):
    first = write_vectors(tmp_path / "first.npz", types=TYPES)
    options = ["--runs", 1, "--protocol", "dinobloom", "--standardise", "none", "centre", "--test-on", "all"]
    assert run("evaluate", first, "-o", tmp_path / "out", *options) == 0
    rows = rows_of(tmp_path / "out" / "cross_centre.csv")
    assert {r["method"] for r in rows} == {"first", "first (std)"}
    assert {r["classifier"] for r in rows} == {"random-forest", "logistic", "knn-1", "knn-20"}
    assert {int(r["num_test"]) for r in rows if r["trained_on"] != r["tested_on"]} == {20}


def test_evaluate_takes_the_cells_of_the_first_file_with_types(tmp_path):
    paths = [
        write_vectors(tmp_path / "untyped.npz", rows=np.arange(20)[::-1]),
        write_vectors(tmp_path / "typed.h5ad", ("anna", "bert"), np.arange(16), types=TYPES),
        # Other types than in the file before, which are not looked at.
        write_vectors(tmp_path / "wrong.h5ad", rows=np.roll(np.arange(20), 7), types=TYPES[::-1]),
    ]
    evaluate_files({}, sort_inputs(map(str, paths))[1], tmp_path / "out", PROTOCOL)
    content = json.loads((tmp_path / "out" / "cross_centre.json").read_text())
    assert content["methods"] == ["untyped", "typed", "wrong"]
    assert content["class_counts"]["anna"] == {"eosinophil": 8, "monocyte": 8}
    # Every file has the types as its vectors, and only their right order makes them say the types.
    forests = [score for score in content["scores"] if score["classifier"] == "random-forest"]
    assert {score["accuracy"]["mean"] for score in forests} == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "x.npz: without a cell_type there is nothing to score; add it, or give"),
        ({"centres": ("../bert",), "types": TYPES}, "must be usable as a file name"),
        ({"centres": ("a\nb",), "types": TYPES}, "must be usable as a file name"),
        ({"rows": slice(3, None)}, r"x.npz, centre anna: lacks 3 of 20 image_ids, first 'images/00.png'"),
        ({"centres": ("anna",)}, r"x.npz: has no cells of centre bert"),
    ],
)
def test_files_that_cannot_be_scored_are_refused(study_data, tmp_path, capsys, options, message):
    path = write_vectors(tmp_path / "x.npz", **options)
    stores = study_data[1].values() if "no cells" in message or "lacks" in message else ()
    assert run("evaluate", path, *stores, "-o", tmp_path / "in" / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aecfe: error: ") and message in line
    assert {each.parent.name for each in tmp_path.rglob("*.json")} <= {"splits"}


def test_an_image_of_two_types_is_refused(tmp_path):
    path = write_vectors(tmp_path / "typed.h5ad", ("anna",), rows=[0, 1, 2, 3, 4], types=TYPES)
    table = anndata.read_h5ad(path)
    table.obs["image_id"] = ["x", "x", "y", "z", "z"]
    table.write_h5ad(path)
    with pytest.raises(InputError, match="centre anna: image x has labels 'monocyte' and 'eosinophil'; give"):
        evaluate_files({}, {"typed": path}, tmp_path / "out", PROTOCOL)


def test_sort_inputs_names_columns_by_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores, files = sort_inputs(["north.h5", "a/embedding.h5ad", "embedding.h5ad", "b/DinoBloom.NPZ", "river.h5"])
    assert stores == ["north.h5", "river.h5"]
    assert {name: str(path) for name, path in files.items()} == {
        "a": "a/embedding.h5ad", tmp_path.name: "embedding.h5ad", "DinoBloom": "b/DinoBloom.NPZ"
    }  # fmt: skip
    with pytest.raises(InputError, match=r"b/x.npz: a/x.h5ad makes a column called x too; rename one of them"):
        sort_inputs(["a/x.h5ad", "b/x.npz"])
    with pytest.raises(InputError, match="R-CNN-RF.npz: R-CNN-RF is the column of the feature stores"):
        sort_inputs(["R-CNN-RF.npz", "north.h5"])
    assert list(sort_inputs(["R-CNN-RF.npz"])[1]) == ["R-CNN-RF"]


def test_a_run_writes_the_same_tables_of_its_random_forests(study_data, study_values, tmp_path, monkeypatch):
    values = {**study_values, "output": str(tmp_path), "evaluate": {"runs": 2, "methods": ["R-CNN-RF"]}}
    pipeline = Pipeline(RunSettings(**values))
    monkeypatch.setattr(Pipeline, "stores", study_data[1])
    written = pipeline.evaluate()
    assert written["csv"] == tmp_path / "tables" / "cross_centre.csv"
    rows = rows_of(written["csv"])
    assert {(r["method"], r["classifier"], r["runs"]) for r in rows} == {("R-CNN-RF", "random-forest", "2")}
    assert len(rows) == 4 and json.loads(written["json"].read_text())["provenance"] == {}
