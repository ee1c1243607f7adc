"""Reading VIA files of both versions: shapes, labels and faults."""

import math

import numpy as np
import pytest

from mrcnn.annotations.faults import Fault
from mrcnn.annotations.outlines import read_annotations
from mrcnn.files.errors import InputError

POLYGON = {"name": "polygon", "all_points_x": [2, 12, 12, 2], "all_points_y": [3, 3, 9, 9]}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def version_1(*regions, name="a.png"):
    entry = {"fileref": "", "size": 123, "filename": name, "base64_img_data": "", "file_attributes": {}}
    return {f"{name}123": {**entry, "regions": {str(i): r for i, r in enumerate(regions)}}}


def version_2(*regions, name="a.png"):
    return {f"{name}123": {"filename": name, "size": 123, "regions": list(regions), "file_attributes": {}}}


def project(*regions):
    return {
        "_via_settings": {"core": {}},
        "_via_img_metadata": version_2(*regions),
        "_via_attributes": {"region": {}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": ["a.png123"],
    }


@pytest.mark.parametrize("make", [version_1, version_2, project])
def test_every_kind_of_file_gives_the_same(write, make):
    path = write(make(region(POLYGON, kind="cell"), region({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4})))
    annotations = read_annotations(path)
    assert annotations.kind == "via"
    assert not annotations.faults
    image = annotations.images[0]
    assert (image.file_name, image.width, image.height) == ("a.png", None, None)
    assert [(o.name, o.label) for o in image.objects] == [("region 1", "cell"), ("region 2", "")]
    expected = np.zeros((2, 20, 20), bool)
    expected[0, 3:9, 2:12] = True
    expected[1, 2:6, 1:4] = True
    np.testing.assert_array_equal([o.draw(20, 20) for o in image.objects], expected)


def test_round_shapes_and_closed_lines(write):
    square = {"all_points_x": [2, 12, 12, 2, 2], "all_points_y": [3, 3, 9, 9, 3]}
    shapes = [
        {"name": "circle", "cx": 20, "cy": 15, "r": 8},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 5},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 5, "ry": 12, "theta": math.pi / 2},
        {"name": "polyline", **square},
    ]
    circle, ellipse, turned, line = (
        o.draw(30, 40) for o in read_annotations(write(version_2(*map(region, shapes)))).images[0].objects
    )
    assert abs(circle.sum() - math.pi * 64) < 8
    assert abs(ellipse.sum() - math.pi * 60) < 8
    assert (turned ^ ellipse).sum() <= 4
    assert line.sum() == 60


def test_labels_come_from_the_attribute_that_looks_like_one(write):
    regions = [
        region(POLYGON, celltype="WBC"),
        region(POLYGON, quality="good", Class="RBC"),
        region(POLYGON, quality="good", colour="red"),
        region(POLYGON, type={"WBC": True, "blurred": True, "RBC": False}),
        region(POLYGON),
        {"shape_attributes": POLYGON},
    ]
    path = write(version_2(*regions))
    assert [o.label for o in read_annotations(path).images[0].objects] == ["WBC", "RBC", "", "WBC,blurred", "", ""]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "point", "cx": 3, "cy": 4}, "shape 'point' is unknown or encloses nothing"),
        ({"name": "polyline", "all_points_x": [1, 5, 5], "all_points_y": [1, 1, 5]}, "does not end where it begins"),
        ({"name": "polygon", "all_points_x": [1, 5, 5]}, "all_points_y is missing"),
        (None, "shape_attributes is missing"),
    ],
)
def test_faulty_regions_carry_their_fault(write, shape, message):
    faulty, good = read_annotations(write(version_2(region(shape), region(POLYGON)))).images[0].objects
    with pytest.raises(Fault, match=message):
        faulty.draw(30, 40)
    assert good.draw(30, 40).sum() == 60


def test_faulty_entries_are_noted(write):
    value = version_2(region(POLYGON))
    value |= {
        "b": {"filename": "b.png", "regions": 3},
        "c": {"regions": []},
        "d": {"filename": "d.png", "regions": [5]},
        "e": {"filename": "e.png"},
    }
    annotations = read_annotations(write(value))
    assert annotations.faults == [("a.json", "image 'c' has no filename")]
    neither = "neither a list nor a mapping"
    faults = [image.faults for image in annotations.images]
    assert faults == [[], [f"regions are 3, {neither}"], [], [f"regions are missing, {neither}"]]
    assert annotations.images[2].objects[0].fault == "entry is 5, not a mapping"


def test_other_files_are_refused(write):
    for value in ({}, [], {"_via_settings": {}}, {"_via_img_metadata": []}):
        with pytest.raises(InputError, match="a.json: not a VIA file"):
            read_annotations(write(value), "via")
