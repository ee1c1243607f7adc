import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image

from experiments.figures.files import PRINT_DPI, Provenance, read_provenance, save_figure
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import command_text

PROVENANCE = Provenance("0f3a", {"b.h5": "22", "a.h5": "11"}, "aecfe 0.1.0")
ROOT = Path(__file__).parents[3]


def make_figure(value=3.0):
    figure = Figure(figsize=(2, 1.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([1, 2, value], label="α ± β")
    left.bar([0, 1], [1, 2], hatch="//", alpha=0.5)
    right.imshow(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    figure.legend(loc="outside upper left")
    return figure


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures") / "new"
    return save_figure(make_figure(), folder, "figure-3.4", "Cells of each class", PROVENANCE)


def test_save_figure_writes_three_files_and_no_other(saved):
    folder = saved["png"].parent
    assert sorted(path.name for path in folder.iterdir()) == ["figure-3.4.json", "figure-3.4.pdf", "figure-3.4.png"]
    assert {ending: path.name for ending, path in saved.items()} == {
        ending: f"figure-3.4.{ending}" for ending in ("png", "pdf", "json")
    }


def test_save_figure_png_has_print_resolution_and_says_what_made_it(saved):
    with Image.open(saved["png"]) as image:
        assert image.size == (2 * PRINT_DPI, 3 * PRINT_DPI // 2)
        assert image.info["dpi"] == pytest.approx((PRINT_DPI, PRINT_DPI), abs=0.1)
        assert image.text["Title"] == "Cells of each class"
        assert command_text() in image.text["Description"] and "0f3a" in image.text["Description"]
        assert image.text["Software"] == "aecfe 0.1.0"


def test_save_figure_pdf_has_truetype_fonts_metadata_and_no_date(saved):
    content = saved["pdf"].read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/CIDFontType2" in content and b"/FontFile2" in content and b"/Type3" not in content
    assert b"/Title (Cells of each class)" in content
    assert b"/Subject (Made by: aecfe figures --run 'a b')" in content
    assert b"/Keywords (settings 0f3a)" in content and b"/Creator (aecfe 0.1.0)" in content
    assert b"Date" not in content


def test_save_figure_pdf_holds_the_photo_as_an_image_and_the_curve_as_lines(saved, tmp_path):
    assert saved["pdf"].read_bytes().count(b"/Subtype /Image") == 1
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    path = save_figure(figure, tmp_path, "lines", "Lines", PROVENANCE)["pdf"]
    assert b"/Subtype /Image" not in path.read_bytes()


def test_save_figure_json_lists_inputs_and_the_hashes_of_the_files(saved):
    content = json.loads(saved["json"].read_text())
    assert content["title"] == "Cells of each class" and content["command"] == command_text()
    assert content["config_hash"] == "0f3a" and list(content["inputs"].items()) == [("a.h5", "11"), ("b.h5", "22")]
    files = [saved["png"], saved["pdf"]]
    assert content["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_save_figure_gives_the_same_bytes_again(saved, tmp_path):
    figure = make_figure()
    first = {ending: path.read_bytes() for ending, path in saved.items()}
    for _ in range(2):  # of a figure of its own, and of one that was drawn before
        again = save_figure(figure, tmp_path, "figure-3.4", "Cells of each class", PROVENANCE)
        assert {ending: path.read_bytes() for ending, path in again.items()} == first
    other = save_figure(make_figure(4.0), tmp_path, "figure-3.4", "Cells of each class", PROVENANCE)
    assert all(path.read_bytes() != first[ending] for ending, path in other.items())


def test_save_figure_gives_the_same_bytes_whatever_the_order_of_sets(tmp_path):
    program = (
        "import sys\n"
        "from matplotlib.figure import Figure\n"
        "from experiments.figures.files import Provenance, save_figure\n"
        "figure = Figure(figsize=(1, 1))\n"
        "figure.subplots().bar([0, 1], [1, 2], hatch=['//', 'xx'], label='±')\n"
        "save_figure(figure, sys.argv[1], 'f', 'title', Provenance('h', {}, 's'))\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed)], check=True, env=environment)
    for ending in ("png", "pdf", "json"):
        assert (tmp_path / "1" / f"f.{ending}").read_bytes() == (tmp_path / "2" / f"f.{ending}").read_bytes()


def test_save_figure_leaves_matplotlib_settings_alone(saved):
    assert rcParams["pdf.fonttype"] == 3 and rcParams["image.composite_image"]


def test_save_figure_takes_any_mapping_and_text_beyond_latin(tmp_path):
    provenance = Provenance("h", MappingProxyType({"a": "1"}), "")
    figure = Figure(figsize=(1, 1))
    paths = save_figure(figure, tmp_path, "f", "Matek-19 → INT-20", provenance)
    with Image.open(paths["png"]) as image:
        assert image.text["Title"] == "Matek-19 → INT-20" and "Software" not in image.text
    assert read_provenance(paths["json"]) == Provenance("h", {"a": "1"}, "")


@pytest.mark.parametrize("name", ["", "a/b", "../f", ".hidden", "a b", "-f"])
def test_save_figure_refuses_a_name_that_is_no_file_name(name, tmp_path):
    with pytest.raises(ValueError, match="figure name"):
        save_figure(Figure(), tmp_path, name, "title", PROVENANCE)
    assert not list(tmp_path.iterdir())


def test_save_figure_that_cannot_be_drawn_leaves_no_file(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.text(0.5, 0.5, r"$\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(figure, tmp_path, "f", "title", PROVENANCE)
    assert not list(tmp_path.iterdir())


def test_read_provenance_gives_back_what_was_saved(saved):
    assert read_provenance(saved["json"]) == PROVENANCE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "not valid JSON"),
        ("[]", "does not describe a figure"),
        ('{"format": "aecfe-split"}', "does not describe a figure"),
        ('{"format": "aecfe-figure", "command": "c"}', "lacks 'config_hash'"),
    ],
)
def test_read_provenance_refuses_other_files_in_one_line(content, message, tmp_path):
    path = tmp_path / "f.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_provenance(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
