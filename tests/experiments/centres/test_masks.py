"""Which masks a centre's detector learns from, and the command line from outlines to a detector."""

import json

import cv2
import pytest
from PIL import Image

from experiments.centres.centre import load_centre
from experiments.centres.masks import (
    AnnotationChoice,
    LabelImages,
    choice_of_settings,
    find_masks,
    masked_images,
    warn_of_crowded,
)
from experiments.settings import CentreSettings
from mrcnn.data.masks import mask_polygons
from mrcnn.files.errors import InputError

SIZE = 64
TINY_DETECTOR = [
    "--set=settings.BACKBONE=resnet50",
    "--set=settings.FPN_CLASSIF_FC_LAYERS_SIZE=64",
    f"--set=settings.IMAGE_MIN_DIM={SIZE}",
    f"--set=settings.IMAGE_MAX_DIM={SIZE}",
    "--set=settings.DETECTION_MIN_CONFIDENCE=0.5",  # else the held-out images choose it
]


def coco_of(masks):
    """COCO annotations of masks by image name, the first image with a crowd in its corner besides."""
    images = [{"id": i, "file_name": name, "width": SIZE, "height": SIZE} for i, name in enumerate(masks)]
    annotations = []
    for i, mask in enumerate(masks.values()):
        outline = [[v for point in polygon[0] for v in point] for polygon in mask_polygons(mask)]
        annotations.append({"id": i, "image_id": i, "category_id": 1, "segmentation": outline, "iscrowd": 0})
    crowd = {"size": [SIZE, SIZE], "counts": [0, 6, SIZE * SIZE - 6]}
    annotations.append({"id": 99, "image_id": 0, "category_id": 2, "segmentation": crowd, "iscrowd": 1})
    categories = [{"id": 1, "name": "WBC"}, {"id": 2, "name": "clump"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def labelme_of(name, label="WBC"):
    points = [[20, 20], [40, 22], [30, 40]]
    return {"imagePath": name, "shapes": [{"label": label, "points": points, "shape_type": "polygon"}]}


def via_of(*names):
    shape = {"name": "circle", "cx": 30, "cy": 30, "r": 9}
    region = {"shape_attributes": shape, "region_attributes": {}}
    return {name: {"filename": name, "regions": [region]} for name in names}


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def folder(tmp_path, draw_cell):
    """A centre of four images, without masks."""
    (tmp_path / "lab" / "images").mkdir(parents=True)
    for seed in range(4):
        cv2.imwrite(str(tmp_path / "lab" / "images" / f"{seed}.png"), draw_cell(seed)[0])
    return tmp_path / "lab"


@pytest.fixture
def coco(draw_cell):
    return coco_of({f"{seed}.png": draw_cell(seed)[1][..., 0] for seed in range(4)})


def find(folder, **choice):
    return find_masks(folder, load_centre("lab", folder).records, AnnotationChoice(**choice))


def checked(folder, strict=False, **choice):
    (images,) = masked_images({"lab": load_centre("lab", folder)}, {"lab": AnnotationChoice(**choice)}, strict=strict)
    return images


def test_label_masks_come_first_and_nothing_is_found_where_nothing_is(folder, coco):
    put(folder / "synthetic.json", {"seed": 1})
    assert find(folder) is None
    put(folder / "annotations.json", coco)
    (folder / "masks").mkdir()
    assert find(folder, semantics="instances") == LabelImages(folder / "masks", "instances")
    assert find(folder, format="coco").annotations.kind == "coco"


@pytest.mark.parametrize("place", ["annotations.json", "images/anything.json", "annotations/instances_train.json"])
def test_coco_and_via_are_found_by_content(folder, coco, place):
    put(folder / "labels.json", ["some", "other", "file"])
    path = put(folder / place, coco)
    annotations = find(folder).annotations
    assert (annotations.kind, annotations.sources) == ("coco", [path])
    put(path, via_of("0.png"))
    assert find(folder).annotations.kind == "via"


def test_labelme_files_are_found_beside_the_images_with_the_damaged_ones(folder):
    for seed in range(3):
        put(folder / "images" / f"{seed}.json", labelme_of(f"{seed}.png"))
    (folder / "images" / "2.json").write_text("{")
    source = find(folder)
    assert source.annotations.kind == "labelme" and len(source.annotations.images) == 2
    images = checked(folder)
    assert [record.image_id for record in images.records] == ["images/0.png", "images/1.png"]
    assert [key for key, _ in images.faults] == ["2.json", "images/2.png", "images/3.png"]


def test_geojson_files_are_found_beside_the_images_or_in_a_folder(folder):
    ring = [[20, 20], [40, 22], [30, 40], [20, 20]]
    features = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}]
    for place in ("images/0.geojson", "images/1.png.geojson", "drawn/2.geojson"):
        put(folder / place, {"type": "FeatureCollection", "features": features})
    images = checked(folder)
    assert [record.image_id for record in images.records] == ["images/0.png", "images/1.png"]
    (record,) = checked(folder, path="drawn", format="geojson").records
    assert record.image_id == "images/2.png" and checked(folder, path="drawn").records == [record]


def test_several_candidates_are_named(folder, coco):
    first, second = put(folder / "a.json", coco), put(folder / "b.json", via_of("0.png"))
    with pytest.raises(InputError) as error:
        find(folder)
    assert str(first) in str(error.value) and str(second) in str(error.value)
    assert find(folder, format="via").annotations.sources == [second]
    assert find(folder, path="a.json").annotations.sources == [first]
    second.unlink()
    put(folder / "images" / "0.json", labelme_of("0.png"))
    with pytest.raises(InputError, match="more than one set of annotations: .*a.json, the labelme files in .*images"):
        find(folder)


def test_path_is_taken_as_it_is_then_from_the_centre(folder, coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, outside = put(folder / "truth" / "a.json", coco), put(tmp_path / "b.json", coco)
    assert find(folder, path="truth/a.json").annotations.sources == [inside]
    assert [path.resolve() for path in find(folder, path="b.json").annotations.sources] == [outside]
    # A folder: the one file in it, labelme files, or label masks.
    assert find(folder, path="truth").annotations.sources == [inside]
    put(folder / "lm" / "x.json", labelme_of("0.png"))
    assert find(folder, path="lm").annotations.kind == "labelme"
    (folder / "drawn").mkdir()
    Image.new("L", (SIZE, SIZE)).save(folder / "drawn" / "0.png")
    for options in ({}, {"format": "masks"}):
        assert find(folder, path="drawn", **options) == LabelImages(folder / "drawn", "cell")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"path": "absent.json"}, "no such annotation file or folder"),
        ({"path": "empty"}, "empty: no annotations of a known format there"),
        ({"path": "a.json", "format": "masks"}, "annotation format must be auto, coco"),
        ({"path": "other.json"}, "neither COCO, VIA, labelme nor GeoJSON"),
        ({"format": "yolo"}, "no yolo annotations there"),
        ({"path": "drawn", "names": ("WBC",)}, "label masks have no names to choose WBC from"),
    ],
)
def test_choices_that_lead_to_nothing_are_refused(folder, coco, choice, message):
    put(folder / "a.json", coco)
    put(folder / "other.json", [1, 2])
    (folder / "empty").mkdir()
    (folder / "drawn").mkdir()
    Image.new("L", (SIZE, SIZE)).save(folder / "drawn" / "0.png")
    with pytest.raises(InputError, match=message):
        find(folder, **choice)


def test_names_choose_the_cells(folder, coco):
    put(folder / "annotations.json", coco)
    images, only = checked(folder), checked(folder, names=("WBC",))
    assert images.dataset().load_mask(0)[1].tolist() == [1, -1]
    assert only.dataset().load_mask(0)[1].tolist() == [1]
    assert only.source.identity() != images.source.identity()


def test_nuclei_are_those_of_the_labels_asked_for(folder, coco):
    put(folder / "annotations.json", coco)
    named, other = checked(folder, nucleus_names=("Clump",)), checked(folder)
    assert other.dataset().load_mask(0)[1].tolist() == [1, -1] and not other.faults
    ((image_id, reason),) = named.faults
    assert image_id == "images/0.png" and "annotation 99 ('clump'): a nucleus that lies in no cell" in reason
    assert named.source.identity() != other.source.identity()


def test_label_images_are_known_by_content_and_meaning_of_their_masks(tmp_path):
    for name in ("here", "copy"):
        (tmp_path / name / "deep").mkdir(parents=True)
        for value, path in enumerate(("a.png", "deep/b.TIF"), 1):
            Image.new("L", (4, 4), value).save(tmp_path / name / path)
    (tmp_path / "here" / "notes.txt").write_text("no mask")
    here, copy = (LabelImages(tmp_path / name, "cell") for name in ("here", "copy"))
    first = here.identity()
    assert first == copy.identity() != LabelImages(tmp_path / "here", "instances").identity()
    (tmp_path / "here" / "a.png").rename(tmp_path / "here" / "c.png")
    Image.new("L", (4, 4), 3).save(tmp_path / "copy" / "deep" / "b.TIF")
    assert first not in (here.identity(), copy.identity())
    second = here.identity()
    (tmp_path / "nuclei").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "nuclei" / "c.png")
    assert here.identity() != second


def test_settings_of_a_run_say_where_the_annotations_are(folder):
    settings = CentreSettings(annotations="truth/a.json", annotation_format="coco", annotation_names=["WBC"])
    choice = AnnotationChoice(folder / "truth" / "a.json", "coco", ("WBC",), "cell")
    assert choice_of_settings(settings, folder) == choice
    assert choice_of_settings(CentreSettings(), folder) == AnnotationChoice()


def test_strict_stops_after_every_fault_of_every_centre_was_listed(folder, coco, draw_cell, tmp_path, capsys, aecfe):
    coco["annotations"][1]["segmentation"] = [[1, 1, 5, 5]]
    put(folder / "annotations.json", coco)
    (tmp_path / "other" / "images").mkdir(parents=True)
    for seed in range(2):
        cv2.imwrite(str(tmp_path / "other" / "images" / f"{seed}.png"), draw_cell(seed)[0])
    put(tmp_path / "other" / "via.json", via_of("0.png", "gone.png"))
    assert aecfe("detector", "train", folder, tmp_path / "other", "-o", tmp_path / "run", "--strict") == 2
    *lines, error = capsys.readouterr().err.splitlines()
    warnings = [line for line in lines if line.startswith("warning")]
    for line, start in zip(warnings, ("lab: images/1.png", "other: gone.png", "other: images/1.png"), strict=True):
        assert line.startswith(f"warning: {start}: left out: ")
    assert error == "aecfe: error: 3 faults in the annotations, listed above; mend them or leave out --strict"
    assert not (tmp_path / "run").exists()


def test_images_with_more_cells_than_training_takes_are_named(folder, coco, logged):
    put(folder / "annotations.json", coco)
    warn_of_crowded([checked(folder)], 2)
    assert "MAX_GT_INSTANCES" not in logged.text
    warn_of_crowded([checked(folder)], 1)
    assert "lab: 1 images have more cells than MAX_GT_INSTANCES 1, up to 2 on images/0.png" in logged.text


def test_class_folders_with_equal_names_have_their_own_masks_and_outlines(tmp_path, draw_cell):
    root, cells = tmp_path / "lab", {"basophil": draw_cell(0), "eosinophil": draw_cell(1)}
    for name, (image, mask) in cells.items():
        for kind, pixels in (("", image), ("masks", mask[..., 0].astype("uint8") * 255)):
            (root / kind / name).mkdir(parents=True)
            cv2.imwrite(str(root / kind / name / "001.png"), pixels)
    put(root / "annotations" / "a.json", coco_of({"basophil/001.png": cells["basophil"][1][..., 0]}))
    images = checked(root)
    areas = [images.dataset().load_mask(i)[0].sum() for i in range(2)]
    assert not images.faults and areas == [mask.sum() for _, mask in cells.values()]
    assert [record.image_id for record in checked(root, format="coco").records] == ["basophil/001.png"]


def test_detector_learns_from_coco_outlines_without_the_faulty_ones(
    folder, coco, small_resnet, tmp_path, monkeypatch, capsys, aecfe
):
    learned = []

    def save(model, train, *arguments, folder, **options):
        learned.extend(dataset.num_images for dataset in train)
        model.save(folder)
        return []

    monkeypatch.setattr("mrcnn.model.MaskRCNN.train", save)
    coco["annotations"][3]["segmentation"] = [[500, 1, 590, 1, 590, 90]]
    put(folder / "annotations.json", coco)
    train = ["detector", "train", folder, "-o", tmp_path / "run", *TINY_DETECTOR]
    with small_resnet():
        assert aecfe(*train) == 0
    assert "images/3.png: left out: " in capsys.readouterr().err
    note = json.loads((tmp_path / "run" / "run.json").read_text())
    assert note["complete"] and [name for name, _ in note["left_out"]["lab"]] == ["images/3.png"] and learned == [2]


def test_centre_without_a_usable_outline_is_refused(folder, coco, logged):
    with pytest.raises(InputError, match="has neither a folder masks/ nor COCO, VIA, labelme or GeoJSON annotations"):
        checked(folder)
    things = coco["annotations"]
    put(folder / "annotations.json", {**coco, "annotations": things[:2]})
    images = checked(folder, strict=True)
    assert list(images.num_cells.values()) == [1, 1, 0, 0] and not images.faults
    assert images.dataset().load_mask(3)[0].shape == (SIZE, SIZE, 0)
    assert "lab: 2 of 4 images are annotated as having no cell" in logged.text
    put(folder / "annotations.json", {**coco, "annotations": []})
    with pytest.raises(InputError, match="no cell on any of the 4 usable images; nothing"):
        checked(folder)
    put(folder / "annotations.json", {**coco, "annotations": [{**thing, "segmentation": []} for thing in things]})
    with pytest.raises(InputError, match=r"no usable mask \(5 faults, listed above\)"):
        checked(folder)
