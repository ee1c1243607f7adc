"""`aecfe centres check`: what it takes for a centre, what it finds, and how that reads."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.centres.centre import load_centres
from experiments.centres.check import check_centres, look_at_images
from experiments.centres.tree import find_centres


def draw(path, seed, size=(16, 12)):
    """Save noise that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    """Two centres side by side: one of csv with all kinds of trouble, one of classes."""
    north, river = tmp_path / "data" / "north", tmp_path / "data" / "river"
    for number in range(1, 7):
        draw(north / "images" / f"{number}.png", number, (40, 30) if number == 6 else (16, 12))
    draw(north / "masks" / "1.png", 7)
    draw(river / "lymphocyte" / "a.png", 20)
    for name in ("river/monocyte", "river/basophil", "papers"):
        (tmp_path / "data" / name).mkdir()
    Image.new("RGB", (8, 8), "white").save(north / "images" / "9.png")
    original = {number: (north / "images" / f"{number}.png").read_bytes() for number in range(1, 7)}
    for path, content in {
        north / "images" / "2.png": original[1],
        north / "images" / "4.png": original[3],
        north / "images" / "7.png": original[6][:60],
        north / "images" / "8.png": b"no image",
        north / "images" / "notes.txt": b"x",
        river / "monocyte" / "b.png": original[1],
        river / "monocyte" / "c.png": original[5],
        river / "basophil" / "d.png": original[6],
        tmp_path / "data" / "papers" / "a.pdf": b"x",
    }.items():
        path.write_bytes(content)
    labels = ["monocyte", "monocyte", "basophil", "Eosinophil", "artefact", "basophil"]
    rows = [f"{number}.png,{label}" for number, label in enumerate(labels, start=1)]
    (north / "labels.csv").write_text("\n".join(["image,label", *rows]))
    return tmp_path / "data"


def centres_in(root, *arguments):
    return list(load_centres(find_centres(root)[0], *arguments).values())


def test_check_counts_labels_types_and_files(data):
    centres = centres_in(data, "auto", "five")
    result = check_centres(centres)
    north, river = result["centres"]
    assert (north["name"], north["layout"], north["images"], north["inner"]) == ("north", "csv", 9, "")
    labels = [("monocyte", "monocyte", 2), ("Eosinophil", "eosinophil", 1), ("basophil", "basophil", 2)]
    assert [tuple(row.values()) for row in north["labels"]] == [*labels, ("artefact", "", 1)]
    assert north["classes"] == {"neutrophil": 0, "lymphocyte": 0, "monocyte": 2, "eosinophil": 1, "basophil": 2}
    assert (north["without_type"], north["unlabelled"]) == (1, 3)
    assert north["other_files"] == ["images/notes.txt"]
    assert north["masks"] == f"label images in {data / 'north' / 'masks'}"
    assert (river["layout"], river["images"], river["masks"]) == ("folders", 4, "")
    assert (result["scheme"], result["decoded"]) == ("five", True)


def test_check_finds_what_cannot_be_read(data):
    (centre,) = centres_in(data / "north")
    checks = look_at_images(centre)
    assert [fault["image"] for fault in checks["unreadable"]] == ["images/7.png", "images/8.png"]
    assert checks["unreadable"][1]["reason"] == "not an image (PNG, JPEG, TIFF or BMP expected)"
    assert checks["one_colour"] == ["images/9.png"]
    assert checks["sizes"]["commonest"] == {"width": 16, "height": 12, "images": 5} and checks["num_sizes"] == 3
    headers = look_at_images(centre, decode=False)
    # The header of a truncated file is whole.
    assert [fault["image"] for fault in headers["unreadable"]] == ["images/8.png"] and headers["one_colour"] is None
    assert headers["sizes"]["largest"] == {"width": 40, "height": 30, "images": 2}


def test_check_tells_duplicates_apart(data):
    result = check_centres(centres_in(data))
    kinds = [(one["different_labels"], one["different_centres"]) for one in result["duplicates"]]
    names = [" ".join(f"{i['centre']}/{i['image']}" for i in one["images"]) for one in result["duplicates"]]
    found = dict(zip(names, kinds, strict=True))
    assert found == {
        "north/images/1.png north/images/2.png river/monocyte/b.png": (False, True),
        "north/images/3.png north/images/4.png": (True, False),
        # No cell type speaks against the other's: an artefact is none.
        "north/images/5.png river/monocyte/c.png": (False, True),
        "north/images/6.png river/basophil/d.png": (False, True),
    }
    assert [centre["duplicates"] for centre in result["centres"]] == [6, 3]
    # A type that differs within one centre.
    (data / "river" / "monocyte" / "d.png").write_bytes((data / "river" / "basophil" / "d.png").read_bytes())
    result = check_centres(centres_in(data))
    assert result["duplicates"][-1]["different_labels"]
    river = check_centres(centres_in(data / "river"))
    assert [one["different_labels"] for one in river["duplicates"]] == [True]


def test_find_centres_tells_centres_from_folders_of_them(data, tmp_path):
    assert find_centres(data) == ([data / "north", data / "river"], ["papers"])
    for centre in (data / "north", data / "river"):
        assert find_centres(centre) == ([centre], [])
    # Classes of their own names are a centre; so is what an archive wraps.
    for name in ("own/good", "own/bad", "zip/outer/inner/BAS", "zip/outer/inner/EBO", "all/blood/new"):
        draw(tmp_path / name / "1.png", 1)
    draw(tmp_path / "all" / "blood" / "matek" / "outer" / "BAS" / "1.png", 1)
    assert find_centres(tmp_path / "own")[0] == [tmp_path / "own"]
    assert find_centres(tmp_path / "zip")[0] == [tmp_path / "zip"]
    # A folder of centres may be wrapped, and hold one without labels.
    assert [path.name for path in find_centres(tmp_path / "all")[0]] == ["matek", "new"]


def test_command_prints_and_writes_what_it_found(data, tmp_path, capsys, aecfe):
    assert aecfe("centres", "check", data, "--scheme", "five", "--json", tmp_path / "new" / "check.json") == 0
    text = capsys.readouterr().out
    for line in (
        f"{data}: centres in it: north, river; without an image: papers",
        "  artefact    -                   1",
        "  types without image   neutrophil, lymphocyte",
        "  cannot be read        2 (all were decoded)",
        "    images/8.png: not an image (PNG, JPEG, TIFF or BMP expected)",
        "  width x height        smallest 8 x 8 (1), commonest 16 x 12 (5), largest 40 x 30 (1); 3 sizes",
        "Duplicates: 4 sets of files of the same content, 9 images",
        "  different labels, of which one must be wrong: 1",
        "    north/images/3.png (basophil) = north/images/4.png (Eosinophil)",
    ):
        assert line in text.splitlines()
    written = json.loads((tmp_path / "new" / "check.json").read_text())
    assert written["format"] == "aecfe-centre-check"
    assert written["places"] == [{"root": str(data), "centres": ["north", "river"], "skipped": ["papers"]}]
    assert written["centres"][0]["sizes"]["largest"] == {"width": 40, "height": 30, "images": 1}
    assert len(written["duplicates"]) == 4


def test_command_tells_of_a_likely_layout(tmp_path, capsys, aecfe):
    root = tmp_path / "matek" / "AML-Cytomorphology"
    for number, name in enumerate(["BAS/BAS_0001.tiff", "BAS/BAS_0002.tiff", "EBO/MYO_0003.tiff"]):
        draw(root / name, number)
    assert aecfe("centres", "check", tmp_path / "matek", "--no-decode") == 0
    text = capsys.readouterr().out
    assert "matek19, which begins in AML-Cytomorphology" in text and "opened, not decoded" in text
    draw(root / "strange" / "1.tiff", 9)
    assert aecfe("centres", "check", tmp_path / "matek") == 0
    assert "most names are those of matek19: try --layout matek19" in capsys.readouterr().out


def test_long_lists_are_shortened(tmp_path, capsys, aecfe):
    draw(tmp_path / "lab" / "monocyte" / "good.png", 1)
    for number in range(13):
        (tmp_path / "lab" / "monocyte" / f"{number:02d}.png").write_text("x")
    assert aecfe("centres", "check", tmp_path / "lab", "--json", tmp_path / "all.json") == 0
    text = capsys.readouterr().out
    assert "    monocyte/09.png: not an image" in text and "monocyte/10.png: " not in text
    assert text.count("    and 3 more") == 1
    assert "lab/monocyte/03.png (monocyte) and 9 more" in text and "lab/monocyte/04.png" not in text
    assert len(json.loads((tmp_path / "all.json").read_text())["centres"][0]["unreadable"]) == 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: no such folder"),
        (["data/papers"], "data/papers: no images"),
        (["data/north", "data"], "two centres are called north"),
        (["data/north", "--layout", "other"], "layout 'other' is not one of"),
        (["data/river", "--layout", "csv"], "layout csv needs it"),
        (["data", "--scheme", "thirteen"], "class map thirteen: not one of"),
        (["data", "--json", "data"], "--json data: is a folder"),
    ],
)
def test_command_refuses_in_one_line(data, monkeypatch, refused, arguments, message):
    monkeypatch.chdir(data.parent)
    assert message in refused("centres", "check", *arguments)


def test_check_needs_no_tensorflow(data):
    code = (
        "import sys; from aecfe.cli import main; status = main(['centres', 'check', sys.argv[1]]); "
        "sys.exit(status or 'tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(data)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
