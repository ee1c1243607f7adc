"""Finding cells alone: names, files and what is in them, mostly with a detector whose detections are made up."""

import csv
import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import shapely.geometry
import tifffile
from PIL import Image

from experiments.cells.detect import detect_images, find_images
from experiments.cells.writers import CellFiles
from mrcnn.files.errors import InputError


class MadeUpDetector:
    """Finds as many cells as the first pixel's value says: overlapping squares of 6 px, each 4 px right of the last."""

    def __init__(self, num_classes=2, limit=100):
        limits = {"DETECTION_MAX_INSTANCES": limit, "POST_NMS_ROIS_INFERENCE": 1000}
        self.config = SimpleNamespace(NUM_CLASSES=num_classes, **limits)
        self.batches = []

    def detect(self, images):
        self.batches.append(len(images))
        return [self.result(image) for image in images]

    def result(self, image):
        count = int(image[0, 0, 0])
        boxes = np.array([[2, 2 + 4 * i, 8, 8 + 4 * i] for i in range(count)], np.int32).reshape(-1, 4)
        masks = np.zeros((*image.shape[:2], count), bool)
        for i, (y1, x1, y2, x2) in enumerate(boxes):
            masks[y1:y2, x1:x2, i] = True
        return {
            "rois": boxes,
            "class_ids": np.arange(count, dtype=np.int32) % (self.config.NUM_CLASSES - 1) + 1,
            "scores": np.linspace(0.9, 0.6, count).astype(np.float32),
            "masks": masks,
            "feats": np.zeros((count, 14, 14, 8), np.float32),
        }


def save_image(path, num_cells, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), 220, np.uint8)
    pixels[0, 0] = num_cells
    Image.fromarray(pixels).save(path, **({"quality": 100} if path.suffix == ".jpg" else {}))
    return path


@pytest.fixture
def folder(tmp_path):
    """Images with 0, 1 and 2 cells, and one that cannot be read."""
    for count in range(3):
        save_image(tmp_path / "in" / f"{count}.png", count)
    (tmp_path / "in" / "cut.png").write_bytes((tmp_path / "in" / "1.png").read_bytes()[:60])
    return tmp_path / "in"


def all_files(tmp_path):
    out = tmp_path / "out"
    return CellFiles(out / "cells.csv", out / "labels", out / "geojson", out / "overlay")


def detect(inputs, files, detector=None, **settings):
    images = find_images(inputs)
    files.check(images)
    return detect_images(detector or MadeUpDetector(), images, files, **settings)


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_detect_images_counts_and_names(folder, tmp_path, logged):
    counts = detect([folder], all_files(tmp_path))
    assert counts == {"images": 4, "unreadable": 1, "without_cells": 1, "cells": 3, "empty_masks": 0}
    assert "cut.png" in logged.text
    images = ["0.png", "1.png", "2.png"]
    assert files_below(tmp_path / "out") == sorted(
        ["cells.csv"]
        + [f"labels/{name}.labels.tif" for name in images]
        + [f"geojson/{name}.geojson" for name in images]
        + [f"overlay/{name}.overlay.png" for name in images]
    )


def test_detect_images_csv_row_is_known(folder, tmp_path):
    detect([folder], CellFiles(csv=tmp_path / "cells.csv"), pixel_size=0.5)
    rows = rows_of(tmp_path / "cells.csv")
    assert list(rows[0]) == [
        "image", "cell", "class_id", "class_name", "y1", "x1", "y2", "x2", "score", "area_px", "area_um2",
        "equivalent_diameter_um",
    ]  # fmt: skip
    assert [(row["image"], row["cell"]) for row in rows] == [("1.png", "1"), ("2.png", "1"), ("2.png", "2")]
    assert list(rows[2].values())[:11] == ["2.png", "2", "1", "cell", "2", "6", "8", "12", "0.6000", "36", "9"]
    assert float(rows[2]["equivalent_diameter_um"]) == pytest.approx(2 * math.sqrt(9.0 / math.pi), rel=1e-5)
    detect([folder], CellFiles(csv=tmp_path / "pixels.csv"))
    assert list(rows_of(tmp_path / "pixels.csv")[0])[-1] == "area_px"


def test_detect_images_labels_are_the_numbers_of_the_csv(folder, tmp_path):
    detect([folder], CellFiles(labels=tmp_path / "labels"))
    labels = tifffile.imread(tmp_path / "labels" / "2.png.labels.tif")
    expected = np.zeros((20, 30), np.uint16)
    expected[2:8, 6:12] = 2
    expected[2:8, 2:8] = 1  # the better score has the columns that both cover
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint16
    assert not tifffile.imread(tmp_path / "labels" / "0.png.labels.tif").any()


def test_detect_images_geojson_is_what_qupath_reads(folder, tmp_path):
    detect([folder], CellFiles(geojson=tmp_path / "geojson"), pixel_size=0.5)
    text = (tmp_path / "geojson" / "2.png.geojson").read_text(encoding="ascii")
    collection = json.loads(text)
    assert collection["type"] == "FeatureCollection"
    _, second = collection["features"]
    assert second == {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[6, 2], [12, 2], [12, 8], [6, 8], [6, 2]]]},
        "properties": {
            "objectType": "detection",
            "name": "2",
            "classification": {"name": "cell", "color": [0, 230, 51]},
            "measurements": {
                "Score": 0.6,
                "Area px^2": 36,
                "Area µm^2": 9.0,
                "Equivalent diameter µm": pytest.approx(3.3851),
            },
        },
    }
    empty = json.loads((tmp_path / "geojson" / "0.png.geojson").read_text())
    assert empty == {"type": "FeatureCollection", "features": []}


def test_detect_images_writes_nuclei_where_the_detector_draws_them(folder, tmp_path):
    class WithNuclei(MadeUpDetector):
        def result(self, image):
            result = super().result(image)
            nuclei = np.zeros_like(result["masks"])
            nuclei[4:6, 4:7, :1] = True  # that of the second cell is not seen
            return result | {"nucleus_masks": nuclei}

    detect([folder], all_files(tmp_path), WithNuclei())
    out = tmp_path / "out"
    nuclei = tifffile.imread(out / "labels" / "2.png.nuclei.tif")
    assert np.unique(nuclei).tolist() == [0, 1] and (nuclei[4:6, 4:7] == 1).all() and np.count_nonzero(nuclei) == 6
    assert (out / "labels" / "2.png.labels.tif").exists()
    first, second = json.loads((out / "geojson" / "2.png.geojson").read_text())["features"]
    assert first["properties"]["objectType"] == second["properties"]["objectType"] == "cell"
    assert shapely.geometry.shape(first["nucleusGeometry"]).equals(shapely.box(4, 4, 7, 6))
    assert first["geometry"]["type"] == "Polygon" and "nucleusGeometry" not in second
    detect([folder], CellFiles(overlay=tmp_path / "plain"))
    name = "1.png.overlay.png"
    assert (out / "overlay" / name).read_bytes() != (tmp_path / "plain" / name).read_bytes()


def test_detect_images_with_masks_in_parts_with_holes_and_empty(tmp_path, logged):
    class OddMasks(MadeUpDetector):
        def result(self, image):
            result = super().result(image)
            result["masks"][4, 4, 0] = False
            result["masks"][4, :, 1] = False
            result["masks"][..., 2] = False
            return result

    counts = detect([save_image(tmp_path / "in" / "a.png", 3)], all_files(tmp_path), OddMasks())
    assert counts["cells"] == 3 and counts["empty_masks"] == 1
    assert "1 cells have an empty mask" in logged.text
    features = json.loads((tmp_path / "out" / "geojson" / "a.png.geojson").read_text())["features"]
    assert [feature["properties"]["name"] for feature in features] == ["1", "2"]
    assert [feature["geometry"]["type"] for feature in features] == ["Polygon", "MultiPolygon"]
    assert [len(feature["geometry"]["coordinates"]) for feature in features] == [2, 2]
    assert [row["area_px"] for row in rows_of(tmp_path / "out" / "cells.csv")] == ["35", "30", "0"]


def test_detect_images_overlay_shows_the_image_with_marks(folder, tmp_path):
    save_image(folder / "large.png", 2, (450, 600))
    detect([folder], CellFiles(overlay=tmp_path / "overlay"))
    picture = np.asarray(Image.open(tmp_path / "overlay" / "large.png.overlay.png"))
    assert picture.shape == (450, 600, 3)
    assert (picture[200:, 200:] == 220).all() and not (picture[:12, :16] == 220).all()
    assert np.asarray(Image.open(tmp_path / "overlay" / "1.png.overlay.png")).shape == (400, 600, 3)


def test_detect_images_works_in_batches(folder, tmp_path):
    detector = MadeUpDetector()
    detect([folder], CellFiles(csv=tmp_path / "cells.csv"), detector, batch_size=3)
    assert detector.batches == [3]  # of the second batch, cut.png, nothing is left
    detect([folder], CellFiles(csv=tmp_path / "single.csv"), batch_size=1)
    assert (tmp_path / "single.csv").read_bytes() == (tmp_path / "cells.csv").read_bytes()


def test_detect_images_that_fail_leave_no_csv(folder, tmp_path):
    class Failing(MadeUpDetector):
        def detect(self, images):
            if self.batches:
                raise RuntimeError("killed")
            return super().detect(images)

    with pytest.raises(RuntimeError, match="killed"):
        detect([folder], CellFiles(csv=tmp_path / "out" / "cells.csv"), Failing(), batch_size=1)
    with pytest.raises(InputError, match="none of the 1 images could be read"):
        detect([folder / "cut.png"], all_files(tmp_path))
    assert files_below(tmp_path / "out") == []


def test_detect_images_warn_where_the_detector_gives_no_more(folder, tmp_path, logged):
    detect([folder], CellFiles(csv=tmp_path / "a.csv"), MadeUpDetector(limit=3))
    assert "left out" not in logged.text
    detect([folder], CellFiles(csv=tmp_path / "b.csv"), MadeUpDetector(limit=2))
    assert "1 images have 2 cells, the most that this detector gives" in logged.text and "2.png" in logged.text


def test_find_images_names_never_collide(tmp_path, monkeypatch):
    for name in ("a/1.png", "b/1.png", "b/1.jpg"):
        save_image(tmp_path / "in" / name, 1)
    monkeypatch.chdir(tmp_path)
    images = find_images(["in/b", os.fspath(tmp_path / "in" / "a" / "1.png"), "in/a/../a/1.png"])
    assert [image.image_id for image in images] == ["b/1.jpg", "b/1.png", "a/1.png"]
    assert [image.image_id for image in find_images(["in/b/1.png", "in/b/1.jpg"])] == ["1.png", "1.jpg"]
    files = all_files(tmp_path)
    assert len({path for image in images for path in files.of_image(image.image_id).values()}) == 12
    assert files.of_image("b/1.jpg")["labels"] == tmp_path / "out" / "labels" / "b" / "1.jpg.labels.tif"
    with pytest.raises(InputError, match=r"absent\.png: no such image or folder"):
        find_images(["absent.png"])
    with pytest.raises(InputError, match="in: no images .* directly in this folder"):
        find_images(["in"])


def test_cell_files_keep_what_is_there(folder, tmp_path):
    files, images = all_files(tmp_path), find_images([folder])
    there = files.of_image("1.png")["geojson"]
    there.parent.mkdir(parents=True)
    for path in (there, files.csv):
        path.write_text("mine")
    with pytest.raises(InputError, match=r"1\.png\.geojson and 1 more: already there; .* --overwrite"):
        files.check(images)
    files.check(images, overwrite=True)
    save_image(folder / "0.png.overlay.png", 1)
    with pytest.raises(InputError, match="is one of the images"):
        CellFiles(overlay=folder).check(find_images([folder]), overwrite=True)


@pytest.mark.parametrize("kind", ["labels", "overlay"])
def test_cell_files_refuse_pictures_among_the_images(folder, tmp_path, kind):
    save_image(tmp_path / "in" / "b" / "0.png", 1)
    # Their names bring the folders of the images with them.
    for inputs in ([folder], [folder, folder / "b"]):
        with pytest.raises(InputError, match=f"--{kind} .*/in: would lie among the images"):
            CellFiles(**{kind: folder}).check(find_images(inputs))
    CellFiles(**{kind: folder / "found"}).check(find_images([folder]))
    CellFiles(geojson=folder, csv=folder / "cells.csv").check(find_images([folder]))


@pytest.mark.parametrize(("table", "outlines"), [("a", "a"), ("a", "a/below"), ("out/1.png.geojson", "out")])
def test_cell_files_refuse_a_table_where_other_outputs_go(folder, tmp_path, table, outlines):
    files = CellFiles(csv=tmp_path / table, geojson=tmp_path / outlines)
    with pytest.raises(InputError, match="--csv .* is also where"):
        files.check(find_images([folder]), overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give at least one of --overlay, --csv, --labels and --geojson"),
        (["--csv", "cells.csv"], "no trained detector"),
    ],
)
def test_detect_command_tells_mistakes(folder, tmp_path, monkeypatch, refused, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused("detect", folder, "--detector", tmp_path / "none", *arguments)
    assert not (tmp_path / "cells.csv").exists()


def test_detect_command_with_a_network(untrained_run, cell_records, tmp_path, capsys, aecfe, refused):
    images, out = [record.path for record in cell_records[:4]], tmp_path / "out"
    arguments = ["detect", *images, "--detector", untrained_run / "detector", "--min-score", 0, "--pixel-size", 0.1,
                 "--csv", out / "cells.csv", "--labels", out / "labels", "--geojson", out / "geojson",
                 "--overlay", out / "overlay"]  # fmt: skip
    assert aecfe(*arguments) == 0
    printed = capsys.readouterr()
    assert "images 4, unreadable 1" in printed.out and "2.png" in printed.err
    assert "--overwrite" in refused(*arguments)
    before = (out / "cells.csv").read_bytes()
    assert aecfe(*arguments, "--overwrite") == 0
    assert (out / "cells.csv").read_bytes() == before
    rows = rows_of(out / "cells.csv")
    assert {row["image"] for row in rows} <= {"0.png", "1.png", "3.png"} and rows
    for name in ("0.png", "1.png", "3.png"):
        own = [row for row in rows if row["image"] == name]
        features = json.loads((out / "geojson" / f"{name}.geojson").read_text())["features"]
        areas = {f["properties"]["name"]: f["properties"]["measurements"]["Area px^2"] for f in features}
        assert areas == {row["cell"]: int(row["area_px"]) for row in own if row["area_px"] != "0"}
        labels = tifffile.imread(out / "labels" / f"{name}.labels.tif")
        assert labels.shape == (64, 64) and set(np.unique(labels)) <= {0, *(int(row["cell"]) for row in own)}
        # The best-scored cell is covered by no other.
        assert not own or np.count_nonzero(labels == 1) == int(own[0]["area_px"])
        assert (out / "overlay" / f"{name}.overlay.png").stat().st_size > 0


@pytest.mark.parametrize("name", ["a\nb.png", 'a,"b.png', "a\rb.png", "-a.png"])
def test_detect_images_csv_has_one_row_for_each_cell_whatever_the_name(tmp_path, name):
    save_image(tmp_path / "in" / name, 2)
    detect([tmp_path / "in"], CellFiles(csv=tmp_path / "cells.csv"))
    # A carriage return alone would end the row for whoever reads it.
    assert [row["image"] for row in rows_of(tmp_path / "cells.csv")] == [name.replace("\r", "\\r")] * 2
