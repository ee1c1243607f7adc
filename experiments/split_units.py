"""Images that must not be torn apart by a split, and how such units are divided when they differ in size and labels."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_MAX_TRIES = 16
_UNITS_OF_ALL_TRIES = 8192  # many small units come near the fraction at the first try
_MAX_MOVES = 1000


def join_units(
    keys: Iterable[str], groups: Mapping[str, str] | None, duplicates: Iterable[Sequence[str]]
) -> list[tuple[str, ...]]:
    """Join the images that belong together, also over several steps.

    If `a` and `b` are copies of each other, everything in the group of `a` and everything in that of `b` is one unit.
    Images outside of `keys`, such as unlabelled ones, may be the link.

    Args:
        keys: the images to return.
        groups: group of each image; None for no groups.
        duplicates: sets of images of the same content.

    Returns:
        The units, each sorted, in the order of their first keys; every key is in one.
    """
    parent: dict[object, object] = {}

    def find(item: object) -> object:
        while parent.setdefault(item, item) != item:
            # Each step halves the way, so that long chains stay quick.
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    # Groups are linked to their images by tuples, which no key equals.
    links = [(key, ("group", group)) for key, group in (groups or {}).items()]
    links += [(first, other) for first, *others in duplicates for other in others]
    for one, other in links:
        parent[find(one)] = find(other)
    members = defaultdict(list)
    for key in sorted(set(keys)):
        members[find(key)].append(key)
    return sorted(tuple(unit) for unit in members.values())


def choose_test_units(
    units: Sequence[Sequence[str]], label_of: Mapping[str, str], test_fraction: float, seed: int
) -> np.ndarray:
    """Choose units for the test part so that each class and all images together come near the fraction.

    The distance from it is chi-square-like: over the classes and over all images, the squared difference between the
    images in the test part and those that there should be, divided by the images that there are. Units are looked at
    in random order and taken if that lowers the distance; then single units change the part as long as that lowers it.
    Of 16 such tries the best counts. scikit-learn's StratifiedGroupKFold divides into equal folds and knows no more
    fractions than their number, nor does it see to it that a class stands in both parts.

    Before all distances come, in this order: a class that two units or more bear stands in both parts; a class that
    one unit alone bears stands in the training part.

    Args:
        units: keys of the images of each unit, in an order that does not depend on chance.
        label_of: label of each key.
        test_fraction: between 0 and 1, exclusive.
        seed: of the order.

    Returns:
        bool array of shape (len(units),), True for the test part.
    """
    counts = _count_labels(units, label_of)
    goal = _Goal(counts, test_fraction)
    rng = np.random.default_rng(seed)
    best, best_cost = np.zeros(len(units), bool), np.inf
    for _ in range(max(1, min(_MAX_TRIES, _UNITS_OF_ALL_TRIES // len(units)))):
        chosen, cost = _improve(goal, _fill(goal, rng.permutation(len(units))))
        if cost < best_cost:
            best, best_cost = chosen, cost
    return best


def _count_labels(units: Sequence[Sequence[str]], label_of: Mapping[str, str]) -> np.ndarray:
    """Images of each label in each unit: float64 array of shape (units, labels)."""
    column_of = {label: column for column, label in enumerate(sorted(set(label_of.values())))}
    counts = np.zeros((len(units), len(column_of)))
    for row, unit in enumerate(units):
        for key in unit:
            counts[row, column_of[label_of[key]]] += 1
    return counts


class _Goal:
    """What the test part should be like.

    Args:
        counts: images of each label in each unit, array of shape (units, labels).
        fraction: of the images that should be in it.
    """

    def __init__(self, counts: np.ndarray, fraction: float):
        self.counts, self.bears = counts, (counts > 0).astype(np.float64)
        self._images, self._bearers = counts.sum(axis=0), self.bears.sum(axis=0)
        self._fraction, self._total = fraction, counts.sum()
        # No distance exceeds twice all images, so that each weight outdoes all that follows it.
        self._alone = 2 * self._total + 1
        self._one_part = self._alone * (counts.shape[1] + 1)

    def costs(self, images: np.ndarray, bearers: np.ndarray) -> np.ndarray:
        """How far test parts are from it.

        Args:
            images: images of each label in them, array of shape (parts, labels).
            bearers: units of each label in them, array of the same shape.

        Returns:
            Array of shape (parts,), rounded so that the last bit of a sum decides nothing.
        """
        distance = ((images - self._fraction * self._images) ** 2 / self._images).sum(axis=1)
        distance += (images.sum(axis=1) - self._fraction * self._total) ** 2 / self._total
        in_one_part = (self._bearers > 1) & ((bearers == 0) | (bearers == self._bearers))
        alone_in_test = (self._bearers == 1) & (bearers == 1)
        faults = self._one_part * in_one_part.sum(axis=1) + self._alone * alone_in_test.sum(axis=1)
        return np.round(distance + faults, 6)


def _fill(goal: _Goal, order: np.ndarray) -> np.ndarray:
    """Go through the units and take each that lowers the cost: bool array of shape (units,)."""
    chosen = np.zeros(len(order), bool)
    images, bearers = np.zeros((2, 1, goal.counts.shape[1]))
    cost = goal.costs(images, bearers)[0]
    for row in order:
        more_images, more_bearers = images + goal.counts[row], bearers + goal.bears[row]
        new_cost = goal.costs(more_images, more_bearers)[0]
        if new_cost < cost:
            chosen[row], images, bearers, cost = True, more_images, more_bearers, new_cost
    return chosen


def _improve(goal: _Goal, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """Move the unit that lowers the cost most from one part to the other, until none does."""
    chosen = chosen.copy()
    images, bearers = goal.counts[chosen].sum(axis=0), goal.bears[chosen].sum(axis=0)
    cost = goal.costs(images[np.newaxis], bearers[np.newaxis])[0]
    for _ in range(_MAX_MOVES):
        sign = np.where(chosen, -1.0, 1.0)[:, np.newaxis]
        all_images, all_bearers = images + sign * goal.counts, bearers + sign * goal.bears
        costs = goal.costs(all_images, all_bearers)
        row = int(np.argmin(costs))
        if costs[row] >= cost:
            break
        chosen[row] = not chosen[row]
        images, bearers, cost = all_images[row], all_bearers[row], costs[row]
    return chosen, float(cost)
