"""Small data sets of drawn discs in the forms that the scripts read, in a project folder of their own."""

import json

import cv2
import numpy as np
import pytest


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


@pytest.fixture
def coins(project):
    """Coins with outlines of VIA 2 in train (one image without any) and of VIA 1 in val."""
    folder = project / "coins"
    for subset, seeds in (("train", range(4)), ("val", range(4, 6))):
        records = {}
        for seed in seeds:
            image, masks = draw_discs(seed, (48, 80))
            write_png(folder / subset / f"{seed}.png", image)
            shapes = []
            for i in range(masks.shape[-1]):
                x, y = outline(masks[..., i]).T.tolist()
                shapes.append({"shape_attributes": {"name": "polygon", "all_points_x": x, "all_points_y": y}})
            regions = shapes if subset == "train" else {str(i): shape for i, shape in enumerate(shapes)}
            records[f"{seed}.png123"] = {"filename": f"{seed}.png", "regions": regions, "size": 123}
        records["empty.png1"] = {"filename": "empty.png", "regions": [], "size": 1}
        (folder / subset / "via_region_data.json").write_text(json.dumps(records))
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


@pytest.fixture
def coco_data(project):
    """Three classes with ids 3, 7 and 9; polygons, run lengths, a crowd, and an image without any."""
    folder = project / "cells"
    for subset, ids in (("train2030", range(1, 6)), ("val2030", range(6, 9))):
        images, annotations = [], []
        for image_id in ids:
            picture, masks = draw_discs(image_id, (56, 64))
            write_png(folder / subset / f"{image_id}.png", picture)
            images.append({"id": image_id, "file_name": f"{image_id}.png", "height": 56, "width": 64})
            for i in range(0 if image_id == 5 else masks.shape[-1]):
                points = outline(masks[..., i])
                x, y = points.min(axis=0).tolist()
                width, height = (points.max(axis=0) - points.min(axis=0) + 1).tolist()
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": (7, 3)[i],
                        "iscrowd": 0,
                        "area": float(masks[..., i].sum()),
                        "bbox": [x, y, width, height],
                        "segmentation": [points.ravel().tolist()],
                    }
                )
        crowd = np.zeros((56, 64), np.uint8)
        crowd[:10, 50:] = 1
        changes = np.flatnonzero(np.diff(crowd.T.ravel(), prepend=0, append=0))
        counts = np.diff(np.concatenate([[0], changes, [crowd.size]])).tolist()
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": ids[0],
                "category_id": 9,
                "iscrowd": 1,
                "area": float(crowd.sum()),
                "bbox": [50, 0, 14, 10],
                "segmentation": {"size": [56, 64], "counts": counts},
            }
        )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in ((3, "red"), (7, "white"), (9, "platelet"))],
        }
        path = folder / "annotations" / f"instances_{subset}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder
