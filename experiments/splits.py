"""Saved splits: the same cells train and test every method, today and next year.

A split is over images, not cells: the cells of one field stay together, and a method whose detector found
other cells is still tested on the same images. Images of one patient or slide, and copies of one file, stay
together too if they are given as groups and duplicates.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from experiments.cache import hash_json
from experiments.split_units import choose_test_units, join_units
from mrcnn.atomic import write_json
from mrcnn.errors import InputError
from mrcnn.json_values import read_json_file

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
    proportion as well as it goes, see `experiments.split_units.choose_test_units`. Groups and duplicates that join no
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
