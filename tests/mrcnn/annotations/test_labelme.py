"""Reading labelme files: shapes, groups, bitmaps, folders and faults."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from mrcnn.annotations.faults import Fault
from mrcnn.annotations.outlines import read_annotations

SQUARE = [[2, 3], [12, 3], [12, 9], [2, 9]]


def shape(points, kind="polygon", label="cell", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme(*shapes, name="a.png"):
    return {"shapes": list(shapes), "imagePath": name, "imageData": None, "imageHeight": 30, "imageWidth": 40}


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def test_shapes_become_masks(write):
    squares = [shape(SQUARE), shape([[12, 9], [2, 3]], "rectangle", "box"), shape([*SQUARE, SQUARE[0]], "linestrip")]
    shapes = [*squares, {"label": "old", "points": SQUARE}, shape([[20, 15], [20, 23]], "circle")]
    image = read_annotations(write(labelme(*shapes))).images[0]
    assert (image.file_name, image.width, image.height, image.faults) == ("a.png", 40, 30, [])
    assert [(o.name, o.label) for o in image.objects][:2] == [("shape 1", "cell"), ("shape 2", "box")]
    *masks, circle = (o.draw(30, 40) for o in image.objects)
    assert all(mask[3:9, 2:12].all() and mask.sum() == 60 for mask in masks)
    assert abs(circle.sum() - math.pi * 64) < 8


def test_bitmap_lies_over_its_box(write):
    pixels = np.random.default_rng(0).random((5, 7)) < 0.5
    expected = np.zeros((30, 40), bool)
    expected[4:9, 10:17] = pixels
    # labelme's second point is the last pixel; some exporters give the corner after it.
    first = shape([[10, 4], [16, 8]], "mask", mask=png(pixels))
    second = shape([[10.0, 4.0], [17.0, 9.0]], "mask", mask=png(pixels.astype(np.uint8) * 255))
    for thing in read_annotations(write(labelme(first, second))).images[0].objects:
        np.testing.assert_array_equal(thing.draw(30, 40), expected)


def test_shapes_of_a_group_are_one_object(write):
    other = [[20, 20], [24, 20], [24, 24], [20, 24]]
    grouped = [shape(SQUARE, group_id=1), shape(other, group_id=1), shape(other, group_id=1, label="platelet")]
    objects = read_annotations(write(labelme(*grouped, shape(other), shape(other)))).images[0].objects
    assert [(o.name, o.label, int(o.draw(30, 40).sum())) for o in objects] == [
        ("shapes 1 + 2", "cell", 76),
        ("shape 3", "platelet", 16),
        ("shape 4", "cell", 16),
        ("shape 5", "cell", 16),
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (shape([[1, 1]], "point"), "'point'"),
        (shape([[1, 1], [5]]), "not 2 coordinates"),
        (shape(None), "points is missing"),
        (shape([[1, 1], [5, 5]], "mask", mask=base64.b64encode(b"GIF89a").decode()), "not a readable PNG"),
        (shape([[1, 1], [5, 5]], "mask", mask=png(np.ones((3, 5), bool))), "mask of 5x3 px for a box of 5x5 px"),
        (7, "is 7, not a mapping"),
    ],
)
def test_faulty_shapes_carry_their_fault(write, entry, message):
    faulty, good = read_annotations(write(labelme(entry, shape(SQUARE)))).images[0].objects
    with pytest.raises(Fault, match=message):
        faulty.draw(30, 40)
    assert good.draw(30, 40).sum() == 60


def test_folder_is_read_with_its_folders_and_faulty_files_noted(write, tmp_path):
    write(labelme(shape(SQUARE)))
    write(labelme(shape(SQUARE), name="b.png"), "deeper/b.json")
    write({"settings": 1}, "c.json")
    write("{", "d.json")
    annotations = read_annotations(tmp_path)
    assert [image.file_name for image in annotations.images] == ["a.png", "b.png"]
    (first, no_labelme), (second, no_json) = annotations.faults
    assert (first, second) == ("c.json", "d.json")
    assert no_labelme.startswith("not a labelme file") and no_json.startswith("not valid JSON")
