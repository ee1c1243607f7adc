"""Reading GeoJSON of QuPath and of `aecfe detect`: objects, holes, nuclei, names of files and faults."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.cells.writers import feature_collection, measure_cells
from mrcnn.annotations.faults import Fault
from mrcnn.annotations.outlines import OutlineDataset, check_outlines, read_annotations
from mrcnn.data.records import ImageRecord

SQUARE = [[2, 3], [12, 3], [12, 9], [2, 9], [2, 3]]
HOLE = [[4, 4], [8, 4], [8, 8], [4, 8], [4, 4]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry, kind="detection", label="WBC", **more):
    properties = {"objectType": kind} | ({"classification": {"name": label}} if label else {})
    return {"type": "Feature", "id": "7f", "geometry": geometry, "properties": properties, **more}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def test_polygons_have_holes_and_parts(write):
    plane = {"plane": {"c": -1, "z": 0, "t": 0}}
    parts = {"type": "MultiPolygon", "coordinates": [[SQUARE], [[[20, 3], [23, 3], [23, 5], [20, 3]]]]}
    entries = [feature(polygon(SQUARE, HOLE) | plane), feature(parts, label=""), feature(polygon(SQUARE))]
    entries[2]["properties"]["classification"] = {"names": ["WBC", "blast"]}
    for value in (collection(*entries), entries):  # older QuPath wrote a bare list
        (image,) = read_annotations(write(value)).images
        holed, apart, _ = masks = [thing.draw(30, 40) for thing in image.objects]
        assert [thing.label for thing in image.objects] == ["WBC", "", "WBC: blast"]
        assert [mask.sum() for mask in masks] == [60 - 16, 60 + apart[:, 20:].sum(), 60]
        assert not holed[4:8, 4:8].any() and holed[3, 2:12].all() and apart[:, 20:].any()


def test_regions_are_no_cells_and_the_nucleus_of_a_cell_is_its_own(write, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    whole = polygon([[0, 0], [40, 0], [40, 30], [0, 30], [0, 0]])
    cell = feature(polygon(SQUARE), "cell", "blast", nucleusGeometry=polygon(HOLE))
    entries = [feature(whole, "annotation", ""), feature(whole, "tile"), cell]
    annotations, records = read_annotations(write(collection(*entries))), [ImageRecord("a.png", tmp_path / "a.png")]
    for classes in (None, {"blast": "cell"}):
        check = check_outlines(records, annotations, classes=classes)
        assert (check.faults, check.num_objects) == ([], {"a.png": 1})
        nuclei = OutlineDataset(records, annotations, classes=classes, nucleus_names=()).load_parts(0)["nucleus"]
        assert nuclei.shape == (30, 40, 1) and nuclei.sum() == 16 and nuclei[4:8, 4:8].all()
    # Without cells of QuPath's an annotation is what was drawn.
    assert len(read_annotations(write(collection(entries[0]))).images[0].objects) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (feature({"type": "Point", "coordinates": [1, 2]}), "encloses nothing"),
        (feature(None), "geometry is missing"),
        (feature(polygon()), "without an outline"),
        (feature(polygon([[1], [2, 3], [4, 5]])), "without 2 coordinates"),
        (feature(polygon(SQUARE[:2])), "polygon with 2 points"),
        (feature(polygon(SQUARE), label=3), "name of the classification is 3"),
        (3, "entry is 3"),
    ],
)
def test_faulty_features_are_noted_and_the_others_are_read(write, entry, message):
    faulty, good = read_annotations(write(collection(entry, feature(polygon(SQUARE))))).images[0].objects
    with pytest.raises(Fault, match=message):
        faulty.draw(30, 40)
    assert faulty.name == "feature 1" and good.draw(30, 40).sum() == 60


def test_files_go_by_the_names_of_their_images(tmp_path):
    records = []
    for name in ("x/a.png", "y/a.png", "y/b.tif", "c.d.png"):
        path = tmp_path / "lab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)
        records.append(ImageRecord(name, path))
    places = {"x/a.geojson": 1, "y/a.png.geojson": 2, "b.json": 3, "c.d.geojson": 4, "e.geojson": 5}
    for place, count in places.items():
        path = tmp_path / "drawn" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        squares = [[[x + 3 * i, y] for x, y in SQUARE] for i in range(count)]
        path.write_text(json.dumps(collection(*(feature(polygon(square)) for square in squares))))
    check = check_outlines(records, read_annotations(tmp_path / "drawn"))
    assert check.num_objects == {record.image_id: count for count, record in enumerate(records, 1)}
    assert [name for name, _ in check.faults] == ["e"]
    (tmp_path / "drawn" / "x").rename(tmp_path / "drawn" / "z")
    check = check_outlines(records, read_annotations(tmp_path / "drawn"))
    assert check.good == records[1:] and any("could be x/a.png or y/a.png" in reason for _, reason in check.faults)


def test_outlines_that_detect_wrote_are_read_back(tmp_path):
    masks = np.zeros((30, 40, 3), bool)
    masks[3:20, 5:19, 0] = masks[5:9, 25:30, 1] = masks[15:19, 25:30, 1] = masks[22:28, 2:9, 2] = True
    masks[8:12, 9:13, 0] = False
    boxes = np.array([[3, 5, 20, 19], [5, 25, 19, 30], [22, 2, 28, 9]])
    result = {"rois": boxes, "class_ids": np.ones(3, int), "scores": np.array([0.9, 0.8, 0.7]), "masks": masks}
    cells = measure_cells("images/a.png", result, {1: "cell"})
    (tmp_path / "found" / "images").mkdir(parents=True)
    path = tmp_path / "found" / "images" / "a.png.geojson"
    nuclei = masks & (np.arange(40)[:, np.newaxis] < 12)  # the second has none
    path.write_text(json.dumps(feature_collection(cells, masks, nuclei)))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    records, annotations = [ImageRecord("images/a.png", tmp_path / "a.png")], read_annotations(tmp_path / "found")
    assert check_outlines(records, annotations).faults == []
    dataset = OutlineDataset(records, annotations)
    np.testing.assert_array_equal(dataset.load_mask(0)[0], masks)
    np.testing.assert_array_equal(dataset.load_parts(0)["nucleus"], nuclei)
