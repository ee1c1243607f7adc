import numpy as np
import pytest

from experiments.evaluation.classifiers import PROTOCOLS
from experiments.evaluation.scores import measure_run
from experiments.evaluation.transfer import make_cells, predict_pairs
from mrcnn.files.errors import InputError

CENTRES = ("anna", "bert")
PROBES = {probe.name: probe for probe in PROTOCOLS["thesis"]}


def cells_of(num_cells=200, num_types=4, seed=0):
    rng = np.random.default_rng(seed)
    keys = {c: np.array([f"{i}.png" for i in range(num_cells)]) for c in CENTRES}
    types = {c: np.array([f"type{i}" for i in rng.integers(0, num_types, num_cells)]) for c in CENTRES}
    parts = {c: np.where(np.arange(num_cells) % 5 == 0, "test", "train") for c in CENTRES}
    return make_cells(keys, types, parts)


def one_hot(cells):
    return {c: np.eye(len(cells.classes), dtype=np.float32)[cells.class_numbers(t)] for c, t in cells.types.items()}


def accuracies(cells, vectors, probe, **options):
    named = predict_pairs([vectors], cells, PROBES[probe], runs=2, seed=0, **options)
    test_on = options.get("test_on", "test")
    return {pair: measure_run(cells.truth(pair, test_on), runs[0])["accuracy"] for pair, runs in named.items()}


def test_predict_pairs_tests_the_other_centre_whole_where_asked():
    cells = cells_of()
    named = predict_pairs([one_hot(cells)], cells, PROBES["knn-1"], runs=1, seed=0, test_on="all")
    assert {pair: runs.shape[1] for pair, runs in named.items()} == {
        ("anna", "anna"): 40, ("anna", "bert"): 200, ("bert", "anna"): 200, ("bert", "bert"): 40
    }  # fmt: skip


def test_predict_pairs_never_learns_from_test_cells():
    cells = cells_of()
    good = one_hot(cells)
    # Vectors of test cells say another type in the training centre: whoever learned from them would err on the others.
    wrong = {c: v.copy() for c, v in good.items()}
    for centre in CENTRES:
        is_test = cells.parts[centre] == "test"
        wrong[centre][is_test] = np.roll(good[centre][is_test], 1, axis=1)
    named = predict_pairs([wrong], cells, PROBES["knn-1"], runs=1, seed=0)
    for pair, runs in named.items():
        assert np.array_equal(runs[0], (cells.truth(pair, "test") + 1) % 4)


def test_predict_pairs_takes_the_trainings_in_turn():
    cells = cells_of()
    good = one_hot(cells)
    shifted = {"anna": good["anna"], "bert": np.roll(good["bert"], 1, axis=1)}
    named = predict_pairs([good, shifted], cells, PROBES["random-forest"], runs=3, seed=0)["anna", "bert"]
    truth = cells.truth(("anna", "bert"), "test")
    assert named.shape == (3, 40)
    assert np.array_equal(named[0], truth) and np.array_equal(named[2], truth)
    assert np.array_equal(named[1], (truth + 1) % 4)


def test_predict_pairs_makes_one_run_where_nothing_is_random():
    cells = cells_of()
    shapes = {name: predict_pairs([one_hot(cells)], cells, probe, runs=3, seed=0)["anna", "bert"].shape
              for name, probe in PROBES.items()}  # fmt: skip
    assert shapes == {name: (3 if name == "random-forest" else 1, 40) for name in PROBES}


def test_predict_pairs_counts_a_type_that_the_training_centre_lacks_as_wrong():
    keys = {c: np.arange(10).astype(str) for c in CENTRES}
    types = {"anna": np.array(["a"] * 5 + ["b"] * 5), "bert": np.array(["a"] * 5 + ["c"] * 5)}
    parts = {c: np.array(["train", "test", "train", "test", "train"] * 2) for c in CENTRES}
    cells = make_cells(keys, types, parts)
    assert accuracies(cells, one_hot(cells), "knn-1")["anna", "bert"] == 0.5


def test_make_cells_refuses_centres_that_cannot_be_scored():
    keys = {"anna": np.array(["1", "2"])}
    with pytest.raises(InputError, match="no centre has a labelled cell"):
        make_cells(keys, {"anna": np.array(["", ""])}, {"anna": np.array(["train", "test"])})
    with pytest.raises(InputError, match="centre anna: no labelled cell in its test part"):
        make_cells(keys, {"anna": np.array(["a", "a"])}, {"anna": np.array(["train", "train"])})
    with pytest.raises(ValueError, match="classes lacks a"):
        make_cells(keys, {"anna": np.array(["a", "a"])}, {"anna": np.array(["train", "test"])}, classes=["b"])


def test_predict_pairs_refuses_vectors_that_do_not_fit():
    cells = cells_of()
    good = one_hot(cells)
    with pytest.raises(InputError, match="no features of centre bert"):
        predict_pairs([{"anna": good["anna"]}], cells, PROBES["knn-1"], runs=1, seed=0)
    with pytest.raises(ValueError, match="for 200 cells"):
        predict_pairs([{**good, "bert": good["bert"][:5]}], cells, PROBES["knn-1"], runs=1, seed=0)
    good["bert"][3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        predict_pairs([good], cells, PROBES["knn-1"], runs=1, seed=0)
