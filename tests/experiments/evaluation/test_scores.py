import numpy as np
import pytest

from experiments.evaluation.scores import Difference, Resampling, measure_run, score_pair, wilson_interval


def test_measure_run_gives_the_scores_worked_out_by_hand():
    scores = measure_run(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]))
    assert scores == pytest.approx(
        {"accuracy": 3 / 4, "balanced_accuracy": 3 / 4, "macro_f1": 11 / 15, "weighted_f1": 11 / 15}
    )
    # Ten of class 0 all named 0, one of class 1 named 0: F1 of class 0 is 20/21, of class 1 it is 0.
    scores = measure_run(np.array([0] * 10 + [1]), np.zeros(11, int))
    assert scores == pytest.approx(
        {"accuracy": 10 / 11, "balanced_accuracy": 1 / 2, "macro_f1": 10 / 21, "weighted_f1": 10 / 11 * 20 / 21}
    )


def test_score_pair_gathers_runs():
    scores = score_pair(np.array([0, 0, 0, 1]), np.array([[0, 0, 0, 1], [0, 0, 1, 0]]), ("a", "b"))
    assert scores["accuracy"] == {"mean": 0.75, "std": 0.25, "runs": [1.0, 0.5]}
    assert scores["confusion"] == [[5, 1], [1, 1]]
    assert scores["recall"] == pytest.approx({"a": 5 / 6, "b": 0.5})


def test_names_outside_the_classes_are_wrong():
    scores = score_pair(np.array([0, 0, 1]), np.array([[0, -1, -1]]), ("a", "b"))
    assert scores["accuracy"]["mean"] == pytest.approx(1 / 3)
    assert scores["balanced_accuracy"]["mean"] == pytest.approx(1 / 4)
    assert scores["confusion"] == [[1, 0], [0, 0]]


def test_intervals_of_few_cells_leave_room_for_doubt():
    intervals = score_pair(np.array([0, 0, 1]), np.array([[0, 0, 0]]), ("a", "b"))["recall_interval"]
    # Wilson's interval of 2 of 2 and of 0 of 1, from tables of it.
    assert intervals["a"] == pytest.approx((0.342, 1), abs=1e-3)
    assert intervals["b"] == pytest.approx((0, 0.793), abs=1e-3)


def test_a_small_difference_on_the_same_cells_is_seen():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 400)
    first = np.where(rng.random(400) < 0.5, truth, (truth + 1) % 3)
    second = first.copy()
    right = np.flatnonzero(first == truth)[:20]
    second[right] = (truth[right] + 1) % 3  # the second errs on 20 cells more, and nowhere else
    difference = Resampling([truth], ["x"]).difference([first[None]], [second[None]], "accuracy")
    assert difference.mean == pytest.approx(0.05)
    # Each one's own interval is five points wide on either side, that of the difference about two.
    assert difference.is_clear and 0.025 < difference.low < difference.high < 0.075
    assert (difference.runs_better, difference.runs) == (1, 1)


def test_difference_is_antisymmetric_and_0_for_the_same():
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 3, n) for n in (50, 80)]
    one, other = ([rng.integers(0, 3, (2, len(t))) for t in truths] for _ in range(2))
    resampling = Resampling(truths, ["x", "y"], 300)
    there, back, same = (resampling.difference(*each, "balanced_accuracy")
                         for each in ((one, other), (other, one), (one, one)))  # fmt: skip
    assert there.mean == pytest.approx(-back.mean)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert (same.mean, same.low, same.high, same.runs_better) == (0, 0, 0, 0) and not same.is_clear


def test_resampling_draws_the_same_cells_of_a_centre_in_every_pair():
    truth, named = np.zeros(60, int), np.random.default_rng(0).integers(0, 2, (1, 60))
    # Rightness of the two pairs adds up to 1 for every cell, so that only different cells could make the mean vary.
    predictions = [named, 1 - named]
    assert Resampling([truth, truth], ["x", "x"], 300).mean(predictions, "accuracy") == (0.5, 0.5, 0.5)
    _, low, high = Resampling([truth, truth], ["x", "y"], 300).mean(predictions, "accuracy")
    assert low < 0.5 < high


def test_resampling_by_counts_has_the_spread_of_drawing_cells():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [30, 90])
    named = np.where(rng.random((3, 120)) < 0.6, truth, 1 - truth)
    right = (named == truth).mean(axis=0)
    few, many = (right[:30][rng.integers(0, 30, (4000, 30))], right[30:][rng.integers(0, 90, (4000, 90))])
    for measure, draws in (
        ("accuracy", right[rng.integers(0, 120, (4000, 120))].mean(axis=1)),
        ("balanced_accuracy", (few.mean(axis=1) + many.mean(axis=1)) / 2),
    ):
        _, low, high = Resampling([truth], ["x"], 4000).mean([named], measure)
        assert (low, high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.01)


def test_recall_counts_a_cell_of_several_pairs_once():
    truth, named = np.zeros(40, int), np.repeat([[0, 1]], [30, 10], axis=1)
    once = Resampling([truth], ["x"]).recall([named])[0]
    twice = Resampling([truth, truth], ["x", "x"])
    assert twice.recall([named, named])[0] == pytest.approx(once)
    # Cells of another centre are further ones.
    _, low, high = Resampling([truth, truth], ["x", "y"]).recall([named, named])[0]
    assert high - low < 0.8 * (once[2] - once[1])
    # Two pairs of which one names a cell rightly: half of it.
    assert twice.recall([named, 1 - named])[0][0] == 0.5


def test_difference_is_not_clear_by_rounding():
    assert not Difference(0.1, 1e-17, 0.2, 1, 1).is_clear and not Difference(-0.1, -0.2, -1e-17, 0, 1).is_clear
    assert not Difference(0.1, 0.1, 0.1, 1, 1).is_clear  # of so few cells that resampling knows no doubt
    assert Difference(0.1, 0.01, 0.2, 1, 1).is_clear and Difference(-0.1, -0.2, -0.01, 0, 1).is_clear


def test_intervals_of_rates_are_wilsons():
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(1.0, 10)[1] == 1.0 and wilson_interval(0.0, 10)[0] == 0.0
    assert wilson_interval(0.83, 10)[0] < 0.83  # a mean over runs is no whole number of cells
