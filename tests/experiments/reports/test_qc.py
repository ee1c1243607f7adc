import csv

import anndata
import numpy as np
import pandas as pd
import pytest

from aecfe.cli import main
from experiments.reports.qc import find_image
from experiments.reports.quality import (
    REASONS,
    Limits,
    cell_numbers,
    check_stores,
    choose_flagged,
    outlier_deviations,
    write_flags,
)
from mrcnn.feature_store.shards import Shard
from mrcnn.files.errors import InputError
from tests.experiments.reports.qc_stores import write_image, write_odd_store

PALE = np.full((128, 128, 3), 215, np.uint8)


def flags_of(path, limits=None, embedding=None):
    """Reasons of each flagged row of a store."""
    (check,) = check_stores({"river": path}, limits or Limits(), embedding)
    return {row: [flag.reason for flag in flags] for row, flags in check.by_row.items()}, check


def write_embedding(path, centres, vectors, keys):
    obs = pd.DataFrame({"centre": centres, "key": keys, "cell_type": "monocyte"}, index=map(str, range(len(keys))))
    anndata.AnnData(np.asarray(vectors, np.float32), obs=obs).write_h5ad(path)


def test_check_stores_flags_nothing_among_like_cells(tmp_path):
    write_odd_store(tmp_path / "river.h5", "river")
    flagged, check = flags_of(tmp_path / "river.h5")
    assert flagged == {}
    assert check.counts["cells"] == 24 and check.has_outliers
    assert check.by_reason == dict.fromkeys(REASONS, 0)


@pytest.mark.parametrize(
    ("odd", "reasons", "value"),
    [
        ({"score": 0.7}, ["score"], 0.7),
        ({"box": (0.5, 70, 60.5, 130)}, ["edge"], 0.5),
        ({"box": (139, 70, 199, 130)}, ["edge"], 1.0),
        ({"box": (70, 70, 130, 198.9)}, ["aspect", "size"], 128.9 / 60),
        ({"box": (80, 80, 95, 95)}, ["size"], None),
        ({"crop": PALE}, ["contrast"], None),
        ({"feature": 0.5}, ["outlier"], None),
    ],
)
def test_check_stores_finds_the_odd_cell_and_says_why(tmp_path, odd, reasons, value):
    write_odd_store(tmp_path / "river.h5", "river", {7: odd})
    flagged, check = flags_of(tmp_path / "river.h5")
    assert flagged[7] == reasons and len(flagged) == 1
    if value is not None:
        assert check.flags[0].value == pytest.approx(value, abs=1e-4)
    assert all(flag.severity >= 1 for flag in check.flags)


def test_check_stores_tells_small_boxes_from_large_ones(tmp_path):
    write_odd_store(tmp_path / "river.h5", "river", {3: {"box": (80, 80, 95, 95)}, 4: {"box": (40, 40, 140, 140)}})
    _, check = flags_of(tmp_path / "river.h5")
    assert [(flag.row, flag.value > 0) for flag in check.flags] == [(3, False), (4, True)]


def test_check_stores_keeps_the_limits_it_is_given(tmp_path):
    write_odd_store(tmp_path / "river.h5", "river", {7: {"score": 0.7}, 8: {"box": (4, 70, 64, 130)}})
    assert set(flags_of(tmp_path / "river.h5", Limits(min_score=0.6))[0]) == set()
    assert set(flags_of(tmp_path / "river.h5", Limits(min_score=0.6, edge=5))[0]) == {8}
    assert set(flags_of(tmp_path / "river.h5", Limits(max_aspect=1.0))[0]) >= set(range(20)) - {8}


def test_check_stores_finds_duplicates_across_centres(tmp_path):
    crops = write_odd_store(tmp_path / "river.h5", "river")
    write_odd_store(tmp_path / "north.h5", "north", {2: {"crop": crops[9]}}, seed=1)
    river, north = check_stores({"river": tmp_path / "river.h5", "north": tmp_path / "north.h5"}, Limits())
    assert [(flag.row, flag.note) for flag in river.flags] == [(9, "the same picture as north/images/002.png")]
    assert [(flag.row, flag.reason) for flag in north.flags] == [(2, "duplicate")]


def test_check_stores_takes_outliers_from_the_embedding(tmp_path):
    write_odd_store(tmp_path / "river.h5", "river", {7: {"feature": 0.5}})
    vectors = np.random.default_rng(0).normal(size=(24, 5))
    vectors[3] += 9
    keys = [f"images/{row:03d}.png" for row in range(24)]
    order = np.random.default_rng(1).permutation(24)  # rows of the embedding stand in another order
    write_embedding(tmp_path / "e.h5ad", "river", vectors[order], np.array(keys)[order])
    flagged, check = flags_of(tmp_path / "river.h5", embedding=tmp_path / "e.h5ad")
    assert flagged == {3: ["outlier"]}
    assert np.allclose(check.vectors, vectors, atol=1e-6)


def test_check_stores_refuses_an_embedding_of_other_cells(tmp_path):
    write_odd_store(tmp_path / "river.h5", "river")
    keys = [f"images/{row:03d}.png" for row in range(24)]
    write_embedding(tmp_path / "other.h5ad", "north", np.ones((24, 2)), keys)
    with pytest.raises(InputError, match=r"other.h5ad: has no cells of centre river \(it has north\); embed"):
        flags_of(tmp_path / "river.h5", embedding=tmp_path / "other.h5ad")
    write_embedding(tmp_path / "few.h5ad", "river", np.ones((23, 2)), keys[:23])
    with pytest.raises(InputError, match="few.h5ad, centre river: lacks 1 of 24 keys"):
        flags_of(tmp_path / "river.h5", embedding=tmp_path / "few.h5ad")


@pytest.mark.parametrize("count", [0, 1, 9])
def test_check_stores_says_nothing_of_likeness_among_few_cells(tmp_path, count):
    odd = {0: {"box": (80, 80, 95, 95), "score": 0.5}}
    write_odd_store(tmp_path / "river.h5", "river", odd, count=count, missed=(("a.png", "no detection"),))
    flagged, check = flags_of(tmp_path / "river.h5")
    assert flagged == ({0: ["score"]} if count else {})
    assert not check.has_outliers and check.counts["missed"] == 1


def test_outlier_deviations_of_copies_are_finite():
    vectors = np.zeros((30, 4))
    vectors[0] = 5
    found = outlier_deviations(vectors, 10)
    assert np.isfinite(found).all() and found[0] > 3.5 and np.all(found[1:] <= 0)


def test_outlier_deviations_do_not_depend_on_the_unit():
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    # Of logarithms, a factor is an offset.
    assert np.allclose(outlier_deviations(vectors, 5), outlier_deviations(1000 * vectors, 5), atol=1e-4)


def test_cell_numbers_count_within_an_image():
    assert cell_numbers(["a", "b", "a", "a"]).tolist() == [1, 1, 2, 3]


def test_choose_flagged_gives_every_reason_its_share(tmp_path):
    odd = {row: {"box": (0, 70 + row, 60, 130 + row)} for row in range(20)} | {21: {"score": 0.5}, 22: {"score": 0.79}}
    write_odd_store(tmp_path / "river.h5", "river", odd)
    write_odd_store(tmp_path / "north.h5", "north", {4: {"score": 0.6}}, seed=1)
    stores = {"river": tmp_path / "river.h5", "north": tmp_path / "north.h5"}
    checks = check_stores(stores, Limits(max_deviation=1000))  # most boxes here have one size
    assert len(checks[0].by_row) == 22
    chosen = choose_flagged(checks, 4)
    assert len(chosen) == 4 and {(0, 21), (0, 0), (1, 4)} <= set(chosen)
    # The worst of a centre comes first.
    assert chosen[0] == (0, 21) and chosen[-1] == (1, 4)
    assert sorted(choose_flagged(checks, 1000)) == [(0, row) for row in (*range(20), 21, 22)] + [(1, 4)]


def test_write_flags_names_every_flag_and_every_missed_image(tmp_path):
    missed = (("a,b.png", "no detection above score 0.7"), ("c.png", "unreadable: cut short"))
    write_odd_store(tmp_path / "river.h5", "river", {7: {"score": 0.7, "box": (0, 70, 60, 130)}}, missed=missed)
    _, check = flags_of(tmp_path / "river.h5")
    write_flags(tmp_path / "qc.csv", [check])
    with open(tmp_path / "qc.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["key"], row["cell"], row["reason"], row["value"]) for row in rows] == [
        ("a,b.png", "", "missed", ""),
        ("c.png", "", "unreadable", ""),
        ("images/007.png", "1", "score", "0.7"),
        ("images/007.png", "1", "edge", "0"),
    ]
    assert rows[1]["note"] == "unreadable: cut short" and rows[2]["limit"] == "0.8" and rows[2]["y2"] == "60.0"
    assert {row["centre"] for row in rows} == {"river"} and None not in rows[0]


@pytest.mark.parametrize(("folder", "key"), [(".", "images/a.png"), ("..", "images/a.png"), ("images", "images/a.png")])
def test_find_image_takes_the_centre_its_parent_and_its_images(tmp_path, folder, key):
    write_image(tmp_path / "river" / "images" / "a.png")
    found = find_image(tmp_path / "river" / folder, "river", key)
    assert found is not None and found.samefile(tmp_path / "river" / "images" / "a.png")


@pytest.mark.parametrize("key", ["../secret.png", "images/../../secret.png", "", "/etc/hostname"])
def test_find_image_does_not_leave_the_folder(tmp_path, key):
    write_image(tmp_path / "secret.png")
    (tmp_path / "river" / "images").mkdir(parents=True)
    assert find_image(tmp_path / "river", "..", key) is None


def test_qc_command_takes_shards_and_writes_page_and_flags(tmp_path, capsys):
    odd = {7: {"score": 0.7}, 10: {"box": (0, 70, 60, 130)}}
    shards = [tmp_path / f"{number}.h5" for number in (1, 2)]
    for number, path in enumerate(shards, 1):
        write_odd_store(path, "river", odd, count=11, shard=Shard(number, 2))
    write_odd_store(tmp_path / "whole.h5", "river", odd, count=11)
    for name, stores in (("shards", shards[::-1]), ("whole", [tmp_path / "whole.h5"])):
        assert main(["qc", *map(str, stores), "-o", str(tmp_path / name / "qc.html")]) == 0
        assert "2 cells to look at" in capsys.readouterr().out
    pages = [(tmp_path / name / "qc.html").read_bytes() for name in ("shards", "whole")]
    assert pages[0] == pages[1]
    assert (tmp_path / "shards" / "qc.csv").read_text() == (tmp_path / "whole" / "qc.csv").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "qc.csv"], "-o qc.csv: the flags are written beside the page with this ending; end it in .html"),
        (["-o", "qc.html", "--min-score", "80"], "--min-score must lie between 0 and 1; got 80"),
        (["-o", "qc.html", "--max-aspect", "nan"], "--max-aspect must lie between 1 and 1e+06; got nan"),
        (["-o", "qc.html", "--images", "gone"], "--images gone: no such folder"),
        (["-o", "qc.html", "--embedding", "gone.h5ad"], "gone.h5ad: no such embedding"),
    ],
)
def test_qc_command_tells_mistakes_in_a_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write_odd_store(tmp_path / "river.h5", "river", count=2)
    assert main(["qc", "river.h5", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"aecfe: error: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["river.h5"]
