"""Malformed outlines in COCO, VIA and labelme files."""

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from case import Case
from outline_files import (
    AREA,
    HEIGHT,
    IMAGE,
    SQUARE,
    WIDTH,
    areas,
    between,
    case,
    coco,
    coco_cases,
    labelme,
    labelme_cases,
    made_of,
    refuse_faults,
    valid_masks,
    via,
    via_cases,
)

from mrcnn.data.annotation_files import read_annotations
from mrcnn.data.outline_dataset import OutlineDataset, check_outlines
from mrcnn.data.records import ImageRecord

AT_LEAST = 600


def read_outlines(folder: Path) -> np.ndarray:
    """Masks of the image in `folder` by the annotation file there; the first fault of a check is a refusal."""
    path = folder / "a.json"
    records = [ImageRecord("a.png", folder / "a.png")]
    annotations = read_annotations(path)
    check = check_outlines(records, annotations)
    refuse_faults(check.faults)
    masks, class_ids = OutlineDataset(check.good, annotations).load_mask(0)
    assert len(class_ids) == masks.shape[-1] == check.num_objects["a.png"]
    return masks


FORMATS = {"coco": (coco, coco_cases), "via": (via, via_cases), "labelme": (labelme, labelme_cases)}
READERS = dict.fromkeys(FORMATS, read_outlines)


def cases(reader: str, seed: int) -> Iterator[Case]:
    """All cases of a format."""
    make, own_cases = FORMATS[reader]
    yield from _outline_cases(make, seed)
    yield from own_cases()


def _outline_cases(make: Callable, seed: int) -> Iterator[Case]:
    text = json.dumps(make())
    yield case("as it should be", text, "accepted", areas(AREA))
    for step in range(12):
        yield case(f"cut after {step} twelfths", text[: len(text) * step // 12], "refused")
    yield case("cut before its end", text[:-1], "refused")
    yield case("byte order mark", b"\xef\xbb\xbf" + text.encode(), "accepted", areas(AREA))
    for name, content in (
        ("UTF-16", text.encode("utf-16")),
        ("not UTF-8", text.replace("cell", "z\udcfclle").encode("utf-8", "surrogateescape")),
        ("zero bytes", b"\0" * 100),
        ("binary", IMAGE),
        ("twice", text + text),
        ("trailing comma", text[:-1] + ",}"),
        ("single quotes", text.replace('"', "'")),
        ("comments", "// made by me\n" + text),
        ("JSON lines", text + "\n" + text),
        ("nested 100,000 deep", "[" * 100_000),
        ("nested 100,000 deep and closed", '{"images":' * 100_000 + "1" + "}" * 100_000),
        ("number of 10,000 digits", text.replace("12", "1" * 10_000, 1)),
        ("key twice", text[:-1] + "," + text[1:]),
        ("html", "<!DOCTYPE html><html>not found</html>"),
        *((f"only {value}", value) for value in ("null", "1", '"a"', "[]", "{}", "[1]", "[[[]]]", "true", "NaN")),
    ):
        yield case(name, content, "refused")
    for name, points, expect, check in _polygons():
        yield case(f"polygon {name}", make(points), expect, check)
    yield from _replaced(make, seed)
    random = np.random.default_rng(seed)
    for number in range(12):
        changed = bytearray(text.encode())
        bit = int(random.integers(8 * len(changed)))
        changed[bit // 8] ^= 1 << bit % 8
        yield case(f"flipped {number}", bytes(changed), "either")
    for name, given in (
        ("folder", lambda folder: (folder / "a.json").mkdir()),
        ("pipe", lambda folder: os.mkfifo(folder / "a.json")),
        ("link to itself", lambda folder: (folder / "a.json").symlink_to("a.json")),
        ("link to endless zeros", lambda folder: (folder / "a.json").symlink_to("/dev/zero")),
        ("missing", lambda folder: None),
        ("empty", lambda folder: (folder / "a.json").touch()),
    ):

        def make_file(folder: Path, given: Callable = given) -> Path:
            (folder / "a.png").write_bytes(IMAGE)
            given(folder)
            return folder

        yield Case(f"file is {name}", make_file, "refused", mentions="a.json")
    names = (*("../a.png", "/etc/passwd", "../../etc/passwd", "b.png", "", "a.png/", "a.png\0", "A.PNG"), "a\ud800.png")
    names = (
        *names,
        "http://example.org/a.png",
        "c:\\a.png",
        "~/a.png",
        ".",
        "..",
        "a\n.png",
        "x" * 5000,
        "images/a.png",
    )
    for name in names:
        changed = json.loads(text.replace('"a.png"', json.dumps(name)))
        expect = "either" if name == "a.png/" else "refused"
        yield case(f"image named {name[:30]!a}", changed, expect, areas(AREA))
    for name in ("./a.png", "x/../a.png"):
        changed = json.loads(text.replace('"a.png"', json.dumps(name)))
        yield case(f"image named {name}", changed, "either", areas(AREA))

    def absolute(folder: Path) -> Path:
        path = folder / "a.png"
        return made_of(text.replace('"a.png"', json.dumps(os.fspath(path))))(folder)

    yield Case("image named by its whole path", absolute, "accepted", areas(AREA))


def _polygons() -> Iterator[tuple[str, list, str, Callable | None]]:
    """Name, points, and what has to come of them."""
    for name, value in (
        ("nan", math.nan),
        ("inf", math.inf),
        ("minus inf", -math.inf),
        ("1e300", 1e300),
        ("1e10", 10**10),
        ("4,000 digits", int("9" * 4000)),
        ("far out", 500),
        ("far out to the left", -500),
        ("text", "12"),
        ("null", None),
        ("list", [12]),
        ("true", True),
        ("mapping", {"x": 1}),
    ):
        yield f"with {name}", [[2, 3], [value, 3], [12, 13], [2, 13]], "refused", None
    for name, points in (
        ("without points", []),
        ("of one point", [[1, 1]]),
        ("of two points", [[1, 1], [5, 5]]),
        ("on a line", [[1, 1], [5, 5], [9, 9]]),
        ("of one place", [[4, 4]] * 7),
        ("between pixels", [[4.1, 4.1], [4.2, 4.1], [4.2, 4.2]]),
        ("of points without y", [[1], [2], [3], [4], [5]]),
    ):
        if name != "of points without y":
            yield name, points, "refused", None
    bow = [[0, 0], [10, 10], [10, 0], [0, 10]]
    yield "that crosses itself", bow, "either", lambda masks: between(masks, 40, 60)
    star = [[15 + 9 * math.sin(i * 4 * math.pi / 5), 10 - 9 * math.cos(i * 4 * math.pi / 5)] for i in range(5)]
    yield "of a star", star, "either", lambda masks: between(masks, 40, 110)
    yield "backwards", SQUARE[::-1], "accepted", areas(AREA)
    yield "closed", [*SQUARE, SQUARE[0]], "accepted", areas(AREA)
    yield "with doubled points", [p for p in SQUARE for _ in range(3)], "accepted", areas(AREA)
    yield "over the edge", [[-1.5, -1.5], [31, -1.5], [31, 21], [-1.5, 21]], "accepted", areas(HEIGHT * WIDTH)
    zigzag = [[i % WIDTH, (i % 2) * HEIGHT] for i in range(90_000)]
    yield "of 90,000 corners", zigzag, "either", valid_masks
    yield "of 300,000 corners", [[i % WIDTH, (i % 2) * HEIGHT] for i in range(300_000)], "refused", None
    fine = [[2 + 10 * i / 20_000, 3] for i in range(20_000)]
    yield "of 20,000 corners on an edge", [*fine, [12, 3], [12, 13], [2, 13]], "accepted", areas(AREA)


def _replaced(make: Callable, seed: int) -> Iterator[Case]:
    """Every value of a file in turn replaced by what it must not be, or taken out."""
    weird = (
        None,
        True,
        -1,
        0,
        10**30,
        math.nan,
        math.inf,
        "",
        "x",
        "\ud800\n",
        [],
        {},
        [None],
        [[]],
        {"a": []},
        [1] * 99,
    )
    random = np.random.default_rng(seed)
    for path in _paths(make()):
        chosen = random.choice(len(weird), 5, replace=False)
        for number in (*chosen.tolist(), None):
            changed = make()
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            if number is None:
                del inner[path[-1]]
            else:
                inner[path[-1]] = copy.deepcopy(weird[number])
            what = "taken out" if number is None else f"is {weird[number]!a}"[:30]
            yield case(f"{'.'.join(map(str, path))} {what}", changed, "either")


def _paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The way to each value in JSON, inner ones too; of a list of numbers the first."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from _paths(value[0], (*path, 0))
