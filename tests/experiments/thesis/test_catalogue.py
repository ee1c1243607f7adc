import json

import numpy as np
import pandas as pd
import pytest

from experiments.evaluation.comparison import Protocol
from experiments.thesis import figures
from experiments.thesis.catalogue import GROUPS, reproduce, resolve_targets
from mrcnn.files.errors import InputError

PROTOCOL = Protocol(runs=2, seed=0, bootstrap=100, jobs=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One working folder for all tests, so that each autoencoder is trained once."""
    return tmp_path_factory.mktemp("reproduce")


def test_resolve_targets_opens_groups_and_keeps_the_order():
    assert resolve_targets(["table-3.2", "figure-3.4", "table-3.2"]) == ["figure-3.4", "table-3.2"]
    assert resolve_targets(["tables"]) == ["table-3.1", "table-3.2", "table-3.3"]
    assert len(resolve_targets(["all"])) == len(GROUPS["all"]) == 19


def test_reproduce_makes_table_3_2_and_reads_it_again(make_study, folder):
    written = reproduce(make_study(folder), ["table-3.2"], PROTOCOL)
    assert [path.name for path in written] == ["table-3.2.md", "table-3.2-recall.png", "table-3.2-confusion.png"]
    rows = pd.read_csv(folder / "tables" / "table-3.2.csv")
    columns = ["R-CNN-RF", "R-CNN-RF (std)", "AE-CFE", "AE-CFE (std)"]
    assert list(rows.method.unique()) == columns and len(rows) == 4 * 5 * 4
    assert set(rows.classifier) == {"random-forest", "logistic", "linear-svm", "knn-1", "knn-20"}
    # The features say the type, in the other centre too.
    assert all(rows.accuracy_mean[rows.method.isin(columns[:2]) & (rows.classifier == "random-forest")] == 1)
    text = (folder / "tables" / "table-3.2.md").read_text()
    assert "- command: `" in text and "AE-CFE: autoencoder, adaptation mmd, 2 steps" in text
    content = json.loads((folder / "tables" / "table-3.2.json").read_text())
    assert content["class_counts"]["anna"] == {"monocyte": 10, "eosinophil": 10}
    assert content["mixing"]["R-CNN-RF"]["silhouette_type"] > 0.5

    again = make_study(folder)
    reproduce(again, ["table-3.2"], PROTOCOL)
    assert again.cache.num_made == 0
    assert (folder / "tables" / "table-3.2.md").read_text() == text

    other = make_study(folder, ablation={"columns": ["R-CNN-RF"], "standardise": ["none"]})
    reproduce(other, ["table-3.2"], Protocol(runs=2, seed=5, bootstrap=100, jobs=1))
    assert other.cache.num_made == 5 + 1  # each classifier's predictions and the mixing scores depend on the seed


def test_reproduce_makes_table_3_1_with_its_figures(make_study, folder):
    written = reproduce(make_study(folder), ["figure-3.7", "table-3.1"], PROTOCOL)
    assert [path.name for path in written] == ["figure-3.7.png", "table-3.1.md", "table-3.1-accuracy.png"]
    rows = pd.read_csv(folder / "tables" / "table-3.1.csv")
    assert rows.bottleneck.tolist() == ["3", "6", "Handcrafted", "Handcrafted, Lab", "R-CNN-RF"]
    assert rows.image_source.fillna("").tolist() == ["crop", "crop", "", "", ""] and set(rows.backbone) == {"resnet50"}
    assert rows.accuracy_mean.between(0, 1).all() and rows.thesis_accuracy.isna().all()
    assert len(list((folder / "autoencoders").glob("resnet50-none-*"))) == 2


def test_reproduce_takes_vectors_made_elsewhere(make_study, folder):
    study = make_study(folder, ablation={"columns": ["R-CNN-RF"], "standardise": ["none"]})
    cells = study.cells()
    numbers = {c: np.eye(2)[cells.class_numbers(t)] for c, t in cells.types.items()}
    path = folder / "rival.npz"
    # In another order than the stores, which the image ids put right.
    np.savez(
        path,
        X=np.concatenate([numbers[c][::-1] for c in ("bert", "anna")]).astype(np.float32),
        image_id=np.concatenate([cells.image_ids[c][::-1] for c in ("bert", "anna")]),
        centre=np.repeat(["bert", "anna"], 20),
    )
    reproduce(study, ["table-3.2"], PROTOCOL, {"Rival": path})
    # 20 neighbours are more than there are training cells, so that all of them vote.
    rows = pd.read_csv(folder / "tables" / "table-3.2.csv").query("method == 'Rival' and classifier != 'knn-20'")
    assert rows.accuracy_mean.tolist() == [1] * 4 * 4
    np.savez(path, X=np.ones((1, 2), np.float32), image_id=["images/00.png"], centre=["anna"])
    with pytest.raises(InputError, match=r"rival.npz: has no cells of centre bert"):
        reproduce(study, ["table-3.2"], PROTOCOL, {"Rival": path})


def test_reproduce_makes_table_3_3(make_study, folder):
    reproduce(make_study(folder), ["table-3.3"], PROTOCOL)
    rows = pd.read_csv(folder / "tables" / "table-3.3.csv")
    methods = ["ResNeXt (GroupNorm)", "AE-CFE", "AE-CFE (std)", "R-CNN-RF", "R-CNN-RF (std)"]
    assert rows.method[::4].tolist() == methods
    assert rows.classifier[::4].tolist() == ["network", *["random-forest"] * 4]
    again = make_study(folder)
    reproduce(again, ["table-3.3"], PROTOCOL)
    assert again.cache.num_made == 0


def test_reproduce_draws_the_figures_of_the_data(make_study, folder, monkeypatch):
    monkeypatch.setattr(figures, "project", lambda vectors, seed: (vectors[:, :2], "PCA"))  # UMAP compiles for long
    study = make_study(folder)
    names = ["figure-3.1", "figure-3.2", "figure-3.4", "figure-3.14"]
    written = reproduce(study, names, PROTOCOL)
    assert [path.stem for path in written] == names
    for name in names:
        content = json.loads((folder / "figures" / f"{name}.json").read_text())
        assert content["config_hash"] == study.config_hash() and (folder / "figures" / f"{name}.pdf").stat().st_size
