import hashlib
import json

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image

from experiments.figures.files import PRINT_DPI, Drawing, save_figure
from mrcnn.files.provenance import command_text


def make_figure(value=3.0):
    figure = Figure(figsize=(2, 1.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([1, 2, value], label="α ± β")
    left.bar([0, 1], [1, 2], hatch="//", alpha=0.5)
    right.imshow(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    figure.legend(loc="outside upper left")
    return figure


def save(folder, figure):
    drawing = Drawing("figure-3.4", "Cells → classes", figure, {"b.h5": "22", "a.h5": "11"})
    return save_figure(drawing, folder, "0f3a")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("figures") / "new", make_figure())


def test_save_figure_writes_for_print_and_says_what_made_it(saved):
    assert {path.suffix for path in saved["png"].parent.iterdir()} == {".json", ".pdf", ".png"}
    with Image.open(saved["png"]) as image:
        assert image.size == (2 * PRINT_DPI, 3 * PRINT_DPI // 2)
        assert image.text["Title"] == "Cells → classes" and image.text["Software"].startswith("aecfe ")
        assert command_text() in image.text["Description"] and "0f3a" in image.text["Description"]
    pdf = saved["pdf"].read_bytes()
    assert b"/CIDFontType2" in pdf and b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert b"/Keywords (settings 0f3a)" in pdf and b"/Creator (aecfe " in pdf and b"Date" not in pdf
    assert pdf.count(b"/Subtype /Image") == 1
    content = json.loads(saved["json"].read_text())
    assert content["title"] == "Cells → classes" and content["command"] == command_text()
    assert content["config_hash"] == "0f3a" and list(content["inputs"].items()) == [("a.h5", "11"), ("b.h5", "22")]
    files = [saved["png"], saved["pdf"]]
    assert content["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert rcParams["pdf.fonttype"] == 3 and rcParams["image.composite_image"]  # matplotlib's settings are as before


def test_save_figure_gives_the_same_bytes_again(saved, tmp_path):
    figure = make_figure()
    first = {ending: path.read_bytes() for ending, path in saved.items()}
    for _ in range(2):  # of a figure of its own, and of one that was drawn before
        assert {ending: path.read_bytes() for ending, path in save(tmp_path, figure).items()} == first
    assert all(path.read_bytes() != first[ending] for ending, path in save(tmp_path, make_figure(4.0)).items())


def test_save_figure_that_cannot_be_drawn_leaves_no_file(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.text(0.5, 0.5, r"$\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save(tmp_path, figure)
    assert not list(tmp_path.iterdir())
