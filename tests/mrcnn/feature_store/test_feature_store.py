"""The feature store: what goes in comes out, whatever is done to the writer, and damaged files are named."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.feature_store import FeatureStore, FeatureStoreWriter, clear_parts
from mrcnn.feature_store.layout import ARRAY_FIELDS, check_cell, make_header, new_store
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from tests.mrcnn.feature_store.conftest import add_images, assert_same_store, make_cell

ROOT = Path(__file__).resolve().parents[3]
DETECTOR = {"hash": "abc123", "config": {"BACKBONE": "resnet101", "STRIDES": (4, 8)}}


def open_writer(path, **changes):
    options = {"centre": "matek", "detector": DETECTOR, "attributes": {"score_threshold": 0.7}}
    return FeatureStoreWriter(path, **{**options, "part_size": 3, **changes})


def assert_same_content(path, other_path):
    with FeatureStore(path) as one, FeatureStore(other_path) as other:
        assert_same_store(one, other)


@pytest.fixture
def store_path(tmp_path):
    path = tmp_path / "store.h5"
    with open_writer(path) as writer:
        add_images(writer, range(8))
    return path


def test_store_of_schema_1_reads_and_resumes_alike(store_path, tmp_path):
    """It called `image_id` `key`."""

    def age(path):
        with h5py.File(path, "r+") as file:
            file.attrs["schema"] = np.int32(1)
            del file.attrs["mask_shape"], file.attrs["with_nuclei"]
            for group in ("cells", "images"):
                file.move(f"{group}/image_id", f"{group}/key")

    leave_parts(tmp_path / "resumed.h5", range(4))
    for part in (tmp_path / "resumed.h5.parts").glob("*.h5"):
        age(part)
    with open_writer(tmp_path / "resumed.h5") as writer:
        add_images(writer, range(8))
    assert_same_content(tmp_path / "resumed.h5", store_path)
    age(store_path)
    assert_same_content(tmp_path / "resumed.h5", store_path)


def test_store_round_trip(tmp_path):
    path = tmp_path / "features" / "matek.h5"
    with open_writer(path, with_masks=True) as writer:
        cells = [make_cell(1, True), make_cell(2, True)]
        writer.add("ä/1.png", cells, label="Ü", cell_type="basophil", num_detections=4)
        writer.missed("2.png", "no detection above score 0.7", label="MON", cell_type="monocyte")
        writer.missed("3.png", "unreadable: truncated")
        writer.add("4.png", [make_cell(3, True)])
    assert [p.name for p in path.parent.iterdir()] == ["matek.h5"]
    with FeatureStore(path) as store:
        assert len(store) == 3 and store.centre == "matek"
        assert store.attributes["detector"]["hash"] == store.detector_hash == "abc123"
        assert store.attributes["detector"]["config"] == {"BACKBONE": "resnet101", "STRIDES": [4, 8]}
        assert store.attributes["score_threshold"] == 0.7 and store.attributes["schema"] == 3
        assert store.image_ids.tolist() == ["ä/1.png", "ä/1.png", "4.png"]
        assert store.labels.tolist() == ["Ü", "Ü", ""]
        assert store.cell_types.tolist() == ["basophil", "basophil", ""]
        counts = {"images": 4, "found": 2, "missed": 1, "unreadable": 1, "detections": 5, "cells": 3}
        assert store.counts == counts
        assert [m["image_id"] for m in store.missed] == ["2.png", "3.png"]
        assert list(store.missed[0].values()) == ["2.png", "MON", "monocyte", "no detection above score 0.7"]
        for row, seed in enumerate((1, 2, 3)):
            cell = make_cell(seed, True)
            for field in ("features", "crop", "image", "box", "mask"):
                stored = store.read(field, row, row + 1)[0]
                assert stored.dtype == getattr(cell, field).dtype
                np.testing.assert_array_equal(stored, getattr(cell, field))
        np.testing.assert_array_equal(store.read("image_shape", 0, 3), [[400, 380]] * 3)
        np.testing.assert_allclose(store.read("score", 0, 3), [0.501, 0.502, 0.503], rtol=1e-6)
        np.testing.assert_array_equal(store.read_rows("crop", [0, 2]), store.read("crop", 0, 3)[[0, 2]])
        np.testing.assert_array_equal(store.read_rows("image_id", [1, 2]), ["ä/1.png", "4.png"])
        assert store.read_rows("features", []).shape == (0, 14, 14, 256)


def test_store_read_refuses_bad_rows_and_fields(store_path):
    with FeatureStore(store_path) as store:
        for rows in ([0, 100], [len(store)], [-1, 0]):
            with pytest.raises(IndexError, match=f"rows {rows[0]} to {rows[-1]} of a store with {len(store)} cells"):
                store.read_rows("box", rows)
        for rows in ([2, 1], [1, 1]):
            with pytest.raises(ValueError, match="increasing"):
                store.read_rows("box", rows)
        with pytest.raises(InputError, match=r"no field 'ears' \(it has features, .*, cell_type\)$"):
            store.read("ears", 0, 1)
        with pytest.raises(InputError, match="extract again with masks"):
            store.read("mask", 0, 1)


def test_store_without_any_cell(tmp_path):
    path = tmp_path / "empty.h5"
    with open_writer(path) as writer:
        writer.missed("1.png", "unreadable: not an image")
    with FeatureStore(path) as store:
        assert len(store) == 0 and store.image_ids.tolist() == []
        assert store.read("features", 0, 0).shape == (0, 14, 14, 256)
        assert store.counts["unreadable"] == store.counts["images"] == 1
    with open_writer(tmp_path / "nothing.h5"):
        pass
    with FeatureStore(tmp_path / "nothing.h5") as store:
        assert store.counts["images"] == 0


@pytest.mark.parametrize(("num_rows", "chunk"), [(0, 1), (3, 3), (5000, 1024)])
def test_new_store_makes_chunks_of_one_row_of_arrays_and_many_of_numbers(tmp_path, num_rows, chunk):
    header = make_header("north", {"hash": "abc"}, True, {"min_score": 0.5})
    with new_store(tmp_path / "store.h5", header, num_rows, num_rows, {"cells/image_id": 7}) as file:
        cells, images = file["cells"], file["images"]
        assert cells["features"].chunks == (1, 14, 14, 256) and cells["mask"].chunks == (1, 28, 28)
        assert cells["box"].chunks == (chunk, 4) and cells["score"].chunks == images["num_cells"].chunks == (chunk,)
        for dataset in (*cells.values(), *images.values()):
            assert len(dataset) == num_rows and dataset.maxshape[0] is None
            assert dataset.fletcher32 and dataset.compression is None
        assert cells["image_id"].dtype.itemsize == 7 and images["image_id"].dtype.itemsize == 1


def leave_parts(path, numbers=range(8), **changes):
    with pytest.raises(RuntimeError), open_writer(path, **changes) as writer:
        add_images(writer, numbers)
        raise RuntimeError("lost the accelerator")
    assert not path.exists()


def test_writer_resumes_after_an_error(tmp_path, store_path):
    leave_parts(tmp_path / "resumed.h5", range(5))
    with open_writer(tmp_path / "resumed.h5") as writer:
        assert len(writer.done_ids) == 5
        add_images(writer, range(8))
    assert_same_content(tmp_path / "resumed.h5", store_path)


def test_writer_resumes_after_kill(tmp_path, store_path):
    path = tmp_path / "killed.h5"
    script = f"""
import os, signal
from tests.mrcnn.feature_store import test_feature_store as cells
writer = cells.open_writer({str(path)!r})
cells.add_images(writer, range(7))
(writer._folder / ".1.tmp.part-00009.h5").write_bytes(b"half a part")
os.kill(os.getpid(), signal.SIGKILL)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", script], env=env, timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL and not path.exists()
    with open_writer(path) as writer:
        assert 0 < len(writer.done_ids) < 7, "one part is whole, the last images were only in memory"
        add_images(writer, range(8))
    assert_same_content(path, store_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.h5", "store.h5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detector": {"hash": "other"}}, 'made with detector "abc123", not "other"'),
        ({"centre": "int20", "with_masks": True}, 'made with centre "matek", not "int20"; masks false, not true'),
    ],
)
def test_writer_refuses_parts_of_another_origin(tmp_path, change, message):
    path = tmp_path / "store.h5"
    leave_parts(path, range(3))
    with pytest.raises(InputError, match=message) as error:
        open_writer(path, **change)
    assert "\n" not in str(error.value) and "delete" in str(error.value)
    open_writer(path).finish()  # and the refusal left the parts as they were
    assert len(FeatureStore(path)) > 0
    path.unlink()
    leave_parts(path, range(3))
    assert not open_writer(path, **change, replace_parts=True).done_ids


def test_clear_parts_removes_what_a_kill_after_the_merge_left(tmp_path, store_path, monkeypatch):
    path = tmp_path / "new" / "late.h5"
    writer = open_writer(path)
    add_images(writer, range(8))
    with monkeypatch.context() as patch:
        patch.setattr("mrcnn.feature_store.writer._remove_parts", lambda folder: None)
        writer.finish()
    with OutputLock(path):
        clear_parts(path)  # another run writes the store anew
    assert len(list(path.parent.iterdir())) == 2
    clear_parts(path)
    assert list(path.parent.iterdir()) == [path]
    assert_same_content(path, store_path)


def test_clear_parts_leaves_those_of_a_later_run(tmp_path, store_path):
    path = tmp_path / "late.h5"
    leave_parts(path, detector={"hash": "aaa"})
    shutil.copy(store_path, path)
    os.utime(path, (1e9, 1e9))
    clear_parts(path)
    assert (tmp_path / "late.h5.parts").is_dir()


def test_measurements_and_nuclei_come_back_with_their_names(tmp_path):
    extras = {"with_masks": True, "mask_shape": (56, 56), "with_nuclei": True, "morphology": ("cell_area", "lobes")}
    masks = np.random.default_rng(0).integers(0, 256, (2, 56, 56), dtype=np.uint8)
    cell = make_cell(1)._replace(mask=masks[0], nucleus_mask=masks[1], morphology=np.array([812.0, 3.0]))
    with open_writer(tmp_path / "store.h5", **extras) as writer:
        writer.add("1.png", [cell])
        with pytest.raises(ValueError, match="lacks its morphology"):
            writer.add("2.png", [cell._replace(morphology=None)])
        with pytest.raises(ValueError, match="morphology must be float32 of shape"):
            writer.add("2.png", [cell._replace(morphology=np.ones(3))])
    with FeatureStore(tmp_path / "store.h5") as store:
        assert store.attributes["morphology"] == ["cell_area", "lobes"]
        np.testing.assert_array_equal(store.read("morphology", 0, 1), np.float32([[812, 3]]))
        np.testing.assert_array_equal(store.read("nucleus_mask", 0, 1)[0], masks[1])
        np.testing.assert_array_equal(store.read("mask", 0, 1)[0], masks[0])


def test_store_without_measurements_says_what_it_needs(store_path):
    with FeatureStore(store_path) as store, pytest.raises(InputError, match="morphology.*extract again.*nuclei"):
        store.read("morphology", 0, 1)


def test_writer_refuses_a_second_writer(tmp_path):
    first = open_writer(tmp_path / "store.h5")
    with pytest.raises(InputError, match=r"store.h5: another run \(pid \d+ on .*\) is writing it"):
        open_writer(tmp_path / "store.h5")
    first.finish()


def test_writer_refuses_bad_cells(tmp_path):
    writer = open_writer(tmp_path / "store.h5")
    cell = make_cell(1)
    nan = cell.features.copy()
    nan[0, 0, 0] = np.nan
    for bad, message in [
        (cell._replace(features=nan), "features holds NaN"),
        (cell._replace(features=np.full((14, 14, 256), 65520.0)), "too large for float16"),
        (cell._replace(crop=cell.crop[:64]), r"crop must be uint8 of shape \(128, 128, 3\), got uint8 \(64, 128, 3\)"),
        (cell._replace(crop=cell.crop.astype(np.float32)), "crop must be uint8 .*, got float32"),
        (make_cell(1, True), "has a mask"),
    ]:
        with pytest.raises(ValueError, match=message):
            writer.add("1.png", [bad])
    with pytest.raises(ValueError, match="0 cells of 0 detections"):
        writer.add("1.png", [])
    writer.add("1.png", [cell])
    with pytest.raises(ValueError, match="added twice"):
        writer.missed("1.png", "again")
    writer.finish()
    with FeatureStore(tmp_path / "store.h5") as store:
        assert store.image_ids.tolist() == ["1.png"], "a refused cell leaves no trace"
    row = check_cell("a", cell._replace(features=np.full((14, 14, 256), 65504.0), box=(1, 2, 3, 4)), ARRAY_FIELDS)
    assert {name: (str(value.dtype), value.shape) for name, value in row.items()} == ARRAY_FIELDS


def test_writer_reports_the_first_error_where_the_last_cells_cannot_be_saved_either(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("mrcnn.feature_store.writer.new_store", full)
    with pytest.raises(RuntimeError, match="lost"), open_writer(tmp_path / "store.h5") as writer:
        add_images(writer, range(1, 2))
        raise RuntimeError("lost the accelerator")
    assert "the last cells could not be saved (no space left)" in caplog.text
    with pytest.raises(OSError, match="no space left"), open_writer(tmp_path / "other.h5") as writer:
        add_images(writer, range(1, 2))


def refused(path):
    with pytest.raises(InputError) as error:
        FeatureStore(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def set_attribute(path, name, value):
    with h5py.File(path, "r+") as file:
        data = np.bytes_(value.encode() or b"\0")
        file.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", len(data) or 1))


def test_store_refuses_what_is_no_store(tmp_path, store_path):
    assert "no such" in refused(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not hdf5 at all")
    assert "damaged" in refused(tmp_path / "text.h5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.arange(3)
    assert "aecfe extract" in refused(tmp_path / "plain.h5")
    set_attribute(store_path, "centre", "../a")
    assert "no name for files" in refused(store_path)
    set_attribute(store_path, "settings", '{"a": 1, "a": 2}')
    assert "twice in one mapping" in refused(store_path)
    with h5py.File(store_path, "r+") as file:
        file.attrs["schema"] = np.int32(99)
    assert "schema 99, and this software reads aecfe-features, schema 1 to 3" in refused(store_path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda cells, _: cells.__setitem__("crop", h5py.ExternalLink("else.h5", "/cells/crop")), "it is a link"),
        (lambda cells, _: None, "crop"),
        (lambda cells, shape: cells.create_dataset("crop", shape, "float32"), r"not uint8 of shape \(\d, 128, 128"),
        (lambda cells, _: cells.create_group("crop"), "damaged"),
        (lambda cells, shape: cells.create_dataset("crop", (1, *shape[1:]), "uint8"), r"not uint8 of shape \(\d, 128"),
        (lambda cells, shape: [item.resize(10**10, axis=0) for item in cells.values()], "does not hold it"),
    ],
)
def test_store_refuses_foreign_storage_and_absurd_sizes(store_path, make, reason):
    with h5py.File(store_path, "r+") as file:
        cells = file["cells"]
        del cells["crop"]
        make(cells, (len(cells["image_id"]), 128, 128, 3))
    assert re.search(reason, refused(store_path))


def test_store_reports_a_flipped_bit(store_path):
    with FeatureStore(store_path) as store:
        raw = store.read("crop", 1, 2).tobytes()
    data = bytearray(store_path.read_bytes())
    data[data.index(raw) + 100] ^= 1
    store_path.write_bytes(data)
    with FeatureStore(store_path) as store:
        store.read("crop", 0, 1)
        with pytest.raises(InputError, match="damaged"):
            store.read("crop", 0, 3)


def test_finish_holds_few_rows_at_a_time(tmp_path, monkeypatch):
    """The merge goes over the parts one by one, in blocks of rows, however many cells there are."""
    largest = []
    plain = h5py.Dataset.__setitem__

    def watched(self, rows, values):
        largest.append(np.asarray(values).nbytes)
        return plain(self, rows, values)

    writer = open_writer(tmp_path / "store.h5", part_size=20)
    add_images(writer, range(60))
    writer._flush()
    open_before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    monkeypatch.setattr("mrcnn.feature_store.writer.MERGE_ROWS", 4)
    monkeypatch.setattr(h5py.Dataset, "__setitem__", watched)
    writer.finish()
    assert max(largest) <= 4 * 14 * 14 * 256 * 2
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == open_before


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A store of two cells: its path and its bytes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5"
    with open_writer(path) as writer:
        add_images(writer, (1, 4, 2))
    return path, path.read_bytes()


HYPOTHESIS = settings(max_examples=60, deadline=None, derandomize=True)
# The first ones hold the structure.
PLACES = st.floats(0, 1, exclude_max=True) | st.integers(0, 8191)


@HYPOTHESIS
@given(st.lists(st.tuples(PLACES, st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_are_found_or_change_nothing(tiny, flips):
    path, whole = tiny
    data = bytearray(whole)
    for place, bits in flips:
        data[place if isinstance(place, int) else int(place * len(data))] ^= bits
    (damaged := path.with_name("flipped.h5")).write_bytes(data)
    try:
        assert_same_content(damaged, path)
    except InputError as error:
        assert str(damaged) in str(error) and "\n" not in str(error)


@HYPOTHESIS
@given(st.floats(0, 1, exclude_max=True))
def test_files_that_are_cut_short_are_refused(tiny, share):
    path, whole = tiny
    (damaged := path.with_name("cut.h5")).write_bytes(whole[: int(share * len(whole))])
    refused(damaged)
