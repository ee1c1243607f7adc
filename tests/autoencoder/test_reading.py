from itertools import islice

import h5py
import numpy as np
import pytest

from autoencoder.batches import read_batches
from autoencoder.folder import describe_stores
from mrcnn.feature_store import Cell, FeatureStore, FeatureStoreWriter, Shard
from mrcnn.feature_store.reader import check_finite
from mrcnn.feature_store.shards import shard_settings
from mrcnn.files.errors import InputError

SHARES = (3, 2, 2)


def read(stores, number, shares=SHARES, **options):
    """The first `number` elements."""
    return list(islice(read_batches(stores, shares, **options), number))


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ("features", "images", "centre_id"))


@pytest.fixture(scope="module")
def row_of(stores):
    """Centre and row of a cell, by its features."""
    found = {}
    for number, path in enumerate(stores.values()):
        with FeatureStore(path) as store:
            for row, features in enumerate(store.read("features", 0, len(store))):
                found[features.tobytes()] = (number, row)
    return found


def rows_in(batch, row_of):
    """Centre and row of each cell of a batch."""
    return [row_of[features.tobytes()] for features in batch["features"]]


def test_read_batches_give_every_row_once_in_each_pass(stores, row_of):
    batches = read(stores, 12, shares=(4, 3, 1), seed=5)
    seen = [cell for batch in batches for cell in rows_in(batch, row_of)]
    for centre, size in enumerate((12, 9, 7)):
        rows = [row for c, row in seen if c == centre][: 2 * size]
        first, second = rows[:size], rows[size:]
        assert sorted(first) == list(range(size))
        assert sorted(second) == list(range(len(second))) or len(second) < size
    assert [row for c, row in seen if c == 0][:12] != [row for c, row in seen if c == 0][12:24]


def test_read_batches_resume_in_the_middle_and_follow_the_seed(stores):
    whole, other = read(stores, 9, seed=1), read(stores, 9, seed=2)
    for start in range(9):
        (resumed,) = read(stores, 1, seed=1, start_step=start)
        assert same(resumed, whole[start])
    assert all(same(one, again) for one, again in zip(whole, read(stores, 9, seed=1), strict=True))
    assert not same(whole[0], other[0])
    assert whole[0]["centre_id"].tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_read_batches_keep_features_images_and_centre_together(stores, row_of):
    originals = []
    for path in stores.values():
        with FeatureStore(path) as store:
            originals.append(store.read("image", 0, len(store)))
    for batch in read(stores, 6, image_source="image"):
        for (centre, row), image, centre_id in zip(
            rows_in(batch, row_of), batch["images"], batch["centre_id"], strict=True
        ):
            assert centre == centre_id
            np.testing.assert_array_equal(originals[centre][row], image)


def test_read_batches_parts_make_up_the_batch(stores):
    (whole,) = read(stores, 1, shares=(3, 2, 1))
    parts = read(stores, 2, shares=(3, 2, 1), num_parts=2)
    assert [part["centre_id"].tolist() for part in parts] == [[0, 0, 1], [0, 1, 2]]
    for number, part in enumerate(parts):
        assert same(part, {name: values[number::2] for name, values in whole.items()})


@pytest.mark.parametrize("balance", ["none", "type"])
@pytest.mark.parametrize(("num_parts", "num_pipelines"), [(2, 2), (4, 2), (6, 3), (6, 6), (12, 2)])
def test_read_batches_of_all_pipelines_are_those_of_one(stores, num_parts, num_pipelines, balance):
    options = {"shares": (5, 4, 3), "balance": balance, "seed": 4, "num_parts": num_parts}
    per_pipeline = num_parts // num_pipelines
    whole = read(stores, 3 * num_parts, **options)
    for pipeline in range(num_pipelines):
        own = read(stores, 3 * per_pipeline, num_pipelines=num_pipelines, pipeline=pipeline, **options)
        for step in range(3):
            for part in range(per_pipeline):
                expected = whole[step * num_parts + pipeline * per_pipeline + part]
                assert same(own[step * per_pipeline + part], expected)


def test_read_batches_of_a_pipeline_can_start_anywhere(stores):
    options = {"shares": (4, 2, 2), "num_parts": 4, "num_pipelines": 2, "pipeline": 1}
    whole = read(stores, 14, **options)
    for step in range(7):
        resumed = read(stores, 2, start_step=step, **options)
        assert all(same(*pair) for pair in zip(resumed, whole[2 * step : 2 * step + 2], strict=True))


def test_read_batches_of_a_pipeline_read_its_own_rows_only(stores, monkeypatch):
    num_read = []
    read_rows = FeatureStore.read_rows

    def counted(self, field, indices):
        if field == "features":
            num_read.append(len(indices))
        return read_rows(self, field, indices)

    monkeypatch.setattr(FeatureStore, "read_rows", counted)
    # One window holds the whole store, so this is a pass over each of the three.
    read(stores, 1, shares=(2, 2, 2))
    everything, num_read[:] = sum(num_read), []
    read(stores, 1, shares=(2, 2, 2), num_parts=2, num_pipelines=2, pipeline=1)
    assert everything == 28
    assert sum(num_read) in (13, 14, 15)


@pytest.mark.parametrize(("num_parts", "num_pipelines", "pipeline"), [(2, 1, 0), (7, 2, 0), (7, 7, 7), (7, 1, -1)])
def test_read_batches_refuse_parts_that_do_not_divide(stores, num_parts, num_pipelines, pipeline):
    with pytest.raises(ValueError, match="cannot be"):
        read(stores, 1, num_parts=num_parts, num_pipelines=num_pipelines, pipeline=pipeline)


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
    wholes, others = read(stores, 12, seed=1), read(stores | {"bert": shards}, 12, seed=1)
    assert all(same(*pair) for pair in zip(wholes, others, strict=True))


def test_a_training_on_shards_goes_on_with_the_whole_store(stores, shards):
    whole, other = describe_stores(stores), describe_stores(stores | {"bert": shards})
    assert other["bert"].pop("path") == ", ".join(map(str, shards)) and whole["bert"].pop("path")
    assert other == whole


def test_read_batches_by_type_even_out_the_source_and_leave_the_targets(stores, row_of, typed_store):
    types = ["rare", *["usual"] * 9, "", ""]
    mixed = {"anna": stores["anna"], "dora": typed_store("dora", types), "cleo": stores["cleo"]}
    with FeatureStore(mixed["dora"]) as store:
        type_of = {f.tobytes(): t for f, t in zip(store.read("features", 0, 12), types, strict=True)}
    by_type = read(mixed, 20, shares=(3, 6, 3), balance="type", source=1)
    plain = read(mixed, 20, shares=(3, 6, 3), balance="none")
    seen = []
    for batch, other in zip(by_type, plain, strict=True):
        found = [type_of[features.tobytes()] for features in batch["features"][3:9]]
        assert [found.count(name) for name in ("", "rare", "usual")] == [2, 2, 2]
        targets = np.flatnonzero(batch["centre_id"] != 1)
        assert np.array_equal(batch["features"][targets], other["features"][targets])
        seen += [features.tobytes() for features in batch["features"][3:9]]
    assert set(seen) == set(type_of)
    for start in (1, 7, 19):
        (resumed,) = read(mixed, 1, shares=(3, 6, 3), balance="type", source=1, start_step=start)
        assert same(resumed, by_type[start])


def test_read_batches_by_type_need_labels_of_the_source_alone(stores, typed_store):
    mixed = {"anna": stores["anna"], "dora": typed_store("dora", [""] * 5)}
    assert len(read(mixed, 2, shares=(3, 2), balance="type", source=0)) == 2
    with pytest.raises(InputError, match="dora.h5: no cell has a type or label"):
        read(mixed, 2, shares=(3, 2), balance="type", source=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.nan])
@pytest.mark.parametrize("place", [(0, 0, 0), (13, 13, 255)])
def test_check_finite_names_the_first_cell(stores, value, place):
    with FeatureStore(stores["anna"]) as store:
        features = store.read("features", 3, 6)
        check_finite(store, [3, 4, 5], features)
        features[1][place] = features[2][place] = value
        with pytest.raises(InputError) as raised:
            check_finite(store, [3, 4, 5], features)
    message = str(raised.value)
    assert "anna.h5" in message and "cell 4 (images/004.png)" in message and "extract this centre again" in message
    assert "\n" not in message


def test_check_finite_takes_every_finite_number(stores):
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    features = np.resize(numbers[np.isfinite(numbers)], (2, 14, 14, 256))
    with FeatureStore(stores["anna"]) as store:
        check_finite(store, [0, 1], features)
        check_finite(store, [], features[:0])


def test_read_batches_refuse_features_that_are_not_finite(stores, store_maker, tmp_path):
    path = store_maker(tmp_path / "nan.h5", "bert", 9)
    with h5py.File(path, "r+") as file:
        file["cells/features"][6, 2, 3, 4] = np.nan
    with pytest.raises(InputError, match=r"nan.h5: features of cell 6 \(images/006.png\) hold NaN or Inf"):
        read(stores | {"bert": path}, 6)


def test_read_batches_name_a_store_that_is_damaged(stores, store_maker, tmp_path):
    path = store_maker(tmp_path / "damaged.h5", "bert", 9)
    with h5py.File(path) as file:
        chunk = file["cells/features"].id.get_chunk_info(4)
    with open(path, "r+b") as handle:
        handle.seek(chunk.byte_offset + 100)
        byte = handle.read(1)[0]
        handle.seek(chunk.byte_offset + 100)
        handle.write(bytes([byte ^ 0x55]))
    with pytest.raises(InputError) as raised:
        read(stores | {"bert": path}, 6)
    assert str(raised.value).startswith(f"{path}: damaged") and "\n" not in str(raised.value)


def test_read_batches_name_a_store_of_another_schema(stores, store_maker, tmp_path):
    path = store_maker(tmp_path / "old.h5", "bert", 9)
    with h5py.File(path, "r+") as file:
        file.attrs.create("schema", 0, dtype="int32")
    with pytest.raises(InputError, match="old.h5: .*schema 0, and this software reads .*schema 1"):
        read(stores | {"bert": path}, 1)


def test_read_batches_of_many_centres_hold_smaller_windows(stores, monkeypatch):
    held = []
    read_rows = FeatureStore.read_rows

    def noted(self, field, indices):
        held.append(len(indices))
        return read_rows(self, field, indices)

    monkeypatch.setattr(FeatureStore, "read_rows", noted)
    monkeypatch.setattr("autoencoder.batches.ALL_WINDOWS_ROWS", 20)
    many = {f"{name}{copy}": path for copy in range(2) for name, path in stores.items()}
    batches = read(many, 12, shares=(1,) * 6)
    assert max(held) == 8
    assert batches[0]["centre_id"].tolist() == [0, 1, 2, 3, 4, 5]
