"""Shards of a centre: read or joined they are the store of an extraction in one go, and no other set is taken."""

import h5py
import numpy as np
import pytest

from mrcnn.feature_store import FeatureStore, FeatureStoreWriter, ShardedStore, merge_stores, open_store
from mrcnn.feature_store.shards import Shard, join_shards, shard_path, shard_settings, stores_by_centre
from mrcnn.files.errors import InputError
from tests.mrcnn.feature_store.conftest import add_images, assert_same_store, image_id

IDS = list(map(image_id, range(11)))


def write_store(path, ids=IDS, settings=None, **changes):
    options = {"centre": "north", "detector": {"hash": "abc"}, "attributes": {"min_score": 0.7, **(settings or {})}}
    with FeatureStoreWriter(path, **{**options, **changes}) as writer:
        add_images(writer, map(IDS.index, ids))
    return path


def write_shards(folder, count, ids=IDS, **changes):
    paths = []
    for number in range(1, count + 1):
        shard = Shard(number, count)
        path = shard_path(folder / "north.h5", shard)
        paths.append(write_store(path, ids[number - 1 :: count], shard_settings(shard, ids), **changes))
    return paths


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
    ids = [IDS[4], IDS[9]]
    with open_store(write_shards(tmp_path, 2, ids)) as store:
        assert len(store) == 0 and store.all_image_ids.tolist() == ids
        assert store.counts["missed"] == 2 and store.image_ids.tolist() == []


def test_merge_stores_gives_the_whole_store(whole, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("mrcnn.feature_store.writer.MERGE_ROWS", 4)
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
    assert counts["images"] == len(IDS)
    write_store(path, IDS[:5])
    with pytest.raises(InputError, match="holds other images"):
        join_shards(shards, path)
    assert join_shards(shards, path, overwrite=True) == counts


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([1], "shard 1/3, 3/3 of centre north must be given too"),
        ([0, 1, 1, 2], "give each of 3 shards once and nothing else, not 1/3, 2/3, 2/3, 3/3"),
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
    half = write_store(tmp_path / "half.h5", IDS[::2], shard_settings(Shard(1, 2), IDS))
    plain = write_store(tmp_path / "plain.h5", IDS[2::3])
    for more, found in ((half, "1/2"), (plain, "no shard")):
        with pytest.raises(InputError, match=f"each of 3 shards once and nothing else, not 1/3, 2/3, 3/3, {found}"):
            open_store([*shards, more])
    for changes, message in (
        ({"detector": {"hash": "other"}}, 'made with detector "other", not "abc"'),
        ({"settings": {**shard_settings(Shard(3, 3), IDS), "min_score": 0.5}}, "made with min_score 0.5, not 0.7"),
        ({"settings": shard_settings(Shard(3, 3), IDS[:-1])}, "made with another centre images"),
    ):
        options = {"settings": shard_settings(Shard(3, 3), IDS), **changes}
        odd = write_store(tmp_path / "odd.h5", IDS[2::3], **options)
        with pytest.raises(InputError, match=message):
            open_store([*shards[:2], odd])


@pytest.mark.parametrize("ids", [IDS[2:8:3], [IDS[8], IDS[5], IDS[2]], [*IDS[2::3], IDS[9]]])
def test_a_shard_with_other_images_than_its_own_is_refused(shards, tmp_path, ids):
    odd = write_store(tmp_path / "odd.h5", ids, shard_settings(Shard(3, 3), IDS))
    with pytest.raises(InputError, match="do not hold the images of the centre|is in two of them"):
        open_store([*shards[:2], odd])


@pytest.mark.parametrize("value", [-1, 2**30])
def test_a_shard_that_states_odd_numbers_of_cells_is_refused(shards, tmp_path, value):
    odd = tmp_path / "odd.h5"
    odd.write_bytes(shards[2].read_bytes())
    with h5py.File(odd, "r+") as file:
        file["images/num_cells"][0] = value
    with pytest.raises(InputError, match=r"odd.h5: .*its images have -?\d+ cells, but it holds 3"):
        open_store([*shards[:2], odd])


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
    paths = [write_store(tmp_path / "b.h5", IDS[6:]), write_store(tmp_path / "a.h5", IDS[:6])]
    with ShardedStore(paths) as store:
        assert store.all_image_ids.tolist() == [*IDS[6:], *IDS[:6]]
    with pytest.raises(InputError, match="image .* is in two of them"):
        ShardedStore([*paths, paths[0]])


def test_shard_parse_and_names(tmp_path):
    for text in ("", "1", "0/4", "5/4", "-1/4", "1/4/2", "1/99999999"):
        with pytest.raises(InputError, match="give I/N with I from 1 to N"):
            Shard.parse(text)
    shard = Shard.parse("3/12")
    assert shard == Shard(3, 12) and str(shard) == "3/12"
    assert shard_path(tmp_path / "north.v2.h5", shard) == tmp_path / "north.v2.shard-3-of-12.h5"
