"""Scores of mixing on clouds of points whose answer is known."""

import logging

import numpy as np
import pytest

from experiments.evaluation.mixing import SCORES, centre_accuracy, lisi, mixing_scores, proxy_a_distance


def clouds(counts, distance, seed=0, size=3):
    """Points in one normal cloud for each name, `distance` apart along every axis; and the name of each."""
    names = np.array([name for name, number in counts.items() for _ in range(number)])
    steps = np.array([list(counts).index(name) for name in names])
    noise = np.random.default_rng(seed).normal(size=(len(names), size))
    return noise + distance * steps[:, np.newaxis], names


def test_centre_accuracy_of_three_centres_is_chance_or_1():
    vectors, centres = clouds({"a": 100, "b": 60, "c": 40}, distance=0.0)
    assert centre_accuracy(vectors, centres, seed=0) == pytest.approx(1 / 3, abs=0.1)
    assert centre_accuracy(*clouds({"a": 100, "b": 60, "c": 40}, distance=9.0), seed=0) == 1.0


def test_proxy_a_distance_is_that_of_the_best_cut_whatever_the_sizes():
    vectors, centres = clouds({"a": 2000, "b": 200}, distance=1.0, size=1)
    # The best cut lies in the middle: error 0.3085, distance 2 (1 - 2 * 0.3085) = 0.766.
    assert proxy_a_distance(vectors, centres, seed=0) == pytest.approx(0.766, abs=0.15)


def test_lisi_is_the_number_of_labels_where_they_mix_and_1_where_they_do_not():
    vectors, labels = clouds({"a": 200, "b": 200, "c": 200}, distance=0.0)
    mixed = lisi(vectors, labels)
    assert mixed.shape == (600,) and mixed.dtype == np.float64
    assert 2.7 < np.median(mixed) <= mixed.max() <= 3.0
    np.testing.assert_allclose(lisi(*clouds({"a": 200, "b": 200}, distance=100.0)), 1.0)


def test_lisi_of_equally_far_neighbours_is_that_of_their_counts():
    # Corners of a simplex: everyone is as far from everyone. A cell "b" sees four "a", a cell "a" three and one "b".
    values = lisi(np.eye(5), np.array(["a", "a", "a", "a", "b"]))
    np.testing.assert_allclose(values, [1 / (0.75**2 + 0.25**2)] * 4 + [1.0])


def test_lisi_leaves_out_the_cell_itself_also_where_cells_are_doubled():
    # Each cell has one double, of the other label, and one neighbour is asked for.
    vectors = np.repeat(np.arange(6.0), 2)[:, np.newaxis] * 10
    np.testing.assert_allclose(lisi(vectors, np.tile(["a", "b"], 6), perplexity=1 / 3), 1.0)
    # The two nearest are the double, "b", and a far "a" or "b"; the weight of the far one is next to nothing.
    np.testing.assert_allclose(lisi(vectors, np.tile(["a", "b"], 6), perplexity=2 / 3), 1.0, atol=1e-6)


def test_mixing_scores_tell_good_spaces_from_bad_ones():
    vectors, cell_types = clouds({"x": 120, "y": 120}, distance=20.0)
    centres = np.tile(["a", "b"], 120)
    good = mixing_scores(vectors, centres, cell_types, seed=0)
    assert list(good) == list(SCORES)
    assert good["centre_accuracy"] < 0.65 and good["proxy_a_distance"] < 0.6
    assert good["silhouette_type"] > 0.8 and abs(good["silhouette_centre"]) < 0.1
    assert good["lisi_centre"] > 1.8 and good["lisi_type"] == pytest.approx(1.0)
    # The same space with the two names exchanged is as bad as can be.
    bad = mixing_scores(vectors, cell_types, centres, seed=0)
    assert bad["centre_accuracy"] == 1.0 and bad["proxy_a_distance"] == 2.0
    assert bad["silhouette_centre"] == good["silhouette_type"] and bad["silhouette_type"] == good["silhouette_centre"]
    assert bad["lisi_centre"] == good["lisi_type"] and bad["lisi_type"] == good["lisi_centre"]


def test_mixing_scores_do_not_depend_on_units_or_constant_features():
    vectors, centres = clouds({"a": 40, "b": 40}, distance=1.0)
    cell_types = np.tile(["x", "y"], 40)
    scores = mixing_scores(vectors, centres, cell_types, seed=0)
    constant = np.full((80, 1), 0.1, np.float32)
    other = np.hstack([1000.0 * vectors[:, :1] + 7.0, vectors[:, 1:], constant])
    assert mixing_scores(other, centres, cell_types, seed=0) == pytest.approx(scores, rel=1e-4)


def test_mixing_scores_that_are_not_defined_are_none():
    vectors, _ = clouds({"a": 30}, distance=0.0)
    one = mixing_scores(vectors, np.repeat("a", 30), np.repeat("", 30), seed=0)
    assert one == dict.fromkeys(SCORES)
    few = mixing_scores(vectors, np.array(["a"] * 27 + ["b"] * 3), np.array(["x", "y"] * 15), seed=0)
    assert [name for name in SCORES if few[name] is None] == [name for name in SCORES if "type" not in name]
    single = mixing_scores(vectors, np.tile(["a", "b"], 15), np.array(["x", "y", *[""] * 28]), seed=0)
    assert [name for name in SCORES if single[name] is None] == ["silhouette_type", "lisi_type"]


def test_mixing_scores_leave_a_small_centre_out_and_say_so(caplog):
    vectors, _ = clouds({"a": 44}, distance=0.0)
    centres, cell_types = np.array(["a", "b"] * 20 + ["tiny"] * 4), np.repeat("", 44)
    with caplog.at_level(logging.INFO, "experiments.evaluation.mixing"):
        scores = mixing_scores(vectors, centres, cell_types, seed=0)
    assert "tiny" in caplog.text
    expected = lisi(((vectors - vectors.mean(axis=0)) / vectors.std(axis=0))[:40], centres[:40]).mean()
    assert scores["lisi_centre"] == pytest.approx(expected, rel=1e-4)
