"""Saved splits: the same images train and test every method, today and next year.

A split is over images, not cells: the cells of one field stay together, and a method whose detector found other cells
is still tested on the same images. Images of one patient or slide, and copies of one file, stay together too if they
are given as groups and duplicates.
"""

import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from sklearn.model_selection import train_test_split

from experiments.centres.centre import read_columns, shorten
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import hash_json
from mrcnn.files.run_folder import check_same

logger = logging.getLogger(__name__)

FORMAT = "aecfe-split"
TEST_FRACTION = 0.2  # thesis section 3.4
SEED = 42  # of the authors' published code
_NEW = "delete it to make a new split"
_MAX_TRIES = 16
_UNITS_OF_ALL_TRIES = 8192  # many small units come near the fraction at the first try
_MAX_MOVES = 1000


@dataclass(frozen=True)
class Split:
    """Which images of a centre train a classifier and which test it, by their sorted image_ids.

    `test_fraction` was asked for; `seed` is that of the shuffle. `data_hash` is of the image_ids and labels that were
    split, and of what had to stay together.
    """

    centre: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    test_fraction: float = TEST_FRACTION
    seed: int = SEED
    data_hash: str = ""

    @property
    def part_of(self) -> dict[str, str]:
        """The part, "train" or "test", of each image_id that is in one."""
        return {**dict.fromkeys(self.train, "train"), **dict.fromkeys(self.test, "test")}

    def parts(self, image_ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """Return "train", "test" or "" (in neither) for each image_id, as a str array of shape (n,)."""
        part_of = self.part_of
        return np.array([part_of.get(str(image_id), "") for image_id in image_ids], dtype="U5")


def hold_out(centre: str, image_ids: Iterable[str], train_share: float, seed: int) -> dict[str, list[str]]:
    """Divide images at random, without labels, into "train" and "test" image_ids, both sorted, neither empty."""
    image_ids = sorted(image_ids)
    order = np.random.default_rng(seed).permutation(len(image_ids))
    num_train = round(train_share * len(image_ids))
    if not 0 < num_train < len(image_ids):
        raise InputError(f"{centre}: {len(image_ids)} images with masks are too few to hold some out; add images")
    train, test = order[:num_train], order[num_train:]
    return {"train": sorted(image_ids[i] for i in train), "test": sorted(image_ids[i] for i in test)}


def make_split(
    centre: str,
    image_ids: Sequence[str] | np.ndarray,
    labels: Sequence[str] | np.ndarray,
    test_fraction: float = TEST_FRACTION,
    seed: int = SEED,
    *,
    groups: Mapping[str, str] | None = None,
    duplicates: Sequence[Sequence[str]] = (),
) -> Split:
    """Divide a centre's labelled images, each class in the same proportion.

    The order of the images does not matter. A class with a single image goes to the training part. Where the test
    part would have fewer images than there are classes, it grows to one image per class.

    Images of one group, and duplicates of each other, are units that lie in one part, over several steps too. With
    duplicates alone, units take the place of images above. With groups, or if duplicates have different labels,
    classes are in proportion as well as it goes, see `_choose_test_units`.

    Args:
        centre: name of the centre.
        image_ids: of shape (n,); one may stand several times, once per cell.
        labels: cell types, of shape (n,); images with "" are in neither part.
        test_fraction: between 0 and 1, exclusive.
        seed: of the shuffle.
        groups: group of each image, such as its patient or slide; may hold unlabelled images too.
        duplicates: sets of image_ids of images with the same content.

    Raises:
        InputError: if an image comes with two labels.
        ValueError: if a labelled image has no group, or the fraction is out of range.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    label_of: dict[str, str] = {}
    for image_id, label in zip(map(str, image_ids), map(str, labels), strict=True):
        if (first := label_of.setdefault(image_id, label)) != label:
            labels = f"labels {first!r} and {label!r}"
            raise InputError(f"centre {centre}: image {image_id} has {labels}; give all cells of an image one type")
    label_of = {image_id: label for image_id, label in label_of.items() if label}
    units = _join_units(label_of, groups, duplicates)
    for copies in duplicates:
        named = {image_id: label_of[image_id] for image_id in copies if image_id in label_of}
        if len(set(named.values())) > 1:
            text = ", ".join(f"{image_id} ({label})" for image_id, label in named.items())
            logger.warning("%s: images of the same content have different labels: %s", centre, text)
    rows = [(number, label_of[image_id]) for number, unit in enumerate(units) for image_id in unit]
    images = pd.DataFrame(rows, columns=["unit", "label"])
    counts = pd.crosstab(images["unit"], images["label"]).to_numpy(np.float64)
    are_pure = (np.count_nonzero(counts, axis=1) == 1).all()
    if len(units) == len(label_of) or (groups is None and are_pure):
        chosen = _stratified_units([label_of[unit[0]] for unit in units], test_fraction, seed)
    else:
        chosen = _choose_test_units(counts, test_fraction, seed)
    if units and not any(chosen):
        logger.warning("%s: no class has two images, or two groups, to divide; all images train", centre)
    train, test = [], []
    for unit, is_test in zip(units, chosen, strict=True):
        (test if is_test else train).extend(unit)
    data: Any = sorted(label_of.items())
    if joined := sorted(unit for unit in units if len(unit) > 1):  # else it is the hash that it ever was
        data = {"labels": data, "units": joined, "groups": groups is not None}
    return Split(centre, tuple(sorted(train)), tuple(sorted(test)), test_fraction, seed, hash_json(data))


def _join_units(
    image_ids: Iterable[str], groups: Mapping[str, str] | None, duplicates: Iterable[Sequence[str]]
) -> list[tuple[str, ...]]:
    """Units of the images that belong together, each sorted, in the order of their first images.

    If `a` and `b` are copies of each other, everything in the group of `a` and everything in that of `b` is one unit.
    Images outside of `image_ids`, such as unlabelled ones, may be the link.
    """
    known = set(image_ids)
    lacking = [] if groups is None else sorted(known - groups.keys())
    if lacking:
        raise ValueError(f"{len(lacking)} images have no group, for example {lacking[0]}")
    # Groups are linked to their images by tuples, which no image_id equals.
    links = [(image_id, ("group", group)) for image_id, group in (groups or {}).items()]
    links += [(first, other) for first, *others in duplicates for other in others]
    sets = DisjointSet([*known, *(item for link in links for item in link)])
    for link in links:
        sets.merge(*link)
    return sorted(tuple(sorted(joined & known)) for joined in sets.subsets() if joined & known)


def _stratified_units(labels: Sequence[str], test_fraction: float, seed: int) -> np.ndarray:
    """Choose units of one label each, every label in the same proportion: bool array of shape (units,)."""
    counts = Counter(labels)
    divided = np.array([row for row, label in enumerate(labels) if counts[label] > 1], np.int64)
    chosen = np.zeros(len(labels), bool)
    if not len(divided):
        return chosen
    classes = [labels[row] for row in divided]
    num_test = max(int(np.ceil(test_fraction * len(divided))), len(set(classes)))
    # Every class here has two units or more, so that half of them are at least one per class too.
    num_test = min(num_test, len(divided) - len(set(classes)))
    _, test = train_test_split(divided, test_size=num_test, random_state=seed, stratify=classes)
    chosen[test] = True
    return chosen


def _choose_test_units(counts: np.ndarray, test_fraction: float, seed: int) -> np.ndarray:
    """Choose units, bool array of shape (units,), so that each class and all images come near the test fraction.

    `counts` are the images of each label in each unit, of shape (units, labels). The distance is chi-square-like: over
    the classes and over all images, the squared difference between the images in the test part and those that there
    should be, divided by the images that there are. Before it comes that a class that one unit alone bears trains, and
    before both that a class of two units or more stands in both parts. Of some tries the best counts. scikit-learn's
    StratifiedGroupKFold makes equal folds alone, and does not see to it that a class stands in both parts.
    """
    bears = (counts > 0).astype(np.float64)
    all_images, all_bearers, total = counts.sum(axis=0), bears.sum(axis=0), counts.sum()
    # No distance exceeds twice all images, so that each weight outdoes all that follows it.
    alone = 2 * total + 1
    one_part = alone * (counts.shape[1] + 1)

    def costs(images: np.ndarray, bearers: np.ndarray) -> np.ndarray:
        """Of test parts with these images and units of each label, arrays of shape (parts, labels)."""
        distance = ((images - test_fraction * all_images) ** 2 / all_images).sum(axis=1)
        distance += (images.sum(axis=1) - test_fraction * total) ** 2 / total
        in_one_part = (all_bearers > 1) & ((bearers == 0) | (bearers == all_bearers))
        alone_in_test = (all_bearers == 1) & (bearers == 1)
        faults = one_part * in_one_part.sum(axis=1) + alone * alone_in_test.sum(axis=1)
        return np.round(distance + faults, 6)  # so that the last bit of a sum decides nothing

    def choose(order: np.ndarray) -> tuple[np.ndarray, float]:
        """Take each unit that lowers the cost, then move the one that lowers it most until none does."""
        chosen = np.zeros(len(order), bool)
        images, bearers = np.zeros((2, 1, counts.shape[1]))
        cost = costs(images, bearers)[0]
        for row in order:
            new_cost = costs(images + counts[row], bearers + bears[row])[0]
            if new_cost < cost:
                chosen[row], images, bearers, cost = True, images + counts[row], bearers + bears[row], new_cost
        for _ in range(_MAX_MOVES):
            sign = np.where(chosen, -1.0, 1.0)[:, np.newaxis]
            moved_images, moved_bearers = images + sign * counts, bearers + sign * bears
            moved_costs = costs(moved_images, moved_bearers)
            row = int(np.argmin(moved_costs))
            if moved_costs[row] >= cost:
                break
            chosen[row] = not chosen[row]
            images, bearers, cost = moved_images[row], moved_bearers[row], moved_costs[row]
        return chosen, float(cost)

    rng = np.random.default_rng(seed)
    num_tries = max(1, min(_MAX_TRIES, _UNITS_OF_ALL_TRIES // len(counts)))
    tries = [choose(rng.permutation(len(counts))) for _ in range(num_tries)]
    return min(tries, key=lambda found: found[1])[0]


def load_split(path: str | os.PathLike) -> Split:
    """Read a split; a file that is missing, not a split, or was changed since it was written is refused."""
    content = read_json_file(path, missing="make a split", advice=_NEW)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not a split; {_NEW}")
    if content.pop("hash", None) != hash_json(content):
        raise InputError(f"{path}: was changed since it was written; {_NEW}")
    return Split(**{**content, "train": tuple(content["train"]), "test": tuple(content["test"])})


def load_or_make_split(path: str | os.PathLike, *arguments: Any, **options: Any) -> Split:
    """Reuse the split in the JSON file `path`, or write it there; further arguments are those of `make_split`.

    Raises:
        InputError: if the file holds a split of other images, labels, groups, duplicates, fraction or seed.
    """
    wanted = make_split(*arguments, **options)
    if not Path(path).exists():
        content = asdict(wanted)
        write_json(path, {"format": FORMAT, **content, "hash": hash_json(content)})
        return wanted
    split = load_split(path)
    names = {name: name for name in ("centre", "test_fraction", "seed")}
    names["data_hash"] = "set of images, labels, groups or duplicates"
    check_same(path, *({text: getattr(one, name) for name, text in names.items()} for one in (split, wanted)), _NEW)
    return split


def read_groups(path: str | os.PathLike, column: str, image_ids: Sequence[str], where: str) -> dict[str, str]:
    """Read the group of each image of a centre, by image_id, from the columns `image` and `column` of a CSV file.

    The file names an image by its image_id, by its path in `images/`, or by its end if only one image has it
    (`001.png` for `images/a/001.png`). Accented letters may be written in one character or in two.

    Raises:
        InputError: beginning with `where`, if the file cannot be read; a row names no image of the centre, or one of
            several; an image has two groups or none.
    """
    if column == "image":
        raise InputError(f"{where}: {column!r} is no column of groups; name the one of {path} that tells them")
    by_end = defaultdict(list)
    for image_id in image_ids:
        parts = _compose(image_id).split("/")
        for start in range(len(parts)):
            by_end["/".join(parts[start:])].append(image_id)
    groups: dict[str, str] = {}
    faults = []
    for number, image, group in read_columns(path, ("image", column), f"{where}: name another file"):
        name = _compose(image.replace("\\", "/")).removeprefix("./")
        found = by_end.get(name, [])
        # labels.csv names images by their path in images/.
        exact = [image_id for image_id in found if _compose(image_id) in (name, f"images/{name}")]
        found = sorted(exact, key=len)[:1] or found
        if not found:
            faults.append(f"row {number}: {image!r} is none of the images of the centre")
        elif len(found) > 1:
            faults.append(f"row {number}: {image} could be {' or '.join(found[:3])}; write the folder too")
        elif group and groups.setdefault(found[0], group) != group:
            faults.append(f"row {number}: {image} is in {column} {group}, and in {groups[found[0]]} above")
    if faults:
        raise InputError(f"{where}: {path}: {shorten(faults)}; mend the rows")
    if lacking := [image_id for image_id in image_ids if image_id not in groups]:
        raise InputError(
            f"{where}: {path}: {len(lacking)} of {len(image_ids)} images have no {column}, the first is {lacking[0]}; "
            "give each image one (its own name, if it belongs with no other)"
        )
    return {image_id: groups[image_id] for image_id in image_ids}


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)
