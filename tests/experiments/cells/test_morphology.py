"""Measurements of cells, from a detector that draws nuclei to tables, embeddings, comparisons and classifiers."""

import csv

import anndata
import cv2
import numpy as np
import pytest

from experiments.evaluation import classifiers
from mrcnn.config import make_config
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import FeatureStore
from mrcnn.features import extract_features
from mrcnn.model import MaskRCNN
from mrcnn.morphology import COLUMNS, column_names

TYPES = ("lymphocyte", "monocyte")


@pytest.fixture(scope="module")
def detector(tiny_config_class, tmp_path_factory):
    """It has learned nothing, and draws a nucleus all the same."""
    settings = {"DETECTION_MIN_CONFIDENCE": 0.0, "TOP_DOWN_PYRAMID_SIZE": 256, "MASK_PARTS": ["cell", "nucleus"]}
    model = MaskRCNN("inference", make_config(settings, tiny_config_class), tmp_path_factory.mktemp("nuclei"))
    model.parts.box_head.get_layer("mrcnn_class_logits").bias.assign([-2.0, 2.0])
    model.save()
    return model


@pytest.fixture(scope="module")
def stores(detector, draw_cell, tmp_path_factory):
    """Feature stores of two centres of twelve images."""
    root, paths = tmp_path_factory.mktemp("centres"), {}
    for start, centre in enumerate(("anna", "bert")):
        (root / centre).mkdir()
        records = []
        for number in range(12):
            path = root / centre / f"{number}.png"
            image = draw_cell(100 * start + number)[0]
            cv2.imwrite(str(path), image)
            records.append(ImageRecord(path.name, path, TYPES[number % 2], TYPES[number % 2]))
        paths[centre] = root / f"{centre}.h5"
        extract_features(detector, records, paths[centre], centre=centre)
    return paths


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_detect_and_features_write_them_down(detector, stores, aecfe, tmp_path):
    images = stores["anna"].with_suffix("")
    table, vectors = tmp_path / "cells.csv", tmp_path / "cells.h5ad"
    folder = detector.model_dir
    assert aecfe("detect", images, "--detector", folder, "--csv", table, "--pixel-size", 0.1) == 0
    row = rows_of(table)[0]
    assert list(row)[-len(COLUMNS) :] == column_names(0.1) and "nucleus_area_um2" in row
    assert float(row["cell_area_um2"]) == pytest.approx(float(row["area_um2"]), rel=1e-4)

    assert aecfe("features", images, "--detector", folder, "--kind", "morphology", "-o", vectors) == 0
    found = anndata.read_h5ad(vectors)
    assert found.var_names.tolist() == list(COLUMNS)
    with FeatureStore(stores["anna"]) as store:
        measured = dict(zip(store.image_ids, store.read("morphology", 0, len(store)), strict=True))
    for vector, image_id in zip(found.X, found.obs["image_id"], strict=True):
        np.testing.assert_allclose(vector, measured[image_id], rtol=1e-3, atol=1e-3)
    row = rows_of(vectors.with_suffix(".csv"))[0]
    assert float(row["cell_area"]) == pytest.approx(found[:, "cell_area"].X[0, 0])


def test_evaluate_and_classifiers_take_them(stores, aecfe, tmp_path, monkeypatch):
    monkeypatch.setattr(classifiers, "NUM_TREES", 5)
    assert aecfe("evaluate", *stores.values(), "-o", tmp_path / "tables", "--runs", 1) == 0
    columns = {row["method"] for row in rows_of(tmp_path / "tables" / "cross_centre.csv")}
    assert columns == {"R-CNN-RF", "Morphology"}
    options = ["--kind", "morphology", "-o", tmp_path / "types"]
    assert aecfe("classifier", "train", stores["anna"], *options) == 0
    assert aecfe("classifier", "apply", tmp_path / "types", stores["bert"], "-o", tmp_path / "types.csv") == 0
    with FeatureStore(stores["bert"]) as store:
        assert len(rows_of(tmp_path / "types.csv")) == len(store)


def test_detector_without_nuclei_is_refused_in_a_line(untrained_run, stores, refused, tmp_path):
    images, output = stores["anna"].with_suffix(""), tmp_path / "cells.h5ad"
    error = refused("features", images, "--detector", untrained_run, "--kind", "morphology", "-o", output)
    assert "draws no nuclei" in error
