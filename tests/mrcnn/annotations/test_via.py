"""Reading VIA files of both versions: shapes, labels and faults."""

import math

import pytest

from mrcnn.annotations.faults import Fault
from mrcnn.annotations.outlines import read_annotations

POLYGON = {"name": "polygon", "all_points_x": [2, 12, 12, 2], "all_points_y": [3, 3, 9, 9]}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def via(*regions):
    return {"a.png123": {"filename": "a.png", "size": 123, "regions": list(regions), "file_attributes": {}}}


def test_every_shape_becomes_a_mask(write):
    square = {"all_points_x": [2, 12, 12, 2, 2], "all_points_y": [3, 3, 9, 9, 3]}
    shapes = [
        POLYGON,
        {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 6},
        {"name": "polyline", **square},
        {"name": "circle", "cx": 20, "cy": 15, "r": 8},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 5},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 5, "ry": 12, "theta": math.pi / 2},
    ]
    objects = read_annotations(write(via(*map(region, shapes)))).images[0].objects
    *squares, circle, ellipse, turned = (thing.draw(30, 40) for thing in objects)
    assert all(mask[3:9, 2:12].all() and mask.sum() == 60 for mask in squares)
    assert abs(circle.sum() - math.pi * 64) < 8 and abs(ellipse.sum() - math.pi * 60) < 8
    assert (turned ^ ellipse).sum() <= 4


def test_labels_come_from_the_attribute_that_looks_like_one(write):
    regions = [
        region(POLYGON, celltype="WBC"),
        region(POLYGON, quality="good", Class="RBC"),
        region(POLYGON, quality="good", colour="red"),
        region(POLYGON, type={"WBC": True, "blurred": True, "RBC": False}),
        region(POLYGON),
        {"shape_attributes": POLYGON},
    ]
    objects = read_annotations(write(via(*regions))).images[0].objects
    assert [thing.label for thing in objects] == ["WBC", "RBC", "", "WBC,blurred", "", ""]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "point", "cx": 3, "cy": 4}, "'point'"),
        ({"name": "polyline", "all_points_x": [1, 5, 5], "all_points_y": [1, 1, 5]}, "does not end where it begins"),
        ({"name": "polygon", "all_points_x": [1, 5, 5]}, "all_points_y is missing"),
        (None, "shape_attributes is missing"),
    ],
)
def test_faulty_regions_carry_their_fault(write, shape, message):
    faulty, good = read_annotations(write(via(region(shape), region(POLYGON)))).images[0].objects
    with pytest.raises(Fault, match=message):
        faulty.draw(30, 40)
    assert good.draw(30, 40).sum() == 60


def test_faulty_entries_are_noted(write):
    value = via(region(POLYGON), 5) | {"b": {"filename": "b.png", "regions": 3}, "c": {"regions": []}}
    annotations = read_annotations(write(value))
    assert annotations.faults == [("a.json", "image 'c' has no filename")]
    good, other = annotations.images
    assert not good.faults and [bool(thing.fault) for thing in good.objects] == [False, True]
    (fault,) = other.faults
    assert fault.startswith("regions are 3")
