"""Outlines as a Dataset: classes, groups, how images are matched, and the check that lists every fault."""

import copy
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.annotations.label_masks import CellMaskDataset
from mrcnn.annotations.outlines import OutlineDataset, check_outlines, match_images, parse_annotations, read_annotations
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject, make_polygon
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError

HEIGHT, WIDTH = 30, 40


def thing(name, x1, y1, x2, y2, label="cell", **more):
    return OutlinedObject(name, label, (make_polygon([x1, x2, x2, x1], [y1, y1, y2, y2]),), **more)


@pytest.fixture
def centre(tmp_path):
    """Function from image names to records; the images are there, below `images/`."""

    def make(*names, size=(WIDTH, HEIGHT)):
        records = [ImageRecord(f"images/{name}", tmp_path / "images" / name) for name in names]
        for record in records:
            record.path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(record.path)
        return records

    return make


@pytest.fixture
def outlines(tmp_path):
    """Function from image names with their objects to annotations, as of a file beside `images/`."""

    def make(images, **more):
        source = tmp_path / "annotations.json"
        entries = [OutlinedImage(name, source, list(objects), **more) for name, objects in images.items()]
        return Annotations("coco", [source], entries)

    return make


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_photographs_fit_what_is_drawn_on_them_as_shown(centre, outlines, tmp_path, orientation):
    (record,), exif = centre("a.png"), Image.Exif()
    exif[274] = orientation
    shown = np.full((HEIGHT, WIDTH), 255, np.uint8)
    shown[2:6, 3:13] = 0
    stored = np.rot90(shown, {1: 0, 3: 2, 6: 1, 8: 3}[orientation])
    Image.fromarray(stored).save(record.path, exif=exif)
    (tmp_path / "masks").mkdir()
    Image.fromarray(255 - shown).save(tmp_path / "masks" / "a.png")
    drawn = outlines({"a.png": [thing("1", 3, 2, 13, 6)]})
    for dataset in (OutlineDataset([record], drawn), CellMaskDataset([record], tmp_path / "masks")):
        np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], dataset.load_image(0)[..., 0] == 0)


def test_every_object_is_a_cell_by_default_and_groups_are_negative(centre, outlines):
    records = centre("a.png")
    objects = [thing("1", 2, 3, 12, 9, "WBC"), thing("2", 20, 5, 30, 9, "", is_crowd=True), thing("3", 1, 1, 2, 2)]
    dataset = OutlineDataset(records, outlines({"a.png": objects}), source="north")
    assert dataset.class_names == ["BG", "cell"]
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (HEIGHT, WIDTH, 3) and masks.dtype == bool and class_ids.dtype == np.int32
    assert masks.sum(axis=(0, 1)).tolist() == [60, 40, 1] and class_ids.tolist() == [1, -1, 1]


def test_classes_choose_and_tell_apart(centre, outlines):
    records = centre("a.png")
    objects = [thing(str(i), i, 0, i + 1, 2, label) for i, label in enumerate(["mono", "baso", "mono", "rbc", "eo"])]
    objects.append(thing("5", 9, 0, 10, 2, "baso", is_crowd=True))
    annotations = outlines({"a.png": objects})
    classes = {"baso": "granulocyte", "mono": "monocyte", "eo": "granulocyte"}
    dataset = OutlineDataset(records, annotations, classes=classes)
    assert dataset.class_names == ["BG", "granulocyte", "monocyte"]
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [2, 1, 2, 1, -1]
    assert np.argwhere(masks[0])[:, 0].tolist() == [0, 1, 2, 4, 9]
    with pytest.raises(InputError, match="no object is named wbc; the names are 'baso', 'eo', 'mono', 'rbc'"):
        check_outlines(records, annotations, classes={"wbc": "cell"})


WHOLE, APART = (unicodedata.normalize(form, "zelle_ä.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("name", "in_file"),
    [
        ("a.png", "a.png"),
        ("a.png", "images\\a.png"),
        ("s/a.png", "a.png"),
        ("a.png", "other/../images/a.png"),
        (WHOLE, APART),
        (f"{APART}.d/a.png", f"{WHOLE}.d/a.png"),
    ],
)
def test_images_are_found_by_path_id_or_the_end_of_it(centre, outlines, name, in_file):
    other, record = centre("b.png", name)
    images, unmatched = match_images([other, record], outlines({in_file: []}))
    assert not unmatched and not images[other.image_id] and len(images[record.image_id]) == 1


def test_names_that_lead_elsewhere_are_refused(centre, outlines, tmp_path):
    records = centre("a.png", "p/c.png", "q/c.png")
    (tmp_path / "secret.png").write_bytes(records[0].path.read_bytes())
    right, out = str(records[0].path), "leads out"
    wrong = {str(tmp_path / "secret.png"): out, "../a.png": out, "C:\\images\\a.png": out, "https://lab.org/a.png": out}
    wrong |= {"c.png": "images/p/c.png or images/q/c.png", "d.png": "is none of the images"}
    images, unmatched = match_images(records, outlines({name: [] for name in (right, *wrong)}))
    assert [image.file_name for image in images["images/a.png"]] == [right]
    assert [name for name, _ in unmatched] == list(wrong)
    assert all(wrong[name] in reason for name, reason in unmatched)


def test_check_lists_every_fault_and_keeps_the_good(centre, outlines):
    names = ("good.png", "three.png", "cut.png", "unlisted.png", "twice.png", "empty.png", "crowd.png")
    records = centre(*names) + centre("small.png", size=(20, 10))
    records[2].path.write_bytes(records[2].path.read_bytes()[:50])
    cell, far = thing("annotation 1", 1, 1, 9, 9), thing("annotation 3", 90, 1, 95, 9, "")
    bad = OutlinedObject("annotation 2", "WBC", fault="polygon with 2 points")
    objects = {
        "good.png": [cell],
        "three.png": [bad, cell, far, thing("annotation 4", 5.6, 5.6, 6.4, 6.4), thing("annotation 5", 1, 1, 9, 9)],
        "cut.png": [bad],
        "twice.png": [cell],
        "./twice.png": [cell],
        "empty.png": [],
        "crowd.png": [thing("annotation 7", 1, 1, 9, 9, is_crowd=True)],
        "small.png": [far, bad],
        "b\x1b[2J\n.png": [cell],
    }
    annotations = outlines(objects, width=WIDTH, height=HEIGHT)
    annotations.images[0].width = annotations.images[0].height = None
    annotations.images[5].faults.append("its id 5 is that of 2 images")
    annotations.faults.append(("annotations.json", "annotation 10: image_id 99 is none of the images"))
    check = check_outlines(records, annotations)
    assert [record.image_id for record in check.good] == ["images/good.png"]
    told = [
        ("annotations.json", "annotation 10: image_id 99"),
        ("b\\x1b[2J\\n.png", "none of the images of the centre"),
        ("images/three.png", "annotation 2 ('WBC'): polygon"),
        ("images/three.png", "annotation 3: (90, 1) is outside the image"),
        ("images/three.png", "annotation 4 ('cell'): covers no pixel"),
        ("images/three.png", "annotation 5 ('cell'): repeats annotation 1"),
        ("images/cut.png", "cut.png"),
        ("images/cut.png", "annotation 2 ('WBC'): polygon"),
        ("images/unlisted.png", "not annotated"),
        ("images/twice.png", "annotated 2 times"),
        ("images/empty.png", "its id 5 is that of 2 images"),
        ("images/crowd.png", "nothing but groups"),
        ("images/small.png", "made for an image of 40x30 px, this one has 20x10 px"),
        ("images/small.png", "annotation 2 ('WBC'): polygon"),
    ]
    assert all(name == fault[0] and part in fault[1] for (name, part), fault in zip(told, check.faults, strict=True))


def test_nuclei_are_known_by_name_and_belong_to_the_cells_that_hold_most_of_them(centre, outlines):
    (record,) = records = centre("a.png")
    cells = [thing("1", 2, 2, 12, 12, "WBC"), thing("2", 14, 2, 24, 12, "WBC"), thing("3", 28, 2, 38, 12, "WBC")]
    # Two in the first cell, of which one reaches out of it; the third cell's is not known.
    nuclei = [
        thing("4", 3, 3, 6, 6, "nucleus"),
        thing("5", 9, 8, 13, 10, " Nuclei"),
        thing("6", 15, 3, 20, 9, "NUCLEUS"),
    ]
    annotations = outlines({"a.png": [nuclei[0], *cells, *nuclei[1:]]})
    assert check_outlines(records, annotations).num_objects == {record.image_id: 3}
    dataset = OutlineDataset(records, annotations)
    masks, class_ids = dataset.load_mask(0)
    found = dataset.load_parts(0)["nucleus"]
    assert masks.shape == found.shape == (HEIGHT, WIDTH, 3) and class_ids.tolist() == [1, 1, 1]
    assert found.sum(axis=(0, 1)).tolist() == [9 + 6, 30, 0] and not (found & ~masks).any()

    # A label that is asked for as a cell is one, and other labels can be those of nuclei.
    classes = {"nucleus": "cell", " Nuclei": "cell", "NUCLEUS": "cell"}
    chosen = OutlineDataset(records, annotations, classes=classes)
    assert chosen.load_mask(0)[0].shape[2] == 3 and chosen.load_parts(0) == {}
    other = OutlineDataset(records, annotations, nucleus_names=["wbc"])
    assert other.load_mask(0)[0].sum(axis=(0, 1)).tolist() == [9, 8, 30]


def test_check_lists_nuclei_in_no_cell_and_files_of_nuclei_alone(centre, outlines):
    records = centre("a.png", "b.png")
    cell, red = thing("1", 2, 2, 12, 12, "WBC"), thing("2", 20, 2, 30, 12, "RBC")
    lost = [
        thing("3", 11, 2, 14, 5, "nucleus"),
        thing("4", 2, 2, 12, 12, "nucleus"),
        thing("5", 2, 2, 12, 12, "nucleus"),
    ]
    inside_other = thing("6", 22, 4, 24, 6, "nucleus")
    annotations = outlines({"a.png": [cell, *lost], "b.png": [cell, red, inside_other]})
    check = check_outlines(records, annotations, classes={"WBC": "cell"})
    told = ["3 ('nucleus'): a nucleus that lies in no cell", "5 ('nucleus'): repeats 4"]
    assert check.good == records[1:] and [image_id for image_id, _ in check.faults] == ["images/a.png"] * 2
    assert all(part in reason for part, (_, reason) in zip(told, check.faults, strict=True))
    assert not OutlineDataset(check.good, annotations, classes={"WBC": "cell"}).load_parts(0)["nucleus"].any()
    with pytest.raises(InputError, match="no object is a cell"):
        check_outlines(records, outlines({"a.png": lost}))


def test_images_annotated_without_an_object_are_good(centre, outlines):
    records = centre("a.png", "b.png", "c.png")
    white, red = (thing(label, 1, 1, 9, 9, label) for label in ("WBC", "RBC"))
    annotations = outlines({"a.png": [white], "b.png": [], "c.png": [red]})
    check = check_outlines(records, annotations, classes={"WBC": "cell"})
    assert (check.faults, check.good) == ([], records)
    assert list(check.num_objects.values()) == [1, 0, 0]
    masks, class_ids = OutlineDataset(check.good, annotations, classes={"WBC": "cell"}).load_mask(2)
    assert masks.shape == (HEIGHT, WIDTH, 0) and masks.dtype == bool and class_ids.shape == (0,)


@pytest.mark.parametrize(
    ("text", "file_format", "message"),
    [
        ("[]", "auto", "neither COCO, VIA, labelme nor GeoJSON"),
        ('{"images": 3}', "auto", "neither COCO, VIA, labelme nor GeoJSON"),
        ("{", "auto", "not valid JSON"),
        ('{"images": [], "annotations": []}', "coco", "no list 'categories'"),
        ('{"_via_img_metadata": []}', "via", "not a VIA file"),
        ('{"shapes": []}', "labelme", "not a labelme file"),
        ('{"type": "FeatureCollection"}', "auto", "not a GeoJSON file"),
        ("[]", "yolo", "got 'yolo'"),
    ],
)
def test_files_of_another_format_are_refused(write, text, file_format, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write(text), file_format)


# Two cells in each format, and a third object of a kind that it alone has.
CORNERS = [[[2, 3], [14, 3], [14, 20], [8, 25], [2, 20]], [[20, 5], [33, 9], [28, 22]]]
OUTLINES = [[[corner[i] for corner in corners] for i in (0, 1)] for corners in CORNERS]
POLYGONS = [{"name": "polygon", "all_points_x": xs, "all_points_y": ys} for xs, ys in OUTLINES]
REGIONS = [{"shape_attributes": polygon, "region_attributes": {"class": "c"}} for polygon in POLYGONS]
ELLIPSE = {"name": "ellipse", "cx": 9, "cy": 9, "rx": 3, "ry": 4, "theta": 1}
REGIONS.append({"shape_attributes": ELLIPSE, "region_attributes": {}})
SEGMENTATIONS = [[[value for corner in corners for value in corner]] for corners in CORNERS]
SEGMENTATIONS.append({"size": [HEIGHT, WIDTH], "counts": [5, 10, HEIGHT * WIDTH - 15]})
SHAPES = [{"label": "c", "points": corners, "shape_type": "polygon", "group_id": None} for corners in CORNERS]
SHAPES.append({"label": "c", "points": [[2, 3], [3, 4]], "shape_type": "rectangle", "group_id": 1})
GEOMETRIES = [{"type": "Polygon", "coordinates": [[*corners, corners[0]]]} for corners in CORNERS]
GEOMETRIES.append({"type": "MultiPolygon", "coordinates": [[[*corners, corners[0]]] for corners in CORNERS]})
KINDS = {"objectType": "cell", "classification": {"name": "c", "color": [1, 2, 3]}}
VALUES = {
    "geojson": {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "geometry": geometry, "properties": KINDS} for geometry in GEOMETRIES],
    },
    "coco": {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "c"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
            for i, segmentation in enumerate(SEGMENTATIONS)
        ],
    },
    "via": {"_via_img_metadata": {"a": {"filename": "a.png", "size": 1, "regions": REGIONS}}},
    "via 1": {"a": {"filename": "a.png", "regions": {str(i): region for i, region in enumerate(REGIONS)}}},
    "labelme": {"imagePath": "a.png", "imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": SHAPES},
}
ODD = [None, True, -1, 0, 0.5, 1e308, math.nan, 10**18, "", "x\n", [], [[]], [None, None], {}, {"a": []}]


@pytest.mark.parametrize("name", VALUES)
def test_all_formats_and_label_masks_give_the_same_masks(centre, tmp_path, write, name):
    records = centre("a.png")
    polygons = [make_polygon(*outline) for outline in OUTLINES]
    labels = sum((i * p.draw(HEIGHT, WIDTH).astype(np.uint8) for i, p in enumerate(polygons, 1)))
    (tmp_path / "masks").mkdir()
    Image.fromarray(labels).save(tmp_path / "masks" / "a.png")
    expected = CellMaskDataset(records, tmp_path / "masks", semantics="instances").load_mask(0)[0]
    assert expected.sum() > 300
    annotations = read_annotations(write(VALUES[name]))
    check = check_outlines(records, annotations)
    assert (check.faults, check.good, check.num_objects) == ([], records, {"images/a.png": 3})
    np.testing.assert_array_equal(OutlineDataset(check.good, annotations).load_mask(0)[0][..., :2], expected)


def places(value, path=()):
    """Paths to everything inside nested mappings and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.mark.parametrize("name", VALUES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_odd_values_are_faults_and_nothing_worse(tmp_path_factory, name, data):
    folder = tmp_path_factory.getbasetemp() / "odd"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    records = [ImageRecord("a.png", folder / "a.png")]
    value = target = copy.deepcopy(VALUES[name])
    *parents, last = data.draw(st.sampled_from(list(places(value))))
    for key in parents:
        target = target[key]
    target[last] = data.draw(st.sampled_from(ODD) | st.floats() | st.integers() | st.text())
    try:
        annotations = parse_annotations(value, folder / "annotations.json", name.split()[0])
    except InputError as error:
        assert str(error).startswith(f"{folder}/annotations.json: ") and "\n" not in str(error)
        return
    check = check_outlines(records, annotations)
    assert check.good or check.faults
    assert all(text.isprintable() for fault in check.faults for text in fault)
    for image_id in OutlineDataset(check.good, annotations).image_ids:
        OutlineDataset(check.good, annotations).load_mask(image_id)
