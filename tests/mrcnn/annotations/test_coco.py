"""COCO files: polygons, run lengths, groups, and faults of single entries and of whole files."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mrcnn.annotations.coco import decode_counts, make_run_lengths
from mrcnn.annotations.faults import Fault
from mrcnn.annotations.outlines import read_annotations

SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]
FAR = [20, 20, 26, 20, 26, 24]


def coco(annotations, images=None, categories=None):
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}] if images is None else images,
        "annotations": [{"id": 11, "image_id": 1, "category_id": 3, "iscrowd": 0, **a} for a in annotations],
        "categories": [{"id": 3, "name": "cell"}, {"id": 4, "name": "platelet"}] if categories is None else categories,
    }


def test_objects_are_what_pycocotools_draws(write):
    speckle = np.random.default_rng(0).random((30, 40)) < 0.3
    compressed = coco_mask.encode(np.asfortranarray(speckle.astype(np.uint8)))
    compressed["counts"] = compressed["counts"].decode("ascii")
    things = [
        {"id": 1, "segmentation": [SQUARE]},
        {"id": 2, "segmentation": [SQUARE, FAR], "category_id": 4},
        {"id": 3, "segmentation": compressed},
        {"id": 4, "segmentation": {"size": [30, 40], "counts": [100, 50, 1050]}, "iscrowd": 1},
    ]
    path = write(coco(things))
    annotations = read_annotations(path)
    reference = COCO(str(path))
    image = annotations.images[0]
    assert (image.file_name, image.width, image.height, image.faults) == ("a.png", 40, 30, [])
    assert [o.label for o in image.objects] == ["cell", "platelet", "cell", "cell"]
    assert [o.is_crowd for o in image.objects] == [False, False, False, True]
    for thing, number in zip(image.objects, (1, 2, 3, 4), strict=True):
        expected = reference.annToMask(reference.anns[number]).astype(bool)
        # The slanting side of FAR passes through pixel centres, where either answer is right.
        assert (thing.draw(30, 40) ^ expected).sum() <= (3 if number == 2 else 0)
    assert not annotations.faults


def test_single_polygon_without_its_brackets_and_ids_as_text(write):
    value = coco([{"image_id": "1", "category_id": "3", "segmentation": SQUARE}])
    assert read_annotations(write(value)).images[0].objects[0].draw(30, 40).sum() == 60


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"segmentation": [[1, 1, 5, 5, 9]]}, "3 x and 2 y coordinates"),
        ({"segmentation": []}, "no segmentation"),
        ({"segmentation": {"size": [30, 40], "counts": [5, 6]}}, "add up to"),
        ({"segmentation": {"size": [40, 30], "counts": [0, 1200]}}, "RLE is 30x40 px, image is 40x30 px"),
        ({"segmentation": [SQUARE], "category_id": 9}, "category_id 9"),
        ({"segmentation": [SQUARE], "iscrowd": 2}, "iscrowd is 2"),
    ],
)
def test_faulty_objects_carry_their_fault(write, entry, message):
    good = {"id": 12, "segmentation": [SQUARE]}
    faulty, other = read_annotations(write(coco([entry, good]))).images[0].objects
    assert faulty.name == "annotation 11"
    with pytest.raises(Fault, match=message):
        faulty.draw(30, 40)
    assert other.draw(30, 40).sum() == 60


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
    annotations = read_annotations(write(value))
    faults = [(image.file_name, fault) for image in annotations.images for fault in image.faults] + annotations.faults
    told = [("a.png", "id 1"), ("b.png", "id 1"), ("c.png", "width"), ("c.png", "height"), ("d.png", "id is missing")]
    of_file = ("category id 3 is", "category no. 4", "image no. 4", "annotation 11: image_id 77", "annotation no. 3")
    told += [("a.json", part) for part in of_file]
    assert all(name == fault[0] and part in fault[1] for (name, part), fault in zip(told, faults, strict=True)), faults


def test_run_lengths_of_pycocotools_come_back():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0, *rng.random(10)):
        mask = rng.random(tuple(rng.integers(1, 60, 2))) < share
        mask = np.kron(mask, np.ones((1, 1) if share < 0.6 else (20, 3))).astype(bool)  # long runs too
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        size, text = list(encoded["size"]), encoded["counts"].decode("ascii")
        np.testing.assert_array_equal(make_run_lengths(size, text).draw(*mask.shape), mask)
        np.testing.assert_array_equal(make_run_lengths(size, decode_counts(text)).draw(*mask.shape), mask)
    # 5 -> "5"; 40 = 8 + 32 * 1 -> "X1"; 3 -> "3"; 38 is 40 - 2: -2 is the digit 30 alone -> "N".
    assert decode_counts("5X13N") == [5, 40, 3, 38]


def test_faulty_run_lengths_are_refused():
    wrong = ["34", [3, 10**30], [-1, 21], [3, 17.0], [], "", "3ü", "3X", "o" * 14 + "1", None]
    for size, counts in (*(([4, 5], counts) for counts in wrong), ([4], [20]), ([10**10, 10**10], [10**20])):
        with pytest.raises(Fault, match="RLE"):
            make_run_lengths(size, counts)
