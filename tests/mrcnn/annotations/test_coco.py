"""Reading COCO files: polygons, run lengths, groups, and faults of single entries and of whole files."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mrcnn.annotations.coco import is_coco, read_coco
from mrcnn.annotations.outlines import read_annotations
from mrcnn.annotations.shapes import ShapeFault
from mrcnn.files.errors import InputError

SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]
FAR = [20, 20, 26, 20, 26, 24]


def coco(annotations, images=None, categories=None):
    return {
        "info": {"description": "made by a test"},
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}] if images is None else images,
        "annotations": [{"id": 11, "image_id": 1, "category_id": 3, "iscrowd": 0, **a} for a in annotations],
        "categories": [{"id": 3, "name": "cell"}, {"id": 4, "name": "platelet"}] if categories is None else categories,
    }


@pytest.fixture
def write(tmp_path):
    def write_file(value, name="annotations.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return write_file


def test_objects_are_what_pycocotools_draws(write, capsys):
    speckle = np.random.default_rng(0).random((30, 40)) < 0.3
    compressed = coco_mask.encode(np.asfortranarray(speckle.astype(np.uint8)))
    compressed["counts"] = compressed["counts"].decode("ascii")
    path = write(
        coco(
            [
                {"id": 1, "segmentation": [SQUARE]},
                {"id": 2, "segmentation": [SQUARE, FAR], "category_id": 4},
                {"id": 3, "segmentation": compressed},
                {"id": 4, "segmentation": {"size": [30, 40], "counts": [100, 50, 1050]}, "iscrowd": 1},
            ]
        )
    )
    annotations = read_coco(path)
    reference = COCO(str(path))
    image = annotations.images[0]
    assert (image.file_name, image.width, image.height, image.faults) == ("a.png", 40, 30, [])
    assert [(o.name, o.label, o.is_crowd, o.fault) for o in image.objects] == [
        ("annotation 1", "cell", False, ""),
        ("annotation 2", "platelet", False, ""),
        ("annotation 3", "cell", False, ""),
        ("annotation 4", "cell", True, ""),
    ]
    for thing, number in zip(image.objects, (1, 2, 3, 4), strict=True):
        expected = reference.annToMask(reference.anns[number]).astype(bool)
        mask = thing.draw(30, 40)
        # The slanting side of FAR passes through pixel centres, where either answer is right.
        assert (mask ^ expected).sum() <= (3 if number == 2 else 0)
    assert annotations.labels == {"cell": 3, "platelet": 1}
    assert not annotations.faults


def test_polygon_parts_are_a_union_and_not_holes(write):
    inner = [4, 4, 8, 4, 8, 8, 4, 8]
    image = read_coco(write(coco([{"segmentation": [SQUARE, inner]}]))).images[0]
    assert image.objects[0].draw(30, 40).sum() == 60


def test_single_polygon_without_its_brackets_and_ids_as_text(write):
    value = coco([{"image_id": "1", "category_id": "3", "segmentation": SQUARE}])
    assert read_coco(write(value)).images[0].objects[0].draw(30, 40).sum() == 60


def test_sizes_may_be_whole_numbers_with_a_point(write):
    sizes = {"a.png": (60.0, 40), "b.png": (60.5, 40.0), "c.png": (True, -4.0)}
    images = [{"id": i, "file_name": n, "width": w, "height": h} for i, (n, (w, h)) in enumerate(sizes.items())]
    first, second, third = read_coco(write(coco([], images))).images
    assert (first.width, first.height, first.faults) == (60, 40, []) and isinstance(first.width, int)
    assert (second.width, second.height) == (None, 40)
    assert second.faults == ["width is 60.5, not a number of pixels"]
    assert len(third.faults) == 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"segmentation": [[1, 1, 5, 5]]}, "polygon with 2 different points"),
        ({"segmentation": [[1, 1, 5, 5, 9]]}, "polygon of 5 coordinates, which is odd"),
        ({"segmentation": [[1, 1, 5, 1, "x", 5]]}, "x is 'x'"),
        ({"segmentation": [SQUARE, [0, 0, 9, 9, 5, 5]]}, "lie on one line"),
        ({"segmentation": []}, "no segmentation; a box alone"),
        ({}, "no segmentation; a box alone"),
        ({"segmentation": 7}, "segmentation is 7, not a list"),
        ({"segmentation": {"size": [30, 40], "counts": [5, 6]}}, r"add up to 11, not to 30 \* 40"),
        ({"segmentation": [SQUARE], "category_id": 9}, "category_id 9 is none of the categories"),
        ({"segmentation": [SQUARE], "category_id": None}, "category_id missing is none"),
        ({"segmentation": [SQUARE], "iscrowd": 2}, "iscrowd is 2"),
    ],
)
def test_faulty_objects_carry_their_fault(write, entry, message):
    good = {"id": 12, "segmentation": [SQUARE]}
    faulty, other = read_coco(write(coco([entry, good]))).images[0].objects
    assert faulty.name == "annotation 11" and not faulty.shapes
    with pytest.raises(ShapeFault, match=message):
        faulty.draw(30, 40)
    assert other.draw(30, 40).sum() == 60


def test_numbers_that_json_does_not_know_are_faults_of_their_object(write):
    text = json.dumps(coco([{"segmentation": [SQUARE]}, {"segmentation": [FAR]}]))
    objects = read_coco(write(text.replace("[20,", "[1e999,").replace("[2, 3, 12", "[NaN, 3, 12"))).images[0].objects
    assert [o.fault for o in objects] == ["x is nan, not a finite number", "x is inf, not a finite number"]


def test_objects_outside_or_of_another_size_are_refused_when_drawn(write):
    objects = (
        read_coco(
            write(
                coco(
                    [
                        {"segmentation": [[100, 100, 120, 100, 120, 120]]},
                        {"segmentation": {"size": [40, 30], "counts": [5, 1195]}},
                        {"segmentation": {"size": [30, 40], "counts": [1200]}},
                    ]
                )
            )
        )
        .images[0]
        .objects
    )
    for thing, message in zip(objects, ["outside", "RLE is 30x40 px", "covers no pixel"], strict=True):
        with pytest.raises(ShapeFault, match=message):
            thing.draw(30, 40)


def test_faults_of_images_and_ids_are_all_noted(write):
    images = [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 1, "file_name": "b.png"},
        {"id": 2, "file_name": "c.png", "width": "40", "height": -1},
        {"id": 3},
        {"file_name": "d.png"},
    ]
    value = coco([{"segmentation": [SQUARE]}, {"image_id": 77, "segmentation": [SQUARE]}], images)
    value["annotations"].append("text")
    value["categories"] += [{"id": 3, "name": "other"}, {"name": "x"}]
    annotations = read_coco(write(value))
    assert {image.file_name: image.faults for image in annotations.images} == {
        "a.png": ["its id 1 is that of 2 images"],
        "b.png": ["its id 1 is that of 2 images"],
        "c.png": ["width is '40', not a number of pixels", "height is -1, not a number of pixels"],
        "d.png": ["its id is missing, neither a whole number nor text"],
    }
    assert sorted(reason for _, reason in annotations.faults) == [
        "annotation 11: image_id 77 is none of the images",
        "annotation no. 3 is 'text', not a mapping",
        "category id 3 is both cell and other",
        "category no. 4 lacks an id or a name",
        "image no. 4 has no file_name",
    ]
    assert {key for key, _ in annotations.faults} == {"annotations.json"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"image_id": 1, "score": 0.5}], "detection results"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        ({"shapes": []}, "no list 'images'"),
        ("{", "not JSON"),
    ],
)
def test_other_files_are_refused_in_one_line(write, value, message):
    with pytest.raises(InputError, match=f"annotations.json: .*{message}") as error:
        read_coco(write(value))
    assert "\n" not in str(error.value)


def test_format_is_told_by_content(write):
    path = write(coco([]))
    assert is_coco(json.loads(path.read_text()))
    assert read_annotations(path).kind == "coco"
    with pytest.raises(InputError, match="not a VIA file"):
        read_annotations(path, "via")
    with pytest.raises(InputError, match="neither COCO, VIA nor labelme"):
        read_annotations(write({"a": 1}, "other.json"))
    with pytest.raises(InputError, match="format must be auto, coco, via, labelme; got 'yolo'"):
        read_annotations(path, "yolo")
    with pytest.raises(InputError, match="a folder; name the coco file"):
        read_annotations(path.parent, "coco")
