import re

import numpy as np
import pytest

from experiments.reports import qc as qc_page
from experiments.reports.qc import Shown, write_qc_page
from experiments.reports.quality import Limits, check_stores
from tests.experiments.reports.qc_stores import write_image, write_odd_store

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
    monkeypatch.setattr(qc_page, "project", lambda vectors, seed: (np.asarray(vectors, np.float32)[:, :2], "PLANE"))
    write_odd_store(tmp_path / "river.h5", "river", ODD, missed=MISSED, names={3: (HOSTILE, HOSTILE)})
    write_odd_store(tmp_path / "north.h5", "north", count=12, seed=1)

    def write(limits=None, shown=None, **options):
        limits, shown = limits or Limits(), shown or Shown()
        checks = check_stores({name: tmp_path / f"{name}.h5" for name in ("river", "north")}, limits)
        write_qc_page(tmp_path / "qc.html", checks, limits, shown, **options)
        text = (tmp_path / "qc.html").read_text(encoding="utf-8")
        text = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
        return re.sub(r"data:image/[^\"]*", "", text)

    return write


def row_of(text, name):
    """Numbers of a row of the table of numbers."""
    found = re.search(rf'<tr[^>]*><th scope="row">{re.escape(name)}</th>(.*?)</tr>', text)
    return re.findall(r"<td[^>]*>(.*?)</td>", found[1])


def test_write_qc_page_counts_per_centre(write_page):
    text = write_page()
    assert row_of(text, "images") == ["27", "12"] and row_of(text, "cells") == ["24", "12"]
    assert row_of(text, "without a cell (missed)") == ["2", "0"] and row_of(text, "unreadable") == ["1", "0"]
    assert row_of(text, "low score") == ["2", "0"] and row_of(text, "at the edge of the image") == ["1", "0"]
    assert row_of(text, "odd size") == ["1", "0"] and row_of(text, "duplicate") == ["0", "0"]
    assert row_of(text, "flagged for any reason") == ["3 (12.5 %)", "0 (0.0 %)"]


def test_write_qc_page_states_its_limits_and_where_vectors_come_from(write_page, tmp_path):
    text = write_page(Limits(min_score=0.75, edge=2, max_outlier=4.5, neighbours=7))
    for rule in ("detection score below 0.75", "box 2 px or less", "mean distance to the 7 nearest", "more than 4.5"):
        assert rule in text
    assert "since no embedding was given" in text and "PLANE of the detector&#x27;s features" in text
    text = write_page(embedding=tmp_path / "latents.h5ad")
    assert "in the latent space of latents.h5ad" in text and "no embedding" not in text
    assert "PLANE of the latents; all 36 cells" in text


def test_write_qc_page_names_reasons_and_values(write_page):
    text = write_page()
    assert "low score: 0.60</div><div>at the edge of the image: 0.0 px" in text
    assert re.search(r"odd size: \d+\.\d deviations smaller", text)
    assert text.count('alt="crop of a cell of') == 3


def test_write_qc_page_counts_what_it_leaves_out(write_page):
    text = write_page(shown=Shown(rows=2, points=10), flags_file="qc.csv")
    assert "2 of 3 flagged cells" in text and "the other 1 are in qc.csv" in text and "river (2 of 3)" in text
    assert "10 of 36 cells, chosen at random" in text
    assert "All 3 flagged cells" in write_page()


def test_write_qc_page_shows_missed_images_that_it_finds(write_page, tmp_path):
    text = write_page()
    assert "Give the folder of the images by --images" in text
    assert "river: missed images (2)" in text and "<code>images/a.png</code> no detection above" in text
    write_image(tmp_path / "smears" / "river" / "images" / "b.png")
    text = write_page(images=tmp_path / "smears")
    assert "river: missed images (1 of 2 shown)" in text and "river: missed images that are not shown (1)" in text
    assert "--images" not in text
    (tmp_path / "smears" / "river" / "images" / "b.png").write_bytes(b"damaged")
    assert "river: missed images (2)" in write_page(images=tmp_path / "smears")


def test_write_qc_page_escapes_every_name(write_page):
    text = write_page()
    assert "<img src=x" not in text and "onerror=alert(1)&gt;" in text
    # The reason of an unreadable file without the path, which its key tells already.
    assert "</code> cut short" in text and "/a/long/path" not in text


def test_write_qc_page_of_cells_that_are_alike_says_so(tmp_path, write_page):
    text = write_page(Limits(min_score=0, edge=0, max_deviation=1e3, max_outlier=1e3))
    assert "river (1 of 1)" in text  # the box at the very edge
    write_odd_store(tmp_path / "river.h5", "river", count=1)
    write_odd_store(tmp_path / "north.h5", "north", count=0)
    text = write_page()
    assert "No cell was flagged." in text and "A cell was found on every image." in text
    assert "Too few cells for a map." in text and "Fewer than 10 cells: river." in text
    assert "<script" not in (tmp_path / "qc.html").read_text(encoding="utf-8")
