import anndata
import numpy as np
import pandas as pd
import pytest

from experiments.reports.quality import (
    REASONS,
    Limits,
    check_stores,
    choose_flagged,
    outlier_scores,
    robust_scores,
    write_flags,
)
from mrcnn.files.errors import InputError
from tests.experiments.reports.sample_stores import write_odd_store

PALE = np.full((128, 128, 3), 215, np.uint8)


def flags_of(path, limits=None, embedding=None):
    """Reasons of each flagged row of a store, and the whole check."""
    (check,) = check_stores({"river": path}, limits or Limits(), embedding)
    return {row: [flag.reason for flag in flags] for row, flags in check.by_row.items()}, check


@pytest.mark.parametrize(
    ("odd", "reasons", "described"),
    [
        ({}, [], []),
        ({"score": 0.7}, ["score"], ["low score: 0.70"]),
        ({"box": (139, 70, 199, 130)}, ["edge"], ["at the edge of the image: 1.0 px"]),
        ({"box": (70, 70, 130, 198.9)}, ["aspect", "size"], ["long and narrow box: 2.15 to 1", "larger"]),
        ({"box": (80, 80, 95, 95)}, ["size"], ["smaller"]),
        ({"crop": PALE}, ["contrast"], ["pale: robust z-score"]),
        ({"feature": 0.5}, ["outlier"], ["outlier: robust z-score"]),
    ],
)
def test_check_stores_finds_the_odd_cell_and_says_why(tmp_path, odd, reasons, described):
    write_odd_store(tmp_path / "river.h5", "river", {7: odd})
    flagged, check = flags_of(tmp_path / "river.h5")
    assert flagged == ({7: reasons} if reasons else {})
    assert all(text in flag.describe() for flag, text in zip(check.flags, described, strict=True))
    assert all(flag.severity >= 1 for flag in check.flags)
    assert [check.count(reason) for reason in REASONS] == [reasons.count(reason) for reason in REASONS]


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


def test_check_stores_takes_outliers_from_the_embedding_in_any_order(tmp_path):
    write_odd_store(tmp_path / "river.h5", "river", {7: {"feature": 0.5}})
    vectors = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    vectors[3] += 9
    order = np.random.default_rng(1).permutation(24)
    cells = {"centre": "river", "image_id": [f"images/{row:03d}.png" for row in order], "cell_type": "monocyte"}
    embedding = anndata.AnnData(vectors[order], obs=pd.DataFrame(cells, index=map(str, order)))
    embedding.write_h5ad(tmp_path / "e.h5ad")
    flagged, check = flags_of(tmp_path / "river.h5", embedding=tmp_path / "e.h5ad")
    assert flagged == {3: ["outlier"]}
    np.testing.assert_allclose(check.vectors, vectors, atol=1e-6)
    embedding[:23].write_h5ad(tmp_path / "few.h5ad")
    with pytest.raises(InputError, match="few.h5ad, centre river: lacks 1 of 24"):
        flags_of(tmp_path / "river.h5", embedding=tmp_path / "few.h5ad")
    embedding.obs["centre"] = "north"
    embedding.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(InputError, match=r"other.h5ad: has no cells of centre river \(it has north\); embed"):
        flags_of(tmp_path / "river.h5", embedding=tmp_path / "other.h5ad")


@pytest.mark.parametrize("count", [0, 1, 9])
def test_check_stores_says_nothing_of_outliers_among_few_cells(tmp_path, count):
    odd = {0: {"box": (80, 80, 95, 95), "score": 0.5}}
    write_odd_store(tmp_path / "river.h5", "river", odd, count=count, missed=(("a.png", "no detection"),))
    flagged, check = flags_of(tmp_path / "river.h5")
    assert flagged == ({0: ["score"]} if count else {})
    assert check.count("outlier") is None and check.counts["missed"] == 1


def test_robust_scores_are_standard_deviations_and_ignore_outliers():
    values = np.random.default_rng(0).normal(5, 2, 2000)
    values[0] = 1e3
    scores = robust_scores(values)
    assert 0.95 < scores[1:].std() < 1.05 and scores[0] > 400
    assert not robust_scores(np.ones(5)).any()


def test_outlier_scores_are_finite_for_copies_and_do_not_depend_on_the_unit():
    vectors = np.zeros((30, 4))
    vectors[0] = 5
    found = outlier_scores(vectors, 10)
    assert np.isfinite(found).all() and found[0] > 3.5 and np.all(found[1:] <= 0)
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_allclose(outlier_scores(vectors, 5), outlier_scores(1000 * vectors, 5), atol=1e-4)


def test_choose_flagged_gives_every_reason_its_share(tmp_path):
    odd = {row: {"box": (0, 70 + row, 60, 130 + row)} for row in range(20)} | {21: {"score": 0.5}, 22: {"score": 0.79}}
    write_odd_store(tmp_path / "river.h5", "river", odd)
    write_odd_store(tmp_path / "north.h5", "north", {4: {"score": 0.6}}, seed=1)
    stores = {"river": tmp_path / "river.h5", "north": tmp_path / "north.h5"}
    checks = check_stores(stores, Limits(max_deviation=1000))  # most boxes here have one size
    river, north = choose_flagged(checks, 4)
    assert river[0] == 21 and 0 in river and len(river) == 3 and north == [4]  # the worst of a centre comes first
    assert [sorted(rows) for rows in choose_flagged(checks, 1000)] == [[*range(20), 21, 22], [4]]


def test_write_flags_names_every_flag_and_every_missed_image(tmp_path):
    missed = (("a,b.png", "no detection above score 0.7"), ("c.png", "unreadable: cut short"))
    write_odd_store(tmp_path / "river.h5", "river", {7: {"score": 0.7, "box": (0, 70, 60, 130)}}, missed=missed)
    write_flags(tmp_path / "qc.csv", [flags_of(tmp_path / "river.h5")[1]])
    rows = pd.read_csv(tmp_path / "qc.csv", dtype=str, keep_default_na=False)
    assert rows[["image_id", "cell", "reason", "value"]].to_numpy().tolist() == [
        ["a,b.png", "", "missed", ""],
        ["c.png", "", "unreadable", ""],
        ["images/007.png", "1", "score", "0.7"],
        ["images/007.png", "1", "edge", "0"],
    ]
    assert rows["note"][1] == "unreadable: cut short" and rows["limit"][2] == "0.8" and rows["y2"][2] == "60.0"
    assert set(rows["centre"]) == {"river"}
