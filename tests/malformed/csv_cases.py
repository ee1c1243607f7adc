"""Malformed tables of text: labels and groups of images, tables of a run, and a data set's own list of labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from case import Case, file_of, files_of

from experiments.centres import Centre, load_centre
from experiments.csv_columns import read_columns
from experiments.groups import read_groups
from experiments.reannotations import read_reannotations
from experiments.report_run import read_rows
from mrcnn.data.records import ImageRecord

AT_LEAST = 250

_NAMES = tuple(f"{number}.png" for number in range(4))
_KEYS = tuple(f"images/{name}" for name in _NAMES)
_ROWS = (("0.png", "LYT", "p1"), ("1.png", "MON", "p1"), ("2.png", "LYT", "p2"), ("3.png", "BAS", "p3"))
_SOUND = "image,label,patient\n" + "".join(",".join(row) + "\n" for row in _ROWS)
_LIST = "LYT/0.png LYT LYT\nMON/1.png MON\n"


def read_table(path: Path) -> list[tuple[Any, ...]]:
    """Two columns of a table."""
    return read_columns(path, ("image", "label"), "give the file")


def read_patients(path: Path) -> dict[str, str]:
    """The patient of each image."""
    return read_groups(path, "patient", _KEYS, "centre north")


def read_centre(path: Path) -> Centre:
    """A centre of the layout csv."""
    return load_centre("north", path, "csv", "five")


def read_list(path: Path) -> Any:
    """What the list of a data set says of two images."""
    records = [
        ImageRecord(f"images/{n}/{i}.png", path.parent / n / f"{i}.png", n, n) for i, n in enumerate(("LYT", "MON"))
    ]
    return read_reannotations([path.parent], records)


READERS = {
    "read_columns": read_table,
    "read_groups": read_patients,
    "labels.csv": read_centre,
    "report table": read_rows,
    "annotations.dat": read_list,
}


def cases(reader: str, seed: int) -> Iterator[Case]:
    """The cases of a reader."""
    if reader == "labels.csv":
        yield from _centres(seed)
    elif reader == "report table":
        yield from _report_tables(seed)
    elif reader == "annotations.dat":
        yield from _lists(seed)
    else:
        yield from _tables(reader, seed)


def same_tables() -> Iterator[tuple[str, bytes]]:
    """The sound table, written in other ways."""
    yield "sound", _SOUND.encode()
    yield "byte order mark", b"\xef\xbb\xbf" + _SOUND.encode()
    yield "CRLF", _SOUND.replace("\n", "\r\n").encode()
    yield "CR", _SOUND.replace("\n", "\r").encode()
    yield "no newline at the end", _SOUND.rstrip("\n").encode()
    yield "blank lines", _SOUND.replace("\n", "\n\n").encode()
    yield "spaces", _SOUND.replace(",", " , ").encode()
    yield (
        "quoted",
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in _SOUND.splitlines()).encode(),
    )
    yield "other order", "\n".join(",".join(reversed(line.split(","))) for line in _SOUND.splitlines()).encode()
    yield "a column more", "\n".join(f"{line},x" for line in _SOUND.splitlines()).encode()
    yield "empty columns at the end", "\n".join(f"{line},," for line in _SOUND.splitlines()).encode()
    yield "empty values beyond the columns", _SOUND.replace("p3\n", "p3,,\n").encode()


def broken_tables(seed: int) -> Iterator[tuple[str, bytes]]:
    """No table with the columns image, label and patient."""
    data = _SOUND.encode()
    yield "empty", b""
    yield "a byte order mark alone", b"\xef\xbb\xbf"
    yield "blank", b"\n\n\n"
    yield "not UTF-8", data.replace(b"LYT", b"L\xffT")
    yield "Latin-1", data + "4.png,Bl\u00e4sse,p1\n".encode("latin-1")
    yield "UTF-16", _SOUND.encode("utf-16")
    yield "UTF-16 without mark", _SOUND.encode("utf-16-le")
    yield "NUL", data.replace(b"LYT", b"L\0T", 1)
    yield "NUL in the header", data.replace(b"label", b"la\0bel", 1)
    yield "zeros", bytes(5000)
    yield "semicolons", data.replace(b",", b";")
    yield "tabs", data.replace(b",", b"\t")
    yield "bars", data.replace(b",", b"|")
    yield "unclosed quote", data.replace(b"MON", b'"MON')
    yield "unclosed quote in the header", b'"' + data
    yield "text behind a quote", data.replace(b"MON", b'"MON"x')
    yield "huge field", data + b"4.png," + b"L" * 200_000 + b",p1\n"
    yield "huge header", b"a" * 200_000 + b"," + data
    yield "huge quoted field", data + b'4.png,"' + b"L\n" * 100_000 + b'",p1\n'
    yield "a value more", data.replace(b"MON", b"MON,a", 1)
    yield "a comma in a name", data.replace(b"1.png", b"1,5.png")
    yield "header twice in one line", data.replace(b"patient\n", b"patient,image,label,patient\n", 1)
    yield "no header", data.partition(b"\n")[2]
    yield "header in capitals", data.replace(b"image,label,patient", b"IMAGE,LABEL,PATIENT")
    yield "a file of another kind", b"PK\3\4" + bytes(range(256)) * 20
    yield "HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)
    yield "PNG", b"\x89PNG\r\n\x1a\n" + bytes(100)
    yield "HTML", b"<html><body>Not found</body></html>"
    yield "JSON", b'{"image": "0.png", "label": "LYT"}'
    random = np.random.default_rng(seed)
    for number in range(10):
        yield f"noise {number}", random.bytes(80)
    for end in range(1, 11):
        yield f"header cut after {end} characters", data[:end]


def _tables(reader: str, seed: int) -> Iterator[Case]:
    is_groups = reader == "read_groups"

    def is_sound(found: Any) -> None:
        if is_groups:
            assert found == {key: row[2] for key, row in zip(_KEYS, _ROWS, strict=True)}
        else:
            assert [row[1:] for row in found] == [row[:2] for row in _ROWS]

    def is_table(found: Any) -> None:
        assert set(found) == set(_KEYS) if is_groups else all(len(row) == 3 for row in found)

    for name, content in same_tables():
        yield Case(name, file_of("a.csv", content), "accepted", is_sound)
    for name, content in broken_tables(seed):
        yield Case(name, file_of("a.csv", content), "refused")
    changes = {
        "header twice": ("\n", "\nimage,label,patient\n"),
        "an image twice": ("1.png,MON,p1", "0.png,MON,p2"),
        "an unknown image": ("1.png", "9.png"),
        "no image": ("1.png", ""),
        "no label and no patient": (",MON,p1", ""),
        "only an image": ("1.png,MON,p1", "1.png"),
        "an image of another folder": ("1.png", "../1.png"),
        "an absolute image": ("1.png", "/etc/hostname"),
        "a line break in quotes": ("MON", '"MO\nN"'),
        "control characters": ("1.png", "\x1b[2J1.png"),
    }
    for name, (old, new) in changes.items():
        content = _SOUND.replace(old, new, 1)
        expect = "refused" if is_groups and name not in ("a line break in quotes",) else "accepted"
        yield Case(name, file_of("a.csv", content), expect, is_table)
    other = "label" if not is_groups else "patient"
    yield Case("column missing", file_of("a.csv", _SOUND.replace(other, "class")), "refused", says=other)
    yield Case("column twice", file_of("a.csv", _SOUND.replace("image,", f"{other},image,", 1)), "refused", says=other)
    yield Case("absent", lambda folder: folder / "a.csv", "refused")
    yield Case("folder", lambda folder: folder, "refused", mentions="")
    for end in np.random.default_rng(seed).integers(20, len(_SOUND) - 2, 12).tolist():
        # What is cut may be shorter, but as good; a name that is cut is no image.
        yield Case(f"cut after {end} characters", file_of("a.csv", _SOUND[:end]), "either", is_table)


def _centres(seed: int) -> Iterator[Case]:
    png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    images = {f"images/{name}": png for name in _NAMES}

    def is_sound(centre: Centre) -> None:
        assert {record.key: record.label for record in centre.records} == {
            key: row[1] for key, row in zip(_KEYS, _ROWS, strict=True)
        }

    def is_centre(centre: Centre) -> None:
        assert {record.key for record in centre.records} == set(_KEYS)
        assert all(record.label in ("", "LYT", "MON", "BAS", "MO\nN", "M") for record in centre.records)

    def make(content: bytes | str) -> Any:
        return files_of({**images, "labels.csv": content})

    for name, content in same_tables():
        yield Case(name, make(content), "accepted", is_sound)
    for name, content in broken_tables(seed):
        yield Case(name, make(content), "refused", mentions="labels.csv")
    for name, (old, new, expect) in {
        "an image twice": ("1.png,MON,p1", "0.png,MON,p2", "refused"),
        "an unknown image": ("1.png", "9.png", "refused"),
        "no image": ("1.png", "", "refused"),
        "an image of another folder": ("1.png", "../1.png", "refused"),
        "hidden in the midst": ("1.png", "a/../1.png", "refused"),
        "an absolute image": ("1.png", "/etc/hostname", "refused"),
        "a very long name": ("1.png", "a" * 5000, "refused"),
        "header twice": ("\n", "\nimage,label,patient\n", "refused"),
        "control characters": ("1.png", "\x1b[2J1.png", "refused"),
        "only an image": ("1.png,MON,p1", "1.png", "accepted"),
        "the table itself": ("1.png", "labels.csv", "refused"),
    }.items():
        yield Case(name, make(_SOUND.replace(old, new, 1)), expect, is_centre, mentions="labels.csv")


def _report_tables(seed: int) -> Iterator[Case]:
    def is_sound(rows: list[dict[str, str]]) -> None:
        assert [tuple(row.values()) for row in rows] == list(_ROWS)

    def is_table(rows: list[dict[str, str]]) -> None:
        assert all(isinstance(value, str) for row in rows for value in (*row, *row.values()))

    yield Case("sound", file_of("log.csv", _SOUND), "accepted", is_sound)
    yield Case("absent", lambda folder: folder / "log.csv", "accepted", lambda rows: None)
    for name, content in {
        "not UTF-8": b"a,b\n\xff,1\n",
        "UTF-16": _SOUND.encode("utf-16"),
        "unclosed quote": b'a,b\n"1,2\n',
        "huge field": b"a,b\n1," + b"2" * 200_000 + b"\n",
        "a value more": b"a,b\n1,2,3\n",
        "a value less": b"a,b\n1\n",
    }.items():
        yield Case(name, file_of("log.csv", content), "refused")
    random = np.random.default_rng(seed)
    for number in range(10):
        yield Case(f"noise {number}", file_of("log.csv", random.bytes(60)), "either", is_table)


def _lists(seed: int) -> Iterator[Case]:
    def is_sound(found: Any) -> None:
        assert found is not None and found.differences == {}

    yield Case("sound", file_of("annotations.dat", _LIST), "accepted", is_sound)
    random = np.random.default_rng(seed)
    contents = {
        "empty": b"",
        "not UTF-8": b"LYT/0.png L\xff\n",
        "zeros": bytes(1000),
        "long line": b"LYT/0.png " + b"a" * 10**6,
        "many words": b"LYT/0.png " + b"a " * 10**5,
        "slashes": b"/" * 10**5 + b" LYT",
        "paths": b"../../etc/passwd LYT\n/etc/passwd LYT\n",
        **{f"noise {number}": random.bytes(100) for number in range(10)},
    }
    for name, content in contents.items():
        # A list that is not understood adds nothing, and is told of.
        yield Case(name, file_of("annotations.dat", content), "accepted", _is_list)


def _is_list(found: Any) -> None:
    assert found is None or all(label[1].isprintable() for label in found.differences.values())
