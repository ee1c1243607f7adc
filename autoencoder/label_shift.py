"""How many cells of each type each centre has, and whether the centres differ in it.

Marginal alignment makes the latents of two centres look alike as a whole. Where one has mostly neutrophils and the
other mostly lymphocytes, that can only be had by bringing different types together.
"""

from collections.abc import Mapping

import numpy as np

from mrcnn.feature_store import StorePath, open_store
from mrcnn.files.errors import InputError

UNLABELLED = "unlabelled"
STRONG_SHIFT = 0.3  # total variation distance, 0 to 1


def count_cells(stores: Mapping[str, StorePath]) -> dict[str, int]:
    """Number of cells by centre.

    Raises:
        InputError: if a store cannot be read or has no cells.
    """
    counts = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            counts[centre] = len(store)
        if not counts[centre]:
            raise InputError(f"{store.path}: holds no cells; leave this centre out")
    return counts


def count_types(stores: Mapping[str, StorePath]) -> dict[str, dict[str, int]]:
    """Number of cells by centre and type.

    Args:
        stores: feature store by centre, or the shards of one.

    Returns:
        By centre, the cells of each type in alphabetical order, and last of "unlabelled" those without a type; types
        that a centre lacks are left out.

    Raises:
        InputError: if a store cannot be read.
    """
    counts = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            names, numbers = np.unique(store.cell_types, return_counts=True)
        found = dict(zip(names.tolist(), numbers.tolist(), strict=True))
        unlabelled = found.pop("", 0)
        counts[centre] = found | ({UNLABELLED: unlabelled} if unlabelled else {})
    return counts


def format_counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Write counts as an aligned table of plain text, for a log.

    Args:
        counts: as from `count_types`.

    Returns:
        Lines without an end of line after the last: a header with the centres, one line per type, and the sums.
    """
    types = sorted({name for found in counts.values() for name in found if name != UNLABELLED})
    if any(UNLABELLED in found for found in counts.values()):
        types.append(UNLABELLED)
    columns = [["type", *types, "all"]]
    for centre, found in counts.items():
        numbers = [found.get(name, 0) for name in types]
        columns.append([centre, *(str(number) for number in numbers), str(sum(numbers))])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for name, *cells in zip(*columns, strict=True):
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)


def type_distance(first: Mapping[str, int], second: Mapping[str, int]) -> float | None:
    """Total variation distance of the types of two centres: half the sum of the differences of their shares.

    Args:
        first: cells by type; those of "unlabelled" are left out.
        second: the same of another centre.

    Returns:
        0 for the same mixture to 1 for no type in common; None if one centre has no labelled cell.
    """
    shares = []
    for counts in (first, second):
        labelled = {name: count for name, count in counts.items() if name != UNLABELLED}
        total = sum(labelled.values())
        if not total:
            return None
        shares.append({name: count / total for name, count in labelled.items()})
    one, other = shares
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in one.keys() | other.keys()) / 2


def shift_warnings(
    counts: Mapping[str, Mapping[str, int]], source: str, *, threshold: float = STRONG_SHIFT
) -> list[str]:
    """Say which targets have other types than the source, in other shares.

    Args:
        counts: as from `count_types`.
        source: name of the source centre.
        threshold: distance above which there is a warning.

    Returns:
        One line for each target that is further from the source than `threshold`; centres without labels are not
        judged.
    """
    warnings = []
    for target, found in counts.items():
        distance = None if target == source else type_distance(counts[source], found)
        if distance is not None and distance > threshold:
            warnings.append(
                f"{source} and {target} differ in their cell types (total variation distance {distance:.2f}, 0 is the "
                "same mixture): aligning them also pulls different types together; try balance 'type' or a lower beta"
            )
    return warnings
