"""Whatever stands in an annotation file is read, noted as a fault, or refused in one line; nothing else is raised."""

import copy
import json
import math

import pytest
from PIL import Image

from mrcnn.annotations.outlines import OutlineDataset, check_outlines, parse_annotations, read_annotations, recognise
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError

POLYGON = {"name": "polygon", "all_points_x": [2, 12, 12], "all_points_y": [3, 3, 9]}
REGIONS = [
    {"shape_attributes": POLYGON, "region_attributes": {"class": "cell"}},
    {"shape_attributes": {"name": "ellipse", "cx": 9, "cy": 9, "rx": 3, "ry": 4, "theta": 1}, "region_attributes": {}},
    {"shape_attributes": {"name": "rect", "x": 9, "y": 9, "width": 3, "height": 4}, "region_attributes": {}},
]
VALUES = {
    "coco": {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 3, 12, 3, 12, 9]], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [20, 20], "counts": [5, 10, 385]}},
        ],
    },
    "via": {"_via_img_metadata": {"a.png1": {"filename": "a.png", "size": 1, "regions": REGIONS}}},
    "labelme": {
        "imagePath": "a.png",
        "imageWidth": 20,
        "imageHeight": 20,
        "shapes": [
            {"label": "cell", "points": [[2, 3], [12, 3], [12, 9]], "shape_type": "polygon", "group_id": 1},
            {"label": "cell", "points": [[2, 3], [12, 9]], "shape_type": "rectangle", "group_id": 1},
            {"label": "cell", "points": [[2, 3], [3, 4]], "shape_type": "mask", "mask": "iVBORw0KGgo="},
        ],
    },
}
ODD = [None, True, -1, 0, 1e308, math.nan, 10**400, "", "x\n", [], [[]], [None, None], {}, {"a": []}]


def places(value, path=()):
    """Paths to everything inside nested mappings and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*path, key)
        yield from places(item, (*path, key))


def variants(value):
    """The value with each part of it taken out, or replaced by something odd."""
    for *parents, last in places(value):
        for odd in (*ODD, "taken out"):
            changed = copy.deepcopy(value)
            target = changed
            for key in parents:
                target = target[key]
            if odd == "taken out":
                del target[last]
            else:
                target[last] = odd
            yield changed


@pytest.mark.parametrize("file_format", VALUES)
def test_odd_values_are_faults_and_nothing_worse(tmp_path, file_format):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    records = [ImageRecord("a.png", tmp_path / "a.png")]
    assert recognise(VALUES[file_format]) == file_format
    num_refused = num_faulty = 0
    for value in variants(VALUES[file_format]):
        try:
            annotations = parse_annotations(value, tmp_path / "annotations.json", file_format)
        except InputError as error:
            num_refused += 1
            assert str(error).startswith(f"{tmp_path}/annotations.json: ") and "\n" not in str(error)
            continue
        faults, good = check_outlines(records, annotations)
        num_faulty += bool(faults)
        assert bool(good) or faults
        assert not any("\n" in text for fault in faults for text in fault)
        for image_id in OutlineDataset(good, annotations).image_ids:
            OutlineDataset(good, annotations).load_mask(image_id)
    assert num_refused >= 10 and num_faulty >= 100


def test_file_and_folder_of_labelme_are_read_and_unknown_content_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**VALUES["labelme"], "imagePath": f"{name}.png"}))
    assert len(read_annotations(tmp_path / "a.json").images) == 1
    assert len(read_annotations(tmp_path, "labelme").images) == 2
    for value in ([], {}, 5, "text", None, {"images": 3}):
        (tmp_path / "c.json").write_text(json.dumps(value))
        with pytest.raises(InputError, match="c.json: neither COCO, VIA nor labelme"):
            read_annotations(tmp_path / "c.json")
