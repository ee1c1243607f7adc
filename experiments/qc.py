"""What a person should look at in feature stores: images without a cell, and cells that are odd, with the reasons."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.classify import roi_vectors, standardise
from experiments.doubtful import deviations, spreads
from experiments.duplicates import duplicate_sets
from experiments.qc_flags import REASONS, CentreCheck, Flag, Limits
from experiments.vector_files import align_vectors, read_embedding
from mrcnn.errors import InputError
from mrcnn.feature_store import StorePath, StoreReader, open_store

# Of fewer cells, a median absolute deviation says nothing.
FEWEST_CELLS = 10
_BLOCK = 512


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
    latents = None if embedding is None else read_embedding(embedding)
    checks = []
    for path in stores.values():
        with open_store(path) as store:
            vectors = standardise(roi_vectors(store)) if latents is None else None
            if latents is not None:
                vectors = _latents_of(store, latents, str(embedding))
            checks.append(_check_centre(store, path, vectors, limits))
    _flag_duplicates(checks)
    return checks


def outlier_deviations(vectors: np.ndarray, neighbours: int) -> np.ndarray:
    """How far each vector lies from its nearest neighbours, compared with the others.

    The mean distance to the nearest neighbours is compared as a logarithm, since distances are skewed.

    Args:
        vectors: float array of shape (n, d), n at least 2.
        neighbours: how many; fewer where there are not so many others.

    Returns:
        float64 array of shape (n,): robust deviations from the median; large values are far from everything.
    """
    from sklearn.neighbors import NearestNeighbors

    kept = min(neighbours, len(vectors) - 1)
    # Without an argument, a vector is not its own neighbour, and a copy of it is.
    distances, _ = NearestNeighbors(n_neighbors=kept).fit(vectors).kneighbors()
    means = distances.mean(axis=1, dtype=np.float64)
    # Copies at distance 0 would have a logarithm of minus infinity; they are no outliers.
    return spreads(np.log(np.maximum(means, 1e-3 * max(float(np.median(means)), 1e-12))))


def _check_centre(store: StoreReader, path: StorePath, vectors: np.ndarray, limits: Limits) -> CentreCheck:
    count = len(store)
    boxes, scores = store.read("box", 0, count), store.read("score", 0, count)
    shapes = store.read("image_shape", 0, count)
    flags: list[Flag] = []
    for row in np.flatnonzero(scores < limits.min_score):
        value = float(scores[row])
        flags.append(Flag(int(row), "score", value, limits.min_score, limits.min_score / max(value, 1e-6)))
    # Of each box the distance of its nearest side from the image's; negative where it reaches beyond.
    gaps = np.concatenate([boxes[:, :2], shapes - boxes[:, 2:]], axis=1).min(axis=1)
    flags += [Flag(int(row), "edge", float(gaps[row]), limits.edge, 1.0) for row in np.flatnonzero(gaps <= limits.edge)]
    lengths = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    _flag_above(flags, "aspect", lengths.max(axis=1) / lengths.min(axis=1), limits.max_aspect)
    if count >= FEWEST_CELLS:
        found = deviations(store)
        _flag_above(flags, "size", found["size"], limits.max_deviation, both_sides=True)
        _flag_above(flags, "contrast", found["contrast"], limits.max_deviation)
        _flag_above(flags, "outlier", outlier_deviations(vectors, limits.neighbours), limits.max_outlier)
    return CentreCheck(
        centre=store.centre,
        path=path,
        counts=store.counts,
        missed=store.missed,
        keys=store.keys,
        cell_types=store.cell_types,
        labels=store.labels,
        numbers=cell_numbers(store.keys),
        scores=scores,
        boxes=boxes,
        vectors=vectors,
        digests=_digests(store),
        has_outliers=count >= FEWEST_CELLS,
        flags=_ordered(flags),
    )


def cell_numbers(keys: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Number the cells of each image from 1, in the order of the rows: int array of shape (n,)."""
    seen: Counter[Hashable] = Counter()
    numbers = np.zeros(len(keys), np.int64)
    for row, key in enumerate(keys):
        seen[key] += 1
        numbers[row] = seen[key]
    return numbers


def _flag_above(flags: list[Flag], reason: str, values: np.ndarray, limit: float, *, both_sides: bool = False) -> None:
    """Flag the cells whose value, or its amount, is above the limit."""
    amounts = np.abs(values) if both_sides else values
    for row in np.flatnonzero(amounts > limit):
        severity = float(amounts[row]) / max(limit, 1e-6)
        flags.append(Flag(int(row), reason, float(values[row]), limit, severity))


def _flag_duplicates(checks: Sequence[CentreCheck]) -> None:
    """Flag cells whose crop is that of another cell, pixel for pixel, in whatever centre."""
    digests = {(index, row): d for index, check in enumerate(checks) for row, d in enumerate(check.digests)}
    for cells in duplicate_sets(digests):
        for index, row in cells:
            others = [cell for cell in cells if cell != (index, row)]
            names = [f"{checks[i].centre}/{checks[i].keys[r]}" for i, r in others[:3]]
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            note = f"the same picture as {', '.join(names)}{more}"
            checks[index].flags.append(Flag(row, "duplicate", float(len(others)), 0.0, 1.0, note))
    for check in checks:
        check.flags[:] = _ordered(check.flags)


def _digests(store: StoreReader) -> list[str]:
    """Hash of each crop."""
    digests = []
    for start in range(0, len(store), _BLOCK):
        crops = store.read("crop", start, min(start + _BLOCK, len(store)))
        digests += [hashlib.sha256(crop.tobytes()).hexdigest() for crop in crops]
    return digests


def _ordered(flags: list[Flag]) -> list[Flag]:
    return sorted(flags, key=lambda flag: (flag.row, REASONS.index(flag.reason)))


def _latents_of(store: StoreReader, latents: Mapping[str, tuple], where: str) -> np.ndarray:
    """Latents of the store's cells, in its order."""
    if not len(store):
        return np.zeros((0, next(iter(latents.values()))[0].shape[1]), np.float32)
    if store.centre not in latents:
        known = ", ".join(latents)
        raise InputError(f"{where}: has no cells of centre {store.centre} (it has {known}); embed {store.path} too")
    vectors, columns = latents[store.centre]
    return align_vectors(vectors, columns["key"], store.keys, f"{where}, centre {store.centre}")
