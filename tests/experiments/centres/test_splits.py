"""Splits are stratified, the same every time, and safe to reuse."""

import json

import numpy as np
import pytest
from scipy.cluster.hierarchy import DisjointSet

from experiments.centres.splits import hold_out, load_or_make_split, load_split, make_split, read_groups
from mrcnn.files.errors import InputError


def cells(**counts):
    labels = np.array([name for name, count in counts.items() for _ in range(count)])
    return np.array([f"{i:04d}.png" for i in range(len(labels))]), labels


def test_make_split_keeps_proportions_in_any_order():
    keys, labels = cells(a=100, b=50, c=10)
    split = make_split("x", keys, labels)
    parts = split.parts(keys)
    assert [int(np.sum((parts == "test") & (labels == name))) for name in "abc"] == [20, 10, 2]
    assert set(split.train) | set(split.test) == set(keys) and not set(split.train) & set(split.test)
    order = np.random.default_rng(0).permutation(len(keys))
    assert split == make_split("x", keys[order], labels[order])
    assert split.test != make_split("x", keys, labels, seed=1).test


def test_make_split_keeps_the_cells_of_an_image_together_and_leaves_unlabelled_ones_out():
    keys, labels = cells(a=20, b=20)
    keys, labels = np.append(keys, [*keys, "none.png"]), np.append(labels, [*labels, ""])
    parts = make_split("x", keys, labels).parts(keys)
    np.testing.assert_array_equal(parts[:40], parts[40:80])
    assert parts[-1] == ""
    with pytest.raises(ValueError, match="has labels 'a' and 'b'"):
        make_split("x", ["1.png", "1.png"], ["a", "b"])


@pytest.mark.parametrize("counts", [{"a": 2, "b": 2, "c": 2}, {"a": 2}, {"a": 2, "b": 9, "c": 3, "d": 2, "e": 2}])
def test_small_centres_can_be_split(counts):
    keys, labels = cells(**counts)
    parts = make_split("x", keys, labels).parts(keys)
    assert np.sum(parts == "test") >= len(counts)
    assert set(labels[parts == "train"]) == set(counts)


def test_single_samples_train():
    keys, labels = cells(a=30, b=1, c=1)
    assert make_split("x", keys, labels).parts(keys)[30:].tolist() == ["train", "train"]
    assert not make_split("x", *cells(a=1, b=1)).test


def test_split_is_saved_and_reused(tmp_path):
    keys, labels = cells(a=30, b=20)
    path = tmp_path / "splits" / "x.json"
    first = load_or_make_split(path, "x", keys, labels)
    before = path.read_bytes()
    assert load_or_make_split(path, "x", keys, labels) == first == load_split(path)
    assert path.read_bytes() == before
    for arguments, message in [
        (("y", keys, labels), 'centre "x", not "y"; delete it'),
        (("x", keys, labels, 0.3), "test_fraction 0.2, not 0.3"),
        (("x", keys, labels, 0.2, 1), "seed 42, not 1"),
        (("x", keys[:-1], labels[:-1]), "another set of images"),
        (("x", keys, labels[::-1]), "another set of images"),
    ]:
        with pytest.raises(InputError, match=message):
            load_or_make_split(path, *arguments)


def test_changed_split_is_refused(tmp_path):
    path = tmp_path / "x.json"
    load_or_make_split(path, "x", *cells(a=30, b=20))
    content = json.loads(path.read_text())
    content["train"].append(content["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="was changed"):
        load_split(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="not a split"):
        load_split(path)
    with pytest.raises(InputError, match="no such file"):
        load_split(tmp_path / "absent.json")


def test_split_without_groups_is_the_one_of_earlier_versions():
    """Files that users have must stay valid: the keys and the hash are fixed here."""
    keys, labels = cells(a=7, b=5, c=1)
    split = make_split("x", keys, labels)
    assert split.test == ("0003.png", "0006.png", "0011.png")
    assert split.data_hash == "bf101240f1c2772308a7c3286937ccaaa5ad7f227e278546ed8a6c43125da736"
    # Groups and duplicates that join no labelled images have no say.
    own = {key: key for key in keys}
    assert make_split("x", keys, labels, groups=own, duplicates=[("0001.png",), ("0002.png", "gone.png")]) == split


def random_case(rng):
    """Cells of some images in groups of very different sizes, with copies here and there."""
    num_images, num_groups = int(rng.integers(2, 150)), int(rng.integers(1, 25))
    keys = [f"{i:04d}.png" for i in range(num_images)]
    groups = {key: f"p{int(num_groups * rng.random() ** 2)}" for key in keys}
    likely = {group: rng.dirichlet(np.full(4, 0.5)) for group in groups.values()}
    labels = [str(rng.choice(list("abcd"), p=likely[groups[key]])) if rng.random() < 0.9 else "" for key in keys]
    duplicates = [tuple(rng.choice(keys, 2, replace=False)) for _ in range(int(rng.integers(0, 6)))]
    return keys, labels, groups, duplicates


def test_groups_and_duplicates_never_straddle():
    rng = np.random.default_rng(0)
    for case in range(60):
        keys, labels, groups, duplicates = random_case(rng)
        given = {"groups": groups if case % 3 else None, "duplicates": duplicates if case % 2 else ()}
        split = make_split("x", keys, labels, seed=case, **given)
        part_of = split.part_of
        labelled = [key for key, label in zip(keys, labels, strict=True) if label]
        assert sorted([*split.train, *split.test]) == labelled
        # Copies link groups; unlabelled images link too.
        together, links = DisjointSet(keys), list(given["duplicates"])
        if given["groups"]:
            links += [[key for key in keys if groups[key] == group] for group in set(groups.values())]
        for first, *others in links:
            for other in others:
                together.merge(first, other)
        units = [unit & set(labelled) for unit in together.subsets()]
        assert all(len({part_of[key] for key in unit}) <= 1 for unit in units)
        label_of = dict(zip(keys, labels, strict=True))
        for label in set(labels) - {""}:
            bearers = [unit for unit in units if any(label_of[key] == label for key in unit)]
            parts = {part_of[key] for key in labelled if label_of[key] == label}
            # Of few units it may be impossible to part those of every class.
            if len(bearers) == 1:
                assert len(parts) == 1
            elif len(bearers) >= 5:
                assert parts == {"train", "test"}
        shuffled = rng.permutation(len(keys))
        again = make_split("x", np.array(keys)[shuffled], np.array(labels)[shuffled], seed=case, **given)
        assert again == split


def test_groups_keep_proportions():
    rng = np.random.default_rng(0)
    keys, labels = cells(a=600, b=300, c=60)
    groups = {key: f"patient {rng.integers(60)}" for key in keys}
    parts = make_split("x", keys, labels, groups=groups).parts(keys)
    shares = [np.mean(parts[labels == name] == "test") for name in "abc"]
    assert abs(np.mean(parts == "test") - 0.2) < 0.01
    assert max(abs(share - 0.2) for share in shares) < 0.03
    other = make_split("x", keys, labels, seed=1, groups=groups).parts(keys)
    assert np.mean(parts != other) > 0.1


def test_groups_of_one_class_each_and_of_great_size_are_divided_as_well_as_it_goes():
    keys, labels = cells(a=100, b=40)
    groups = dict(zip(keys, np.repeat(list("vwxyz"), [70, 20, 10, 30, 10]), strict=True))
    split = make_split("x", keys, labels, groups=groups)
    # 20 of the 100 and 10 of the 40 are nearest to a fifth of each.
    assert {groups[key] for key in split.test} == {"w", "z"} and len(split.test) == 30


def test_class_in_two_groups_is_in_both_parts_if_that_can_be():
    keys, labels = cells(a=12, b=2, c=1)
    groups = dict(zip(keys, "111222333444" + "54" + "1", strict=True))
    for seed in range(20):
        split = make_split("x", keys, labels, seed=seed, groups=groups)
        parts = split.parts(keys)
        assert set(parts[labels == "b"]) == {"train", "test"}
        assert parts[-1] == "train"


def test_duplicates_of_different_labels_are_told_and_stay_together(logged):
    keys, labels = cells(a=20, b=20)
    pairs = [(keys[0], keys[30]), (keys[1], keys[2], "none.png")]
    for seed in range(10):
        parts = make_split("lab", keys, labels, seed=seed, duplicates=pairs).parts(keys)
        assert parts[0] == parts[30] and parts[1] == parts[2]
        assert set(parts[labels == "b"]) == {"train", "test"}
    assert "lab: images of the same content have different labels: 0000.png (a), 0030.png (b)" in logged.text
    assert "0001.png" not in logged.text


def test_labelled_image_without_a_group_is_refused():
    keys, labels = cells(a=3)
    labels = np.append(labels, "")
    groups = dict.fromkeys(keys, "p1")
    assert make_split("x", [*keys, "none.png"], labels, groups=groups).test == ()
    with pytest.raises(ValueError, match=r"1 images have no group, for example 0002\.png"):
        make_split("x", keys, ["a"] * 3, groups={key: "p1" for key in keys[:2]})


def test_saved_split_of_other_groups_is_refused(tmp_path):
    keys, labels = cells(a=30, b=20)
    groups, other = ({key: str(i // size) for i, key in enumerate(keys)} for size in (5, 10))
    pair = [(keys[0], keys[7])]
    grouped, plain = tmp_path / "x.json", tmp_path / "plain.json"
    split = load_or_make_split(grouped, "x", keys, labels, groups=groups)
    assert (
        load_or_make_split(grouped, "x", keys, labels, groups={k: f"renamed {g}" for k, g in groups.items()}) == split
    )
    load_or_make_split(plain, "x", keys, labels)
    for path, options in (
        *((grouped, options) for options in ({}, {"groups": other}, {"duplicates": pair})),
        *((plain, options) for options in ({"groups": groups}, {"duplicates": pair})),
    ):
        with pytest.raises(InputError, match="another set of images.*delete it"):
            load_or_make_split(path, "x", keys, labels, **options)


def test_hold_out_is_the_one_of_earlier_versions():
    """Detectors that users have must stay valid."""
    keys = [f"{i:02d}.png" for i in range(10)]
    held_out = hold_out("lab", reversed(keys), 0.7, 3)
    assert (
        held_out["test"] == ["03.png", "05.png", "08.png"] and sorted([*held_out["train"], *held_out["test"]]) == keys
    )
    with pytest.raises(InputError, match="lab: 1 images with masks are too few"):
        hold_out("lab", keys[:1], 0.7, 3)


KEYS = ["images/1.png", "images/2.png", "images/a/1.png", "images/a/3.png", "images/b/3.png", "images/Müller.png"]


def write(tmp_path, *rows, header="image,patient"):
    path = tmp_path / "groups.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def refusal(path, column="patient"):
    with pytest.raises(InputError, match="^centre lab: ") as error:
        read_groups(path, column, KEYS, "centre lab")
    return str(error.value)


def test_groups_are_read_by_key_and_by_what_only_one_image_ends_with(tmp_path):
    rows = ["images/1.png,x,p1", " 2.png ,x, p1 ", "a\\1.png,x,p2", "./images/a/3.png,x,p2", "b/3.png,x,7"]
    # labels.csv names files by their path in images/: `1.png` is images/1.png and not images/a/1.png.
    rows += ["Mu\u0308ller.png,x,7", "1.png,x,p1", ""]
    path = write(tmp_path, *rows, header="\ufeffimage,label, patient")
    assert read_groups(path, "patient", KEYS, "lab") == dict(zip(KEYS, ["p1", "p1", "p2", "p2", "7", "7"], strict=True))
    assert list(read_groups(path, "patient", KEYS[::-1], "lab")) == KEYS[::-1]
    assert set(read_groups(path, "label", KEYS, "lab").values()) == {"x"}


def test_faults_of_groups_are_counted_and_named(tmp_path):
    rows = ["4.png,p", "3.png,p", ",p", "1.png,p", "images/1.png,q", "../1.png,p"]
    message = refusal(write(tmp_path, *rows, *(f"gone{i}.png,p" for i in range(20))))
    assert "25 faults: row 2: '4.png' is none of the images of the centre; row 3: 3.png could be images/a/3" in message
    assert "row 6: images/1.png is in patient q, and in p above; row 7: '../1.png' is none" in message
    assert "and 15 more" in message and "gone5.png" not in message
    message = refusal(write(tmp_path, "images/1.png,p1", "2.png,", "a/1.png"))
    assert "5 of 6 images have no patient, the first is images/2.png" in message
    assert "is no column of groups" in refusal(tmp_path / "groups.csv", "image")
