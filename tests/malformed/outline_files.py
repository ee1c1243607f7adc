"""Annotation files of one square in COCO, VIA and labelme form, and the ways in which each form can be wrong."""

import base64
import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, files_of
from image_bytes import png, saved

from mrcnn.errors import InputError

HEIGHT, WIDTH = 20, 30
IMAGE = saved(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "PNG")
SQUARE = [[2, 3], [12, 3], [12, 13], [2, 13]]
AREA = 100


def coco(points: Any = SQUARE) -> dict[str, Any]:
    """A COCO file of one polygon."""
    flat = [v for point in points for v in point]
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [flat]}],
    }


def via(points: Any = SQUARE) -> dict[str, Any]:
    """A VIA file of one polygon."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    region = {"shape_attributes": shape, "region_attributes": {"label": "cell"}}
    return {"a.png99": {"filename": "a.png", "size": 99, "regions": [region], "file_attributes": {}}}


def labelme(points: Any = SQUARE) -> dict[str, Any]:
    """A labelme file of one polygon."""
    points = copy.deepcopy(points)
    shape = {"label": "cell", "points": points, "shape_type": "polygon", "group_id": None, "flags": {}}
    return {"version": "5", "shapes": [shape], "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}


def made_of(content: Any) -> Callable[[Path], Path]:
    """Put an annotation file beside the image; what is no text is written as JSON."""
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return files_of({"a.json": text, "a.png": IMAGE})


def case(name: str, content: Any, expect: str, check: Callable[[Any], None] | None = None) -> Case:
    """A case of one annotation file."""
    return Case(name, made_of(content), expect, check or valid_masks, mentions="a.json")


def areas(*expected: int) -> Callable[[np.ndarray], None]:
    """A check that masks have these numbers of pixels."""

    def check(masks: np.ndarray) -> None:
        valid_masks(masks)
        found = masks.sum(axis=(0, 1)).tolist()
        assert found == list(expected), f"areas {found} instead of {expected}"

    return check


def valid_masks(masks: np.ndarray) -> None:
    """A check that a value is masks of the image, none of them empty."""
    assert masks.dtype == bool and masks.shape[:2] == (HEIGHT, WIDTH), f"{masks.dtype} {masks.shape}"
    assert masks.any(axis=(0, 1)).all(), "an empty mask"


def between(masks: np.ndarray, low: int, high: int) -> None:
    """Raise AssertionError unless there is one mask with so many pixels."""
    valid_masks(masks)
    assert masks.shape[-1] == 1 and low <= masks.sum() <= high, f"areas {masks.sum(axis=(0, 1))}"


def refuse_faults(faults: list[tuple[str, str]]) -> None:
    """Make the first fault of a check a refusal; each has to be one line."""
    for key, reason in faults:
        assert "\n" not in key + reason, "a fault of several lines"
    if faults:
        raise InputError(f"{faults[0][0]}: {faults[0][1]}")


def coco_cases() -> Iterator[Case]:
    """What only COCO files can have wrong."""

    def rle(size: Any, counts: Any) -> dict[str, Any]:
        value = coco()
        value["annotations"][0]["segmentation"] = {"size": size, "counts": counts}
        return value

    size = [HEIGHT, WIDTH]
    column = [43, 10, *[10, 10] * 9, 600 - 43 - 190]
    yield case("rle", rle(size, column), "accepted", areas(AREA))
    yield case("rle compressed", rle(size, _compressed(column)), "accepted", areas(AREA))
    yield case("rle with empty runs", rle(size, [0, 0, 43, 10, 0, 0, 547]), "accepted", areas(10))
    for name, content in (
        ("of another size", rle([HEIGHT, WIDTH - 1], [43, 10, 527])),
        ("turned", rle([WIDTH, HEIGHT], column)),
        ("too short", rle(size, [43, 10, 546])),
        ("too long", rle(size, [43, 10, 548])),
        ("negative", rle(size, [43, -10, 567])),
        ("of fractions", rle(size, [43.5, 9.5, 547])),
        ("of text", rle(size, ["43", "10", "547"])),
        ("of nan", rle(size, [math.nan])),
        ("of truth", rle(size, [True, 599])),
        ("empty", rle(size, [])),
        ("of nothing", rle(size, [600])),
        ("nothing compressed", rle(size, "")),
        ("cut compressed", rle(size, _compressed(column)[:-1])),
        ("wrong characters", rle(size, "\u0662\u0663")),
        ("lone surrogate", rle(size, "\ud800")),
        ("endless digits", rle(size, "o" * 100_000)),
        ("long digits", rle(size, "o" * 12 + "0")),
        ("huge counts", rle(size, [2**63, 2**63])),
        ("huge size", rle([2**31, 2**31], [2**62])),
        ("bomb", rle([60_000, 30_000], [0, 1_800_000_000])),
        ("size of digits", rle([int("9" * 4000), 1], [1])),
        ("size of zero", rle([0, 0], [0])),
        ("negative size", rle([-20, -30], column)),
        ("size of fractions", rle([20.5, 30], column)),
        ("size of one", rle([600], column)),
        ("without size", rle(None, column)),
        ("without counts", rle(size, None)),
        ("million counts", rle(size, [1] * 1_000_000)),
    ):
        yield case(f"rle {name}", content, "refused")
    twice = coco()
    twice["annotations"] *= 2
    yield case("object twice", twice, "refused")
    unknown = coco()
    unknown["annotations"][0]["category_id"] = 77
    yield case("unknown category", unknown, "refused")
    lost = coco()
    lost["annotations"][0]["image_id"] = 77
    yield case("unknown image", lost, "refused")
    same = coco()
    same["images"].append({"id": 1, "file_name": "b.png", "width": WIDTH, "height": HEIGHT})
    yield case("two images of one id", same, "refused")
    names = coco()
    names["categories"].append({"id": 1, "name": "dust"})
    yield case("two categories of one id", names, "refused")
    again = coco()
    again["images"].append({"id": 2, "file_name": "a.png", "width": WIDTH, "height": HEIGHT})
    yield case("image listed twice", again, "refused")
    other = coco()
    other["images"][0] |= {"width": 99, "height": 98}
    yield case("image of another size", other, "refused")
    odd = coco()
    odd["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6, 7]]
    yield case("odd number of coordinates", odd, "refused")
    box = coco()
    box["annotations"][0] |= {"segmentation": [], "bbox": [1, 2, 3, 4]}
    yield case("only a box", box, "refused")
    crowd = coco()
    crowd["annotations"][0]["iscrowd"] = 1
    yield case("nothing but a group", crowd, "refused")
    text_ids = coco()
    text_ids["annotations"][0] |= {"image_id": "1", "category_id": "1"}
    yield case("ids as text", text_ids, "accepted", areas(AREA))
    yield case("detection results", [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}], "refused")
    many = coco()
    rng = np.random.default_rng(0)
    many["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 1, "segmentation": [rng.uniform(0, 20, 8).tolist()]} for i in range(500)
    ]
    yield case("500 objects", many, "either")


def _compressed(counts: list[int]) -> str:
    """Counts in COCO's compressed form, written down from its definition."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            digit, value = value & 31, value >> 5
            more = not ((value == 0 and not digit & 16) or (value == -1 and digit & 16))
            text += chr(48 + digit + 32 * more)
    return text


def via_cases() -> Iterator[Case]:
    """What only VIA files can have wrong."""

    def shaped(**shape: Any) -> dict[str, Any]:
        value = via()
        value["a.png99"]["regions"][0]["shape_attributes"] = shape
        return value

    yield case("rectangle", shaped(name="rect", x=2, y=3, width=10, height=10), "accepted", areas(AREA))
    circle = shaped(name="circle", cx=15, cy=10, r=5)
    yield case("circle", circle, "accepted", lambda masks: between(masks, 70, 90))
    for name, content in (
        ("rectangle without area", shaped(name="rect", x=2, y=3, width=0, height=10)),
        ("rectangle of nan", shaped(name="rect", x=2, y=3, width=math.nan, height=10)),
        ("rectangle far off", shaped(name="rect", x=200, y=3, width=10, height=10)),
        ("huge rectangle", shaped(name="rect", x=2, y=3, width=1e9, height=1e9)),
        ("circle without radius", shaped(name="circle", cx=15, cy=10)),
        ("circle of negative radius", shaped(name="circle", cx=15, cy=10, r=-5)),
        ("circle of no radius", shaped(name="circle", cx=15, cy=10, r=0)),
        ("circle outside", shaped(name="circle", cx=150, cy=10, r=5)),
        ("ellipse of nan", shaped(name="ellipse", cx=15, cy=10, rx=5, ry=math.nan, theta=0)),
        ("ellipse turned by inf", shaped(name="ellipse", cx=15, cy=10, rx=5, ry=4, theta=math.inf)),
        ("point", shaped(name="point", cx=15, cy=10)),
        ("open line", shaped(name="polyline", all_points_x=[1, 9, 9], all_points_y=[1, 1, 9])),
        ("unequal coordinates", shaped(name="polygon", all_points_x=[1, 9, 9, 4], all_points_y=[1, 1, 9])),
        ("unknown shape", shaped(name="freehand", path="M0 0")),
        ("shape without name", shaped(all_points_x=[1, 9, 9], all_points_y=[1, 1, 9])),
        ("mapping of points", shaped(name="polygon", all_points_x={"0": 1}, all_points_y={"0": 1})),
    ):
        yield case(name, content, "refused")
    huge = shaped(name="circle", cx=15, cy=10, r=1e9)
    yield case("huge circle", huge, "either", areas(HEIGHT * WIDTH))
    thin = shaped(name="ellipse", cx=15.5, cy=10.5, rx=5, ry=1e-300)
    yield case("ellipse of hardly any height", thin, "either")
    turned = shaped(name="ellipse", cx=15, cy=10, rx=5, ry=4, theta=1e9)
    yield case("ellipse turned often", turned, "accepted", lambda masks: between(masks, 50, 75))
    first = via()
    first["a.png99"]["regions"] = {"0": first["a.png99"]["regions"][0]}
    yield case("version 1", first, "accepted", areas(AREA))
    project = {"_via_img_metadata": via(), "_via_settings": {}}
    yield case("project", project, "accepted", areas(AREA))
    for value in (None, 1, [], "a", [via()]):
        yield case(f"project of {value!s:.9}", {"_via_img_metadata": value}, "refused")
    same = via()
    same["b"] = same["a.png99"]
    yield case("image listed twice", same, "refused")


def labelme_cases() -> Iterator[Case]:
    """What only labelme files can have wrong."""

    def shaped(**shape: Any) -> dict[str, Any]:
        value = labelme()
        value["shapes"][0] |= shape
        return value

    def masked(encoded: Any, points: list | None = None) -> dict[str, Any]:
        return shaped(shape_type="mask", points=points or [[2, 3], [11, 12]], mask=encoded)

    def as_text(content: bytes) -> str:
        return base64.b64encode(content).decode()

    full = saved(np.full((10, 10), 255, np.uint8), "PNG")
    yield case("mask", masked(as_text(full)), "accepted", areas(AREA))
    huge = png(b"", 30_000, 30_000, 8, 0)
    for name, content in (
        ("mask of no base64", masked("***")),
        ("mask of cut base64", masked(as_text(full)[:-3])),
        ("mask of no image", masked(as_text(b"text"))),
        ("mask of a cut image", masked(as_text(full[:40]))),
        ("mask of jpeg", masked(as_text(saved(np.full((10, 10), 255, np.uint8), "JPEG")))),
        ("mask of colours", masked(as_text(saved(np.full((10, 10, 3), 255, np.uint8), "PNG")))),
        ("mask of another size", masked(as_text(saved(np.full((5, 5), 255, np.uint8), "PNG")))),
        ("mask of zeros", masked(as_text(saved(np.zeros((10, 10), np.uint8), "PNG")))),
        ("mask missing", masked(None)),
        ("mask of numbers", masked([1, 2])),
        ("mask outside", masked(as_text(full), [[200, 3], [209, 12]])),
        ("mask at nan", masked(as_text(full), [[math.nan, 3], [11, 12]])),
        ("mask bomb", masked(as_text(huge))),
        ("mask bomb of its box", masked(as_text(huge), [[0, 0], [29_999, 29_999]])),
        ("mask of 9,200", masked(as_text(png(b"", 9200, 9200, 8, 0)), [[0, 0], [9199, 9199]])),
        ("mask of three points", masked(as_text(full), [[2, 3], [11, 12], [3, 3]])),
        ("point", shaped(shape_type="point", points=[[3, 3]])),
        ("line", shaped(shape_type="line", points=[[3, 3], [9, 9]])),
        ("open line", shaped(shape_type="linestrip", points=[[3, 3], [9, 9], [9, 3]])),
        ("unknown shape", shaped(shape_type="spline")),
        ("list for a shape", shaped(shape_type=["polygon"])),
        ("circle of one point", shaped(shape_type="circle", points=[[9, 9]])),
        ("circle without radius", shaped(shape_type="circle", points=[[9, 9], [9, 9]])),
        ("rectangle without area", shaped(shape_type="rectangle", points=[[9, 9], [9, 12]])),
        ("three coordinates", shaped(points=[[2, 3, 1], [12, 3, 1], [12, 13, 1]])),
        ("points of text", shaped(points="2,3 12,3")),
        ("image of another size", labelme() | {"imageWidth": 99}),
        ("image of text size", labelme() | {"imageWidth": "30"}),
        ("image of nan size", labelme() | {"imageWidth": math.nan}),
    ):
        yield case(name, content, "refused")
    groups = labelme()
    groups["shapes"] = [copy.deepcopy(groups["shapes"][0]) for _ in range(2)]
    groups["shapes"][1]["points"] = [[20, 3], [25, 3], [25, 8]]
    for shape in groups["shapes"]:
        shape["group_id"] = 7
    yield case("two parts of one cell", groups, "accepted", lambda masks: between(masks, 105, 120))
