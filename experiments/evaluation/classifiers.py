"""The classifiers that name cells from their features: the thesis' random forest and what stands beside it.

A forest cuts one feature at a time; linear models and nearest neighbours look at all of them together. A
representation that only one kind of classifier can read says less about the cells than one that all can.

Protocols:
    thesis: the forest of thesis section 3.4 (100 trees of depth 16), and beside it logistic regression, a linear
        support vector machine and the 1 and 20 nearest neighbours on standardised features.
    dinobloom: the same forest, and beside it the probes of DinoBloom (Koch et al. 2024), as its published code has
        them (dinov2/eval/general_patch_eval.py of the repository marrlab/DinoBloom): features as they are, without
        any scaling; 1 and 20 nearest neighbours by Euclidean distance, each with one vote; multinomial logistic
        regression by L-BFGS, at most 1000 iterations, its L2 coefficient 100 / (number of features * number of
        types), which is scikit-learn's C = number of features * number of types / 100. The forest is no part of
        that paper. There, accuracy, balanced accuracy and weighted F1 are the means over five stratified folds.
        That its printed tables come from just these settings is not verified: an older script beside this one
        counts 9 types, whatever the data. The number of types is that of the training cells here, as in the newer.

Standardisation is fitted on the training cells alone. Every classifier takes a training part of a single type, which
it then names always, and of fewer cells than it asks neighbours.
"""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

logger = logging.getLogger(__name__)

NUM_TREES = 100  # thesis section 3.4, as is the depth
MAX_DEPTH = 16
MAX_ITERATIONS = 2000
DINOBLOOM_ITERATIONS = 1000
DINOBLOOM_L2 = 100.0


@dataclass(frozen=True)
class Probe:
    """One classifier of a protocol.

    Attributes:
        name: used in tables; unique within a protocol.
        make: function of a seed and a number of cores that makes the classifier, untrained.
        is_random: whether the seed matters; if not, one run says all.
    """

    name: str
    make: Callable[[int, int], ClassifierMixin]
    is_random: bool


def make_forest(seed: int, n_jobs: int = 2) -> RandomForestClassifier:
    """Make the thesis' random forest: 100 trees of depth 16 at most."""
    return RandomForestClassifier(n_estimators=NUM_TREES, max_depth=MAX_DEPTH, random_state=seed, n_jobs=n_jobs)


class _ScaledProbe(ClassifierMixin, BaseEstimator, ABC):
    """What the probes have in common; a subclass has `standardise` and trains its `model_` on scaled features."""

    standardise: bool

    def fit(self, x: np.ndarray, y: np.ndarray) -> "_ScaledProbe":
        """Train on features of shape (n, d) and types of shape (n,)."""
        x = _as_float32(x)
        self.classes_ = np.unique(y)
        self.scaler_ = StandardScaler().fit(x) if self.standardise else None
        self.model_ = self._train(self._scaled(x), y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Name the types of features of shape (n, d): array of shape (n,)."""
        return self.model_.predict(self._scaled(_as_float32(x)))

    @abstractmethod
    def _train(self, x: np.ndarray, y: np.ndarray) -> ClassifierMixin:
        """Train on scaled features of shape (n, d) and types of shape (n,)."""

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return x if self.scaler_ is None else self.scaler_.transform(x)


class LinearProbe(_ScaledProbe):
    """A linear classifier that learns from any training part.

    A single type in the training part is named for every cell. An optimiser that stops before it has converged is
    logged, since a table takes hundreds of trainings, and each would print its own warning.

    Args:
        classifier: logistic regression or linear support vector machine.
        standardise: whether to bring each feature to mean 0 and deviation 1 over the training cells.
        l2: coefficient of DinoBloom's regularisation, by which C is number of features * number of types / l2;
            None keeps the C of `classifier`.
    """

    def __init__(self, classifier: LogisticRegression | LinearSVC, standardise: bool = True, l2: float | None = None):
        self.classifier = classifier
        self.standardise = standardise
        self.l2 = l2

    def _train(self, x: np.ndarray, y: np.ndarray) -> ClassifierMixin:
        if len(self.classes_) == 1:
            return DummyClassifier(strategy="most_frequent").fit(x, y)
        model = clone(self.classifier)
        if self.l2 is not None:
            model.set_params(C=_multinomial_c(x.shape[1] * len(self.classes_) / self.l2, len(self.classes_)))
        # Several threads wait for each other on products as small as these, the more the busier the machine is.
        with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        if np.max(model.n_iter_) >= model.max_iter:
            name = type(model).__name__
            logger.info("%s: not converged in %d iterations on %d cells", name, model.max_iter, len(x))
        return model


class NeighbourProbe(_ScaledProbe):
    """The vote of the nearest training cells by Euclidean distance, each with one vote.

    Between types with the same number of votes the first in alphabetical order is named, so that the result is the
    same every time.

    Args:
        num_neighbours: cells that vote; all training cells where there are fewer.
        standardise: whether to bring each feature to mean 0 and deviation 1 over the training cells.
        n_jobs: cores for the search.
    """

    def __init__(self, num_neighbours: int, standardise: bool = True, n_jobs: int | None = None):
        self.num_neighbours = num_neighbours
        self.standardise = standardise
        self.n_jobs = n_jobs

    def _train(self, x: np.ndarray, y: np.ndarray) -> ClassifierMixin:
        return KNeighborsClassifier(min(self.num_neighbours, len(x)), n_jobs=self.n_jobs).fit(x, y)


def _as_float32(x: np.ndarray) -> np.ndarray:
    """Features stored as float16 would be scaled, and their distances taken, in float16."""
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _multinomial_c(c: float, num_classes: int) -> float:
    """C with which scikit-learn's logistic regression is the multinomial one with C of `c`.

    Of two classes it fits one weight vector w. The multinomial form has w / 2 for one class and -w / 2 for the other,
    the same probabilities at half the penalty, so that it is the former with twice the C.
    """
    return 2 * c if num_classes == 2 else c


def _logistic(seed: int, n_jobs: int) -> LinearProbe:
    return LinearProbe(LogisticRegression(max_iter=MAX_ITERATIONS))


def _linear_svm(seed: int, n_jobs: int) -> LinearProbe:
    # The solver of the primal problem uses no chance, unlike that of the dual. Its tolerance is LIBLINEAR's own for it:
    # with scikit-learn's, on 1500 cells of 1000 features it takes twenty times as long.
    return LinearProbe(LinearSVC(dual=False, tol=0.01, max_iter=MAX_ITERATIONS, random_state=0))


def _nearest(seed: int, n_jobs: int) -> NeighbourProbe:
    return NeighbourProbe(1, n_jobs=n_jobs)


def _nearest_20(seed: int, n_jobs: int) -> NeighbourProbe:
    return NeighbourProbe(20, n_jobs=n_jobs)


def _dinobloom_logistic(seed: int, n_jobs: int) -> LinearProbe:
    return LinearProbe(LogisticRegression(max_iter=DINOBLOOM_ITERATIONS), standardise=False, l2=DINOBLOOM_L2)


def _dinobloom_nearest(seed: int, n_jobs: int) -> NeighbourProbe:
    return NeighbourProbe(1, standardise=False, n_jobs=n_jobs)


def _dinobloom_nearest_20(seed: int, n_jobs: int) -> NeighbourProbe:
    return NeighbourProbe(20, standardise=False, n_jobs=n_jobs)


FOREST = Probe("forest", make_forest, is_random=True)

PROTOCOLS: dict[str, tuple[Probe, ...]] = {
    "thesis": (
        FOREST,
        Probe("logistic", _logistic, is_random=False),
        Probe("linear-svm", _linear_svm, is_random=False),
        Probe("knn-1", _nearest, is_random=False),
        Probe("knn-20", _nearest_20, is_random=False),
    ),
    "dinobloom": (
        FOREST,
        Probe("logistic", _dinobloom_logistic, is_random=False),
        Probe("knn-1", _dinobloom_nearest, is_random=False),
        Probe("knn-20", _dinobloom_nearest_20, is_random=False),
    ),
}
