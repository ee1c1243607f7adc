"""Classifiers of cells by the commands: trained, applied to new files; nothing here needs TensorFlow."""

import csv
import json
import os

import anndata
import numpy as np
import pandas as pd
import pytest

from experiments.classifier.apply import COLUMNS
from experiments.classifier.folder import read_classifier
from experiments.classifier.inputs import LEAST_CELLS
from experiments.evaluation import classifiers as probes
from experiments.evaluation.vectors import standardise

TYPES = ["lymphocyte", "monocyte", "smudge_cell"]
SHIFTS = {"north": 0.0, "river": 0.5, "harbour": 30.0}  # of all numbers of a centre
LENGTH = 5


def draw(centre, num_cells=45, seed=0, unlabelled=0):
    """Vectors of cells whose type says where they lie, keys and types."""
    rng = np.random.default_rng([seed, len(centre)])
    numbers = np.arange(num_cells) % len(TYPES)
    x = rng.normal(size=(num_cells, LENGTH)) * 0.5 + 2 * numbers[:, None] + SHIFTS[centre]
    types = np.array(TYPES, dtype="<U20")[numbers]
    types[:unlabelled] = ""
    return x.astype(np.float32), [f"{i:03d}.png" for i in range(num_cells)], types


def write_npz(path, centres, **options):
    parts = [draw(centre, **options) for centre in centres]
    names = np.repeat(np.array(centres), [len(part[0]) for part in parts])
    x, keys, types = (np.concatenate([part[i] for part in parts]) for i in range(3))
    np.savez(path, X=x, image_id=keys, centre=names, cell_type=types)
    return path


def write_h5ad(path, centres, detector="d" * 64, weights="a" * 64, notes=True, **options):
    """An embedding as `aecfe embed` writes it."""
    parts = [draw(centre, **options) for centre in centres]
    frames = [pd.DataFrame({"image_id": part[1], "cell_type": part[2]}) for part in parts]
    obs = pd.concat([frame.assign(centre=centre) for frame, centre in zip(frames, centres, strict=True)])
    obs.index = [str(i) for i in range(len(obs))]
    data = anndata.AnnData(np.concatenate([part[0] for part in parts]), obs=obs.astype("category"))
    if notes:
        run = {"complete": True, "stores": {c: {"detector_hash": detector} for c in centres}, "weights_sha256": weights}
        data.uns["config"], data.uns["run"] = json.dumps({"latent_size": LENGTH}), json.dumps(run)
    data.write_h5ad(path)
    return path


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """Forests of ten trees, but for that of `folder`, which is made before."""
    monkeypatch.setattr(probes, "NUM_TREES", 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, aecfe):
    """A forest of embeddings of two centres."""
    place = tmp_path_factory.mktemp("classifier")
    embedding = write_h5ad(place / "embedding.h5ad", ["north", "river"], unlabelled=5)
    assert aecfe("classifier", "train", embedding, "-o", place / "forest") == 0
    return place / "forest"


def test_training_leaves_a_record_of_what_was_learned(folder):
    record = json.loads((folder / "classifier.json").read_text())
    assert sorted(os.listdir(folder)) == ["MODEL_CARD.md", "classifier.json", "forest.skops"]
    assert record["vectors"] == {"kind": "latents", "length": 5, "detector": "d" * 64, "autoencoder": "a" * 64}
    assert record["classes"] == TYPES and record["centres"] == ["north", "river"]
    assert record["counts"]["river"] == {"lymphocyte": 13, "monocyte": 13, "smudge_cell": 14}
    assert record["standardise"] == "none" and record["settings"] == {"trees": 100, "max_depth": 16, "seed": 0}
    assert {"scikit-learn", "skops", "python", "aecfe"} <= set(record["versions"])
    assert record["scores"]["out_of_bag_balanced_accuracy"] > 0.9
    assert set(record["scores"]["left_out_centre_balanced_accuracy"]) == {"north", "river"}


def test_new_cells_get_types_with_probabilities(folder, tmp_path, capsys, aecfe):
    new = write_h5ad(tmp_path / "new.h5ad", ["river"], seed=3, unlabelled=9)
    assert aecfe("classifier", "apply", folder, new, "-o", tmp_path / "calls.csv") == 0
    rows = rows_of(tmp_path / "calls.csv")
    _, keys, types = draw("river", seed=3)
    assert list(rows[0]) == list(COLUMNS) and [row["image_id"] for row in rows] == keys
    assert {row["centre"] for row in rows} == {"river"}
    assert np.mean([row["predicted"] == name for row, name in zip(rows, types.tolist(), strict=True)]) > 0.9
    assert [row["truth"] for row in rows] == [""] * 9 + types[9:].tolist()
    first, second = (np.array([row[name] for row in rows], float) for name in ("probability", "second_probability"))
    assert np.all((first >= second) & (second >= 0) & (first + second <= 1.0001))
    assert all(row["predicted"] != row["second"] for row in rows)
    printed = capsys.readouterr().out
    counts = {name: sum(row["predicted"] == name for row in rows) for name in TYPES}
    assert f"river: 45 cells: {', '.join(f'{name} {count}' for name, count in counts.items())}" in printed
    assert "on 36 cells of 3 known types" in printed and "not for diagnosis" in printed
    assert "it was trained on cells of river, maybe these" in printed


def test_balanced_accuracy_counts_types_that_the_classifier_does_not_know(tmp_path, capsys, aecfe):
    write_npz(tmp_path / "two.npz", ["north"])
    with np.load(tmp_path / "two.npz") as arrays:
        known = arrays["cell_type"] != "smudge_cell"
        np.savez(tmp_path / "two.npz", **{name: values[known] for name, values in arrays.items()})
    assert aecfe("classifier", "train", tmp_path / "two.npz", "-o", tmp_path / "two") == 0
    write_npz(tmp_path / "new.npz", ["river"], seed=4)
    assert aecfe("classifier", "apply", tmp_path / "two", tmp_path / "new.npz", "-o", tmp_path / "calls.csv") == 0
    printed, warned = capsys.readouterr()
    rows = rows_of(tmp_path / "calls.csv")
    recall = [np.mean([r["predicted"] == name for r in rows if r["truth"] == name]) for name in TYPES]
    assert recall[2] == 0 and f"balanced accuracy {np.mean(recall):.3f} on 45 cells of 3 known types" in printed
    assert "does not know smudge_cell; these cells count as wrong" in printed
    assert "nothing says that these vectors are from the network" in warned


@pytest.mark.parametrize("kind", ["forest", "logistic"])
def test_a_classifier_standardises_a_new_centre_by_its_own_cells(tmp_path, kind, aecfe):
    """All numbers of harbour lie 30 higher, which only statistics of its own can take back."""
    options = ["--classifier", kind, "--standardise", "centre", "--seed", 7]
    training = write_npz(tmp_path / "training.npz", ["north", "river"])
    assert aecfe("classifier", "train", training, "-o", tmp_path / "model", *options) == 0
    new = write_npz(tmp_path / "new.npz", ["harbour"], seed=5)
    assert aecfe("classifier", "apply", tmp_path / "model", new, "-o", tmp_path / "calls.csv") == 0
    rows = rows_of(tmp_path / "calls.csv")
    assert np.mean([row["predicted"] == row["truth"] for row in rows]) > 0.9
    x = standardise(draw("harbour", seed=5)[0])
    shares = read_classifier(tmp_path / "model").model.predict_proba(x)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], shares.max(axis=1), atol=1e-4)
    record = json.loads((tmp_path / "model" / "classifier.json").read_text())
    assert record["standardise"] == "centre" and record["file"] == f"{kind}.skops"
    assert ("out_of_bag_balanced_accuracy" in record["scores"]) == (kind == "forest")
    assert ("cross_validated_balanced_accuracy" in record["scores"]) == (kind == "logistic")


def test_too_few_cells_are_not_standardised(tmp_path, aecfe, refused):
    training = write_npz(tmp_path / "training.npz", ["north", "river"])
    assert aecfe("classifier", "train", training, "-o", tmp_path / "m", "--standardise", "centre") == 0
    few = write_npz(tmp_path / "few.npz", ["harbour"], num_cells=LEAST_CELLS - 1)
    enough = write_npz(tmp_path / "enough.npz", ["harbour"], num_cells=LEAST_CELLS)
    too_few = f"has {LEAST_CELLS - 1} cells, too few to standardise within it (at least {LEAST_CELLS})"
    assert too_few in refused("classifier", "apply", tmp_path / "m", few, "-o", tmp_path / "calls.csv")
    assert too_few in refused("classifier", "train", few, "-o", tmp_path / "n", "--standardise", "centre")
    assert aecfe("classifier", "apply", tmp_path / "m", enough, "-o", tmp_path / "calls.csv") == 0


def test_stores_are_pooled_and_must_be_of_the_same_detector(study_data, tmp_path, aecfe, refused):
    stores, model, calls = study_data[1], tmp_path / "m", tmp_path / "calls.csv"
    assert aecfe("classifier", "train", stores["anna"], "-o", model) == 0
    record = json.loads((model / "classifier.json").read_text())
    assert record["vectors"] == {"kind": "mean features", "length": 256, "detector": "detector-a", "autoencoder": ""}
    assert "left_out_centre_balanced_accuracy" not in record["scores"]
    assert aecfe("classifier", "apply", model, *stores.values(), "-o", calls) == 0
    assert [row["centre"] for row in rows_of(calls)] == ["anna"] * 20 + ["bert"] * 20
    record["vectors"]["detector"] = "detector-b"
    (model / "classifier.json").write_text(json.dumps(record))
    error = refused("classifier", "apply", model, stores["bert"], "-o", tmp_path / "b.csv")
    assert "is from detector detector-a, not detector-b; extract the images with that detector" in error


def test_vectors_of_other_networks_or_kinds_are_refused(folder, study_data, tmp_path, refused):
    vectors = "holds vectors, not latents; give the .h5ad file that `aecfe embed` writes"
    for path, said in {
        write_h5ad(tmp_path / "a.h5ad", ["river"], detector="e" * 64): "is from detector eeeeeeeeeeee, not dddddddd",
        write_h5ad(tmp_path / "b.h5ad", ["river"], weights="b" * 64): "is from autoencoder bbbbbbbbbbbb, not aa",
        write_h5ad(tmp_path / "c.h5ad", ["river"], notes=False): vectors,
        write_npz(tmp_path / "d.npz", ["river"]): vectors,
        study_data[1]["bert"]: "holds mean features, not latents",
    }.items():
        message = refused("classifier", "apply", folder, path, "-o", tmp_path / "calls.csv")
        assert message.startswith(f"{path}: unlike the training cells of {folder}, ") and said in message


def test_training_files_of_two_networks_or_of_one_centre_are_refused(tmp_path, refused):
    one, again = (write_h5ad(tmp_path / f"{name}.h5ad", ["north"]) for name in ("one", "again"))
    other = write_h5ad(tmp_path / "other.h5ad", ["river"], weights="b" * 64)
    error = refused("classifier", "train", one, other, "-o", tmp_path / "m")
    assert error.startswith(f"{other}: unlike {one}, is from autoencoder bbbbbbbbbbbb, not aaaaaaaaaaaa")
    error = refused("classifier", "train", one, again, "-o", tmp_path / "m")
    assert error == f"{again}: {one} holds centre north too; give one of them"


@pytest.mark.parametrize(
    ("types", "part"),
    [
        ([""] * 45, "no cell has a cell_type"),
        (["monocyte"] * 45, "all labelled cells are of type monocyte"),
        (["monocyte", "=HYPERLINK(1)", "c"] * 15, "cell type '=HYPERLINK(1)': must be of 1 to 100 printable"),
    ],
)
def test_labels_that_nothing_can_be_learned_from_are_refused(tmp_path, refused, types, part):
    with np.load(write_npz(tmp_path / "a.npz", ["north"])) as arrays:
        np.savez(tmp_path / "a.npz", **{**arrays, "cell_type": np.array(types)})
    assert part in refused("classifier", "train", tmp_path / "a.npz", "-o", tmp_path / "m")


def test_what_is_there_is_not_written_over(folder, tmp_path, aecfe, refused):
    new, calls = write_h5ad(tmp_path / "new.h5ad", ["river"]), tmp_path / "calls.csv"
    calls.write_text("mine")
    assert "already there" in refused("classifier", "apply", folder, new, "-o", calls)
    assert calls.read_text() == "mine"
    assert aecfe("classifier", "apply", folder, new, "-o", calls, "--overwrite") == 0
    assert len(rows_of(calls)) == 45
