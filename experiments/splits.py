"""Saved splits: the same cells train and test every method, today and next year.

A split is over images, not cells: the cells of one field stay together, and a method whose detector found
other cells is still tested on the same images.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from mrcnn.atomic import write_json
from mrcnn.errors import InputError

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
        data_hash: hash of the keys and labels that were split.
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
) -> Split:
    """Divide a centre's labelled images, each class in the same proportion.

    The order of the images does not matter. A class with a single image goes to the training part. Where the
    test part would have fewer images than there are classes, it grows to one image per class.

    Args:
        centre: name of the centre.
        keys: image keys, of shape (n,); a key may stand several times, once per cell.
        labels: cell types, of shape (n,); images with "" are in neither part.
        test_fraction: between 0 and 1, exclusive.
        seed: of the shuffle.

    Returns:
        The split.

    Raises:
        ValueError: if a key comes with two labels, or the fraction is not between 0 and 1.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    label_of = _label_of(keys, labels)
    counts = Counter(label_of.values())
    single = [key for key, label in label_of.items() if counts[label] == 1]
    divided = [key for key in sorted(label_of) if counts[label_of[key]] > 1]
    train, test = [], []
    if divided:
        classes = [label_of[key] for key in divided]
        num_test = max(int(np.ceil(test_fraction * len(divided))), len(set(classes)))
        # Every class here has two images or more, so that half of them are at least one per class too.
        num_test = min(num_test, len(divided) - len(set(classes)))
        train, test = train_test_split(divided, test_size=num_test, random_state=seed, stratify=classes)
    data_hash = _hash_data(label_of)
    return Split(centre, tuple(sorted([*train, *single])), tuple(sorted(test)), test_fraction, seed, data_hash)


def save_split(split: Split, path: str | os.PathLike) -> None:
    """Write the split as JSON, with a hash of its content."""
    content = asdict(split)
    write_json(path, {"format": FORMAT, **content, "hash": _hash_json(content)})


def load_split(path: str | os.PathLike) -> Split:
    """Read a split.

    Raises:
        InputError: if the file is missing, not a split, or was changed since it was written.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: not a JSON file; delete it to make a new split") from None
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not a split; delete it to make a new one")
    if content.pop("hash", None) != _hash_json(content):
        raise InputError(f"{path}: was changed since it was written; delete it to make a new split")
    try:
        split = Split(**{**content, "train": tuple(content["train"]), "test": tuple(content["test"])})
    except (KeyError, TypeError):
        raise InputError(f"{path}: lacks parts of a split; delete it to make a new one") from None
    return split


def load_or_make_split(
    path: str | os.PathLike,
    centre: str,
    keys: Sequence[str] | np.ndarray,
    labels: Sequence[str] | np.ndarray,
    test_fraction: float = TEST_FRACTION,
    seed: int = SEED,
) -> Split:
    """Reuse the split at `path`, or make it and write it there.

    Args:
        path: JSON file.
        centre: as in `make_split`; so are the rest.
        keys: image keys, of shape (n,).
        labels: cell types, of shape (n,).
        test_fraction: between 0 and 1, exclusive.
        seed: of the shuffle.

    Returns:
        The split.

    Raises:
        InputError: if the file holds a split of other images or labels, or of another fraction or seed.
    """
    path = Path(path)
    if not path.exists():
        split = make_split(centre, keys, labels, test_fraction, seed)
        save_split(split, path)
        return split
    split = load_split(path)
    pairs = {
        "centre": (split.centre, centre),
        "test fraction": (split.test_fraction, test_fraction),
        "seed": (split.seed, seed),
        "images and labels": (split.data_hash, _hash_data(_label_of(keys, labels))),
    }
    for name, (there, here) in pairs.items():
        if there != here:
            raise InputError(f"{path}: is a split for {name} {there}, not {here}; delete it to make a new one")
    return split


def _label_of(keys: Sequence[str] | np.ndarray, labels: Sequence[str] | np.ndarray) -> dict[str, str]:
    """Return the label of each labelled key."""
    label_of: dict[str, str] = {}
    for key, label in zip(map(str, keys), map(str, labels), strict=True):
        if label_of.setdefault(key, label) != label:
            raise ValueError(f"image {key} has labels {label_of[key]!r} and {label!r}")
    return {key: label for key, label in label_of.items() if label}


def _hash_data(label_of: dict[str, str]) -> str:
    return _hash_json(sorted(label_of.items()))


def _hash_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
