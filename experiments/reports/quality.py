"""Cells and images of feature stores that a person should look at, and why: for the QC page, its CSV and the report."""

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.centres.duplicates import duplicate_sets
from experiments.evaluation.vectors import align_vectors, read_vectors, standardise
from mrcnn.feature_store import UNREADABLE, FeatureStore, StorePath, is_unreadable, open_store
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError

# Reasons to look at a cell, in the order in which they are told.
REASONS = {
    "score": "low score",
    "edge": "at the edge of the image",
    "aspect": "long and narrow box",
    "size": "odd size",
    "contrast": "pale",
    "outlier": "outlier",
    "duplicate": "duplicate",
}
COLUMNS = ("centre", "image_id", "cell", "reason", "value", "limit", "note", "cell_type", "label", "score")
BOX_COLUMNS = ("y1", "x1", "y2", "x2")
FEWEST_CELLS = 10  # of fewer, a median absolute deviation says nothing
# Darkest part of a crop and its paler part, as percentiles of the green channel, in which nuclei are darkest.
DARK, PALE = 10, 75
_BLOCK = 512  # crops in memory


@dataclass(frozen=True)
class Limits:
    """Where a cell becomes worth a look.

    Attributes:
        min_score: minimum detection score.
        edge: pixels; a box that comes as near to the edge of its image, or nearer, touches it.
        max_aspect: longer side of a box by its shorter one.
        max_deviation: robust z-score (MAD) of a box's area and of a crop's contrast within the centre. Iglewicz and
            Hoaglin 1993, "How to detect and handle outliers", take 3.5.
        max_outlier: the same for the distance to the nearest cells in the space of the vectors.
        neighbours: how many nearest cells of the centre that distance is the mean of.
    """

    min_score: float = 0.8
    edge: float = 1.0
    max_aspect: float = 1.8
    max_deviation: float = 3.5
    max_outlier: float = 3.5
    neighbours: int = 10


class Flag(NamedTuple):
    """One reason to look at the cell in a row of its store.

    `severity` is 1 at the limit and more beyond it, and compares reasons with each other; `note` names duplicates.
    """

    row: int
    reason: str
    value: float
    limit: float
    severity: float
    note: str = ""

    def describe(self) -> str:
        """The reason and its value in words."""
        values = {
            "score": f"{self.value:.2f}",
            "edge": f"{max(self.value, 0.0):.1f} px",
            "aspect": f"{self.value:.2f} to 1",
            "size": f"robust z-score {abs(self.value):.1f}, {'larger' if self.value > 0 else 'smaller'}",
            "duplicate": self.note,
        }
        return f"{REASONS[self.reason]}: {values.get(self.reason, f'robust z-score {self.value:.1f}')}"


@dataclass
class CentreCheck:
    """What was found in the store of a centre.

    Attributes:
        path: what `open_store` takes, for the pictures.
        counts, missed: as the store tells them, unreadable images among the missed.
        cells: a row for each of n cells: image_id, cell_type, label, score, cell (1 for the first of an image, 2 for
            the next), name (type, or label where there is none), y1, x1, y2, x2 (the box in pixels), digest (of the
            crop).
        vectors: float32 array of shape (n, d), latents or averaged features; None where outliers were not looked for.
        flags: reasons to look at a cell, by row and in the order of `REASONS`.
    """

    centre: str
    path: StorePath
    counts: dict[str, int]
    missed: list[dict[str, str]]
    cells: pd.DataFrame
    vectors: np.ndarray | None
    flags: list[Flag]

    @property
    def by_row(self) -> dict[int, list[Flag]]:
        """Flags of each flagged cell."""
        return {row: list(flags) for row, flags in groupby(self.flags, attrgetter("row"))}

    def count(self, reason: str) -> int | None:
        """Number of cells flagged for a reason; None where the cells are too few to tell."""
        if reason in ("size", "contrast", "outlier") and len(self.cells) < FEWEST_CELLS:
            return None
        return sum(flag.reason == reason for flag in self.flags)


def check_stores(stores: Mapping[str, StorePath], limits: Limits, embedding: Path | None = None) -> list[CentreCheck]:
    """Look through feature stores.

    Args:
        stores: by centre, what `open_store` takes.
        limits: where a cell becomes worth a look.
        embedding: .h5ad file with the latents of the same cells. Without one, outliers are looked for among the
            detector's features, averaged over each cell and standardised within the centre.

    Returns:
        One result for each centre, in order.

    Raises:
        InputError: if a store or the embedding cannot be used, or the embedding lacks a cell.
    """
    latents = None if embedding is None else read_vectors(embedding)

    def vectors_of(store: FeatureStore) -> np.ndarray:
        return standardise(roi_vectors(store)) if latents is None else _latents_of(store, latents, str(embedding))

    checks = [check_store(path, limits, vectors_of) for path in stores.values()]
    _flag_duplicates(checks)
    return checks


def check_store(
    path: StorePath, limits: Limits, vectors_of: Callable[[FeatureStore], np.ndarray] | None = None
) -> CentreCheck:
    """Look through a store for all but duplicates; for outliers only if its cells' vectors, (n, d), are to be had."""
    with open_store(path) as store:
        count = len(store)
        boxes, scores = store.read("box", 0, count), store.read("score", 0, count)
        shapes = store.read("image_shape", 0, count).astype(np.float64)
        contrasts, digests = _look_at_crops(store)
        names = {"image_id": store.image_ids, "cell_type": store.cell_types, "label": store.labels}
        centre, counts, missed = store.centre, store.counts, store.missed
        vectors = None if vectors_of is None else vectors_of(store)
    cells = pd.DataFrame({**names, "score": scores, "digest": digests})
    cells["cell"] = cells.groupby("image_id").cumcount() + 1
    cells["name"] = cells["cell_type"].where(cells["cell_type"] != "", cells["label"])
    cells[[*BOX_COLUMNS]] = boxes
    lengths = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    # Of each box the distance of its nearest side from the image's; negative where it reaches beyond.
    gaps = np.concatenate([boxes[:, :2], shapes - boxes[:, 2:]], axis=1).min(axis=1)
    low = limits.min_score
    flags = [Flag(row, "score", float(v), low, low / max(v, 1e-6)) for row, v in enumerate(scores) if v < low]
    flags += [Flag(row, "edge", float(gap), limits.edge, 1.0) for row, gap in enumerate(gaps) if gap <= limits.edge]
    flags += _flags_above("aspect", lengths.max(axis=1) / lengths.min(axis=1), limits.max_aspect)
    if count >= FEWEST_CELLS:
        area = np.log(np.maximum((lengths / shapes).prod(axis=1), 1e-9))
        flags += _flags_above("size", robust_scores(area), limits.max_deviation)
        flags += _flags_above("contrast", np.maximum(robust_scores(-contrasts), 0), limits.max_deviation)
        if vectors is not None:
            distances = np.maximum(outlier_scores(vectors, limits.neighbours), 0)
            flags += _flags_above("outlier", distances, limits.max_outlier)
    return CentreCheck(centre, path, counts, missed, cells, vectors, sorted(flags, key=attrgetter("row")))


def all_cells(checks: Sequence[CentreCheck]) -> pd.DataFrame:
    """Cells of several centres, at least one, with `centre`, `row` in its store and `flags` in words, "" for none."""
    tables = []
    for check in checks:
        flags = {row: "; ".join(flag.describe() for flag in own) for row, own in check.by_row.items()}
        rows = np.arange(len(check.cells))
        tables.append(check.cells.assign(centre=check.centre, row=rows, flags=[flags.get(row, "") for row in rows]))
    return pd.concat(tables, ignore_index=True)


def robust_scores(values: np.ndarray) -> np.ndarray:
    """Robust z-scores: distance from the median in units of 1.48 median absolute deviations (MAD)."""
    centred = values - np.median(values)
    # A spread of nothing would make the smallest difference infinite.
    spread = max(1.4826 * float(np.median(np.abs(centred))), 1e-3 * max(float(np.abs(values).max()), 1e-9))
    return centred / spread


def outlier_scores(vectors: np.ndarray, neighbours: int) -> np.ndarray:
    """How far each vector lies from its nearest neighbours, compared with the others.

    The mean distance to the nearest neighbours is compared as a logarithm, since distances are skewed.

    Args:
        vectors: float array of shape (n, d), n at least 2.
        neighbours: how many; fewer where there are not so many others.

    Returns:
        float64 array of shape (n,): robust z-scores; large values are far from everything.
    """
    from sklearn.neighbors import NearestNeighbors

    kept = min(neighbours, len(vectors) - 1)
    # Without an argument, a vector is not its own neighbour, and a copy of it is.
    distances, _ = NearestNeighbors(n_neighbors=kept).fit(vectors).kneighbors()
    means = distances.mean(axis=1, dtype=np.float64)
    # Copies at distance 0 would have a logarithm of minus infinity; they are no outliers.
    return robust_scores(np.log(np.maximum(means, 1e-3 * max(float(np.median(means)), 1e-12))))


def choose_flagged(checks: Sequence[CentreCheck], limit: int) -> list[list[int]]:
    """Choose at most `limit` flagged cells to show, so that every centre and every reason has its share.

    The worst cell of each centre and reason is taken in turn, then the second worst, and so on.

    Returns:
        Rows of each centre, the worst first.
    """
    found = [(index, *flag) for index, check in enumerate(checks) for flag in check.flags]
    flags = pd.DataFrame(found, columns=["centre", *Flag._fields])
    flags = flags.sort_values(["severity", "row"], ascending=[False, True])
    flags["place"] = flags.groupby(["centre", "reason"]).cumcount()
    cells = flags.groupby(["centre", "row"], as_index=False).agg({"place": "min", "severity": "max"})
    chosen = cells.sort_values(["place", "centre", "row"]).head(limit)
    chosen = chosen.sort_values(["severity", "row"], ascending=[False, True])
    return [chosen.loc[chosen["centre"] == index, "row"].tolist() for index in range(len(checks))]


def write_flags(path: Path, checks: Sequence[CentreCheck]) -> None:
    """Write every flag, and every image without a cell, as a row of a CSV file."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [*COLUMNS, *BOX_COLUMNS], restval="", extrasaction="ignore")
        writer.writeheader()
        for check in checks:
            for image in check.missed:
                reason = UNREADABLE if is_unreadable(image["reason"]) else "missed"
                writer.writerow({**image, "centre": check.centre, "reason": reason, "note": image["reason"]})
            cells = check.cells.to_dict("records")
            for flag in check.flags:
                cell = cells[flag.row]
                measured = {"score": f"{cell['score']:.4f}"} | {name: f"{cell[name]:.1f}" for name in BOX_COLUMNS}
                measured |= {} if flag.note else {"value": f"{flag.value:.4g}", "limit": f"{flag.limit:g}"}
                writer.writerow({**cell, **measured, "centre": check.centre, "reason": flag.reason, "note": flag.note})


def _look_at_crops(store: FeatureStore) -> tuple[np.ndarray, list[str]]:
    """Of each crop the difference of pale and dark in the green channel, 0 to 255, and a hash."""
    contrasts, digests = np.zeros(len(store)), []
    for start in range(0, len(store), _BLOCK):
        crops = store.read("crop", start, min(start + _BLOCK, len(store)))
        dark, pale = np.percentile(crops[..., 1].reshape(len(crops), -1), [DARK, PALE], axis=1)
        contrasts[start : start + len(crops)] = pale - dark
        digests += [hashlib.sha256(crop.tobytes()).hexdigest() for crop in crops]
    return contrasts, digests


def _flags_above(reason: str, values: np.ndarray, limit: float) -> list[Flag]:
    """Flags of the cells whose value is above the limit, on either side of 0."""
    rows = np.flatnonzero(np.abs(values) > limit)
    return [Flag(int(row), reason, float(values[row]), limit, abs(values[row]) / max(limit, 1e-6)) for row in rows]


def _flag_duplicates(checks: Sequence[CentreCheck]) -> None:
    """Flag cells whose crop is that of another cell, pixel for pixel, in whatever centre."""
    digests = {(index, row): d for index, check in enumerate(checks) for row, d in enumerate(check.cells["digest"])}
    for cells in duplicate_sets(digests):
        for index, row in cells:
            others = [cell for cell in cells if cell != (index, row)]
            names = [f"{checks[i].centre}/{checks[i].cells['image_id'][r]}" for i, r in others[:3]]
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            note = f"the same picture as {', '.join(names)}{more}"
            checks[index].flags.append(Flag(row, "duplicate", float(len(others)), 0.0, 1.0, note))
    for check in checks:
        check.flags.sort(key=attrgetter("row"))


def _latents_of(store: FeatureStore, latents: Mapping[str, tuple], where: str) -> np.ndarray:
    """Latents of the store's cells, in its order."""
    if not len(store):
        return np.zeros((0, next(iter(latents.values()))[0].shape[1]), np.float32)
    if store.centre not in latents:
        known = ", ".join(latents)
        raise InputError(f"{where}: has no cells of centre {store.centre} (it has {known}); embed {store.path} too")
    vectors, columns = latents[store.centre]
    return align_vectors(vectors, columns["image_id"], store.image_ids, f"{where}, centre {store.centre}")
