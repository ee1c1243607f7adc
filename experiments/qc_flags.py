"""Reasons to look at cells: what they are measured by, how they are kept, chosen to be shown, and written down."""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrcnn.atomic import atomic_path
from mrcnn.errors import InputError
from mrcnn.feature_store import UNREADABLE, StorePath, is_unreadable

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
