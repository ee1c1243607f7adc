from itertools import islice

import numpy as np
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.data import RowOrder, batch_shares, make_dataset, prepare_images, read_batches
from autoencoder.folder import describe_stores
from autoencoder.scaling import FeatureScaling
from mrcnn.errors import InputError
from mrcnn.feature_store import Cell, FeatureStore, FeatureStoreWriter, Shard
from mrcnn.shards import shard_settings


@pytest.mark.parametrize(
    ("counts", "size", "balance", "expected"),
    [
        ([100, 100, 100], 1500, "none", (500, 500, 500)),
        ([300, 100], 8, "none", (6, 2)),
        ([1000, 10, 10], 12, "none", (8, 2, 2)),
        ([1000, 10, 10], 12, "centre", (4, 4, 4)),
        ([5, 5, 5], 7, "none", (3, 2, 2)),
        ([5, 5, 5], 4, "none", (2, 1, 1)),
        ([7], 4, "none", (4,)),
    ],
)
def test_batch_shares(counts, size, balance, expected):
    assert batch_shares(counts, size, balance) == expected


def test_batch_shares_keep_two_of_every_centre_and_the_sum():
    random = np.random.default_rng(0)
    for _ in range(200):
        counts = random.integers(1, 10_000, random.integers(1, 7)).tolist()
        size = int(random.integers(2 * len(counts), 200))
        shares = batch_shares(counts, size)
        assert sum(shares) == size and min(shares) >= 2


def test_batch_shares_refuse_a_batch_smaller_than_the_centres():
    with pytest.raises(InputError, match="global_batch_size is 2 for 3 centres"):
        batch_shares([5, 5, 5], 2)


def take_rows(order, position, number):
    rows = []
    for blocks, within in order.windows(position):
        rows += np.concatenate([np.arange(a, b) for a, b in blocks])[within].tolist()
        if len(rows) >= number:
            return rows[:number]


@pytest.mark.parametrize("num_rows", [1, 7, 64, 101])
def test_row_order_gives_every_row_once_in_each_pass(num_rows):
    rows = take_rows(RowOrder(num_rows, (3,), block_rows=4, window_rows=16), 0, 3 * num_rows)
    passes = np.reshape(rows, (3, num_rows))
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(num_rows), (3, 1)))
    if num_rows > 7:
        assert not np.array_equal(passes[0], passes[1]) and not np.array_equal(passes[0], np.arange(num_rows))


@pytest.mark.parametrize("position", [1, 15, 16, 17, 101, 150, 1000])
def test_row_order_can_start_anywhere(position):
    order = RowOrder(101, (3, 1), block_rows=4, window_rows=16)
    assert take_rows(order, position, 60) == take_rows(order, 0, position + 60)[position:]


def test_read_batches_resume_in_the_middle_and_follow_the_seed(stores):
    def read(seed, start, number):
        return list(islice(read_batches(stores, (3, 2, 2), seed=seed, start_step=start), number))

    whole, resumed, other = read(1, 0, 9), read(1, 5, 4), read(2, 0, 9)
    for a, b in zip(whole[5:], resumed, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(whole[0]["features"], other[0]["features"])
    assert whole[0]["centre_id"].tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_read_batches_keep_features_images_and_centre_together(stores):
    originals = []
    for path in stores.values():
        with FeatureStore(path) as store:
            originals.append((store.read("features", 0, len(store)), store.read("image", 0, len(store))))
    for batch in islice(read_batches(stores, (3, 2, 2), image_source="image"), 6):
        for features, image, centre in zip(batch["features"], batch["images"], batch["centre_id"], strict=True):
            row = np.flatnonzero((originals[centre][0] == features).all(axis=(1, 2, 3)))
            assert len(row) == 1
            np.testing.assert_array_equal(originals[centre][1][row[0]], image)


def test_read_batches_parts_make_up_the_batch(stores):
    (whole,) = islice(read_batches(stores, (3, 2, 1)), 1)
    parts = list(islice(read_batches(stores, (3, 2, 1), num_parts=2), 2))
    assert [len(part["centre_id"]) for part in parts] == [3, 3]
    assert [part["centre_id"].tolist() for part in parts] == [[0, 0, 1], [0, 1, 2]]
    joined = np.concatenate([part["features"] for part in parts])
    assert sorted(joined.sum(axis=(1, 2, 3), dtype=float)) == sorted(whole["features"].sum(axis=(1, 2, 3), dtype=float))


@pytest.fixture
def shards(stores, tmp_path):
    """The store of centre bert as two shards."""
    with FeatureStore(stores["bert"]) as store:
        keys, fields = store.keys.tolist(), ("features", "crop", "image", "box", "score", "class_id", "image_shape")
        cells = {key: Cell(*(store.read(f, row, row + 1)[0] for f in fields)) for row, key in enumerate(keys)}
    paths = [tmp_path / "b1.h5", tmp_path / "b2.h5"]
    for number, path in enumerate(paths, 1):
        settings = shard_settings(Shard(number, 2), keys)
        with FeatureStoreWriter(path, centre="bert", detector={"hash": "detector-a"}, attributes=settings) as writer:
            for key in keys[number - 1 :: 2]:
                writer.add(key, [cells[key]])
    return paths


def test_read_batches_of_shards_are_those_of_the_whole_store(stores, shards):
    wholes, others = (islice(read_batches(s, (3, 2, 2), seed=1), 12) for s in (stores, stores | {"bert": shards}))
    for whole, other in zip(wholes, others, strict=True):
        assert all(np.array_equal(whole[name], other[name]) for name in whole)


def test_a_training_on_shards_goes_on_with_the_whole_store(stores, shards):
    whole, other = describe_stores(stores), describe_stores(stores | {"bert": shards})
    assert other["bert"].pop("path") == ", ".join(map(str, shards)) and whole["bert"].pop("path")
    assert other == whole


@pytest.mark.parametrize("image_size", [128, 64, 32])
def test_prepare_images_averages_areas(image_size):
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    factor = 128 // image_size
    expected = images.reshape(2, image_size, factor, image_size, factor, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(prepare_images(images, image_size), expected, atol=1e-6)


def test_make_dataset_gives_scaled_float_batches(stores):
    config = AutoencoderConfig(global_batch_size=7, image_size=32, seed=4)
    dataset = make_dataset(config, stores, FeatureScaling.fit("minmax", stores))
    batch = next(iter(dataset))
    assert {k: (tuple(v.shape), v.dtype.name) for k, v in batch.items()} == {
        "features": ((7, 14, 14, 256), "float32"),
        "images": ((7, 32, 32, 3), "float32"),
        "centre_id": ((7,), "int32"),
    }
    np.testing.assert_allclose(np.max(batch["features"], axis=(1, 2, 3)), 1.0)
    np.testing.assert_allclose(np.min(batch["features"], axis=(1, 2, 3)), -1.0)
    assert np.bincount(batch["centre_id"]).tolist() == [3, 2, 2]


def test_make_dataset_refuses_uneven_replicas_and_empty_stores(stores, tmp_path):
    scaling = FeatureScaling.fit("minmax", stores)
    with pytest.raises(InputError, match="choose a multiple of 2"):
        make_dataset(AutoencoderConfig(global_batch_size=7), stores, scaling, num_replicas=2)
    FeatureStoreWriter(tmp_path / "empty.h5", centre="empty", detector={"hash": "x"}).finish()
    with pytest.raises(InputError, match="empty.h5: holds no cells"):
        make_dataset(AutoencoderConfig(), {"empty": tmp_path / "empty.h5"}, scaling)
