from dataclasses import replace

import numpy as np
import pytest

from experiments.cache import Cache
from experiments.evaluation import comparison as comparison_module
from experiments.evaluation.classifiers import PROTOCOLS
from experiments.evaluation.comparison import (
    MAIN_PROBE,
    NETWORK,
    Column,
    Comparison,
    Protocol,
    choose_standardised,
    compare_columns,
)
from experiments.evaluation.transfer import make_cells, predict_pairs
from mrcnn.files.errors import InputError

CENTRES = ("anna", "bert")
PROBES = {probe.name: probe for probe in PROTOCOLS["thesis"]}
PROTOCOL = Protocol(runs=2, seed=0, bootstrap=200, jobs=1)


def cells_of(num_cells=60, classes=("a", "b", "c")):
    """Cells of which every fifth is tested, and whose types take turns."""
    image_ids = {c: np.array([f"{i}.png" for i in range(num_cells)]) for c in CENTRES}
    types = np.array([classes[(i + len(classes) * i // 5) % len(classes)] for i in range(num_cells)])
    parts = np.where(np.arange(num_cells) % 5 == 0, "test", "train")
    return make_cells(image_ids, dict.fromkeys(CENTRES, types), dict.fromkeys(CENTRES, parts), classes)


def one_hot(cells):
    return {c: np.eye(len(cells.classes), dtype=np.float32)[cells.class_numbers(t)] for c, t in cells.types.items()}


def small_cells():
    """Each centre tests two cells of type a and one of type b."""
    types, parts = np.array(["a", "b", "a", "a", "b"]), np.array(["train", "train", "test", "test", "test"])
    return make_cells(*(dict.fromkeys(CENTRES, each) for each in (np.arange(5), types, parts)))


def hand_made(predictions):
    """A comparison of predictions on `small_cells` that somebody wrote down."""
    columns, probes = (tuple(dict.fromkeys(names)) for names in zip(*predictions, strict=True))
    return Comparison(columns, {}, probes, small_cells(), PROTOCOL, predictions, {})


def predict(cells, *trainings, probe="knn-1", runs=1, **options):
    return predict_pairs(trainings, cells, PROBES[probe], runs=runs, seed=0, **options)


def test_predict_pairs_tests_the_other_centre_whole_where_asked():
    cells = cells_of()
    assert {pair: runs.shape[1] for pair, runs in predict(cells, one_hot(cells), test_on="all").items()} == {
        ("anna", "anna"): 12, ("anna", "bert"): 60, ("bert", "anna"): 60, ("bert", "bert"): 12
    }  # fmt: skip


def test_predict_pairs_never_learns_from_test_cells():
    cells = cells_of()
    wrong = one_hot(cells)
    # Vectors of test cells say another type in the training centre: whoever learned from them would err on the others.
    for centre in CENTRES:
        is_test = cells.parts[centre] == "test"
        wrong[centre][is_test] = np.roll(wrong[centre][is_test], 1, axis=1)
    for pair, runs in predict(cells, wrong).items():
        assert np.array_equal(runs[0], (cells.truth(pair, "test") + 1) % 3)


def test_predict_pairs_takes_the_trainings_in_turn():
    cells = cells_of()
    good = one_hot(cells)
    shifted = {"anna": good["anna"], "bert": np.roll(good["bert"], 1, axis=1)}
    named = predict(cells, good, shifted, probe="random-forest", runs=3)["anna", "bert"]
    truth = cells.truth(("anna", "bert"), "test")
    assert np.array_equal(named, [truth, (truth + 1) % 3, truth])


def test_predict_pairs_makes_one_run_where_nothing_is_random():
    cells = cells_of()
    found = {name: len(predict(cells, one_hot(cells), probe=name, runs=3)["anna", "bert"]) for name in PROBES}
    assert found == {**dict.fromkeys(PROBES, 1), "random-forest": 3}


def test_a_type_that_the_training_centre_lacks_is_predicted_wrong():
    types = {"anna": np.array(["a"] * 5 + ["b"] * 5), "bert": np.array(["a"] * 5 + ["c"] * 5)}
    parts = dict.fromkeys(CENTRES, np.array(["train", "test", "train", "test", "train"] * 2))
    cells = make_cells(dict.fromkeys(CENTRES, np.arange(10)), types, parts)
    pair = ("anna", "bert")
    assert (predict(cells, one_hot(cells))[pair] == cells.truth(pair, "test")).mean() == 0.5


def test_make_cells_refuses_centres_that_cannot_be_scored():
    for types, parts, classes, error, message in (
        (["", ""], ["train", "test"], None, InputError, "no centre has a labelled cell"),
        (["a", "a"], ["train", "train"], None, InputError, "centre anna: no labelled cell in its test part"),
        (["a", "a"], ["train", "test"], ["b"], ValueError, "'a' is not in list"),
    ):
        with pytest.raises(error, match=message):
            make_cells({"anna": ["1", "2"]}, {"anna": types}, {"anna": parts}, classes)


def test_predict_pairs_refuses_vectors_that_do_not_fit():
    cells = cells_of()
    vectors = one_hot(cells)
    with pytest.raises(ValueError, match="bert: 5 vectors for 60 cells"):
        predict(cells, {**vectors, "bert": vectors["bert"][:5]})
    vectors["bert"][3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        predict(cells, vectors)


@pytest.fixture
def all_knowing(monkeypatch):
    """Classifiers that name every tested cell rightly, without the time that learning takes."""

    def predict(trainings, cells, probe, *, runs, test_on, **others):
        return {pair: np.stack([cells.truth(pair, test_on)] * runs).astype(np.int16) for pair in cells.pairs}

    monkeypatch.setattr(comparison_module, "predict_pairs", predict)


def test_compare_columns_scores_a_column_of_labels_1_and_noise_at_chance(tmp_path):
    cells, rng = cells_of(150), np.random.default_rng(0)
    noise = Column("noise", ({c: rng.normal(size=(150, 4)).astype(np.float32) for c in CENTRES},), "noise: drawn.")
    comparison = compare_columns([Column("labels", (one_hot(cells),)), noise], cells, PROTOCOL, Cache(tmp_path))
    assert comparison.columns == ("labels", "noise") and comparison.notes == {"noise": "noise: drawn."}
    assert comparison.probes == tuple(PROBES)
    for probe in comparison.probes:
        for across in (True, False):
            for measure in ("accuracy", "balanced_accuracy"):
                assert comparison.mean("labels", measure, across, probe) == (1, 1, 1)
                # 2 x 30 cells of 3 types: a deviation of 0.06.
                assert abs(comparison.mean("noise", measure, across, probe)[0] - 1 / 3) < 0.2
    difference = comparison.difference("labels", "noise", "accuracy", across=True)
    assert difference.is_clear and (difference.runs_better, difference.runs) == (2, 2)
    assert difference.mean == pytest.approx(1 - comparison.mean("noise", "accuracy", True)[0])
    assert comparison.mixing["labels"]["silhouette_type"] > 0.9 > comparison.mixing["noise"]["silhouette_type"]


def test_means_and_differences_are_those_worked_out_by_hand():
    # Tested: a, a, b. First column, forest of two runs: anna on bert 3/3 and 2/3 right, bert on anna 1/3 in both.
    first = {
        ("anna", "anna"): np.array([[0, 0, 1], [0, 0, 1]]),
        ("anna", "bert"): np.array([[0, 0, 1], [0, 0, 0]]),
        ("bert", "anna"): np.array([[1, 1, 1], [1, 1, 1]]),
        ("bert", "bert"): np.array([[0, 0, 1], [0, 0, 1]]),
    }
    second = {pair: np.zeros((2, 3), int) for pair in first}  # a for every cell
    comparison = hand_made({("x", MAIN_PROBE): first, ("y", MAIN_PROBE): second})
    accuracy, balanced = (comparison.mean("x", m, True)[0] for m in ("accuracy", "balanced_accuracy"))
    assert accuracy == pytest.approx((5 / 6 + 1 / 3) / 2)
    # Recalls of a and b: 1 and 1/2 on bert, 0 and 1 on anna.
    assert balanced == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert comparison.mean("y", "accuracy", True)[0] == pytest.approx(2 / 3)
    difference = comparison.difference("x", "y", "accuracy", True)
    assert difference.mean == pytest.approx(accuracy - 2 / 3)
    # Run 0 has (1 + 1/3) / 2 = 2/3, as the other, and run 1 less.
    assert (difference.runs_better, difference.runs) == (0, 2)
    assert comparison.difference("x", "y", "accuracy", False).runs_better == 2
    assert {name: recall[0] for name, recall in comparison.recall("x", True).items()} == {"a": 1 / 2, "b": 3 / 4}
    assert comparison.confusion("x", True).tolist() == [[4, 4, 0], [1, 3, 0], [0, 0, 0]]
    assert comparison.chance(*comparison.pairs(True)) == pytest.approx({"accuracy": 2 / 3, "balanced_accuracy": 1 / 2})
    assert comparison.pair_scores["x", MAIN_PROBE, ("anna", "bert")]["accuracy"]["runs"] == pytest.approx([1, 2 / 3])


def test_a_network_may_lack_pairs_and_give_other_names():
    cells, named = small_cells(), np.array([[0, -1, -1]])
    network = {pair: named for pair in cells.pairs}
    part = {pair: named for pair in cells.pairs if pair[0] == "anna"}
    comparison = hand_made({("net", NETWORK): part, ("x", MAIN_PROBE): network})
    assert (comparison.main_probe("net"), comparison.main_probe("x")) == (NETWORK, MAIN_PROBE)
    for across in (True, False):
        assert comparison.mean("x", "accuracy", across) and comparison.recall("x", across)
        assert not comparison.predicted("net", across) and not comparison.predicted("z", across)
        assert comparison.mean("net", "accuracy", across) is None and comparison.recall("net", across) == {}
        assert comparison.difference("net", "x", "accuracy", across) is None
    assert hand_made({("net", NETWORK): network}).confusion("net", True).tolist() == [[2, 0, 2], [0, 0, 2], [0, 0, 0]]


def test_a_centre_without_labels_mixes_and_is_not_scored(tmp_path, all_knowing):
    cells = cells_of()
    types, parts = ({**each, "carl": np.full(60, "")} for each in (cells.types, cells.parts))
    cells = make_cells({**cells.image_ids, "carl": cells.image_ids["anna"]}, types, parts)
    rng = np.random.default_rng(0)
    vectors = {c: rng.normal(size=(60, 3)) + 20 * (c == "carl") for c in types}
    columns = [Column("all", (vectors,)), Column("labelled", ({c: vectors[c] for c in CENTRES},))]
    comparison = compare_columns(columns, cells, PROTOCOL, Cache(tmp_path))
    assert {pair for by_pair in comparison.predictions.values() for pair in by_pair} == set(cells.pairs)
    assert cells.centres == CENTRES
    # carl lies far from the others, and the second column says nothing of it.
    assert comparison.mixing["all"]["proxy_a_distance"] > comparison.mixing["labelled"]["proxy_a_distance"] + 0.5


def test_results_are_read_again_for_the_same_inputs_alone(tmp_path, all_knowing, monkeypatch):
    monkeypatch.setattr(comparison_module, "mixing_scores", lambda *arguments: {"lisi_type": None})
    cells = cells_of()
    column = Column("labels", (one_hot(cells),))

    def made(column=column, cells=cells, overwrite=False, **changes):
        cache = Cache(tmp_path, overwrite=overwrite)
        compare_columns([column], cells, replace(PROTOCOL, **changes), cache)
        return cache.num_made

    everything = 5 + 1  # each classifier's names, and the mixing scores
    assert made() == everything
    # Neither names and notes nor the cores nor the number of resamples change what is predicted.
    assert made(replace(column, name="other", note="other"), bootstrap=300, jobs=2) == 0
    moved, types, parts = one_hot(cells), dict(cells.types), dict(cells.parts)
    moved["bert"][7, 0] += 0.5
    types["anna"], parts["anna"] = np.roll(types["anna"], 1), np.roll(parts["anna"], 1)
    changes = [{"column": Column("labels", (moved,))}, {"seed": 1}]
    changes += [{"cells": replace(cells, **each)} for each in (
        {"types": types}, {"parts": parts}, {"classes": cells.classes[::-1]})]  # fmt: skip
    for change in changes:
        assert (made(**change), made(**change)) == (everything, 0)
    for change in ({"runs": 1}, {"test_on": "all"}):
        assert made(**change) == everything - 1  # mixing does not depend on them
    assert made(overwrite=True) == everything


def test_standardising_mends_a_shifted_centre(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.evaluation.classifiers.NUM_TREES", 10)
    cells = cells_of(classes=("a", "b"))
    good = one_hot(cells)
    columns = choose_standardised([Column("x", ({**good, "bert": good["bert"] + 50},))], ("none", "centre"))
    comparison = compare_columns(columns, cells, replace(PROTOCOL, name="random-forest"), Cache(tmp_path))
    assert comparison.mean("x", "balanced_accuracy", True)[0] == 0.5
    assert comparison.mean("x (std)", "accuracy", True)[0] == 1
    assert comparison.probes == (MAIN_PROBE,) and list(comparison.mixing) == ["x", "x (std)"]
