"""Label shift between centres: how many cells of each type each has, and whether these class proportions differ.

Marginal alignment makes the latents of two centres look alike as a whole. Where one has mostly neutrophils and the
other mostly lymphocytes, that can only be had by bringing different types together.
"""

from collections.abc import Mapping

import numpy as np
from tabulate import tabulate

from mrcnn.feature_store import StorePath, open_store

UNLABELLED = "unlabelled"
STRONG_SHIFT = 0.3  # total variation distance, 0 to 1


def count_types(stores: Mapping[str, StorePath]) -> dict[str, dict[str, int]]:
    """Number of cells by centre and type, in alphabetical order; last of "unlabelled" those without one."""
    counts = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            names, numbers = np.unique(store.cell_types, return_counts=True)
        found = dict(zip(names.tolist(), numbers.tolist(), strict=True))
        unlabelled = found.pop("", 0)
        counts[centre] = found | ({UNLABELLED: unlabelled} if unlabelled else {})
    return counts


def format_counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Write counts of `count_types` as a text table for a log: a column per centre, a row per type and their sums."""
    types = sorted({name for found in counts.values() for name in found}, key=lambda name: (name == UNLABELLED, name))
    rows = [[name, *(found.get(name, 0) for found in counts.values())] for name in types]
    rows.append(["all", *(sum(found.values()) for found in counts.values())])
    return tabulate(rows, ["type", *counts], tablefmt="plain")


def type_distance(first: Mapping[str, int], second: Mapping[str, int]) -> float | None:
    """Total variation distance of the class proportions of two centres: half the sum of their absolute differences.

    It is 0 for the same proportions to 1 for no type in common; None if one centre has no labelled cell.
    """
    names = (first.keys() | second.keys()) - {UNLABELLED}
    counts = np.array([[centre.get(name, 0) for name in names] for centre in (first, second)], float)
    totals = counts.sum(axis=1, keepdims=True)
    return float(np.abs(np.diff(counts / totals, axis=0)).sum() / 2) if totals.all() else None


def shift_warnings(counts: Mapping[str, Mapping[str, int]], source: str) -> list[str]:
    """A line for each target whose class proportions, by counts of `count_types`, differ strongly from the source's.

    Centres without labels are not judged.
    """
    distances = {target: type_distance(counts[source], found) for target, found in counts.items() if target != source}
    return [
        f"{source} and {target} differ in their cell types (total variation distance {distance:.2f}, 0 is the same "
        "mixture): aligning them also pulls different types together; try balance 'type' or a lower beta"
        for target, distance in distances.items()
        if distance is not None and distance > STRONG_SHIFT
    ]
