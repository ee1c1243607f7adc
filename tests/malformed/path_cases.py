"""Names and paths: in folders, CSV files, annotations and outputs; links, and what leads out of a folder."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from case import Case, files_of
from image_bytes import saved
from image_cases import NAMES
from outline_files import labelme, refuse_faults

from experiments.cell_files import CellFiles
from experiments.centres import load_centre
from experiments.detect_images import detect_images, find_images
from experiments.masked_images import AnnotationChoice, Outlines, find_masks
from mrcnn.data.images import list_images
from mrcnn.data.labelme import read_labelme
from mrcnn.data.records import ImageRecord
from mrcnn.errors import InputError

AT_LEAST = 200
IMAGE = saved(np.full((12, 16, 3), 90, np.uint8), "PNG")


class OneCell:
    """A detector that finds one cell on every image."""

    config = SimpleNamespace(NUM_CLASSES=2, DETECTION_MAX_INSTANCES=50, POST_NMS_ROIS_INFERENCE=1000)

    def detect(self, images: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The same square on each image."""
        results = []
        for image in images:
            masks = np.zeros((*image.shape[:2], 1), bool)
            masks[2:8, 3:9] = True
            boxes, scores = np.array([[2, 3, 8, 9]], np.int32), np.array([0.9], np.float32)
            results.append({"rois": boxes, "class_ids": np.array([1]), "scores": scores, "masks": masks})
        return results


def read_centre(folder: Path) -> dict[str, str]:
    """Labels of the images of a centre by key."""
    return {record.key: record.label for record in load_centre("lab", folder).records}


def detect(inputs: Path | list[Path]) -> list[str]:
    """Detect on images and write every kind of output; the names in the CSV."""
    inputs = inputs if isinstance(inputs, list) else [inputs]
    base = inputs[0].parent
    images = find_images(inputs)
    out = base / "out"
    files = CellFiles(out / "cells.csv", out / "labels", out / "geojson", out / "overlay")
    files.check(images)
    before = _files_below(base)
    detect_images(OneCell(), images, files, progress=False)
    strangers = [path for path in _files_below(base) - before if out not in path.parents]
    assert not strangers, f"made {strangers}"
    assert len(_files_below(out)) == 1 + 3 * len(images)
    with open(files.csv, encoding="utf-8", newline="") as handle:
        return [row["image"] for row in csv.DictReader(handle)]


def find_outlines(folder: Path) -> list[str]:
    """Names of the files of outlines that a centre has."""
    found = find_masks(folder, [ImageRecord(p.name, p) for p in list_images(folder)], AnnotationChoice())
    if found is None:
        raise InputError(f"{folder}: no masks")
    assert len(found.identity()["sha256"]) == 64
    return [path.name for path in found.annotations.sources] if isinstance(found, Outlines) else [found.folder.name]


def read_folder(folder: Path) -> list[str]:
    """Names of the images in the labelme files of a folder and those below it; the first fault is a refusal."""
    found = read_labelme(folder)
    refuse_faults(found.faults)
    return [image.file_name for image in found.images]


READERS = {"centre": read_centre, "outputs": detect, "find_masks": find_outlines, "labelme folder": read_folder}


def cases(reader: str, seed: int) -> Iterator[Case]:
    """All cases of a reader."""
    make = {"centre": _centres, "outputs": _outputs, "find_masks": _outlines, "labelme folder": _labelme_folders}
    yield from make[reader]()


def equal(expected: Any) -> Callable[[Any], None]:
    """A check for one value."""

    def check(value: Any) -> None:
        assert value == expected, f"{value!a} instead of {expected!a}"

    return check


def _files_below(folder: Path) -> set[Path]:
    return {Path(parent, name) for parent, _, names in os.walk(folder) for name in names}


def _row(*values: str) -> str:
    return ",".join(f'"{value}"' for value in values) + "\r\n"


def _centres() -> Iterator[Case]:
    for kind, name in NAMES.items():
        in_class = files_of({f"BAS/{name}": IMAGE, "EOS/b.png": IMAGE})
        labels = {f"BAS/{name}": "BAS", "EOS/b.png": "EOS"}
        yield Case(f"image with {kind}", in_class, "accepted", equal(labels))
        folder = name.removesuffix(".png")
        if not folder.startswith((".", "__")):
            named = files_of({f"{folder}/a.png": IMAGE, "EOS/b.png": IMAGE})
            yield Case(f"class with {kind}", named, "accepted", equal({f"{folder}/a.png": folder, "EOS/b.png": "EOS"}))
        if kind in ("no UTF-8", "carriage return"):
            continue
        row = _row("image", "label") + _row(name.replace('"', '""'), "BAS")
        listed = files_of({"labels.csv": row, f"images/{name}": IMAGE})
        # Blanks around a name are not part of it.
        yield Case(f"row with {kind}", listed, "accepted", equal({f"images/{name}": "BAS"}))
    for name in (
        *(
            "../a.png",
            "../../a.png",
            "x/../../a.png",
            "/etc/passwd",
            "..",
            ".",
            "",
            "/",
            "~/a.png",
            "a\0.png",
            "gone.png",
        ),
        *("x" * 300 + ".png", "x/" * 3000 + "a.png", "images/../../a.png", "file:///etc/passwd", "sub"),
    ):
        for image in ("a.png", "b.png"):
            row = _row("image", "label") + _row(image, "BAS") + _row(name, "EOS")
            make = files_of(
                {"labels.csv": row, "images/a.png": IMAGE, "images/b.png": IMAGE, "images/sub/c.png": IMAGE}
            )
            yield Case(f"row of {name[:20]!a} after {image}", make, "refused", mentions="labels.csv")
    row = _row("image", "label") + _row("a.png", "BAS")
    for name, content in (("twice", row + _row("a.png", "EOS")), ("other spelling", row + _row("./a.png", "EOS"))):
        make = files_of({"labels.csv": content, "images/a.png": IMAGE})
        yield Case(f"row {name}", make, "refused", mentions="labels.csv")

    def built(*steps: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            files_of({"lab/BAS/a.png": IMAGE, "lab/EOS/b.png": IMAGE, "outside/c.png": IMAGE})(folder)
            for step in steps:
                step(folder / "lab")
            return folder / "lab"

        return make

    plain = {"BAS/a.png": "BAS", "EOS/b.png": "EOS"}
    for name, step, expected in (
        ("link to itself", lambda lab: (lab / "BAS" / "x.png").symlink_to("x.png"), plain),
        ("link to nothing", lambda lab: (lab / "BAS" / "x.png").symlink_to("gone"), plain),
        ("link to endless zeros", lambda lab: (lab / "BAS" / "x.png").symlink_to("/dev/zero"), plain),
        ("pipe", lambda lab: os.mkfifo(lab / "BAS" / "x.png"), plain),
        ("folder called as an image", lambda lab: (lab / "BAS" / "x.png").mkdir(), plain),
        (
            "link to an image outside",
            lambda lab: (lab / "BAS" / "x.png").symlink_to("../../outside/c.png"),
            plain | {"BAS/x.png": "BAS"},
        ),
        ("class that is a link to itself", lambda lab: (lab / "NGS").symlink_to("NGS"), plain),
        (
            "class that is a link to a folder outside",
            lambda lab: (lab / "NGS").symlink_to("../outside"),
            plain | {"NGS/c.png": "NGS"},
        ),
    ):
        yield Case(name, built(step), "accepted", equal(expected))
    for name, target in (("itself", "."), ("the centre", ".."), ("a folder outside", "../../outside")):
        step = built(lambda lab, target=target: (lab / "BAS" / "x").symlink_to(target))
        yield Case(f"folder in a class that is a link to {name}", step, "accepted", equal(plain), says="BAS/x")
    for name, make in (
        ("a folder", lambda path: path.mkdir()),
        ("a pipe", os.mkfifo),
        ("a link to itself", lambda path: path.symlink_to("labels.csv")),
        ("a link to nothing", lambda path: path.symlink_to("gone")),
        ("a link to endless zeros", lambda path: path.symlink_to("/dev/zero")),
    ):
        step = built(lambda lab, make=make: make(lab / "labels.csv"))
        yield Case(f"labels.csv is {name}", step, "refused", mentions="labels.csv")

    def loop(folder: Path) -> Path:
        (folder / "lab").symlink_to("lab")
        return folder / "lab"

    yield Case("centre is a link to itself", loop, "refused")
    yield Case("centre is a file", files_of({"lab": b""}, "lab"), "refused")
    yield Case("centre is missing", lambda folder: folder / "lab", "refused")
    yield Case("centre with a zero byte", lambda folder: folder / "a\0b", "refused", mentions="a")
    yield Case("centre with a long name", lambda folder: folder / ("a" * 300), "refused")

    def deep(folder: Path) -> Path:
        here = os.getcwd()
        (folder / "lab" / "BAS").mkdir(parents=True)
        (folder / "lab" / "BAS" / "a.png").write_bytes(IMAGE)
        os.chdir(folder / "lab" / "BAS")
        for _ in range(300):  # a path that is longer than the system takes
            os.mkdir("d" * 20)
            os.chdir("d" * 20)
        os.chdir(here)
        return folder / "lab"

    yield Case("folders 300 deep", deep, "accepted", equal({"BAS/a.png": "BAS"}), says="cannot be read")


def _outputs() -> Iterator[Case]:
    for kind, name in NAMES.items():
        expect = "refused" if kind == "255 bytes" else "accepted"
        # As the CSV has what is no text, or ends a row.
        shown = name.encode("utf-8", "backslashreplace").decode().replace("\r", "\\r")

        def one(folder: Path, name: str = name) -> Path:
            return files_of({f"in/{name}": IMAGE}, "in")(folder)

        yield Case(f"image with {kind}", one, expect, equal([shown]), mentions="a")

        def named(folder: Path, name: str = name) -> list[Path]:
            files_of({f"{name}/a.png": IMAGE, "x/a.png": IMAGE})(folder)
            return [folder / name, folder / "x"]

        yield Case(f"folder with {kind}", named, "accepted", equal([f"{shown}/a.png", "x/a.png"]))

    def dotted(folder: Path) -> list[Path]:
        files_of({"a/b/1.png": IMAGE, "a/2.png": IMAGE})(folder)
        return [folder / "a" / "b" / ".." / "b" / "1.png", folder / "a" / "b" / ".." / "2.png"]

    yield Case("dots in the inputs", dotted, "accepted", equal(["b/1.png", "2.png"]))

    def linked(folder: Path) -> list[Path]:
        files_of({"far/off/1.png": IMAGE, "in/2.png": IMAGE})(folder)
        (folder / "in" / "3.png").symlink_to("../far/off/1.png")
        return [folder / "in"]

    yield Case("link to an image outside", linked, "accepted", equal(["2.png", "3.png"]))

    def existing(folder: Path) -> list[Path]:
        files_of({"in/1.png": IMAGE, "precious.txt": b"precious"})(folder)
        (folder / "out" / "labels").mkdir(parents=True)
        (folder / "out" / "labels" / "1.png.labels.tif").symlink_to("../../precious.txt")
        return [folder / "in"]

    yield Case("output is a link to a file", existing, "refused", mentions="1.png.labels.tif")

    def dangling(folder: Path) -> list[Path]:
        files_of({"in/1.png": IMAGE})(folder)
        (folder / "out" / "labels").mkdir(parents=True)
        (folder / "out" / "labels" / "1.png.labels.tif").symlink_to("../../stray.txt")
        return [folder / "in"]

    yield Case("output is a link to nothing", dangling, "either", equal(["1.png"]), mentions="1.png.labels.tif")
    for name, make in (
        ("a pipe", os.mkfifo),
        ("a link to itself", lambda path: path.symlink_to("a.png")),
        ("a link to endless zeros", lambda path: path.symlink_to("/dev/zero")),
        ("missing", lambda path: None),
    ):

        def odd(folder: Path, make: Callable = make) -> list[Path]:
            make(folder / "a.png")
            return [folder / "a.png"]

        yield Case(f"image is {name}", odd, "refused", mentions="a.png")
    yield Case("image with a zero byte", lambda folder: [folder / "a\0b.png"], "refused", mentions="a")
    yield Case("image of a long name", lambda folder: [folder / ("a" * 300)], "refused", mentions="aaa")


def _outlines() -> Iterator[Case]:
    good = json.dumps(labelme())
    for kind, name in NAMES.items():
        file_name = name.removesuffix(".png") + ".json"
        if len(os.fsencode(file_name)) < 256:
            files = files_of({"a.png": IMAGE, file_name: good})
            yield Case(f"file with {kind}", files, "accepted", equal([file_name]))
    for name, make in (
        ("pipe", os.mkfifo),
        ("folder", lambda path: path.mkdir()),
        ("link to itself", lambda path: path.symlink_to(path.name)),
        ("link to nothing", lambda path: path.symlink_to("gone")),
        ("link to endless zeros", lambda path: path.symlink_to("/dev/zero")),
    ):

        def beside(folder: Path, make: Callable = make) -> Path:
            files_of({"a.png": IMAGE, "a.json": good})(folder)
            make(folder / "b.json")
            return folder

        # It may be the labelme file of an image: what is wrong with it is said when masks are checked.
        yield Case(f"{name} beside", beside, "accepted", equal(["a.json", "b.json"]))

    def masks_loop(folder: Path) -> Path:
        (folder / "a.png").write_bytes(IMAGE)
        (folder / "masks").symlink_to("masks")
        return folder

    yield Case("masks is a link to itself", masks_loop, "refused", mentions="masks")


def _labelme_folders() -> Iterator[Case]:
    good = json.dumps(labelme())

    def built(step: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            files_of({"in/a.json": good, "in/sub/b.json": good, "outside/c.json": good})(folder)
            step(folder / "in")
            return folder / "in"

        return make

    both = equal(["a.png", "a.png"])
    yield Case("folders", built(lambda folder: None), "accepted", both)
    for name, target in (("itself", "."), ("the folder above", ".."), ("a circle", "loop"), ("nothing", "gone")):
        step = built(lambda folder, target=target: (folder / "sub" / "loop").symlink_to(target))
        yield Case(f"folder that is a link to {name}", step, "accepted", both)
    for name, make in (
        ("pipe", os.mkfifo),
        ("folder", lambda path: path.mkdir()),
        ("link to itself", lambda path: path.symlink_to(path.name)),
        ("link to nothing", lambda path: path.symlink_to("gone")),
        ("link to endless zeros", lambda path: path.symlink_to("/dev/zero")),
        ("text", lambda path: path.write_text("no JSON")),
    ):
        step = built(lambda folder, make=make: make(folder / "sub" / "x.json"))
        yield Case(f"{name} among them", step, "refused", mentions="x.json")
    for name, kind in (("empty folder", "in"), ("missing folder", "gone")):

        def bare(folder: Path, kind: str = kind) -> Path:
            (folder / "in").mkdir()
            return folder / kind

        yield Case(name, bare, "refused")
