"""Predictions of classifiers that were trained on one centre, for the cells of each: what every table is made from.

Predictions are kept rather than scores: intervals, confusion matrices and comparisons cell by cell follow from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from experiments.evaluation.classifiers import Probe
from mrcnn.files.errors import InputError

Pair = tuple[str, str]  # trained on, tested on
Vectors = Mapping[str, np.ndarray]  # by centre, of shape (n, d)


@dataclass(frozen=True)
class Cells:
    """The cells that every representation describes, by centre as str arrays of shape (n,).

    Attributes:
        image_ids: of the cells' images.
        types: cell types; "" for none.
        parts: "train", "test" or "" (in neither part of the split).
        classes: cell types, in the order of tables and of confusion matrices.
    """

    image_ids: dict[str, np.ndarray]
    types: dict[str, np.ndarray]
    parts: dict[str, np.ndarray]
    classes: tuple[str, ...]

    @property
    def centres(self) -> tuple[str, ...]:
        """Centres with labelled cells; the others are not scored."""
        return tuple(centre for centre, types in self.types.items() if np.any(types != ""))

    @property
    def pairs(self) -> list[Pair]:
        """Every ordered pair of centres, each with itself too."""
        return [(trained_on, tested_on) for trained_on in self.centres for tested_on in self.centres]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Labelled cells of each class, by centre."""
        return {c: {name: int(np.sum(types == name)) for name in self.classes} for c, types in self.types.items()}

    def train_rows(self, centre: str) -> np.ndarray:
        """Rows that a classifier learns from, int64."""
        return np.flatnonzero((self.types[centre] != "") & (self.parts[centre] == "train"))

    def test_rows(self, pair: Pair, test_on: str) -> np.ndarray:
        """Rows of the second centre that are tested, int64: its test part, or with "all" the whole of another."""
        trained_on, tested_on = pair
        types, parts = self.types[tested_on], self.parts[tested_on]
        whole = test_on == "all" and trained_on != tested_on
        return np.flatnonzero((types != "") & ((parts != "") if whole else (parts == "test")))

    def truth(self, pair: Pair, test_on: str) -> np.ndarray:
        """Class numbers of the tested cells of a pair, int64."""
        return self.class_numbers(self.types[pair[1]][self.test_rows(pair, test_on)])

    def class_numbers(self, names: np.ndarray) -> np.ndarray:
        """Position of each name in `classes`, int64 of shape (n,); -1 for a name that is none of them."""
        return pd.Index(self.classes).get_indexer(names)


def make_cells(
    image_ids: Mapping[str, np.ndarray],
    types: Mapping[str, np.ndarray],
    parts: Mapping[str, np.ndarray],
    classes: Sequence[str] | None = None,
) -> Cells:
    """Gather and check the cells of a comparison, see `Cells`; classes without a cell are dropped.

    Raises:
        InputError: if no centre has labels, or one with labels has no training or no test cell.
        ValueError: if a type is not among `classes`, which are all types in alphabetical order by default.
    """
    given = ({c: np.asarray(v, dtype=str) for c, v in each.items()} for each in (image_ids, types, parts))
    cells = Cells(*given, ())
    found = sorted(set(np.concatenate(list(cells.types.values())).tolist()) - {""})
    if not found:
        raise InputError("no centre has a labelled cell; check the labels and the class map")
    for centre in cells.centres:
        for part, rows in (("train", cells.train_rows(centre)), ("test", cells.test_rows((centre, centre), "test"))):
            if not len(rows):
                raise InputError(
                    f"centre {centre}: no labelled cell in its {part} part; check its split and labels, or leave it out"
                )
    return replace(cells, classes=tuple(found if classes is None else sorted(found, key=list(classes).index)))


def predict_pairs(
    trainings: Sequence[Vectors],
    cells: Cells,
    probe: Probe,
    *,
    runs: int,
    seed: int,
    test_on: str = "test",
    n_jobs: int = 2,
) -> dict[Pair, np.ndarray]:
    """Train a classifier on each centre and predict the tested cells of every centre.

    Args:
        trainings: the vectors by centre, rows as in `cells`, from each training of the representation; run number r
            takes number r modulo their number.
        cells: what is learned and predicted.
        probe: the classifier.
        runs, seed: how many classifiers, with seeds `seed`, `seed + 1` and so on; where the classifier does not depend
            on the seed, one for each training is enough.
        test_on: which cells of other centres are tested: "test", their test parts, as in the thesis; "all", as in its
            authors' published code.
        n_jobs: cores for a classifier.

    Returns:
        By pair of centres, class numbers int16 of shape (runs, number of tested cells).
    """
    for vectors in trainings:
        for centre in cells.centres:
            if len(vectors[centre]) != len(cells.types[centre]):
                raise ValueError(f"{centre}: {len(vectors[centre])} vectors for {len(cells.types[centre])} cells")
            # By the sum of each row, which needs no mask as large as the vectors.
            if not np.isfinite(np.sum(vectors[centre], axis=1, dtype=np.float64)).all():
                raise InputError(f"{centre}: vectors hold NaN or infinite values; look at the network they come from")
    runs = runs if probe.is_random else min(runs, len(trainings))
    predictions: dict[Pair, list[np.ndarray]] = {pair: [] for pair in cells.pairs}
    for trained_on in cells.centres:
        rows = cells.train_rows(trained_on)
        for run in range(runs):
            vectors = trainings[run % len(trainings)]
            classifier = probe.make(seed + run, n_jobs).fit(vectors[trained_on][rows], cells.types[trained_on][rows])
            for tested_on in cells.centres:
                pair = (trained_on, tested_on)
                predicted = classifier.predict(vectors[tested_on][cells.test_rows(pair, test_on)])
                predictions[pair].append(cells.class_numbers(predicted).astype(np.int16))
    return {pair: np.stack(values) for pair, values in predictions.items()}
