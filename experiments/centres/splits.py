"""Saved splits: the same cells train and test every method, today and next year.

A split is over images, not cells: the cells of one field stay together, and a method whose detector found
other cells is still tested on the same images. Images of one patient or slide, and copies of one file, stay
together too if they are given as groups and duplicates.
"""

import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from experiments.centres.centre import read_columns
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import hash_json

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


logger = logging.getLogger(__name__)

FORMAT = "aecfe-split"
TEST_FRACTION = 0.2  # thesis section 3.4
SEED = 42  # of the authors' published code


@dataclass(frozen=True)
class Split:
    """Which images of a centre train a classifier and which test it.

    Attributes:
        centre: name of the centre.
        train: keys of training images, sorted.
        test: keys of test images, sorted.
        test_fraction: share of test images that was asked for.
        seed: seed of the shuffle.
        data_hash: hash of the keys and labels that were split, and of what had to stay together.
    """

    centre: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    test_fraction: float = TEST_FRACTION
    seed: int = SEED
    data_hash: str = ""

    @property
    def part_of(self) -> dict[str, str]:
        """The part, "train" or "test", of each key that is in one."""
        return {**dict.fromkeys(self.train, "train"), **dict.fromkeys(self.test, "test")}

    def parts(self, keys: Sequence[str] | np.ndarray) -> np.ndarray:
        """Return "train", "test" or "" (in neither) for each key, as a str array of shape (n,)."""
        part_of = self.part_of
        return np.array([part_of.get(str(key), "") for key in keys], dtype="U5")


def make_split(
    centre: str,
    keys: Sequence[str] | np.ndarray,
    labels: Sequence[str] | np.ndarray,
    test_fraction: float = TEST_FRACTION,
    seed: int = SEED,
    *,
    groups: Mapping[str, str] | None = None,
    duplicates: Sequence[Sequence[str]] = (),
) -> Split:
    """Divide a centre's labelled images, each class in the same proportion.

    The order of the images does not matter. A class with a single image goes to the training part. Where the
    test part would have fewer images than there are classes, it grows to one image per class.

    Images of one group, and duplicates of each other, are units that lie in one part, over several steps too: copies
    join the groups that they are in. With duplicates alone, units take the place of images in what is said above. With
    groups, which differ in size and hold several classes, or if duplicates have different labels, classes are in
    proportion as well as it goes, see `choose_test_units`. Groups and duplicates that join no
    labelled images change nothing.

    Args:
        centre: name of the centre.
        keys: image keys, of shape (n,); a key may stand several times, once per cell.
        labels: cell types, of shape (n,); images with "" are in neither part.
        test_fraction: between 0 and 1, exclusive.
        seed: of the shuffle.
        groups: group, such as the patient or the slide, of each image; of more images than are labelled, if you like.
        duplicates: sets of keys of images with the same content.

    Returns:
        The split.

    Raises:
        ValueError: if a key comes with two labels, a labelled image has no group, or the fraction is not between 0
            and 1.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    label_of = _label_of(keys, labels)
    units = _units(label_of, groups, duplicates)
    _warn_of_contradictions(centre, label_of, duplicates)
    are_pure = all(len({label_of[key] for key in unit}) == 1 for unit in units)
    if all(len(unit) == 1 for unit in units) or (groups is None and are_pure):
        test = _stratified_test_units(units, label_of, test_fraction, seed)
    else:
        chosen = choose_test_units(units, label_of, test_fraction, seed)
        test = {unit for unit, is_chosen in zip(units, chosen, strict=True) if is_chosen}
    if units and not test:
        logger.warning("%s: no class has two images, or two groups, to divide; all images train", centre)
    train = sorted(key for unit in units if unit not in test for key in unit)
    return Split(
        centre,
        tuple(train),
        tuple(sorted(key for unit in test for key in unit)),
        test_fraction,
        seed,
        _hash_data(label_of, units, groups is not None),
    )


def _stratified_test_units(
    units: Sequence[tuple[str, ...]], label_of: Mapping[str, str], test_fraction: float, seed: int
) -> set[tuple[str, ...]]:
    """Choose units of one label each, every label in the same proportion of units."""
    counts = Counter(label_of[unit[0]] for unit in units)
    divided = [unit for unit in units if counts[label_of[unit[0]]] > 1]
    if not divided:
        return set()
    classes = [label_of[unit[0]] for unit in divided]
    num_test = max(int(np.ceil(test_fraction * len(divided))), len(set(classes)))
    # Every class here has two units or more, so that half of them are at least one per class too.
    num_test = min(num_test, len(divided) - len(set(classes)))
    rows = np.arange(len(divided))
    _, test = train_test_split(rows, test_size=num_test, random_state=seed, stratify=classes)
    return {divided[row] for row in test}


def _units(
    label_of: Mapping[str, str], groups: Mapping[str, str] | None, duplicates: Sequence[Sequence[str]]
) -> list[tuple[str, ...]]:
    """The labelled images that must stay together; as a rule each is a unit of its own."""
    lacking = [] if groups is None else [key for key in label_of if key not in groups]
    if lacking:
        raise ValueError(f"{len(lacking)} images have no group, for example {lacking[0]}")
    return join_units(label_of, groups, duplicates)


def _warn_of_contradictions(centre: str, label_of: Mapping[str, str], duplicates: Sequence[Sequence[str]]) -> None:
    for keys in duplicates:
        named = [f"{key} ({label_of[key]})" for key in keys if key in label_of]
        if len({label_of[key] for key in keys if key in label_of}) > 1:
            logger.warning("%s: images of the same content have different labels: %s", centre, ", ".join(named))


def save_split(split: Split, path: str | os.PathLike) -> None:
    """Write the split as JSON, with a hash of its content."""
    content = asdict(split)
    write_json(path, {"format": FORMAT, **content, "hash": hash_json(content)})


def load_split(path: str | os.PathLike) -> Split:
    """Read a split.

    Raises:
        InputError: if the file is missing, not a split, or was changed since it was written.
    """
    path = Path(path)
    content = read_json_file(path, missing="make a split", advice="delete it to make a new split")
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not a split; delete it to make a new one")
    if content.pop("hash", None) != hash_json(content):
        raise InputError(f"{path}: was changed since it was written; delete it to make a new split")
    fault = _find_fault(content)
    if fault:
        raise InputError(f"{path}: {fault}; delete it to make a new one")
    return Split(**{**content, "train": tuple(content["train"]), "test": tuple(content["test"])})


def _find_fault(content: dict[str, object]) -> str:
    """What keeps the content of a file from being a split, although its hash is right; "" if nothing does."""
    names = {field.name for field in fields(Split)}
    if set(content) != names:
        return f"does not have the parts of a split ({', '.join(sorted(names ^ set(content)))})"
    for name in ("train", "test"):
        keys = content[name]
        if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
            return f"{name} is no list of images"
    keys = [*content["train"], *content["test"]]
    if len(set(keys)) < len(keys):
        return "has an image twice"
    fraction, seed = content["test_fraction"], content["seed"]
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        return f"test_fraction is {fraction!r:.60}"
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        return f"seed is {seed!r:.60}"
    if not isinstance(content["centre"], str) or not isinstance(content["data_hash"], str):
        return "does not name its centre and data"
    return ""


def load_or_make_split(
    path: str | os.PathLike,
    centre: str,
    keys: Sequence[str] | np.ndarray,
    labels: Sequence[str] | np.ndarray,
    test_fraction: float = TEST_FRACTION,
    seed: int = SEED,
    *,
    groups: Mapping[str, str] | None = None,
    duplicates: Sequence[Sequence[str]] = (),
) -> Split:
    """Reuse the split at `path`, or make it and write it there.

    Args:
        path: JSON file.
        centre: as in `make_split`; so are the rest.
        keys: image keys, of shape (n,).
        labels: cell types, of shape (n,).
        test_fraction: between 0 and 1, exclusive.
        seed: of the shuffle.
        groups: group of each image.
        duplicates: sets of keys of images with the same content.

    Returns:
        The split.

    Raises:
        InputError: if the file holds a split of other images or labels, of another fraction or seed, or one that kept
            other images together.
    """
    path = Path(path)
    if not path.exists():
        split = make_split(centre, keys, labels, test_fraction, seed, groups=groups, duplicates=duplicates)
        save_split(split, path)
        return split
    split = load_split(path)
    label_of = _label_of(keys, labels)
    data_hash = _hash_data(label_of, _units(label_of, groups, duplicates), groups is not None)
    pairs = {
        "centre": (split.centre, centre),
        "test fraction": (split.test_fraction, test_fraction),
        "seed": (split.seed, seed),
    }
    for name, (there, here) in pairs.items():
        if there != here:
            raise InputError(f"{path}: is a split for {name} {there}, not {here}; delete it to make a new one")
    if split.data_hash == data_hash:
        return split
    if split.data_hash == _hash_data(label_of, join_units(label_of, None, ()), False):
        raise InputError(
            f"{path}: is a split that does not keep groups and duplicates of images together; "
            "delete it to make a new one"
        )
    raise InputError(
        f"{path}: is a split of other images and labels, or kept other groups or duplicates together; "
        "delete it to make a new one"
    )


def _label_of(keys: Sequence[str] | np.ndarray, labels: Sequence[str] | np.ndarray) -> dict[str, str]:
    """Return the label of each labelled key."""
    label_of: dict[str, str] = {}
    for key, label in zip(map(str, keys), map(str, labels), strict=True):
        if label_of.setdefault(key, label) != label:
            raise ValueError(f"image {key} has labels {label_of[key]!r} and {label!r}")
    return {key: label for key, label in label_of.items() if label}


def _hash_data(label_of: Mapping[str, str], units: Sequence[tuple[str, ...]], has_groups: bool) -> str:
    """Hash what a split is of; without units of several images it is the keys and labels alone, as it ever was."""
    joined = sorted(unit for unit in units if len(unit) > 1)
    if not joined:
        return hash_json(sorted(label_of.items()))
    return hash_json({"labels": sorted(label_of.items()), "units": joined, "groups": has_groups})


IMAGE_COLUMN = "image"
_MAX_FAULTS = 10


def read_groups(path_to_csv: str | os.PathLike, column: str, keys: Sequence[str], where: str) -> dict[str, str]:
    """Read the group of each image of a centre.

    The file names an image by its key, by its path in `images/`, or by the end of its key if only one image has it
    (`001.png` for `images/a/001.png`). Accented letters may be written in one character or in two.

    Args:
        path_to_csv: a UTF-8 file, comma-separated, with the columns `image` and `column`; others are not read.
        column: the name of the group's column.
        keys: every image of the centre.
        where: what to call the centre or the setting in an error.

    Returns:
        The group of each key, in their order.

    Raises:
        InputError: if the file is missing, not UTF-8 or lacks a column; a row names no image of the centre, or one of
            several; an image has two groups; or images have none. The message counts the faults.
    """
    path = Path(path_to_csv)
    if not column or column == IMAGE_COLUMN:
        raise InputError(f"{where}: {column!r} is no column of groups; name the one of {path} that tells them")
    names = _Names(keys)
    groups: dict[str, str] = {}
    faults = []
    advice = f"{where}: it must hold the column {column}, or name another file"
    for number, image, group in read_columns(path, (IMAGE_COLUMN, column), advice):
        candidates = names.find(image)
        if not image:
            faults.append(f"row {number} names no image")
        elif not candidates:
            faults.append(f"row {number}: {image} is none of the images of the centre")
        elif len(candidates) > 1:
            faults.append(f"row {number}: {image} could be {' or '.join(candidates[:3])}; write the folder too")
        elif group and groups.setdefault(candidates[0], group) != group:
            faults.append(f"row {number}: {image} is in {column} {group}, and in {groups[candidates[0]]} above")
    if faults:
        more = f" and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        count = f"{len(faults)} faults: " if len(faults) > 1 else ""
        raise InputError(f"{where}: {path}: {count}{'; '.join(faults[:_MAX_FAULTS])}{more}; mend the rows")
    lacking = [key for key in keys if key not in groups]
    if lacking:
        raise InputError(
            f"{where}: {path}: {len(lacking)} of {len(keys)} images have no {column}, the first is {lacking[0]}; "
            f"give each image one (its own name, if it belongs with no other)"
        )
    return {key: groups[key] for key in keys}


class _Names:
    """The names by which the file may call images.

    Args:
        keys: of the images.
    """

    def __init__(self, keys: Sequence[str]):
        self._by_key = {_compose(key): key for key in keys}
        self._by_end: dict[str, list[str]] = {}
        for key in keys:
            parts = _compose(key).split("/")
            for start in range(1, len(parts)):
                self._by_end.setdefault("/".join(parts[start:]), []).append(key)

    def find(self, name: str) -> list[str]:
        """The one key that is meant, those that could be, or none."""
        name = _compose(name.replace("\\", "/")).removeprefix("./")
        # labels.csv names images by their path in images/.
        exact = self._by_key.get(name) or self._by_key.get(f"images/{name}")
        return [exact] if exact else self._by_end.get(name, [])


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)
