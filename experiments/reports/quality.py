"""What a person should look at in feature stores: images without a cell, and cells that are odd, with the reasons."""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.centres.duplicates import duplicate_sets
from experiments.evaluation.vectors import align_vectors, read_vectors, standardise
from mrcnn.feature_store import UNREADABLE, StorePath, StoreReader, is_unreadable, open_store
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError

# Of a cell, in the order in which they are told.
REASONS = ("score", "edge", "aspect", "size", "contrast", "outlier", "duplicate")
MISSED = "missed"
COLUMNS = ("centre", "key", "cell", "reason", "value", "limit", "note", "cell_type", "label", "score")
BOX_COLUMNS = ("y1", "x1", "y2", "x2")


@dataclass(frozen=True)
class Limits:
    """Where a cell becomes worth a look.

    Attributes:
        min_score: least detection score.
        edge: pixels; a box that comes as near to the edge of its image, or nearer, touches it.
        max_aspect: longer side of a box by its shorter one.
        max_deviation: robust deviations of a box's size and of a crop's contrast from the centre's median. Iglewicz
            and Hoaglin 1993, "How to detect and handle outliers", take 3.5.
        max_outlier: the same for the distance to the nearest cells in the space of the vectors.
        neighbours: how many nearest cells of the centre that distance is the mean of.
    """

    min_score: float = 0.8
    edge: float = 1.0
    max_aspect: float = 1.8
    max_deviation: float = 3.5
    max_outlier: float = 3.5
    neighbours: int = 10

    def validate(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            InputError: naming the option.
        """
        for name, least, most in (
            ("min_score", 0.0, 1.0),
            ("edge", 0.0, 1e6),
            ("max_aspect", 1.0, 1e6),
            ("max_deviation", 0.0, 1e6),
            ("max_outlier", 0.0, 1e6),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} must lie between {least:g} and {most:g}; got {value:g}")


class Flag(NamedTuple):
    """One reason to look at one cell.

    Attributes:
        row: of the cell in its store.
        reason: one of `REASONS`.
        value: what was measured.
        limit: what it would have had to keep.
        severity: 1 at the limit, more beyond; compares reasons with each other.
        note: further text, such as the name of a duplicate.
    """

    row: int
    reason: str
    value: float
    limit: float
    severity: float
    note: str = ""


@dataclass
class CentreCheck:
    """What was found in the store of a centre; rows are cells, in the order of the store.

    Attributes:
        centre: its name.
        path: what `open_store` takes, for the pictures.
        counts: images, found, missed, unreadable, detections, cells.
        missed: images without a cell: dicts of key, reason, label, cell_type; unreadable ones too.
        keys, cell_types, labels: str arrays of shape (n,).
        numbers: int array of shape (n,): 1 for the first cell of an image, 2 for the next.
        scores: float32 array of shape (n,).
        boxes: float32 array of shape (n, 4), (y1, x1, y2, x2) in pixels.
        vectors: float32 array of shape (n, d): latents or averaged features.
        digests: hash of each crop.
        has_outliers: False where the cells are too few to tell outliers, and odd sizes and contrasts.
        flags: reasons to look at a cell, by row and in the order of `REASONS`.
    """

    centre: str
    path: StorePath
    counts: dict[str, int]
    missed: list[dict[str, str]]
    keys: np.ndarray
    cell_types: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    vectors: np.ndarray
    digests: list[str]
    has_outliers: bool
    flags: list[Flag]

    @property
    def by_row(self) -> dict[int, list[Flag]]:
        """Flags of each flagged cell."""
        found: dict[int, list[Flag]] = defaultdict(list)
        for flag in self.flags:
            found[flag.row].append(flag)
        return dict(found)

    @property
    def by_reason(self) -> dict[str, int]:
        """Number of cells flagged for each of `REASONS`."""
        counted = Counter(flag.reason for flag in self.flags)
        return {reason: counted[reason] for reason in REASONS}

    @property
    def sides(self) -> np.ndarray:
        """float64 array of shape (n,): side in pixels of a square as large as the box."""
        lengths = (self.boxes[:, 2:] - self.boxes[:, :2]).astype(np.float64)
        return np.sqrt(np.maximum(lengths.prod(axis=1), 0.0))


def choose_flagged(checks: Sequence[CentreCheck], limit: int) -> list[tuple[int, int]]:
    """Choose flagged cells to show, so that every centre and every reason has its share.

    The worst cell of each centre and reason is taken in turn, then the second worst, and so on.

    Args:
        checks: of all centres.
        limit: most cells.

    Returns:
        (index of the centre in `checks`, row), those of a centre together, each centre's worst first.
    """
    queues: dict[tuple[int, str], list[tuple[float, int]]] = defaultdict(list)
    for index, check in enumerate(checks):
        for flag in check.flags:
            queues[index, flag.reason].append((-flag.severity, flag.row))
    ranked = [(place, index, row) for (index, _), q in queues.items() for place, (_, row) in enumerate(sorted(q))]
    chosen = list(dict.fromkeys((index, row) for _, index, row in sorted(ranked)))[:limit]
    worst = [{row: max(f.severity for f in flags) for row, flags in check.by_row.items()} for check in checks]
    return sorted(chosen, key=lambda cell: (cell[0], -worst[cell[0]][cell[1]], cell[1]))


def write_flags(path: Path, checks: Sequence[CentreCheck]) -> None:
    """Write every flag, and every image without a cell, as a row of a CSV file.

    Args:
        path: the file, written atomically.
        checks: of all centres.
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow([*COLUMNS, *BOX_COLUMNS])
        for check in checks:
            for image in check.missed:
                reason = UNREADABLE if is_unreadable(image["reason"]) else MISSED
                fields = (check.centre, image["key"], "", reason, "", "", image["reason"], image["cell_type"])
                writer.writerow([*fields, image["label"], "", "", "", "", ""])
            for flag in check.flags:
                row = flag.row
                fields = (check.centre, check.keys[row], check.numbers[row], flag.reason)
                measured = ("", "") if flag.note else (f"{flag.value:.4g}", f"{flag.limit:g}")
                names = (check.cell_types[row], check.labels[row], f"{check.scores[row]:.4f}")
                writer.writerow([*fields, *measured, flag.note, *names, *(f"{side:.1f}" for side in check.boxes[row])])


# Darkest part of a crop and its paler part, as percentiles of the green channel, in which nuclei are darkest.
DARK, PALE = 10, 75
BLOCK = 512


def doubts(store: StoreReader) -> np.ndarray:
    """How unlike the other cells of its centre each cell of a store is.

    Args:
        store: features of one centre, at least one cell.

    Returns:
        float64 array of shape (num_cells,): the largest of the four `deviations`, on the side that is suspicious; above
        3 is unusual.
    """
    found = deviations(store)
    return np.max([found["score"], np.abs(found["size"]), found["place"], found["contrast"]], axis=0)


def deviations(store: StoreReader) -> dict[str, np.ndarray]:
    """How far each cell of a store is from the usual cell of its centre.

    Four things are compared, each in units of its spread (median absolute deviation) over the centre: a low score, a
    box much smaller or larger than usual, a box far from the image's centre, and a crop with little contrast, as a red
    cell or a platelet without a dark nucleus has.

    Args:
        store: features of one centre, at least one cell.

    Returns:
        float64 arrays of shape (num_cells,): "score", "place" and "contrast", where positive values are suspicious,
        and "size", where negative values are small boxes and positive ones large boxes.
    """
    boxes, scores = store.read("box", 0, len(store)), store.read("score", 0, len(store))
    shapes = store.read("image_shape", 0, len(store)).astype(np.float64)
    sizes = (boxes[:, 2:] - boxes[:, :2]) / shapes
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2 / shapes
    area = np.log(np.maximum(sizes.prod(axis=1), 1e-9))
    distance = np.linalg.norm(centres - 0.5, axis=1)
    return {
        "score": spreads(-scores.astype(np.float64)),
        "size": spreads(area),
        "place": spreads(distance),
        "contrast": spreads(-_contrasts(store)),
    }


def doubtful_rows(store: StoreReader, number: int) -> np.ndarray:
    """Rows of the `number` most doubtful cells, the worst first."""
    return np.argsort(-doubts(store), kind="stable")[:number] if len(store) else np.zeros(0, np.int64)


def _contrasts(store: StoreReader) -> np.ndarray:
    """Difference of pale and dark in the green channel of each crop, 0 to 255."""
    values = []
    for start in range(0, len(store), BLOCK):
        green = store.read("crop", start, min(start + BLOCK, len(store)))[..., 1].reshape(-1, 128 * 128)
        dark, pale = np.percentile(green, [DARK, PALE], axis=1)
        values.append(pale - dark)
    return np.concatenate(values)


def spreads(values: np.ndarray) -> np.ndarray:
    """Distance from the median in units of 1.48 median absolute deviations, a normal distribution's sigma."""
    centred = values - np.median(values)
    # A spread of nothing would make the smallest difference infinite.
    spread = max(1.4826 * float(np.median(np.abs(centred))), 1e-3 * max(float(np.abs(values).max()), 1e-9))
    return centred / spread


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
    latents = None if embedding is None else read_vectors(embedding)
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
