"""Classifiers on cells whose types are known, and on training parts that are hardly any."""

import logging

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.svm import LinearSVC

from experiments.evaluation import classifiers as probes
from experiments.evaluation import comparison as classify
from experiments.evaluation.classifiers import PROTOCOLS, LinearProbe, NeighbourProbe, make_forest

ALL = [pytest.param(probe, id=f"{name}-{probe.name}") for name, listed in PROTOCOLS.items() for probe in listed]
FIXED = [param for param in ALL if not param.values[0].is_random]


def blobs(per_type=12, distance=10.0, seed=0, types="abc"):
    labels = np.repeat(list(types), per_type)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 4))
    return noise + distance * np.arange(len(types)).repeat(per_type)[:, np.newaxis], labels


def probe_of(protocol, name):
    return next(probe for probe in PROTOCOLS[protocol] if probe.name == name).make(0, 1)


def test_protocols_name_their_probes_and_only_the_forest_is_random():
    names = {protocol: [probe.name for probe in listed] for protocol, listed in PROTOCOLS.items()}
    assert names == {
        "thesis": ["forest", "logistic", "linear-svm", "knn-1", "knn-20"],
        "dinobloom": ["forest", "logistic", "knn-1", "knn-20"],
    }
    assert all(probe.is_random == (probe.name == "forest") for listed in PROTOCOLS.values() for probe in listed)


def test_forest_is_the_one_of_the_thesis():
    forest = PROTOCOLS["thesis"][0].make(3, 1)
    assert (forest.n_estimators, forest.max_depth, forest.random_state, forest.n_jobs) == (100, 16, 3, 1)
    assert (classify.NUM_TREES, classify.MAX_DEPTH) == (probes.NUM_TREES, probes.MAX_DEPTH) == (100, 16)


@pytest.mark.parametrize("probe", ALL)
def test_probe_names_types_that_lie_apart(probe):
    x, y = blobs(per_type=25)
    other, truth = blobs(seed=1)
    assert np.array_equal(probe.make(0, 1).fit(x, y).predict(other), truth)


@pytest.mark.parametrize("probe", FIXED)
def test_probe_without_chance_gives_the_same_for_each_seed_and_number_of_cores(probe):
    x, y = blobs(distance=0.7)
    other, _ = blobs(per_type=100, distance=0.7, seed=1)
    named = [probe.make(seed, n_jobs).fit(x, y).predict(other) for seed, n_jobs in ((0, 1), (1, 2))]
    assert np.array_equal(*named) and len(set(named[0].tolist())) == 3


def test_forest_differs_with_the_seed():
    x, y = blobs(distance=0.7)
    other, _ = blobs(per_type=100, distance=0.7, seed=1)
    first, second = (make_forest(seed, 1).fit(x, y).predict(other) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("probe", ALL)
def test_probe_of_a_single_type_names_it_always(probe):
    x, _ = blobs(per_type=2)
    assert probe.make(0, 1).fit(x, np.repeat("eosinophil", 6)).predict(x + 100).tolist() == ["eosinophil"] * 6


@pytest.mark.parametrize("probe", ALL)
def test_probe_of_one_cell_and_of_constant_features(probe):
    assert probe.make(0, 1).fit(np.ones((1, 3)), np.array(["a"])).predict(np.zeros((2, 3))).tolist() == ["a", "a"]
    named = probe.make(0, 1).fit(np.ones((3, 2)), np.array(["b", "b", "a"])).predict(np.ones((1, 2)))
    assert named.tolist() in (["a"], ["b"])


@pytest.mark.parametrize("probe", FIXED)
def test_probe_takes_float16_as_it_takes_float32(probe):
    x, y = blobs(distance=0.7)
    x = (x + 300).astype(np.float16)  # here float16 is coarse, and a sum of squares in it infinite
    expected = probe.make(0, 1).fit(x.astype(np.float32), y).predict(x.astype(np.float32))
    assert np.array_equal(probe.make(0, 1).fit(x, y).predict(x), expected)
    assert len(set(expected.tolist())) == 3


@pytest.mark.parametrize("probe", FIXED)
def test_probe_works_within_scikit_learn(probe):
    x, y = blobs()
    estimator = probe.make(0, 1)
    assert clone(estimator).get_params().keys() == estimator.get_params().keys()
    assert np.mean(cross_val_predict(estimator, x, y, cv=3) == y) > (0.9 if probe.name != "knn-20" else 0.3)


@pytest.mark.parametrize("name", ["logistic", "linear-svm", "knn-1", "knn-20"])
def test_thesis_probes_do_not_depend_on_units(name):
    x, y = blobs(distance=0.7)
    other, _ = blobs(per_type=50, distance=0.7, seed=1)
    units, shift = np.array([1.0, 1e3, 1e-3, 10.0]), 5.0
    plain = probe_of("thesis", name).fit(x, y).predict(other)
    assert np.array_equal(probe_of("thesis", name).fit(x * units + shift, y).predict(other * units + shift), plain)


def test_standardisation_is_that_of_the_training_cells_alone():
    x, y = blobs()
    model = probe_of("thesis", "logistic").fit(x, y)
    np.testing.assert_allclose(model.scaler_.mean_, x.mean(axis=0))
    # The name of a cell does not depend on which others are tested with it.
    other = blobs(seed=1)[0] + 4.0
    assert np.array_equal(model.predict(other), [model.predict(other[i : i + 1])[0] for i in range(len(other))])


def test_dinobloom_probes_take_features_as_they_are():
    # The second feature tells the type, but the first is larger.
    x = np.array([[0.0, 0.0], [100.0, 0.0], [10.0, 1.0], [110.0, 1.0]])
    y = np.array(["a", "a", "b", "b"])
    test = np.array([[8.0, 0.0]])
    assert probe_of("dinobloom", "knn-1").fit(x, y).predict(test).tolist() == ["b"]
    assert probe_of("thesis", "knn-1").fit(x, y).predict(test).tolist() == ["a"]


def test_dinobloom_regression_has_the_penalty_of_the_paper():
    x, y = blobs(distance=1.0)
    model = probe_of("dinobloom", "logistic").fit(x, y)
    assert model.scaler_ is None
    assert model.model_.C == pytest.approx(4 * 3 / 100) and model.model_.max_iter == 1000
    expected = LogisticRegression(C=4 * 3 / 100, max_iter=1000).fit(x, y)
    np.testing.assert_array_equal(model.model_.coef_, expected.coef_)


def test_dinobloom_regression_of_two_types_is_the_multinomial_one():
    x, y = blobs(distance=0.5, types="ab")
    model = LinearProbe(LogisticRegression(tol=1e-10, max_iter=1000), standardise=False, l2=100.0).fit(x, y)
    # At the minimum of C * loss + |w_a|^2 / 2 + |w_b|^2 / 2 with w_b = -w_a = w / 2 its gradient by w_b is 0.
    error = model.model_.predict_proba(x)[:, 1] - (y == "b")
    gradient = 4 * 2 / 100 * x.T @ error + model.model_.coef_[0] / 2
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def test_nearest_neighbours_vote_and_the_first_of_equals_wins():
    x = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    y = np.array(["b", "a", "a", "b", "b"])
    votes = {k: NeighbourProbe(k, standardise=False).fit(x, y).predict([[0.1]])[0] for k in (1, 2, 3, 4, 5, 20)}
    assert votes == {1: "b", 2: "a", 3: "a", 4: "a", 5: "b", 20: "b"}


@pytest.mark.parametrize("classifier", [LogisticRegression(max_iter=1), LinearSVC(dual=False, max_iter=1)])
def test_probe_logs_an_optimiser_that_stopped_early(classifier, caplog, recwarn):
    x, y = blobs(distance=0.5)
    with caplog.at_level(logging.INFO, "experiments.evaluation.classifiers"):
        LinearProbe(classifier).fit(x, y)
    assert "not converged in 1 iterations on 36 cells" in caplog.text
    assert not [warning for warning in recwarn if "converge" in str(warning.message)]
    caplog.clear()
    LinearProbe(clone(classifier).set_params(max_iter=2000)).fit(x, y)
    assert not caplog.text
