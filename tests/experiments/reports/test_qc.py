import re

import pytest

from aecfe.cli import main
from experiments.reports import qc
from experiments.reports.qc import Shown, find_image, write_qc_page
from experiments.reports.quality import Limits, check_stores
from mrcnn.feature_store.shards import Shard
from tests.experiments.reports.sample_stores import first_plane, write_image, write_odd_store

HOSTILE = "\"><img src=x onerror=alert(1)>'&amp;.png"
ODD = {3: {"score": 0.7}, 4: {"score": 0.6, "box": (0, 70, 60, 130)}, 5: {"box": (80, 80, 95, 95)}}
MISSED = (
    ("images/a.png", "no detection above score 0.7"),
    ("images/b.png", "no detection above score 0.7"),
    (f"lost/{HOSTILE}", f"unreadable: /a/long/path/lost/{HOSTILE}: cut short"),
)


@pytest.fixture
def write_page(tmp_path, monkeypatch):
    """Function of options that writes the page of two centres and returns its text without pictures and scripts."""
    monkeypatch.setattr(qc, "project", first_plane)
    write_odd_store(tmp_path / "river.h5", "river", ODD, missed=MISSED, names={3: (HOSTILE, HOSTILE)})
    write_odd_store(tmp_path / "north.h5", "north", count=12, seed=1)

    def write(limits=None, shown=None, **options):
        limits, shown = limits or Limits(), shown or Shown()
        checks = check_stores({name: tmp_path / f"{name}.h5" for name in ("river", "north")}, limits)
        write_qc_page(tmp_path / "qc.html", checks, limits, shown, **options)
        text = (tmp_path / "qc.html").read_text(encoding="utf-8")
        text = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
        return " ".join(re.sub(r"data:image/[^\"]*", "", text).split())

    return write


def test_write_qc_page_counts_per_centre_and_names_reasons(write_page):
    text = write_page()
    rows = re.findall(r'<tr[^>]*><th scope="row">([^<]*)</th>(.*?)</tr>', text)
    numbers = {name: re.findall(r'<td class="number">(.*?)</td>', cells) for name, cells in rows[:13]}
    assert numbers == {
        **{"images": ["27", "12"], "with a cell": ["24", "12"], "without a cell (missed)": ["2", "0"]},
        **{"unreadable": ["1", "0"], "cells": ["24", "12"], "low score": ["2", "0"]},
        **{"at the edge of the image": ["1", "0"], "long and narrow box": ["0", "0"], "odd size": ["1", "0"]},
        **{"pale": ["0", "0"], "outlier": ["0", "0"], "duplicate": ["0", "0"]},
        "flagged for any reason": ["3 (12.5 %)", "0 (0.0 %)"],
    }
    assert "low score: 0.60</div><div>at the edge of the image: 0.0 px" in text
    assert text.count('alt="crop of a cell of') == 3
    # Names are escaped; the reason of an unreadable file is without the path, which its name tells already.
    assert "<img src=x" not in text and "onerror=alert(1)&gt;" in text
    assert "</code> cut short" in text and "/a/long/path" not in text


def test_write_qc_page_states_its_limits_and_where_vectors_come_from(write_page, tmp_path):
    text = write_page(Limits(min_score=0.75, edge=2, max_outlier=4.5, neighbours=7))
    for rule in ("score below the minimum score of 0.75", "box 2 px or less", "the 7 nearest", "z-score above 4.5"):
        assert rule in text
    assert "since no embedding was given" in text and "PLANE of the detector&#39;s features" in text
    text = write_page(embedding=tmp_path / "latents.h5ad")
    assert "in the latent space of latents.h5ad" in text and "no embedding" not in text
    assert "PLANE of the latents; all 36 cells" in text and "All 3 flagged cells" in text


def test_write_qc_page_counts_what_it_leaves_out(write_page):
    text = write_page(shown=Shown(rows=2, points=10), flags_file="qc.csv")
    assert "2 of 3 flagged cells" in text and "the other 1 are in qc.csv" in text and "river (2 of 3)" in text
    assert "10 of 36 cells, chosen at random" in text


def test_write_qc_page_shows_missed_images_that_it_finds(write_page, tmp_path):
    text = write_page()
    assert "Give the folder of the images by --images" in text
    assert "river: missed images (2)" in text and "<code>images/a.png</code> no detection above" in text
    image = tmp_path / "smears" / "river" / "images" / "b.png"
    write_image(image)
    text = write_page(images=tmp_path / "smears")
    assert "river: missed images (1 of 2 shown)" in text and "river: missed images that are not shown (1)" in text
    assert "--images" not in text
    image.write_bytes(b"damaged")
    assert "river: missed images (2)" in write_page(images=tmp_path / "smears")


def test_write_qc_page_of_few_cells_says_what_it_cannot_tell(tmp_path, write_page):
    write_odd_store(tmp_path / "river.h5", "river", count=1)
    write_odd_store(tmp_path / "north.h5", "north", count=0)
    text = write_page()
    assert "No cell was flagged." in text and "A cell was found on every image." in text
    assert "Too few cells for a map." in text and "Fewer than 10 cells: river." in text
    assert "<script" not in (tmp_path / "qc.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", [".", "..", "images"])
def test_find_image_takes_the_centre_its_parent_and_its_images(tmp_path, folder):
    write_image(tmp_path / "river" / "images" / "a.png")
    write_image(tmp_path / "secret.png")
    found = find_image(tmp_path / "river" / folder, "river", "images/a.png")
    assert found is not None and found.samefile(tmp_path / "river" / "images" / "a.png")
    for image_id in ("../secret.png", "images/../../secret.png", "", "/etc/hostname"):
        assert find_image(tmp_path / "river", "..", image_id) is None


def test_qc_command_takes_shards_and_writes_page_and_flags(tmp_path, capsys):
    odd = {7: {"score": 0.7}, 10: {"box": (0, 70, 60, 130)}}
    shards = [tmp_path / f"{number}.h5" for number in (1, 2)]
    for number, path in enumerate(shards, 1):
        write_odd_store(path, "river", odd, count=11, shard=Shard(number, 2))
    write_odd_store(tmp_path / "whole.h5", "river", odd, count=11)
    for name, stores in (("shards", shards[::-1]), ("whole", [tmp_path / "whole.h5"])):
        assert main(["qc", *map(str, stores), "-o", str(tmp_path / name / "qc.html")]) == 0
        assert "2 cells to look at" in capsys.readouterr().out
    for name in ("qc.html", "qc.csv"):
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["-o", "qc.csv"], "-o qc.csv"),
        (["-o", "qc.html", "--max-aspect", "nan"], "--max-aspect"),
        (["-o", "qc.html", "--images", "gone"], "--images gone"),
        (["-o", "qc.html", "--embedding", "gone.h5ad"], "gone.h5ad"),
    ],
)
def test_qc_command_tells_mistakes_in_a_line(tmp_path, monkeypatch, capsys, options, named):
    monkeypatch.chdir(tmp_path)
    write_odd_store(tmp_path / "river.h5", "river", count=2)
    try:
        status = main(["qc", "river.h5", *options])
    except SystemExit as end:
        status = end.code
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2 and named in line
    assert [path.name for path in tmp_path.iterdir()] == ["river.h5"]
