"""Vectors of other makers: what is read, what is refused, and how rows are put in order."""

import logging
import pickle

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from experiments.evaluation.vectors import align_vectors, read_vectors, standardise
from mrcnn.files.errors import InputError

CENTRES = ["north", "river", "north", "river"]
KEYS = ["1.png", "1.png", "2.png", "3.png"]
TYPES = ["monocyte", "", "eosinophil", "monocyte"]
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def write_h5ad(path, x=X, **changes):
    columns = {"centre": CENTRES, "image_id": KEYS, "cell_type": TYPES, **changes}
    obs = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    obs.index = obs.index.astype(str)
    anndata.AnnData(x, obs=obs).write_h5ad(path)
    return path


def write_npz(path, **changes):
    arrays = {"X": X, "centre": np.array(CENTRES), "image_id": np.array(KEYS), "cell_type": np.array(TYPES), **changes}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def assert_is_right(found):
    assert list(found) == ["north", "river"]
    for centre, rows in (("north", [0, 2]), ("river", [1, 3])):
        vectors, labels = found[centre]
        assert vectors.dtype == np.float32 and labels["image_id"].dtype.kind == labels["cell_type"].dtype.kind == "U"
        np.testing.assert_array_equal(vectors, X[rows])
        assert labels["image_id"].tolist() == [KEYS[row] for row in rows]
        assert labels["cell_type"].tolist() == [TYPES[row] for row in rows]


def refused(path, *parts):
    with pytest.raises(InputError) as caught:
        read_vectors(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)) and all(part in message for part in parts), message


@pytest.mark.parametrize("make", [np.asarray, np.float64, sparse.csr_matrix, sparse.csc_matrix])
def test_h5ad_is_read_dense_and_sparse(tmp_path, make):
    assert_is_right(read_vectors(write_h5ad(tmp_path / "a.h5ad", make(X))))


def test_h5ad_takes_missing_types_for_none_and_several_cells_of_an_image(tmp_path):
    types = pd.Categorical([None if t == "" else t for t in TYPES])
    assert_is_right(read_vectors(write_h5ad(tmp_path / "a.h5ad", centre=pd.Categorical(CENTRES), cell_type=types)))
    found = read_vectors(write_h5ad(tmp_path / "b.h5ad", image_id=["1.png"] * 4))
    assert found["north"][1]["image_id"].tolist() == ["1.png", "1.png"]


def test_files_of_older_versions_name_the_image_key(tmp_path):
    assert_is_right(read_vectors(write_h5ad(tmp_path / "a.h5ad", image_id=None, key=KEYS)))
    assert_is_right(read_vectors(write_npz(tmp_path / "a.npz", image_id=None, key=np.array(KEYS))))


def test_npz_is_read_under_any_of_three_names_and_in_other_types(tmp_path):
    for name in ("X", "vectors", "features"):
        assert_is_right(read_vectors(write_npz(tmp_path / "a.npz", **{"X": None, name: X})))
    as_bytes = {"image_id": np.array(KEYS, "S"), "centre": np.array(CENTRES, "S")}
    assert_is_right(read_vectors(write_npz(tmp_path / "A.NPZ.npz", X=X.astype(np.int16), **as_bytes)))
    found = read_vectors(write_npz(tmp_path / "c.npz", cell_type=None, extra=np.zeros(9)))
    assert found["river"][1]["cell_type"].tolist() == ["", ""]


def test_files_that_are_none_are_refused(tmp_path):
    refused(tmp_path / "a.csv", ".h5ad and .npz")
    refused(tmp_path / "none.npz", "no such file")
    refused(tmp_path / "none.h5ad", "no such embedding; run aecfe embed")
    for name in ("a.npz", "a.h5ad"):
        (tmp_path / name).write_bytes(b"not one\n" * 100)
        refused(tmp_path / name, "damaged")
    with h5py.File(tmp_path / "c.h5ad", "w") as file:
        file["cells"] = X
    refused(tmp_path / "c.h5ad", "obs")


@pytest.mark.parametrize(
    ("write", "changes", "part"),
    [
        (write_npz, {"X": None}, "has no X"),
        (write_npz, {"vectors": X}, "X and vectors"),
        (write_npz, {"X": X.ravel()}, "X is of type float32 and shape (12,)"),
        (write_npz, {"X": X[:3]}, "not a text for each of the 3 vectors"),
        (write_npz, {"image_id": np.arange(4)}, "image_id is of type int"),
        (write_npz, {"X": np.where(X == 7, 1e300, X.astype(float))}, "row 2 holds NaN or infinite"),
        (write_npz, {"image_id": np.array(["1.png"] * 4)}, "row 2 has an image_id that was there before"),
        (write_h5ad, {"image_id": None, "centre": None}, "lacks centre and image_id"),
        (write_h5ad, {"x": sparse.csr_matrix(np.where(X == 7, np.inf, X))}, "row 2 holds NaN or infinite"),
        (write_h5ad, {"image_id": ["a", "b", "c", "d" * 5000]}, "obs has texts of more than 4096 characters"),
        (write_h5ad, {"centre": pd.Categorical(["a", None, "a", "a"])}, "row 1 has no centre"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, write, changes, part):
    refused(write(tmp_path / ("a.npz" if write is write_npz else "a.h5ad"), **changes), part)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    objects = np.empty((4, 3), object)
    objects[:] = Trap()
    refused(write_npz(tmp_path / "a.npz", X=objects), "damaged")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    refused(tmp_path / "b.npz", "damaged")
    assert not (tmp_path / "sprung").exists()


def test_h5ad_of_a_hostile_sparse_matrix_is_refused(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad", sparse.csr_matrix(X))
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = np.array([4, 2**40])
    refused(path, "GiB")
    path = write_h5ad(tmp_path / "b.h5ad", sparse.csr_matrix(X))
    with h5py.File(path, "a") as file:
        file["X/indices"][2] = 10**6
    refused(path, "not an .h5ad file that can be read")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    return {p.suffix: p.read_bytes() for p in (write_npz(folder / "a.npz"), write_h5ad(folder / "a.h5ad"))}


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from([".npz", ".h5ad"]), place=st.floats(0, 1), value=st.integers(1, 255), cut=st.booleans())
def test_damaged_bytes_are_refused_or_read(sound, tmp_path, suffix, place, value, cut):
    content = bytearray(sound[suffix])
    at = int(place * (len(content) - 1))
    content[at] ^= value
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content[:at] if cut else content)
    try:
        found = read_vectors(path)
    except InputError as error:
        assert str(error).startswith(str(path))
    else:
        assert sum(len(vectors) for vectors, _ in found.values()) == 4


def test_align_vectors_brings_rows_to_the_wanted_order(caplog):
    with caplog.at_level(logging.INFO, "experiments.evaluation.vectors"):
        np.testing.assert_array_equal(align_vectors(X, list("abcd"), np.array(list("dbac")), "f"), X[[3, 1, 0, 2]])
        assert not caplog.records
        np.testing.assert_array_equal(align_vectors(X, list("abcd"), ["c", "a"], "file.npz, north"), X[[2, 0]])
    assert "file.npz, north: 2 vectors" in caplog.text
    with pytest.raises(InputError, match=r"^file\.npz, north: lacks 2 of 5 image_ids, first 'y'; "):
        align_vectors(X, list("abcd"), list("abycz"), "file.npz, north")


def test_align_vectors_with_several_cells_of_an_image_takes_the_same_sequence_only():
    np.testing.assert_array_equal(align_vectors(X, list("aabb"), list("aabb"), "f"), X)
    for keys, wanted in (("aabc", "abac"), ("aabc", "abc"), ("abcd", "aabc")):
        with pytest.raises(InputError, match="^f: images with several cells"):
            align_vectors(X, list(keys), list(wanted), "f")


def test_standardising_gives_every_feature_mean_0_and_standard_deviation_1():
    np.testing.assert_allclose(standardise([[1.0, 5], [3, 5]]), [[-1, 0], [1, 0]])  # a constant feature is 0
    assert standardise(np.zeros((0, 2))).shape == (0, 2)
