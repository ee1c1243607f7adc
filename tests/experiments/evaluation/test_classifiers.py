"""Classifiers on cells whose types are known, and on training parts that are hardly any."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.evaluation.classifiers import PROTOCOLS

ALL = [pytest.param(probe, id=f"{name}-{probe.name}") for name, probes in PROTOCOLS.items() for probe in probes]
FIXED = [param for param in ALL if not param.values[0].is_random]


def blobs(per_type=12, distance=10.0, seed=0, types="abc"):
    labels = np.repeat(list(types), per_type)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 4))
    return noise + distance * np.arange(len(types)).repeat(per_type)[:, np.newaxis], labels


def probe_of(protocol, name):
    return next(probe for probe in PROTOCOLS[protocol] if probe.name == name).make(0, 1)


def test_protocols_begin_with_the_random_forest_of_the_thesis():
    assert [probe.name for probe in PROTOCOLS["dinobloom"]] == ["random-forest", "logistic", "knn-1", "knn-20"]
    for probes in PROTOCOLS.values():
        forest = probes[0].make(3, 1)
        assert (forest.n_estimators, forest.max_depth, forest.random_state, forest.n_jobs) == (100, 16, 3, 1)
        assert [probe.is_random for probe in probes] == [True] + [False] * (len(probes) - 1)


@pytest.mark.parametrize("probe", ALL)
def test_every_classifier_learns_from_any_training_part(probe):
    x, y = blobs(per_type=25)
    other, truth = blobs(seed=1)
    assert np.array_equal(probe.make(0, 1).fit(x, y).predict(other), truth)
    single = probe.make(0, 1).fit(x[:6], np.repeat("eosinophil", 6))
    assert single.predict(x + 100).tolist() == ["eosinophil"] * 75
    assert probe.make(0, 1).fit(np.ones((1, 3)), np.array(["a"])).predict(np.zeros((2, 3))).tolist() == ["a", "a"]
    constant = probe.make(0, 1).fit(np.ones((3, 2)), np.array(["b", "b", "a"])).predict(np.ones((1, 2)))
    assert constant.tolist() in (["a"], ["b"])


@pytest.mark.parametrize("probe", FIXED)
def test_neither_seed_nor_float16_change_a_classifier_without_chance(probe):
    x, y = blobs(distance=0.7)
    x = (x + 300).astype(np.float16)  # here float16 is coarse, and a sum of squares in it infinite
    found = [probe.make(seed, 1).fit(each, y).predict(each) for seed, each in ((0, x), (1, x.astype(np.float32)))]
    assert np.array_equal(*found) and len(set(found[0].tolist())) == 3


def test_standardisation_is_that_of_the_training_cells_alone():
    x, y = blobs()
    model = probe_of("thesis", "logistic").fit(x, y)
    np.testing.assert_allclose(model.scaler_.mean_, x.mean(axis=0), rtol=1e-5)
    other = blobs(seed=1)[0] * np.array([1.0, 1e3, 1e-3, 10.0]) + 5.0
    again = probe_of("thesis", "logistic").fit(x * np.array([1.0, 1e3, 1e-3, 10.0]) + 5.0, y)
    assert np.array_equal(again.predict(other), model.predict(blobs(seed=1)[0]))


def test_dinobloom_takes_features_as_they_are():
    # The second feature tells the type, but the first is larger.
    x = np.array([[0.0, 0.0], [100.0, 0.0], [10.0, 1.0], [110.0, 1.0]])
    y = np.array(["a", "a", "b", "b"])
    assert probe_of("dinobloom", "knn-1").fit(x, y).predict([[8.0, 0.0]]).tolist() == ["b"]
    assert probe_of("thesis", "knn-1").fit(x, y).predict([[8.0, 0.0]]).tolist() == ["a"]


def test_dinobloom_regression_has_the_penalty_of_the_paper():
    x, y = blobs(distance=1.0)
    model = probe_of("dinobloom", "logistic").fit(x, y).model_
    expected = LogisticRegression(C=4 * 3 / 100, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-4)
    x, y = blobs(distance=0.5, types="ab")
    model = probe_of("dinobloom", "logistic").fit(x, y).model_
    model.set_params(tol=1e-10).fit(x, y)
    # At the minimum of C * loss + |w_a|^2 / 2 + |w_b|^2 / 2 with w_b = -w_a = w / 2 its gradient by w_b is 0.
    gradient = 4 * 2 / 100 * x.T @ (model.predict_proba(x)[:, 1] - (y == "b")) + model.coef_[0] / 2
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
