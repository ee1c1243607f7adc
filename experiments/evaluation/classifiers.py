"""Classifiers of cell types: the thesis' random forest, and beside it linear models and nearest neighbours.

A random forest cuts one feature at a time; the others look at all features together.

Protocols:
    random-forest: that of thesis section 3.4 alone (100 trees of depth 16).
    thesis: beside it logistic regression, a linear support vector machine and the 1 and 20 nearest neighbours on
        features standardised over the training cells.
    dinobloom: beside it the probes of DinoBloom (Koch et al. 2024) as in dinov2/eval/general_patch_eval.py of the
        repository marrlab/DinoBloom: features without any scaling; 1 and 20 nearest neighbours; multinomial logistic
        regression with scikit-learn's C = number of features * number of types among the training cells / 100. The
        random forest is no part of that paper, whose scores are means over five stratified folds.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
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

# From features (n, d) and types (n,) to an untrained classifier that suits them.
Choose = Callable[[np.ndarray, np.ndarray], ClassifierMixin]


@dataclass(frozen=True)
class Probe:
    """One classifier of a protocol: `choose` and `standardise` are as in `VectorClassifier`, None is the forest."""

    name: str
    choose: Choose | None = None
    standardise: bool = True

    @property
    def is_random(self) -> bool:
        """Whether the seed matters; if not, one run says all."""
        return self.choose is None

    def make(self, seed: int, n_jobs: int) -> ClassifierMixin:
        """Make the classifier, untrained; `n_jobs` are cores."""
        return VectorClassifier(self.choose, self.standardise) if self.choose else make_forest(seed, n_jobs)


def make_forest(seed: int, n_jobs: int = 2) -> RandomForestClassifier:
    """Make the thesis' random forest: 100 trees of depth 16 at most."""
    return RandomForestClassifier(n_estimators=NUM_TREES, max_depth=MAX_DEPTH, random_state=seed, n_jobs=n_jobs)


class VectorClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that learns from any training part, also of one type, which it then predicts always.

    Args:
        choose: chooses the classifier, given the training part.
        standardise: whether to bring each feature to mean 0 and standard deviation 1 over the training cells.
    """

    def __init__(self, choose: Choose, standardise: bool = True):
        self.choose = choose
        self.standardise = standardise

    def fit(self, x: np.ndarray, y: np.ndarray) -> "VectorClassifier":
        """Train on features of shape (n, d) and types of shape (n,)."""
        self.classes_ = np.unique(y)
        self.scaler_ = StandardScaler().fit(np.asarray(x, np.float32)) if self.standardise else None
        x = self._scaled(x)
        model = self.choose(x, y) if len(self.classes_) > 1 else DummyClassifier(strategy="most_frequent")
        # Several threads wait for each other on products as small as these. A table takes hundreds of trainings, each
        # of which would print its own warning.
        with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model_ = model.fit(x, y)
        if np.max(getattr(model, "n_iter_", 0)) >= getattr(model, "max_iter", np.inf):
            name = type(model).__name__
            logger.info("%s: not converged in %d iterations on %d cells", name, model.max_iter, len(x))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predict the types of features of shape (n, d): array of shape (n,)."""
        return self.model_.predict(self._scaled(x))

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float32)  # of features in float16 scaling and distances would be in float16
        return x if self.scaler_ is None else self.scaler_.transform(x)


def _dinobloom_logistic(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    num_classes = len(np.unique(y))
    c = x.shape[1] * num_classes / 100
    # Of two classes scikit-learn fits one weight vector w. The multinomial form has w / 2 for one class and -w / 2 for
    # the other, the same probabilities at half the penalty, so that it is the former with twice the C.
    return LogisticRegression(C=2 * c if num_classes == 2 else c, max_iter=1000)


def _neighbours(number: int) -> Choose:
    # Between types of equally many votes the first in alphabetical order is predicted, the same every time.
    return lambda x, y: KNeighborsClassifier(min(number, len(x)))


FOREST = Probe("random-forest")
LOGISTIC = Probe("logistic", lambda x, y: LogisticRegression(max_iter=MAX_ITERATIONS))
# The solver of the primal problem uses no chance, unlike that of the dual. Its tolerance is LIBLINEAR's own for it:
# with scikit-learn's, on 1500 cells of 1000 features it takes twenty times as long.
_SVM = Probe("linear-svm", lambda x, y: LinearSVC(dual=False, tol=0.01, max_iter=MAX_ITERATIONS, random_state=0))
PROTOCOLS: dict[str, tuple[Probe, ...]] = {
    FOREST.name: (FOREST,),
    "thesis": (FOREST, LOGISTIC, _SVM, *(Probe(f"knn-{number}", _neighbours(number)) for number in (1, 20))),
    "dinobloom": (
        FOREST,
        Probe("logistic", _dinobloom_logistic, False),
        *(Probe(f"knn-{number}", _neighbours(number), False) for number in (1, 20)),
    ),
}
