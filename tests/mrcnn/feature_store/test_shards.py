"""Shards of a centre: read or joined they are the store of an extraction in one go, and no other set is taken."""

import h5py
import numpy as np
import pytest

from mrcnn.feature_store import Cell, FeatureStore, FeatureStoreWriter, ShardedStore, merge_stores, open_store
from mrcnn.feature_store.shards import Shard, join_shards, shard_path, shard_settings, stores_by_centre
from mrcnn.files.errors import InputError

KEYS = [f"images/{number:03d}{'ä' * (number == 4)}.png" for number in range(11)]


def make_cell(seed):
    rng = np.random.default_rng(seed)
    return Cell(
        features=rng.normal(size=(14, 14, 256)).astype(np.float16),
        crop=rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        image=rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        box=np.array([1, 2, 30, 40 + seed], np.float32),
        score=0.5 + seed / 1000,
        class_id=1,
        image_shape=(400, 380),
    )


def write_store(path, keys=KEYS, settings=None, **changes):
    """Every fourth image has no cell, every third of the others has two."""
    options = {"centre": "north", "detector": {"hash": "abc"}, "attributes": {"min_score": 0.7, **(settings or {})}}
    with FeatureStoreWriter(path, **{**options, **changes}) as writer:
        for key in keys:
            number = KEYS.index(key)
            if number % 4 == 3:
                writer.missed(key, "no detection above score 0.7", "MON", "monocyte")
            else:
                cells = [make_cell(number + 100 * i) for i in range(1 + (number % 3 == 0))]
                writer.add(key, cells, label="BAS", cell_type="basophil", num_detections=len(cells) + 1)
    return path


def write_shards(folder, count, keys=KEYS, **changes):
    paths = []
    for number in range(1, count + 1):
        shard = Shard(number, count)
        path = shard_path(folder / "north.h5", shard)
        paths.append(write_store(path, keys[number - 1 :: count], shard_settings(shard, keys), **changes))
    return paths


def content(store):
    rows = {field: store.read(field, 0, len(store)) for field in store.fields}
    columns = {name: store.image_column(name) for name in ("image_id", "label", "cell_type", "reason", "num_cells")}
    return rows | {f"images/{name}": column for name, column in columns.items()}


def assert_same_store(one, other):
    for name in ("centre", "settings", "counts", "missed"):
        assert getattr(one, name) == getattr(other, name)
    there = content(other)
    for name, values in content(one).items():
        np.testing.assert_array_equal(values, there[name], err_msg=name)
        assert values.dtype == there[name].dtype


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("whole") / "north.h5")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), 3)


@pytest.mark.parametrize("count", [1, 3, 11])
def test_sharded_store_reads_like_the_whole_one(whole, tmp_path, count):
    paths = write_shards(tmp_path, count)
    random = np.random.default_rng(count)
    with FeatureStore(whole) as one, open_store(random.permutation(paths).tolist()) as other:
        assert_same_store(one, other)
        assert other.paths == tuple(paths) and other.detector_hash == "abc"
        for _ in range(20):
            start, stop = np.sort(random.integers(0, len(one) + 1, 2))
            np.testing.assert_array_equal(one.read("box", start, stop), other.read("box", start, stop))
            rows = np.flatnonzero(random.random(len(one)) < 0.4)
            for field in ("features", "image_id"):
                np.testing.assert_array_equal(one.read_rows(field, rows), other.read_rows(field, rows))


def test_sharded_store_without_any_cell(tmp_path):
    keys = [KEYS[3], KEYS[7]]
    with open_store(write_shards(tmp_path, 2, keys)) as store:
        assert len(store) == 0 and store.all_image_ids.tolist() == keys
        assert store.counts["missed"] == 2 and store.image_ids.tolist() == []


def test_merge_stores_gives_the_whole_store(whole, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("mrcnn.feature_store.shards.MERGE_ROWS", 4)
    merge_stores(shards[::-1], tmp_path / "joined.h5")
    with FeatureStore(whole) as one, FeatureStore(tmp_path / "joined.h5") as other:
        assert_same_store(one, other)
        assert {k: v for k, v in one.attributes.items() if k != "created"} == {
            k: v for k, v in other.attributes.items() if k != "created"
        }


def test_join_shards_keeps_what_is_there(whole, shards, tmp_path):
    path = tmp_path / "out" / "joined.h5"
    counts = join_shards(shards, path)
    before = path.stat().st_mtime_ns
    assert join_shards(shards, path) == counts and path.stat().st_mtime_ns == before
    assert counts["images"] == len(KEYS)
    write_store(path, KEYS[:5])
    with pytest.raises(InputError, match="holds other images"):
        join_shards(shards, path)
    assert join_shards(shards, path, overwrite=True) == counts


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0], "shard 2/3, 3/3 of centre north must be given too"),
        ([1], "shard 1/3, 3/3 of centre north must be given too"),
        ([0, 1, 1, 2], "is shard 2/3; give each of the 3 shards once"),
    ],
)
def test_shards_that_are_missing_or_doubled_are_named(shards, tmp_path, chosen, message):
    paths = [shards[i] for i in chosen]
    for use in (open_store, stores_by_centre, lambda paths: merge_stores(paths, tmp_path / "joined.h5")):
        with pytest.raises(InputError, match=message) as error:
            use(paths)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "joined.h5").exists()


def test_shards_of_another_division_or_origin_are_refused(shards, tmp_path):
    half = write_store(tmp_path / "half.h5", KEYS[::2], shard_settings(Shard(1, 2), KEYS))
    with pytest.raises(InputError, match="half.h5: is shard 1/2; give each of the 3 shards once"):
        open_store([*shards[:2], half])
    plain = write_store(tmp_path / "plain.h5", KEYS[2::3])
    with pytest.raises(InputError, match="plain.h5: is no shard; give each of the 3 shards once"):
        open_store([plain, *shards[:2]])
    for changes, message in (
        ({"detector": {"hash": "other"}}, 'made with detector "other", not "abc"'),
        ({"centre": "south"}, 'made with centre "south", not "north"'),
        ({"settings": {**shard_settings(Shard(3, 3), KEYS), "min_score": 0.5}}, "made with min_score 0.5, not 0.7"),
        ({"settings": shard_settings(Shard(3, 3), KEYS[:-1])}, "made with another centre images"),
    ):
        options = {"settings": shard_settings(Shard(3, 3), KEYS), **changes}
        odd = write_store(tmp_path / "odd.h5", KEYS[2::3], **options)
        with pytest.raises(InputError, match=message):
            open_store([*shards[:2], odd])


@pytest.mark.parametrize("keys", [KEYS[2:8:3], [KEYS[8], KEYS[5], KEYS[2]], [*KEYS[2::3], KEYS[9]]])
def test_a_shard_with_other_images_than_its_own_is_refused(shards, tmp_path, keys):
    odd = write_store(tmp_path / "odd.h5", keys, shard_settings(Shard(3, 3), KEYS))
    with pytest.raises(InputError, match="do not hold the images of the centre|is in .* too"):
        open_store([*shards[:2], odd])


@pytest.mark.parametrize("value", [-1, 0, 2**30])
def test_a_shard_that_states_odd_numbers_of_cells_is_refused(shards, tmp_path, value):
    odd = tmp_path / "odd.h5"
    odd.write_bytes(shards[2].read_bytes())
    with h5py.File(odd, "r+") as file:
        file["images/num_cells"][0] = value
    with pytest.raises(InputError, match=r"odd.h5: .*its images have -?\d+ cells, but it holds 3"):
        open_store([*shards[:2], odd])


def test_a_refused_set_of_shards_leaves_no_file_open(shards):
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    with pytest.raises(InputError):
        open_store(shards[:2])
    store = open_store(shards)
    store.close()
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == before
    assert store.all_image_ids.tolist() == KEYS


def test_stores_by_centre_sorts_stores_and_shards(shards, tmp_path):
    south = write_store(tmp_path / "south.h5", centre="south")
    mixed = [shards[2], south, shards[0], shards[1]]
    found = stores_by_centre(mixed)
    assert found == {"north": (shards[2], shards[0], shards[1]), "south": south}
    assert list(found) == ["north", "south"]
    for twice in ([south, south], [*shards, write_store(tmp_path / "north.h5")]):
        with pytest.raises(InputError, match="already holds centre"):
            stores_by_centre(twice)
        with pytest.raises(InputError, match="already holds centre"):
            stores_by_centre(twice[::-1])


def test_stores_that_are_no_shards_follow_each_other(tmp_path):
    paths = [write_store(tmp_path / "b.h5", KEYS[6:]), write_store(tmp_path / "a.h5", KEYS[:6])]
    with ShardedStore(paths) as store:
        assert store.all_image_ids.tolist() == [*KEYS[6:], *KEYS[:6]]
    with pytest.raises(InputError, match="no shards are given"):
        ShardedStore([])


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "-1/4", "1/4/2", "1/99999999"])
def test_shard_parse_refuses(text):
    with pytest.raises(InputError, match="give I/N with I from 1 to N"):
        Shard.parse(text)


def test_shard_parse_and_names(tmp_path):
    shard = Shard.parse("3/12")
    assert shard == Shard(3, 12) and str(shard) == "3/12"
    assert shard_path(tmp_path / "north.v2.h5", shard) == tmp_path / "north.v2.shard-3-of-12.h5"
