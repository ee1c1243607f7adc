from dataclasses import replace

import numpy as np
import pytest

from experiments.cache import Cache
from experiments.evaluation import comparison as comparison_module
from experiments.evaluation.comparison import MAIN_PROBE, NETWORK, Column, Comparison, Protocol, compare_columns
from experiments.evaluation.transfer import make_cells
from mrcnn.files.errors import InputError

CENTRES = ("anna", "bert")
PROTOCOL = Protocol(runs=2, seed=0, bootstrap=200, jobs=1)


def cells_of(num_cells=60, classes=("a", "b", "c"), centres=CENTRES):
    """Cells of which every fifth is tested, and whose types take turns."""
    keys = {c: np.array([f"{i}.png" for i in range(num_cells)]) for c in centres}
    types = {c: np.array([classes[(i + len(classes) * i // 5) % len(classes)] for i in range(num_cells)]) for c in keys}
    parts = {c: np.where(np.arange(num_cells) % 5 == 0, "test", "train") for c in centres}
    return make_cells(keys, types, parts, classes)


def labels_column(cells, name="labels"):
    vectors = {c: np.eye(len(cells.classes), dtype=np.float32)[cells.class_numbers(t)] for c, t in cells.types.items()}
    return Column(name, (vectors,))


def hand_made(predictions, cells, **changes):
    """A comparison of predictions that somebody wrote down; the columns are those of the predictions."""
    columns = tuple(dict.fromkeys(column for column, _ in predictions))
    probes = tuple(dict.fromkeys(probe for _, probe in predictions if probe != NETWORK))
    values = {"columns": columns, "notes": {}, "probes": probes, "cells": cells, "protocol": PROTOCOL}
    return Comparison(**{**values, "predictions": predictions, "mixing": {}, **changes})


def small_cells(centres=CENTRES):
    """Each centre tests two cells of type a and one of type b."""
    types = {c: np.array(["a", "b", "a", "a", "b"]) for c in centres}
    parts = {c: np.array(["train", "train", "test", "test", "test"]) for c in centres}
    return make_cells({c: np.arange(5).astype(str) for c in centres}, types, parts)


@pytest.fixture
def all_knowing(monkeypatch):
    """Classifiers that name every tested cell rightly, without the time that learning takes."""

    def predict(trainings, cells, probe, *, runs, test_on, **others):
        return {pair: np.stack([cells.truth(pair, test_on)] * runs).astype(np.int16) for pair in cells.pairs}

    monkeypatch.setattr(comparison_module, "predict_pairs", predict)


@pytest.fixture
def quick(all_knowing, monkeypatch):
    """The same, and mixing scores of nothing."""
    monkeypatch.setattr(comparison_module, "mixing_scores", lambda *arguments: {"lisi_type": None})


def test_compare_columns_scores_a_column_of_labels_1_and_noise_at_chance(tmp_path):
    cells = cells_of(150)
    rng = np.random.default_rng(0)
    noise = Column("noise", ({c: rng.normal(size=(150, 4)).astype(np.float32) for c in CENTRES},), "noise: drawn.")
    comparison = compare_columns([labels_column(cells), noise], cells, PROTOCOL, Cache(tmp_path))
    assert comparison.columns == ("labels", "noise") and comparison.notes == {"noise": "noise: drawn."}
    assert comparison.probes == ("random-forest", "logistic", "linear-svm", "knn-1", "knn-20")
    for probe in comparison.probes:
        for across in (True, False):
            for measure in ("accuracy", "balanced_accuracy"):
                assert comparison.mean("labels", probe, measure, across) == (1, 1, 1)
                # 2 x 30 cells of 3 types: a deviation of 0.06.
                assert abs(comparison.mean("noise", probe, measure, across)[0] - 1 / 3) < 0.2
    difference = comparison.difference("labels", "noise", "accuracy", across=True)
    assert difference.is_clear and difference.mean == pytest.approx(
        1 - comparison.mean("noise", MAIN_PROBE, "accuracy", True)[0]
    )
    assert (difference.runs_better, difference.runs) == (2, 2)
    assert comparison.mixing["labels"]["silhouette_type"] > 0.9 > comparison.mixing["noise"]["silhouette_type"]


def test_means_and_differences_are_those_worked_out_by_hand():
    cells = small_cells()  # tested: a, a, b
    # First column, forest of two runs: anna on bert 3/3 and 2/3 right, bert on anna 1/3 in both.
    first = {
        ("anna", "anna"): np.array([[0, 0, 1], [0, 0, 1]]),
        ("anna", "bert"): np.array([[0, 0, 1], [0, 0, 0]]),
        ("bert", "anna"): np.array([[1, 1, 1], [1, 1, 1]]),
        ("bert", "bert"): np.array([[0, 0, 1], [0, 0, 1]]),
    }
    second = {pair: np.zeros((2, 3), int) for pair in first}  # a for every cell
    comparison = hand_made({("x", MAIN_PROBE): first, ("y", MAIN_PROBE): second}, cells)
    accuracy, balanced = (comparison.mean("x", MAIN_PROBE, m, True)[0] for m in ("accuracy", "balanced_accuracy"))
    assert accuracy == pytest.approx((5 / 6 + 1 / 3) / 2)
    # Recalls of a and b: 1 and 1/2 on bert, 0 and 1 on anna.
    assert balanced == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert comparison.mean("y", MAIN_PROBE, "accuracy", True)[0] == pytest.approx(2 / 3)
    difference = comparison.difference("x", "y", "accuracy", True)
    assert difference.mean == pytest.approx(accuracy - 2 / 3)
    # Run 0 has (1 + 1/3) / 2 = 2/3, as the other, and run 1 less.
    assert (difference.runs_better, difference.runs) == (0, 2)
    assert comparison.difference("x", "y", "accuracy", False).runs_better == 2
    assert comparison.recall("x", MAIN_PROBE, True)["a"][0] == pytest.approx(1 / 2)
    assert comparison.recall("x", MAIN_PROBE, True)["b"][0] == pytest.approx(3 / 4)
    assert comparison.confusion("x", MAIN_PROBE, True).tolist() == [[4, 4], [1, 3]]
    assert comparison.chance(True) == pytest.approx({"accuracy": 2 / 3, "balanced_accuracy": 1 / 2})
    assert comparison.pair_scores["x", MAIN_PROBE, ("anna", "bert")].values["accuracy"] == pytest.approx([1, 2 / 3])


def test_a_network_may_lack_pairs_and_give_other_names():
    cells = small_cells()
    network = {("anna", pair): np.array([[0, -1, -1]]) for pair in CENTRES}
    forest = {pair: np.array([[0, 0, 1]]) for pair in cells.pairs}
    comparison = hand_made({("net", NETWORK): network, ("x", MAIN_PROBE): forest}, cells)
    assert (comparison.main_probe("net"), comparison.main_probe("x")) == (NETWORK, MAIN_PROBE)
    assert comparison.has("x", MAIN_PROBE, True) and comparison.has("x", MAIN_PROBE, False)
    assert not comparison.has("net", NETWORK, True) and not comparison.has("net", NETWORK, False)
    assert not comparison.has("net", MAIN_PROBE, True) and not comparison.has("z", MAIN_PROBE, True)
    whole = hand_made({("net", NETWORK): {pair: np.array([[0, -1, -1]]) for pair in cells.pairs}}, cells)
    assert whole.has("net", NETWORK, True)
    assert whole.confusion("net", NETWORK, True).tolist() == [[2, 0], [0, 0]]
    assert whole.outside_classes("net", NETWORK, True).tolist() == [2, 2]


def test_a_centre_without_labels_mixes_and_is_not_scored(tmp_path, all_knowing):
    cells = cells_of()
    types = {**cells.types, "carl": np.full(60, "")}
    parts = {**cells.parts, "carl": np.full(60, "")}
    cells = make_cells({**cells.image_ids, "carl": cells.image_ids["anna"]}, types, parts)
    rng = np.random.default_rng(0)
    vectors = {c: rng.normal(size=(60, 3)) + 20 * (c == "carl") for c in types}
    columns = [Column("all", (vectors,)), Column("labelled", ({c: vectors[c] for c in CENTRES},))]
    comparison = compare_columns(columns, cells, PROTOCOL, Cache(tmp_path))
    assert {pair for by_pair in comparison.predictions.values() for pair in by_pair} == set(cells.pairs)
    assert cells.centres == CENTRES
    # carl lies far from the others, and the second column says nothing of it.
    assert comparison.mixing["all"]["proxy_a_distance"] > comparison.mixing["labelled"]["proxy_a_distance"] + 0.5


NUM_RESULTS = 5 + 1  # each classifier's names, and the mixing scores


def made(folder, column, cells, protocol=PROTOCOL, **options):
    cache = Cache(folder, **options)
    compare_columns([column], cells, protocol, cache)
    return cache.num_made


def test_results_are_read_again_for_the_same_inputs_alone(tmp_path, quick):
    cells = cells_of()
    column = labels_column(cells)
    assert made(tmp_path, column, cells) == NUM_RESULTS
    assert made(tmp_path, column, cells) == 0
    # Neither the heading nor the cores nor the number of resamples change what is named.
    same = replace(PROTOCOL, bootstrap=300, jobs=2)
    assert made(tmp_path, replace(column, name="other", note="other"), cells, same) == 0
    assert made(tmp_path, column, cells, overwrite=True) == NUM_RESULTS


@pytest.mark.parametrize("what", ["vectors", "types", "split", "classes", "runs", "seed", "test_on"])
def test_results_are_computed_again_when_an_input_changes(tmp_path, quick, what):
    cells = cells_of()
    column = labels_column(cells)
    made(tmp_path, column, cells)
    protocol, expected = PROTOCOL, NUM_RESULTS
    if what == "vectors":
        vectors = {c: v.copy() for c, v in column.trainings[0].items()}
        vectors["bert"][7, 0] += 0.5
        column = Column("labels", (vectors,))
    elif what == "types":
        types = {**cells.types, "anna": np.roll(cells.types["anna"], 1)}
        cells = make_cells(cells.image_ids, types, cells.parts, cells.classes)
    elif what == "split":
        parts = {**cells.parts, "anna": np.roll(cells.parts["anna"], 1)}
        cells = make_cells(cells.image_ids, cells.types, parts, cells.classes)
    elif what == "classes":
        cells = make_cells(cells.image_ids, cells.types, cells.parts, cells.classes[::-1])
    else:
        protocol = replace(PROTOCOL, **{what: {"runs": 1, "seed": 1, "test_on": "all"}[what]})
        # Mixing depends on the seed alone.
        expected = NUM_RESULTS if what == "seed" else NUM_RESULTS - 1
    assert made(tmp_path, column, cells, protocol) == expected
    assert made(tmp_path, column, cells, protocol) == 0


def test_compare_columns_names_a_column_that_does_not_fit(tmp_path):
    cells = cells_of()
    column = labels_column(cells)
    with pytest.raises(InputError, match="two columns are called labels; give one"):
        compare_columns([column, column], cells, PROTOCOL, Cache(tmp_path))
    lacking = Column("half", ({"anna": column.trainings[0]["anna"]},))
    with pytest.raises(InputError, match="column half: no features of centre bert"):
        compare_columns([lacking], cells, PROTOCOL, Cache(tmp_path))
    assert not list(tmp_path.rglob("*.npz"))


def test_standardising_mends_a_shifted_centre(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.evaluation.classifiers.NUM_TREES", 10)
    cells = cells_of(classes=("a", "b"))
    good = labels_column(cells).trainings[0]
    column = Column("x", ({"anna": good["anna"], "bert": good["bert"] + 50},))
    comparison = compare_columns(
        [column, column.standardised()], cells, replace(PROTOCOL, name="random-forest"), Cache(tmp_path)
    )
    assert comparison.mean("x", MAIN_PROBE, "balanced_accuracy", True)[0] == 0.5
    assert comparison.mean("x (std)", MAIN_PROBE, "accuracy", False)[0] == 1
    assert comparison.probes == (MAIN_PROBE,) and list(comparison.mixing) == ["x", "x (std)"]
