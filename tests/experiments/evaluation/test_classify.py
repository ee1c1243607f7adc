"""The forest protocol on data whose answer is known."""

import csv
import io
import json

import numpy as np
import pytest

from experiments.evaluation import score_tables
from experiments.evaluation.classifiers import make_forest
from experiments.evaluation.comparison import evaluate_methods, score_predictions, wilson_interval
from experiments.evaluation.vectors import standardise_by_centre
from mrcnn.feature_store import Cell, FeatureStore, FeatureStoreWriter
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.errors import InputError

MEANS = {"a": 0.0, "b": 10.0, "c": 20.0}


def blobs(counts, seed=0, shift=0.0):
    """Cells in well-separated blobs; every fifth is a test cell."""
    labels = np.array([name for name, count in counts.items() for _ in range(count)], dtype=str)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 3))
    x = noise + np.array([MEANS[name] for name in labels])[:, np.newaxis] + shift
    parts = np.where(np.arange(len(labels)) % 5 == 0, "test", "train")
    return x, labels, parts


def evaluate(centres, runs=2, **options):
    """Evaluate one method "x" on centres given as (features, labels, parts)."""
    x, labels, parts = ({name: centre[i] for name, centre in centres.items()} for i in range(3))
    return evaluate_methods({"x": x}, labels, parts, runs, **options)


def test_forest_has_the_settings_of_the_thesis():
    forest = make_forest(3)
    assert (forest.n_estimators, forest.max_depth, forest.random_state) == (100, 16, 3)


def test_separable_classes_are_named_across_centres():
    centres = {"one": blobs({"a": 20, "b": 20, "c": 20}), "two": blobs({"a": 30, "b": 10, "c": 10}, seed=1)}
    result = evaluate(centres)
    assert len(result.scores) == 4
    for scores in result.scores:
        assert scores.accuracy == scores.balanced_accuracy == scores.macro_f1 == (1.0, 0.0)
        assert scores.recall == {"a": 1.0, "b": 1.0, "c": 1.0}
    across = result.score("x", "one", "two")
    assert (across.num_train, across.num_test, across.majority_rate) == (48, 10, 0.6)
    np.testing.assert_array_equal(across.confusion, np.diag([12, 4, 4]))  # two runs of 6, 2, 2
    assert result.class_counts == {"one": {"a": 20, "b": 20, "c": 20}, "two": {"a": 30, "b": 10, "c": 10}}


def test_test_on_all_takes_other_centres_whole_and_the_own_test_part():
    result = evaluate({"one": blobs({"a": 20, "b": 20}), "two": blobs({"a": 10, "b": 15}, 1)}, test_on="all")
    sizes = {(s.trained_on, s.tested_on): s.num_test for s in result.scores}
    assert sizes == {("one", "one"): 8, ("one", "two"): 25, ("two", "one"): 40, ("two", "two"): 5}


def test_meaningless_features_score_near_the_largest_class():
    x, labels, parts = blobs({"a": 150, "b": 50})
    noise = np.random.default_rng(1).normal(size=x.shape)
    scores = evaluate({"one": (noise, labels, parts)}).scores[0]
    assert scores.majority_rate == 0.75
    assert scores.accuracy[0] == pytest.approx(0.75, abs=0.12)
    assert scores.balanced_accuracy[0] == pytest.approx(0.5, abs=0.12)


def test_shifted_centre_fails_and_standardising_mends_it():
    counts = {"a": 30, "b": 30}
    centres = {"one": blobs(counts), "two": blobs(counts, seed=1, shift=50.0)}
    x, labels, parts = ({name: centre[i] for name, centre in centres.items()} for i in range(3))
    methods = {"raw": x, "standardised": standardise_by_centre(x)}
    result = evaluate_methods(methods, labels, parts, runs=1)
    assert result.score("raw", "one", "two").balanced_accuracy[0] == 0.5
    assert result.score("standardised", "one", "two").balanced_accuracy[0] == 1.0


def test_class_missing_in_a_centre():
    centres = {"one": blobs({"a": 20, "b": 20}), "two": blobs({"a": 20, "c": 20}, seed=1)}
    result = evaluate(centres)
    scores = result.score("x", "one", "two")
    assert scores.num_unseen == 4 and scores.num_test == 8
    assert scores.recall == {"a": 1.0, "c": 0.0}
    assert scores.balanced_accuracy[0] == 0.5, "class b, which centre two lacks, is no part of its mean"
    np.testing.assert_array_equal(scores.confusion, [[8, 0, 0], [0, 0, 0], [0, 8, 0]])


def test_unlabelled_and_unsplit_cells_neither_train_nor_test():
    x, labels, parts = blobs({"a": 20, "b": 20})
    labels[:3], parts[3:5] = "", ""
    nothing = (x, np.full(40, ""), parts)
    result = evaluate({"one": (x, labels, parts), "new": nothing})
    assert result.centres == ("one",)
    assert result.unlabelled == {"one": 3, "new": 40}
    assert result.unsplit == {"one": 2, "new": 0}
    assert result.scores[0].num_train + result.scores[0].num_test == 35


def test_evaluation_is_repeatable_and_runs_differ():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b"] * 50)
    centre = (rng.normal(size=(100, 4)) + (labels == "a")[:, np.newaxis], labels, blobs({"a": 100})[2])
    first, again = evaluate({"one": centre}, runs=3), evaluate({"one": centre}, runs=3)
    assert first.scores == again.scores
    assert first.scores[0].accuracy[1] > 0
    assert evaluate({"one": centre}, runs=3, seed=7).scores != first.scores


def test_score_predictions_by_hand():
    scores = score_predictions(["a", "a", "b", "b"], ["a", "a", "b", "a"], ["a", "b", "c"])
    np.testing.assert_array_equal(scores["confusion"], [[2, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert scores["accuracy"] == scores["balanced_accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores["recall"] == {"a": 1.0, "b": 0.5}


def test_score_predictions_takes_names_outside_the_classes_for_wrong():
    scores = score_predictions(["a", "a", "b"], ["a", "z", "b"], ["a", "b"])
    np.testing.assert_array_equal(scores["confusion"], [[1, 0], [0, 1]])
    assert scores["accuracy"] == pytest.approx(2 / 3) and scores["recall"] == {"a": 0.5, "b": 1.0}
    with pytest.raises(ValueError, match="classes lacks 'z'"):
        score_predictions(["a", "z"], ["a", "a"], ["a", "b"])


def test_wilson_interval():
    low, high = wilson_interval(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson_interval(1.0, 10)[1] == 1.0 and wilson_interval(1.0, 10)[0] < 0.8
    assert wilson_interval(0.0, 10)[0] == 0.0


def test_evaluate_refuses_what_does_not_fit():
    x, labels, parts = blobs({"a": 10, "b": 10})
    with pytest.raises(InputError, match="no labelled cell in its test part"):
        evaluate({"one": (x, labels, np.full(20, "train"))})
    with pytest.raises(InputError, match="no centre has a labelled cell"):
        evaluate({"one": (x, np.full(20, ""), parts)})
    with pytest.raises(InputError, match="no features of centre one"):
        evaluate_methods({"x": {}}, {"one": labels}, {"one": parts})
    with pytest.raises(ValueError, match=r"shape \(19, 3\) for 20 cells"):
        evaluate({"one": (x[:-1], labels, parts)})
    with pytest.raises(ValueError, match="NaN"):
        evaluate({"one": (np.where(x > 5, np.nan, x), labels, parts)})
    with pytest.raises(ValueError, match="classes lacks b"):
        evaluate({"one": (x, labels, parts)}, classes=["a"])
    with pytest.raises(ValueError, match="test_on"):
        evaluate({"one": (x, labels, parts)}, test_on="train")


def test_roi_vectors(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.zeros((128, 128, 3), np.uint8)
    with FeatureStoreWriter(tmp_path / "s.h5", centre="x", detector={"hash": "h"}) as writer:
        for number in range(3):
            features = rng.normal(size=(14, 14, 256)).astype(np.float16)
            writer.add(f"{number}", [Cell(features, pixels, pixels, np.zeros(4), 0.9, 1, (8, 8))])
    with FeatureStore(tmp_path / "s.h5") as store:
        features = store.read("features", 0, 3)
        mean, flat = roi_vectors(store), roi_vectors(store, "flat")
        with pytest.raises(ValueError, match="mode"):
            roi_vectors(store, "max")
    np.testing.assert_allclose(mean, features.astype(np.float64).mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_array_equal(flat, features.reshape(3, 50176))


@pytest.fixture(scope="module")
def evaluation():
    centres = {"one": blobs({"a": 20, "b": 10}), "two": blobs({"a": 10, "c": 15}, seed=1)}
    x, labels, parts = ({name: centre[i] for name, centre in centres.items()} for i in range(3))
    noise = {name: np.random.default_rng(0).normal(size=values.shape) for name, values in x.items()}
    labels["two"][0] = ""
    return evaluate_methods({"noise": noise, "good": x}, labels, parts, 2, classes=("c", "b", "a", "unused"))


def test_tables_hold_every_score(evaluation, tmp_path):
    paths = score_tables.save_tables(evaluation, tmp_path / "tables")
    content = json.loads(paths["json"].read_text())
    assert content["classes"] == ["c", "b", "a"]
    assert len(content["scores"]) == 8
    entry = content["scores"][-1]
    assert entry["confusion"] == evaluation.scores[-1].confusion.tolist()
    assert entry["accuracy"] == {"mean": 1.0, "std": 0.0}
    rows = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
    assert len(rows) == 8
    row = next(r for r in rows if (r["method"], r["trained_on"], r["tested_on"]) == ("good", "one", "two"))
    scores = evaluation.score("good", "one", "two")
    assert float(row["balanced_accuracy_mean"]) == scores.balanced_accuracy[0] == 0.5
    assert (row["recall_a"], row["recall_b"], row["recall_c"]) == ("1.0000", "", "0.0000")
    assert int(row["num_unseen"]) == scores.num_unseen == 3


def test_markdown_and_text_tables(evaluation):
    markdown = score_tables.to_markdown(evaluation).splitlines()
    assert markdown[0] == "| Trained on | Tested on | noise | good | Largest class | Cells |"
    good = evaluation.score("good", "one", "one")
    assert good.majority_rate == pytest.approx(4 / 6)
    assert markdown[2].startswith("| one | one | ")
    assert markdown[2].endswith(" | **100.0 ± 0.0** / 100.0 ± 0.0 | 66.7 | 6 |")
    assert len({line.count("|") for line in markdown[:6]}) == 1
    assert "| without a cell type | 0 | 1 |" in markdown
    text = score_tables.to_text(evaluation)
    assert "100.0 ± 0.0 / 100.0 ± 0.0" in text and "*" not in text
    assert "mean ± standard deviation over 2 forests; every centre tested on its test part" in text
