"""Malformed Pascal VOC boxes, and re-annotations of Matek-19 (`annotations.dat`)."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, files_of
from outline_files import IMAGE

from experiments.reannotations import read_reannotations
from mrcnn.data.annotations import VocBoxDataset
from mrcnn.data.records import ImageRecord

AT_LEAST = 140
VOC = """<annotation><folder>images</folder><filename>a.png</filename>
<size><width>30</width><height>20</height><depth>3</depth></size>
<object><name>WBC</name><pose>left</pose><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>13</ymax></bndbox></object>
<object><name>RBC</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>
</annotation>"""


def read_boxes(folder: Path) -> np.ndarray:
    """Boxes of the image in `folder`."""
    return VocBoxDataset([ImageRecord("a.png", folder / "a.png")], folder).load_boxes(0)


def read_dat(folder: Path) -> Any:
    """What `annotations.dat` says of an image in a centre."""
    return read_reannotations([folder], [ImageRecord("BAS/BAS_0001.tiff", folder / "BAS" / "BAS_0001.tiff", "BAS")])


READERS = {"pascal voc": read_boxes, "annotations.dat": read_dat}


def cases(reader: str, seed: int) -> Iterator[Case]:
    """All cases of a reader."""
    yield from (_voc if reader == "pascal voc" else _dat)(seed)


def _voc(seed: int) -> Iterator[Case]:
    def made(content: str | bytes, name: str, expect: str, check: Callable | None = None) -> Case:
        make = files_of({"a.xml": content, "a.png": IMAGE})
        return Case(name, make, expect, check or valid_boxes, mentions="a.xml")

    def same(boxes: np.ndarray) -> None:
        np.testing.assert_array_equal(boxes, [[3, 2, 13, 12]])

    def none(boxes: np.ndarray) -> None:
        assert boxes.shape == (0, 4) and boxes.dtype == np.float32

    yield made(VOC, "as it should be", "accepted", same)
    yield made(VOC.replace("WBC", "dust"), "another class", "accepted", none)
    yield made(VOC.replace("WBC", " WBC\n"), "blanks around the name", "accepted", same)
    yield made('<?xml version="1.0"?>' + VOC, "declaration", "accepted", same)
    yield made("\ufeff" + VOC, "byte order mark", "accepted", same)
    declared = '<?xml version="1.0" encoding="utf-16"?>' + VOC
    yield made(declared.encode("utf-16"), "UTF-16", "accepted", same)
    yield made("<annotation></annotation>", "no object", "accepted", none)
    yield made(VOC.replace("<pose>left", "<pose><![CDATA[<object>]]>"), "character data", "accepted", same)
    for step in range(1, 20):
        yield made(VOC[: len(VOC) * step // 20], f"cut after {step} twentieths", "refused")
    entities = '<!ENTITY a0 "lol">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    for name, prefix, text in (
        ("billion laughs", f"<!DOCTYPE a [{entities}]>", "&a9;"),
        ("quadratic entity", f'<!DOCTYPE a [<!ENTITY a "{"x" * 100_000}">]>', "&a;" * 1000),
        ("external entity", '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;"),
        ("external entity of the web", '<!DOCTYPE a [<!ENTITY a SYSTEM "http://localhost:9/a">]>', "&a;"),
        ("external definitions", '<!DOCTYPE a SYSTEM "http://localhost:9/a.dtd" [<!ENTITY b "b">]>', "&b;"),
        ("entity of parameters", '<!DOCTYPE a [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>', "left"),
        ("entity of endless zeros", '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///dev/zero">]>', "&a;"),
        ("unknown entity", "", "&a;"),
    ):
        yield made(prefix + VOC.replace("left", text), name, "refused")
    for name, content in (
        ("nested 200,000 deep", "<annotation>" * 200_000),
        ("other root", "<svg></svg>"),
        ("json", "{}"),
        ("empty", ""),
        ("zero bytes", bytes(500)),
        ("binary", IMAGE),
        ("html", "<!DOCTYPE html><html><br></html>"),
        ("unknown encoding", '<?xml version="1.0" encoding="klingon"?>' + VOC),
        ("wide encoding", '<?xml version="1.0" encoding="utf-32"?>' + VOC),
        ("not UTF-8", VOC.encode().replace(b"left", b"\xff\xfe")),
        ("two roots", VOC + VOC),
        ("unclosed", VOC.replace("</object>", "", 1)),
        ("ampersand", VOC.replace("left", "a & b")),
        ("forbidden character", VOC.replace("left", "\x08")),
    ):
        yield made(content, name, "refused")
    deep = "<annotation>" * 100_000 + "</annotation>" * 100_000
    yield made(deep, "nested 100,000 deep and closed", "either", none)
    wide = VOC.replace("<pose>", f'<pose a="{"x" * 5_000_000}">')
    yield made(wide, "attribute of 5 MB", "accepted", same)
    for value in (
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e9",
        "500",
        "x",
        "",
        "1,5",
        "0x10",
        "None",
        "1 2",
        "99999999999999999999",
    ):
        yield made(VOC.replace("<xmax>12<", f"<xmax>{value}<"), f"xmax {value[:9]!r}", "refused")
    for value in ("nan", "40", "x", "", "1e9"):
        yield made(VOC.replace("<ymin>4<", f"<ymin>{value}<"), f"ymin {value!r}", "refused")
    yield made(VOC.replace("<xmin>3</xmin>", ""), "no xmin", "refused")
    yield made(VOC.replace("bndbox", "box"), "no box", "refused")
    yield made(VOC.replace("<width>30", "<width>640"), "another size", "refused")
    yield made(VOC.replace("<width>30<", "<width>0<"), "size of zero", "accepted", same)
    yield made(VOC.replace("<width>30<", "<width>x<"), "size of text", "either", same)
    yield made(VOC.replace("<width>30<", f"<width>{'9' * 5000}<"), "size of digits", "either", same)
    random = np.random.default_rng(seed)
    for number in range(25):
        changed = bytearray(VOC.encode())
        bit = int(random.integers(8 * len(changed)))
        changed[bit // 8] ^= 1 << bit % 8
        yield made(bytes(changed), f"flipped {number}", "either")
    for name, make in (
        ("folder", lambda path: path.mkdir()),
        ("pipe", os.mkfifo),
        ("link to itself", lambda path: path.symlink_to("a.xml")),
        ("link to endless zeros", lambda path: path.symlink_to("/dev/zero")),
        ("missing", lambda path: None),
    ):

        def make_file(folder: Path, make: Callable = make) -> Path:
            (folder / "a.png").write_bytes(IMAGE)
            make(folder / "a.xml")
            return folder

        yield Case(f"file is {name}", make_file, "refused", mentions="a.xml")


def valid_boxes(boxes: np.ndarray) -> None:
    """A check that a value is boxes within the image."""
    assert boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 4
    assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= [22, 32, 22, 32]).all(), boxes
    assert (boxes[:, :2] <= boxes[:, 2:]).all(), boxes


def _dat(seed: int) -> Iterator[Case]:
    good = "BAS/BAS_0001.tiff BAS UNC nan\n"

    def made(content: str | bytes, name: str, lines: list[int], entries: int, opinions: int = 1) -> Case:
        def check(found: Any) -> None:
            assert found is not None, "not read"
            assert list(found.not_understood) == lines, f"not understood: {found.not_understood}"
            assert found.num_entries == entries, f"{found.num_entries} entries"
            assert len(found.repeated) == opinions, found.repeated

        return Case(name, files_of({"annotations.dat": content}), "accepted", check)

    yield made(good, "as it should be", [], 1)
    yield made("\ufeff" + good, "byte order mark", [], 1)
    yield made(good.replace("\n", "\r\n"), "line ends of Windows", [], 1)
    yield made("image first second third\n" + good, "names of columns", [], 1)
    yield made("# made by me\n\n" + good, "comment and blank line", [], 1)
    yield made(good.replace(" ", "\t"), "tabs", [], 1)
    yield made(good.replace(" ", ","), "commas", [], 1)
    yield made(good * 2, "line twice", [], 1)
    yield made(good + good.replace("UNC", "MON"), "contradiction", [2], 1)
    yield made(good + "nonsense\n", "line of one word", [2], 1)
    yield made(good + "BAS/BAS_0001.tiff\n", "line without annotation", [2], 1)
    yield made(good + "BAS/BAS_0002.tiff BAS a b c\n", "line of too many", [2], 1)
    yield made(good + "../../etc/passwd.tiff BAS\n", "path that leads out", [], 2)
    yield made(good + "/etc/passwd.tiff BAS\n", "absolute path", [], 2)
    yield made(good + "BAS\\BAS_0003.tiff BAS\n", "path of Windows", [], 2)
    yield made(good + "BAS/my cell 1.tiff BAS\n", "path with blanks", [], 2)
    yield made("", "empty", [], 0, 0)
    yield made("\n" * 100_000, "blank lines", [], 0, 0)
    yield made(good + bytes(1000).decode() + "\n", "zero bytes", [2], 1)
    yield made(good.encode() + b"\xff\xfe\x80 x\n", "not UTF-8", [2], 1)
    yield made(good + " " * 200_000 + "x\n", "line of 200,000 blanks", [2], 1)
    yield made(good + "a" * 5_000_000 + "\n", "line of 5 MB", [2], 1)
    yield made(good + "a.tiff" * 100_000 + "\n", "line of suffixes", [2], 1)
    yield made(good + "a.tiff" + " ;" * 100_000 + "\n", "line of breaks", [2], 1)
    yield made(good + "".join(f"BAS/BAS_{i:06d}.tiff BAS\n" for i in range(20_000)), "20,000 lines", [], 20_001)
    random = np.random.default_rng(seed)
    for number in range(15):
        changed = bytearray(good.encode() * 3)
        bit = int(random.integers(8 * len(changed)))
        changed[bit // 8] ^= 1 << bit % 8
        content = files_of({"annotations.dat": bytes(changed)})
        yield Case(f"flipped {number}", content, "accepted", lambda found: _is_read(found))
    yield made(good.encode("utf-16"), "UTF-16", [2], 0, 0)

    def absent(found: Any) -> None:
        assert found is None

    for name, make in (
        ("folder", lambda path: path.mkdir()),
        ("pipe", os.mkfifo),
        ("link to itself", lambda path: path.symlink_to("annotations.dat")),
        ("link to endless zeros", lambda path: path.symlink_to("/dev/zero")),
    ):

        def make_file(folder: Path, make: Callable = make) -> Path:
            make(folder / "annotations.dat")
            return folder

        yield Case(f"file is {name}", make_file, "accepted", absent, says="annotations.dat")


def _is_read(found: Any) -> None:
    assert found is not None and found.num_entries + len(found.not_understood) >= 1
