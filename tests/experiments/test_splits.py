"""Splits are stratified, the same every time, and safe to reuse."""

import json

import numpy as np
import pytest

from experiments.splits import load_or_make_split, load_split, make_split, save_split
from mrcnn.errors import InputError


def cells(**counts):
    labels = np.array([name for name, count in counts.items() for _ in range(count)])
    return np.array([f"{i:04d}.png" for i in range(len(labels))]), labels


def test_make_split_keeps_proportions():
    keys, labels = cells(a=100, b=50, c=10)
    split = make_split("x", keys, labels)
    parts = split.parts(keys)
    assert [int(np.sum((parts == "test") & (labels == name))) for name in "abc"] == [20, 10, 2]
    assert set(split.train) | set(split.test) == set(keys)
    assert not set(split.train) & set(split.test)


def test_make_split_is_repeatable_in_any_order():
    keys, labels = cells(a=30, b=20)
    order = np.random.default_rng(0).permutation(len(keys))
    assert make_split("x", keys, labels) == make_split("x", keys[order], labels[order])
    assert make_split("x", keys, labels).test != make_split("x", keys, labels, seed=1).test


def test_make_split_keeps_the_cells_of_an_image_together_and_leaves_unlabelled_ones_out():
    keys, labels = cells(a=20, b=20)
    keys, labels = np.append(keys, [*keys, "none.png"]), np.append(labels, [*labels, ""])
    parts = make_split("x", keys, labels).parts(keys)
    np.testing.assert_array_equal(parts[:40], parts[40:80])
    assert parts[-1] == ""
    with pytest.raises(ValueError, match="has labels 'a' and 'b'"):
        make_split("x", ["1.png", "1.png"], ["a", "b"])


def test_single_samples_train():
    keys, labels = cells(a=30, b=1, c=1)
    parts = make_split("x", keys, labels).parts(keys)
    assert parts[30] == parts[31] == "train"
    alone = make_split("x", *cells(a=1, b=1))
    assert len(alone.train) == 2 and not alone.test


@pytest.mark.parametrize("counts", [{"a": 2, "b": 2, "c": 2}, {"a": 2}, {"a": 2, "b": 9, "c": 3, "d": 2, "e": 2}])
def test_small_centres_can_be_split(counts):
    keys, labels = cells(**counts)
    parts = make_split("x", keys, labels).parts(keys)
    assert np.sum(parts == "test") >= len(counts)
    assert set(labels[parts == "train"]) == set(counts)


def test_split_is_saved_and_reused(tmp_path):
    keys, labels = cells(a=30, b=20)
    path = tmp_path / "splits" / "x.json"
    first = load_or_make_split(path, "x", keys, labels)
    before = path.read_bytes()
    assert load_or_make_split(path, "x", keys, labels) == first == load_split(path)
    assert path.read_bytes() == before
    for arguments, message in [
        (("y", keys, labels), "for centre x, not y"),
        (("x", keys, labels, 0.3), "test fraction 0.2, not 0.3"),
        (("x", keys, labels, 0.2, 1), "seed 42, not 1"),
        (("x", keys[:-1], labels[:-1]), "images and labels"),
        (("x", keys, labels[::-1]), "images and labels"),
    ]:
        with pytest.raises(InputError, match=message):
            load_or_make_split(path, *arguments)


def test_changed_split_is_refused(tmp_path):
    path = tmp_path / "x.json"
    save_split(make_split("x", *cells(a=30, b=20)), path)
    content = json.loads(path.read_text())
    content["train"].append(content["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="was changed"):
        load_split(path)
    for text, message in [("{", "not a JSON"), ("[]", "not a split"), ('{"a": 1}', "not a split")]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            load_split(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_split(tmp_path / "absent.json")
