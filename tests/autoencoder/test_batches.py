from itertools import islice

import h5py
import numpy as np
import pytest

from autoencoder.batches import (
    CellBatches,
    batch_shares,
    prepare_images,
    read_batches,
    row_windows,
    rows_by_type,
    type_windows,
)
from autoencoder.config import AutoencoderConfig
from autoencoder.scaling import FeatureScaling
from mrcnn.feature_store import FeatureStore
from mrcnn.files.errors import InputError


def test_batch_shares_follow_the_balance_and_keep_two_of_every_centre():
    assert batch_shares([1000, 10, 10], 12, "none") == (8, 2, 2)
    assert batch_shares([1000, 10, 10], 12, "centre") == (4, 4, 4)
    assert batch_shares([5, 5, 5], 4, "none") == (2, 1, 1)  # no room for two of each
    random = np.random.default_rng(0)
    for _ in range(200):
        shares = batch_shares(random.integers(1, 10_000, random.integers(1, 7)).tolist(), 20)
        assert sum(shares) == 20 and min(shares) >= 2
    with pytest.raises(InputError, match="global_batch_size is 2 for 3 centres"):
        batch_shares([5, 5, 5], 2)


def take_rows(windows, number):
    return list(islice((int(row) for window in windows for row in window), number))


def rows(position, number, num_rows=101, seed=(3, 1)):
    return take_rows(row_windows(num_rows, seed, position, window_rows=16), number)


@pytest.mark.parametrize("num_rows", [1, 7, 101])
def test_row_windows_give_every_row_once_in_each_epoch(num_rows):
    epochs = np.reshape(rows(0, 3 * num_rows, num_rows), (3, num_rows))
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(num_rows), (3, 1)))
    if num_rows > 7:
        assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[0], np.arange(num_rows))


def test_row_windows_hold_blocks_of_neighbours_follow_the_seed_and_start_anywhere():
    for window in islice(row_windows(96, (5,), window_rows=32), 12):
        blocks, counts = np.unique(window // 8, return_counts=True)
        assert len(blocks) == 4 and np.all(counts == 8)
    assert rows(0, 50) == rows(0, 50) != rows(0, 50, seed=(3, 2))
    assert all(rows(position, 60) == rows(0, position + 60)[position:] for position in (1, 16, 150))


def test_type_windows_give_every_type_once_in_each_round_and_every_row_in_each_epoch():
    order = np.random.default_rng(0).permutation(100)
    groups = [np.sort(order[:3]), np.sort(order[3:20]), np.sort(order[20:])]
    type_of = {int(row): number for number, own in enumerate(groups) for row in own}

    def typed_rows(position, number):
        return take_rows(type_windows(groups, (7,), position, window_rows=24), number)

    found = typed_rows(0, 1100)
    types = np.array([type_of[row] for row in found[:900]]).reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(types, axis=1), np.tile([0, 1, 2], (300, 1)))
    assert len(np.unique(types, axis=0)) == 6  # in every order
    for own in groups:
        epochs = np.reshape([row for row in found if row in own][: 2 * len(own)], (2, len(own)))
        np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(own, (2, 1)))
    assert all(typed_rows(position, 80) == found[position : position + 80] for position in (2, 24, 1001))


def test_rows_by_type_takes_labels_where_there_are_no_types(typed_store, monkeypatch):
    with FeatureStore(typed_store("north", ["b", "", "b"])) as store:
        assert {name: own.tolist() for name, own in rows_by_type(store).items()} == {"": [1], "b": [0, 2]}
        columns = {"cell_type": np.array(["", "", ""]), "label": np.array(["B", "", "B"])}
        monkeypatch.setattr(store, "read", lambda field, *rows: columns[field])
        assert {name: own.tolist() for name, own in rows_by_type(store).items()} == {"": [1], "B": [0, 2]}


def read(stores, number, shares, **options):
    """The first `number` parts."""
    return list(islice(read_batches(stores, shares, **options), number))


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ("features", "images", "centre_id"))


def test_read_batches_give_every_cell_once_in_each_epoch_with_its_image_and_centre(stores):
    cell_of = {}  # centre, row and image of a cell, by its features
    for number, path in enumerate(stores.values()):
        with FeatureStore(path) as store:
            for row, features in enumerate(store.read("features", 0, len(store))):
                cell_of[features.tobytes()] = (number, row, store.read("image", row, row + 1)[0])
    seen = []
    for batch in read(stores, 12, shares=(4, 3, 1), seed=5, image_source="image"):
        for features, image, centre_id in zip(*batch.values(), strict=True):
            centre, row, expected = cell_of[features.tobytes()]
            assert centre == centre_id
            np.testing.assert_array_equal(image, expected)
            seen.append((centre, row))
    for centre, size in enumerate((12, 9, 7)):
        own = [row for c, row in seen if c == centre]
        assert sorted(own[:size]) == list(range(size))
        assert len(set(own[size : 2 * size])) == len(own[size : 2 * size])


@pytest.mark.parametrize(("num_processes", "type_source"), [(1, None), (2, 0), (3, None)])
def test_read_batches_of_all_processes_make_up_the_batch(stores, num_processes, type_source):
    options = {"shares": (5, 4, 3), "type_source": type_source, "seed": 4}
    wholes = read(stores, 8, **options)
    assert wholes[0]["centre_id"].tolist() == [0] * 5 + [1] * 4 + [2] * 3
    assert not same(wholes[0], *read(stores, 1, **{**options, "seed": 5}))
    assert same(wholes[7], *read(stores, 1, start_step=7, **options))
    for process in range(num_processes):
        own = read(stores, 2, num_processes=num_processes, process=process, start_step=1, **options)
        for part, whole in zip(own, wholes[1:3], strict=True):
            assert same(part, {name: values[process::num_processes] for name, values in whole.items()})


def test_read_batches_by_type_even_out_the_source_and_leave_the_targets(stores, typed_store):
    types = ["rare", *["usual"] * 9, "", ""]
    mixed = {"anna": stores["anna"], "dora": typed_store("dora", types), "cleo": stores["cleo"]}
    with FeatureStore(mixed["dora"]) as store:
        type_of = {f.tobytes(): t for f, t in zip(store.read("features", 0, 12), types, strict=True)}
    by_type = read(mixed, 20, shares=(3, 6, 3), type_source=1)
    seen = set()
    for batch, other in zip(by_type, read(mixed, 20, shares=(3, 6, 3)), strict=True):
        found = [type_of[features.tobytes()] for features in batch["features"][3:9]]
        assert [found.count(name) for name in ("", "rare", "usual")] == [2, 2, 2]
        targets = np.flatnonzero(batch["centre_id"] != 1)
        assert np.array_equal(batch["features"][targets], other["features"][targets])
        seen |= {features.tobytes() for features in batch["features"][3:9]}
    assert seen == set(type_of)
    assert same(*read(mixed, 1, shares=(3, 6, 3), type_source=1, start_step=7), by_type[7])


def test_prepare_images_takes_stain_and_light_away_where_asked():
    dark = np.random.default_rng(0).uniform(60, 120, (1, 128, 128, 3))
    # The same cell in another lab: each channel of the picture in another strength and brightness.
    other = dark * np.array([1.5, 0.8, 1.2]) + np.array([20, 40, -10])
    pair = np.round(np.concatenate([dark, other])).astype(np.uint8)
    first, second = prepare_images(pair, 32, "standardised").numpy()
    # Rounding to whole grey levels is all that tells them apart.
    np.testing.assert_allclose(first, second, atol=0.02)
    np.testing.assert_allclose(first.mean(axis=(0, 1)), 0.6, atol=0.01)
    np.testing.assert_allclose(first.std(axis=(0, 1)), 0.2, atol=0.01)
    # An image of one colour stays even: its rounding errors are not blown up.
    flat = np.full((1, 128, 128, 3), 200, np.uint8)
    np.testing.assert_allclose(prepare_images(flat, 64, "standardised"), 0.6, atol=2e-3)


def test_cell_batches_are_what_is_read_scaled_in_any_order(stores):
    config = AutoencoderConfig(global_batch_size=12, image_source="image", seed=4)
    scaling = FeatureScaling.fit("centre", stores)
    options = {"num_processes": 2, "process": 1}
    raws = list(islice(read_batches(stores, (5, 4, 3), image_source="image", seed=4, **options), 5))
    batches = CellBatches(config, stores, scaling, num_replicas=4, **options)
    for number in (2, 3, 4, 0):
        raw, batch = raws[number], batches[number]
        assert (batch["features"].dtype, batch["images"].dtype) == ("float32", "float32")
        np.testing.assert_array_equal(batch["centre_id"], raw["centre_id"])
        np.testing.assert_allclose(batch["images"], raw["images"] / 255, atol=1e-6)
        for centre, name in enumerate(stores):
            of_centre = raw["centre_id"] == centre
            expected = scaling.apply(raw["features"][of_centre], name)
            np.testing.assert_allclose(batch["features"].numpy()[of_centre], expected, atol=1e-5)
    batches.close()


def test_cell_batches_refuse_what_cannot_be_shared_read_or_balanced(stores, store_maker, typed_store, tmp_path):
    scaling = FeatureScaling.fit("minmax", stores)
    with pytest.raises(InputError, match="choose a multiple of 2"):
        CellBatches(AutoencoderConfig(global_batch_size=7), stores, scaling, num_replicas=2)
    mixed = {"anna": stores["anna"], "dora": typed_store("dora", [""] * 5)}
    with pytest.raises(InputError, match="dora.h5: no cell has a type or label"):
        CellBatches(AutoencoderConfig(global_batch_size=6, balance="type"), mixed, scaling, source=1)[0]
    path = store_maker(tmp_path / "nan.h5", "bert", 9)
    with h5py.File(path, "r+") as file:
        file["cells/features"][6, 2, 3, 4] = np.nan
    with pytest.raises(InputError, match=r"nan.h5: features of cell 6 \(images/006.png\)"):
        CellBatches(AutoencoderConfig(global_batch_size=7), stores | {"bert": path}, scaling)[0]
