"""Small data sets of drawn discs in the forms that the scripts read, in a project folder of their own."""

import json

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a script folder two levels below it, which is the working directory."""
    folder = tmp_path / "samples" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return tmp_path


def draw_discs(seed, size=64, count=2):
    """An RGB image with discs of one colour, and the mask of each, bool (height, width, count)."""
    rng = np.random.default_rng(seed)
    height, width = np.broadcast_to(size, 2)
    image = rng.integers(180, 220, (height, width, 3)).astype(np.uint8)
    masks = np.zeros((count, height, width), np.uint8)
    for i, mask in enumerate(masks):
        centre = (int(width * (i + 0.5) / count), int(rng.integers(height * 3 // 8, height * 5 // 8)))
        cv2.circle(mask, centre, int(rng.integers(height // 8, height // 6)), 1, -1)
        image[mask > 0] = (60, 60, 140)
    return image, masks.transpose(1, 2, 0) > 0


def write_png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def outline(mask):
    """Outline of a mask as array of (x, y)."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return max(contours, key=len)[:, 0]


def write_coins(folder, orientations=()):
    """Coins with outlines of VIA 2 in train (one image without any) and of VIA 1 in val; JPEG if EXIF is to be told."""
    for subset, seeds in (("train", range(4)), ("val", range(4, 6))):
        records = {}
        for seed in seeds:
            image, masks = draw_discs(seed, (48, 80))
            name = f"{seed}.jpg" if orientations else f"{seed}.png"
            write_png(folder / subset / name, image)
            if orientations:
                exif = Image.Exif()
                exif[ExifTags.Base.Orientation] = orientations[seed % len(orientations)]
                Image.fromarray(image).save(folder / subset / name, exif=exif, quality=95)
            outlines = [outline(mask).T.tolist() for mask in np.moveaxis(masks, -1, 0)]
            shapes = [{"name": "polygon", "all_points_x": x, "all_points_y": y} for x, y in outlines]
            regions = [{"shape_attributes": shape} for shape in shapes]
            regions = regions if subset == "train" else {str(i): region for i, region in enumerate(regions)}
            records[f"{name}123"] = {"filename": name, "regions": regions, "size": 123}
        records["empty.png1"] = {"filename": "empty.png", "regions": [], "size": 1}
        (folder / subset / "via_region_data.json").write_text(json.dumps(records))
    return folder


@pytest.fixture
def coins(project):
    return write_coins(project / "coins")


@pytest.fixture
def photos(project):
    """The same as JPEG files that are to be shown turned by a quarter or upside down."""
    return write_coins(project / "photos", orientations=(6, 3))


@pytest.fixture
def x_rays(project):
    """Grey images of 64 x 64 px and a table of boxes; every third patient is healthy."""
    folder, lines = project / "x-rays", ["patientId,x,y,width,height,Target"]
    for number, subset in enumerate(("train", "train", "train", "train", "val", "val", "test")):
        image, masks = draw_discs(number)
        write_png(folder / subset / f"p{number}.png", image[..., 0])
        for points in map(outline, np.moveaxis(masks, -1, 0) if number % 3 < 2 else ()):
            (x, y), (width, height) = points.min(axis=0), np.ptp(points, axis=0) + 1
            lines.append(f"p{number},{x}.0,{y}.0,{width}.0,{height}.0,1")
        lines += [f"p{number},,,,,0"] * (number % 3 == 2)
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def grains(project):
    """Folders of a PNG for each grain, of 40 x 56 px."""
    folder = project / "grains"
    for subset, seeds in (("train", range(5)), ("test", range(5, 7))):
        for seed in seeds:
            name = f"grain{seed:03}"
            image, masks = draw_discs(seed, (40, 56), count=3)
            write_png(folder / subset / name / "images" / f"{name}.png", image)
            for i in range(masks.shape[-1]):
                write_png(folder / subset / name / "masks" / f"{i}.png", masks[..., i].astype(np.uint8) * 255)
    return folder


def annotation(image_id, category_id, box, area, segmentation):
    entry = {"image_id": image_id, "category_id": category_id, "iscrowd": 0, "area": float(area)}
    return {**entry, "bbox": box, "segmentation": segmentation}


@pytest.fixture
def coco_data(project):
    """Three classes with ids 3, 7 and 9; polygons, run lengths, a crowd, and an image without any."""
    folder = project / "cells"
    (folder / "annotations").mkdir(parents=True)
    for subset, ids in (("train2030", range(1, 6)), ("val2030", range(6, 9))):
        images, annotations = [], []
        for image_id in ids:
            picture, masks = draw_discs(image_id, (56, 64))
            write_png(folder / subset / f"{image_id}.png", picture)
            images.append({"id": image_id, "file_name": f"{image_id}.png", "height": 56, "width": 64})
            for i in range(0 if image_id == 5 else masks.shape[-1]):
                points = outline(masks[..., i])
                box = [*points.min(axis=0).tolist(), *(np.ptp(points, axis=0) + 1).tolist()]
                shape = [points.ravel().tolist()]
                annotations.append(annotation(image_id, (7, 3)[i], box, masks[..., i].sum(), shape))
        # Columns 50 to 63 of the first ten rows.
        counts = [50 * 56, *[10, 46] * 14]
        crowd = annotation(ids[0], 9, [50, 0, 14, 10], 140, {"size": [56, 64], "counts": counts})
        annotations.append({**crowd, "iscrowd": 1})
        categories = [{"id": i, "name": name} for i, name in ((3, "red"), (7, "white"), (9, "platelet"))]
        numbered = [{"id": number, **each} for number, each in enumerate(annotations, 1)]
        content = {"images": images, "annotations": numbered, "categories": categories}
        (folder / "annotations" / f"instances_{subset}.json").write_text(json.dumps(content))
    return folder
