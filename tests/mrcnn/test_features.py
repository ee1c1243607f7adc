"""Feature extraction with a detector whose detections are made up."""

import logging

import numpy as np
import pytest

from mrcnn.config import make_config
from mrcnn.data.images import read_image
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import FeatureStore
from mrcnn.features import choose_cell, extract_features, grown_box, make_cells
from mrcnn.files.errors import InputError
from mrcnn.model import CONFIG_NAME, WEIGHTS_NAME
from mrcnn.morphology import COLUMNS


class MadeUpDetector:
    """Finds two cells on bright-cornered images, none on images whose first pixel value is odd."""

    def __init__(self, model_dir, config, weights=b"weights"):
        self.model_dir, self.config = model_dir, config
        self.batches = []
        self.fail_at = None
        model_dir.mkdir(exist_ok=True)
        (model_dir / CONFIG_NAME).write_text("{}")
        (model_dir / WEIGHTS_NAME).write_bytes(weights)

    def detect(self, images, masks=True, paste=True):
        if self.fail_at == len(self.batches):
            raise RuntimeError("killed")
        self.batches.append(len(images))
        return [self.result(image, masks) for image in images]

    def result(self, image, masks):
        count = 0 if image[0, 0, 0] % 2 else 2
        result = {
            "rois": np.array([[0, 0, 9, 9], [20, 20, 40, 44]], np.int32)[:count],
            "scores": np.array([0.9, 0.8], np.float32)[:count],
            "class_ids": np.ones(count, np.int32),
            "feats": np.full((count, 14, 14, 256), image[0, 0, 0] / 255.0, np.float32),
        }
        small = np.full((count, *self.config.MASK_SHAPE), 0.5, np.float32)
        names = ["small_masks", *(f"small_{part}_masks" for part in self.config.MASK_PARTS[1:])]
        return result | (dict.fromkeys(names, small) if masks else {})


@pytest.fixture
def detector(tmp_path, tiny_config_class):
    return MadeUpDetector(tmp_path / "detector", make_config({"TOP_DOWN_PYRAMID_SIZE": 256}, tiny_config_class))


@pytest.fixture(scope="module")
def num_with_cells(cell_records):
    return sum(read_image(r.path)[0, 0, 0] % 2 == 0 for r in cell_records if r.image_id != "2.png")


def extract(detector, records, path, **settings):
    settings = {"centre": "north", "batch_size": 2} | settings
    return extract_features(detector, records, path, **settings)


@pytest.mark.parametrize(
    ("boxes", "scores", "chosen"),
    [
        ([[0, 0, 10, 10], [40, 40, 60, 60]], [0.9, 0.8], 1),  # covers the centre
        ([[0, 0, 10, 10], [70, 70, 90, 90]], [0.8, 0.9], 1),  # none does: the best
        ([[30, 30, 60, 60], [40, 40, 60, 60]], [0.71, 0.99], 1),  # both do: the best
        ([[0, 0, 50, 50], [50, 50, 90, 90]], [0.9, 0.8], 1),  # ends are exclusive
    ],
)
def test_choose_cell_known_answers(boxes, scores, chosen):
    assert choose_cell(np.array(boxes), np.array(scores, np.float32), (100, 100, 3)) == chosen


@pytest.mark.parametrize(
    ("box", "shape", "expected"),
    [
        ((100, 120, 200, 220), (400, 400, 3), (90, 110, 220, 240)),
        ((100, 120, 200, 220), (300, 800), (80, 100, 240, 260)),  # the margin goes with the longer side
        ((10, 10, 50, 50), (60, 100), (8, 8, 55, 55)),
    ],
)
def test_grown_box_known_answers(box, shape, expected):
    assert grown_box(np.array(box), shape) == expected


def test_make_cells_cut_the_grown_box(detector):
    image = np.zeros((400, 400, 3), np.uint8)
    image[90:220, 110:240] = 200
    result = detector.result(image, True)
    result["rois"][0] = [100, 120, 200, 220]
    (cell,) = make_cells(image, result, [0])
    assert (cell.crop == 200).all() and not (cell.image == 200).all()
    assert cell.box.tolist() == [100, 120, 200, 220] and cell.image_shape == (400, 400)
    assert (cell.mask == 128).all() and cell.mask.dtype == np.uint8


def test_extract_features_measures_cells_where_the_detector_draws_nuclei(cell_records, tmp_path, tiny_config_class):
    settings = {"TOP_DOWN_PYRAMID_SIZE": 256, "MASK_PARTS": ["cell", "nucleus"], "MASK_SHAPE": [56, 56]}
    detector = MadeUpDetector(tmp_path / "detector", make_config(settings, tiny_config_class))
    extract(detector, cell_records, tmp_path / "north.h5")
    with FeatureStore(tmp_path / "north.h5") as store:
        assert store.attributes["morphology"] == list(COLUMNS)
        assert store.read("mask", 0, 1).shape == store.read("nucleus_mask", 0, 1).shape == (1, 56, 56)
        measured = dict(zip(COLUMNS, store.read("morphology", 0, len(store)).T, strict=True))
        # The masks fill the box of 20 x 24 px that covers the centre.
        assert (measured["cell_area"] == 480).all() and (measured["nucleus_share"] == 1).all()
    extract(detector, cell_records, tmp_path / "bare.h5", with_masks=False)
    with FeatureStore(tmp_path / "bare.h5") as store:
        assert not {"mask", "nucleus_mask", "morphology"} & set(store.fields)


def test_extract_features_counts_every_image(detector, cell_records, tmp_path, num_with_cells):
    path = tmp_path / "north.h5"
    counts = extract(detector, cell_records, path)
    expected = {"images": 6, "found": num_with_cells, "missed": 5 - num_with_cells, "unreadable": 1}
    assert counts == expected | {"detections": 2 * num_with_cells, "cells": num_with_cells}
    with FeatureStore(path) as store:
        assert store.centre == "north" and store.read("mask", 0, 1).shape == (1, 28, 28)
        # The centre of a 64 px image lies in the second box.
        np.testing.assert_array_equal(store.read("box", 0, len(store)), [[20, 20, 40, 44]] * num_with_cells)
        assert set(store.labels) <= {"L0", "L1"} and set(store.cell_types) == {"monocyte"}
        reasons = {entry["image_id"]: entry["reason"] for entry in store.missed}
        assert reasons.pop("2.png").startswith("unreadable: ")
        assert set(reasons.values()) == {"no detection above score 0.7"}


def test_extract_features_reuses_a_finished_store_and_refuses_one_of_other_settings(detector, cell_records, tmp_path):
    path = tmp_path / "north.h5"
    counts, before = extract(detector, cell_records, path), path.stat().st_mtime_ns
    detector.fail_at = len(detector.batches)
    assert extract(detector, cell_records, path) == counts and path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"min_score 0\.7, not 0\.5"):
        extract(detector, cell_records, path, attributes={"min_score": 0.5})
    with pytest.raises(InputError, match="all_cells false, not true"):
        extract(detector, cell_records, path, all_cells=True)
    detector.fail_at = None
    assert extract(detector, cell_records, path, all_cells=True, overwrite=True)["cells"] == 2 * counts["cells"]


def test_extract_features_refuses_what_the_store_cannot_be(detector, cell_records, tmp_path, tiny_config_class):
    path = tmp_path / "north.h5"
    other = MadeUpDetector(tmp_path / "other", detector.config, b"other weights")
    narrow = MadeUpDetector(tmp_path / "narrow", tiny_config_class())
    odd = ImageRecord("z\udcff.png", cell_records[0].path)
    extract(detector, cell_records, path)
    for finder, records, message in [
        (detector, [], "centre north has no image"),
        (detector, [*cell_records, odd], r"'z\\udcff\.png': name is not valid UTF-8; rename the file"),
        (detector, cell_records[:-1], "made with images .6 images.* not .5 images|another images"),
        (other, cell_records, "made with another detector"),
        (narrow, cell_records, r"features of shape \(14, 14, 32\)"),
    ]:
        with pytest.raises(InputError, match=message):
            extract(finder, records, path)


def test_extract_features_goes_on_after_an_image_that_the_network_refuses(detector, cell_records, tmp_path):
    refused = read_image(cell_records[1].path)

    def choosy(images, masks=True, paste=True):
        if any(np.array_equal(image, refused) for image in images):
            raise InputError("sides must be multiples of 64")
        return [detector.result(image, masks) for image in images]

    detector.detect = choosy
    counts = extract(detector, cell_records, tmp_path / "a.h5")
    assert counts["unreadable"] == 2 and counts["found"] + counts["missed"] == 4
    with FeatureStore(tmp_path / "a.h5") as store:
        reasons = {entry["image_id"]: entry["reason"] for entry in store.missed}
    assert reasons["1.png"] == f"unreadable: {cell_records[1].path}: sides must be multiples of 64"


def test_extract_features_warns_where_the_detector_gives_no_more(detector, cell_records, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mrcnn"), "propagate", True)
    extract(detector, cell_records, tmp_path / "a.h5")
    assert "left out" not in caplog.text
    detector.config = make_config({"DETECTION_MAX_INSTANCES": 2}, type(detector.config))
    counts = extract(detector, cell_records, tmp_path / "b.h5")
    assert f"{counts['found']} images have 2 cells, the most that this detector gives" in caplog.text
