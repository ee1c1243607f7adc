"""Vectors of other makers: what is read, what is refused, and how rows are put in order."""

import io
import logging
import zipfile

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from experiments.evaluation import evaluate as table_stage
from experiments.evaluation import vectors as vector_files
from experiments.evaluation.vectors import align_vectors, read_embedding, read_vectors
from mrcnn.files.errors import InputError

CENTRES = ["north", "river", "north", "river"]
KEYS = ["1.png", "1.png", "2.png", "3.png"]
TYPES = ["monocyte", "", "eosinophil", "monocyte"]
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def write_h5ad(path, x=X, **changes):
    columns = {"centre": CENTRES, "key": KEYS, "cell_type": TYPES, **changes}
    obs = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    obs.index = obs.index.astype(str)
    anndata.AnnData(x, obs=obs).write_h5ad(path)
    return path


def write_npz(path, **changes):
    arrays = {"X": X, "centre": np.array(CENTRES), "key": np.array(KEYS), "cell_type": np.array(TYPES), **changes}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def write_header(path, name, text):
    """An .npz file whose array `name` has a header of this text and no data; the others are as they should be."""
    write_npz(path, **{name: None})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    return path


def assert_is_right(found):
    assert list(found) == ["north", "river"]
    for centre, rows in (("north", [0, 2]), ("river", [1, 3])):
        vectors, labels = found[centre]
        assert vectors.dtype == np.float32 and labels["key"].dtype.kind == labels["cell_type"].dtype.kind == "U"
        np.testing.assert_array_equal(vectors, X[rows])
        assert labels["key"].tolist() == [KEYS[row] for row in rows]
        assert labels["cell_type"].tolist() == [TYPES[row] for row in rows]


def refused(path, *parts):
    with pytest.raises(InputError) as caught:
        read_vectors(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)), message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("make", [np.asarray, np.float64, sparse.csr_matrix, sparse.csc_matrix])
def test_read_vectors_of_h5ad_dense_and_sparse(tmp_path, make):
    assert_is_right(read_vectors(write_h5ad(tmp_path / "a.h5ad", make(X))))


def test_read_embedding_is_still_where_the_table_looks_for_it():
    assert table_stage.read_embedding is read_embedding


def test_read_vectors_of_h5ad_take_missing_types_for_none_and_columns_of_categories(tmp_path):
    categories = {
        "centre": pd.Categorical(CENTRES),
        "cell_type": pd.Categorical([None if t == "" else t for t in TYPES]),
    }
    assert_is_right(read_vectors(write_h5ad(tmp_path / "a.h5ad", **categories)))


def test_read_vectors_of_h5ad_keep_several_cells_of_an_image(tmp_path):
    found = read_vectors(write_h5ad(tmp_path / "a.h5ad", key=["1.png"] * 4))
    assert found["north"][1]["key"].tolist() == ["1.png", "1.png"]


@pytest.mark.parametrize("name", ["X", "vectors", "features"])
def test_read_vectors_of_npz_by_any_of_three_names(tmp_path, name):
    assert_is_right(read_vectors(write_npz(tmp_path / "a.npz", **{"X": None, name: X})))


def test_read_vectors_of_npz_in_other_types(tmp_path):
    as_bytes = {"key": np.array(KEYS, "S"), "centre": np.array(CENTRES, "S")}
    assert_is_right(read_vectors(write_npz(tmp_path / "A.NPZ.npz", X=X.astype(np.int16), **as_bytes)))
    assert_is_right(read_vectors(write_npz(tmp_path / "b.npz", X=np.asfortranarray(X, np.float64), extra=np.zeros(9))))


def test_read_vectors_of_npz_without_types_are_unlabelled(tmp_path):
    found = read_vectors(write_npz(tmp_path / "a.npz", cell_type=None))
    assert found["river"][1]["cell_type"].tolist() == ["", ""]


def test_read_vectors_refuse_files_that_are_none(tmp_path):
    refused(tmp_path / "a.csv", ".h5ad and .npz")
    refused(tmp_path / "none.npz", "no such file")
    refused(tmp_path / "none.h5ad", "no such embedding")
    for name in ("a.npz", "a.h5ad"):
        (tmp_path / name).write_bytes(b"not one\n" * 100)
        refused(tmp_path / name, "not an .")
    np.save(tmp_path / "b.npy", X)
    refused((tmp_path / "b.npy").rename(tmp_path / "b.npz"), "damaged or not an .npz file")
    with h5py.File(tmp_path / "c.h5ad", "w") as file:
        file["cells"] = X
    refused(tmp_path / "c.h5ad", "no obs")


def test_read_vectors_refuse_a_damaged_npz(tmp_path):
    data = bytearray(write_npz(tmp_path / "a.npz").read_bytes())
    place = data.index(X.tobytes())
    data[place] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    refused(tmp_path / "a.npz", "damaged", "CRC")
    (tmp_path / "a.npz").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "a.npz", "damaged or not an .npz file")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"X": None}, "has no X"),
        ({"key": None}, "has no key"),
        ({"centre": None}, "has no centre"),
        ({"vectors": X}, "X and vectors"),
        ({"X": X.ravel()}, "X has shape (12,)"),
        ({"X": X[..., np.newaxis]}, "X has shape (4, 3, 1)"),
        ({"key": np.array([KEYS])}, "key has shape (1, 4)"),
        ({"centre": np.array("north")}, "centre has shape ()"),
        ({"X": X[:3]}, "X 3, centre 4"),
        ({"X": X[:, :0]}, "vectors have shape (4, 0)"),
        ({"X": X > 3}, "X is of type bool"),
        ({"X": X.astype(complex)}, "X is of type complex"),
        ({"key": np.arange(4)}, "key is of type int"),
        ({"key": np.array(KEYS, object)}, "key holds Python objects"),
        ({"X": X.astype(object)}, "X holds Python objects"),
        ({"cell_type": np.array(TYPES, object)}, "cell_type holds Python objects"),
        ({"X": np.where(X == 7, np.nan, X)}, "row 2 holds NaN"),
        ({"X": np.where(X == 7, 1e300, X.astype(float))}, "row 2 holds NaN or infinite"),
        ({"key": np.array(["1.png"] * 4)}, "'north' has '1.png' more than once"),
        ({"key": np.array(["1.png", "2.png", "", "4.png"])}, "row 2 has no key"),
        ({"centre": np.array(["a", "", "a", "a"])}, "row 1 has no centre"),
        ({"key": np.array([b"1", b"2", b"3", b"\xff"])}, "damaged"),
    ],
)
def test_read_vectors_of_npz_refuse(tmp_path, changes, part):
    refused(write_npz(tmp_path / "a.npz", **changes), part)


def test_read_vectors_of_npz_never_unpickle(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    refused(write_npz(tmp_path / "a.npz", X=np.array([[Trap()] * 3] * 4)), "Python objects")
    # A member without the suffix goes first in NumPy, and holds what a header would have told.
    path = write_npz(tmp_path / "b.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.array([[Trap()] * 3] * 4), allow_pickle=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("X", buffer.getvalue())
    assert_is_right(read_vectors(path))
    assert not (tmp_path / "sprung").exists()


def test_read_vectors_of_npz_refuse_sizes_before_they_are_read(tmp_path):
    huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1073741824)}\n"
    refused(write_header(tmp_path / "a.npz", "X", huge), "16.0 GiB", "at most 8")
    refused(write_header(tmp_path / "c.npz", "X", huge.replace("1073741824", "3")), "damaged")
    refused(write_header(tmp_path / "d.npz", "X", huge.replace("4, 1073741824", "4, -3")), "damaged")
    refused(write_header(tmp_path / "e.npz", "X", "{'descr': open('x')}\n"), "damaged or not an .npz file")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"key": None}, "obs lacks key"),
        ({"key": None, "centre": None}, "obs lacks centre, key"),
        ({"x": np.where(X == 7, np.nan, X)}, "row 2 holds NaN"),
        ({"x": sparse.csr_matrix(np.where(X == 7, np.inf, X))}, "row 2 holds NaN or infinite"),
        ({"x": None}, "no X"),
        ({"key": ["a", "b", "c", "d" * 5000]}, "obs has a key of more than 4096 characters"),
        ({"centre": pd.Categorical(["a", None, "a", "a"])}, "row 1 has no centre"),
    ],
)
def test_read_vectors_of_h5ad_refuse(tmp_path, changes, part):
    refused(write_h5ad(tmp_path / "a.h5ad", **changes), part)


def test_read_vectors_of_h5ad_refuse_sizes_before_they_are_read(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        kept = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", (2**20, 2**12), "float32", chunks=(64, 64)).attrs.update(kept)
    refused(path, "16.0 GiB")
    path = write_h5ad(tmp_path / "b.h5ad", sparse.csr_matrix(X))
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = np.array([4, 2**40])
    refused(path, "GiB")


def test_read_vectors_of_h5ad_refuse_a_sparse_index_out_of_range(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad", sparse.csr_matrix(X))
    with h5py.File(path, "a") as file:
        file["X/indices"][2] = 10**6
    refused(path, "not an .h5ad file that can be read")


def test_read_vectors_of_h5ad_refuse_data_in_other_files(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad")
    write_h5ad(tmp_path / "other.h5ad")
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(tmp_path / "other.h5ad"), "X")
    refused(path, "X lies elsewhere")
    (tmp_path / "raw").write_bytes(bytes(48))
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", (4, 3), "float32", external=[(str(tmp_path / "raw"), 0, 48)])
    refused(path, "X lies elsewhere")


def test_read_vectors_of_h5ad_do_not_read_what_is_not_asked_for(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/huge", (2**20, 2**20), "float32", chunks=(64, 64))
    assert_is_right(read_vectors(path))


def test_max_bytes_counts_all_arrays(tmp_path, monkeypatch):
    path = write_npz(tmp_path / "a.npz")
    stated = X.nbytes + sum(np.array(column).nbytes for column in (CENTRES, KEYS, TYPES))
    monkeypatch.setattr(vector_files, "MAX_BYTES", stated)
    assert_is_right(read_vectors(path))
    monkeypatch.setattr(vector_files, "MAX_BYTES", stated - 1)
    refused(path, "GiB")


def test_align_vectors_bring_rows_to_the_wanted_order(caplog):
    with caplog.at_level(logging.INFO, "experiments.evaluation.vectors"):
        np.testing.assert_array_equal(align_vectors(X, list("abcd"), np.array(list("dbac")), "f"), X[[3, 1, 0, 2]])
        assert not caplog.records
        np.testing.assert_array_equal(align_vectors(X, list("abcd"), ["c", "a"], "file.npz, north"), X[[2, 0]])
    assert "file.npz, north: 2 vectors" in caplog.text


def test_align_vectors_with_several_cells_of_an_image_take_the_same_sequence_only():
    np.testing.assert_array_equal(align_vectors(X, list("aabb"), list("aabb"), "f"), X)
    for keys, wanted in (("aabc", "abac"), ("aabc", "abc"), ("abcd", "aabc")):
        with pytest.raises(InputError, match="^f: images with several cells"):
            align_vectors(X, list(keys), list(wanted), "f")


def test_align_vectors_count_what_is_missing_and_name_the_first():
    with pytest.raises(InputError, match=r"^file\.npz, north: lacks 2 of 5 keys, first 'y'; "):
        align_vectors(X, list("abcd"), list("abycz"), "file.npz, north")
    with pytest.raises(ValueError, match="4 vectors but keys of shape"):
        align_vectors(X, list("abc"), list("abc"), "f")


def test_read_vectors_of_h5ad_refuse_rows_that_do_not_fit_their_cells(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        kept = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", data=X[:3]).attrs.update(kept)
    refused(path, "X has shape (3, 3), but obs 4 rows")


def test_read_vectors_of_h5ad_refuse_what_anndata_does_not_know(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        file["obs"].attrs["encoding-type"] = "pickle"
    refused(path, "not an .h5ad file that can be read")


def test_read_vectors_of_h5ad_refuse_a_type_on_which_hdf5_crashes(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad")
    data = bytearray(path.read_bytes())
    place = data.index(b"encoding-type\0\0\0\x19\x01") + 17
    data[place] = 3  # neither a text nor a sequence of variable length
    path.write_bytes(data)
    refused(path, "attribute encoding-type")


def test_read_vectors_refuse_what_grows_a_hundredfold(tmp_path):
    path = tmp_path / "a.npz"
    zeros = np.zeros((4, 2**21), np.float32)
    np.savez_compressed(path, X=zeros, key=np.array(KEYS), centre=np.array(CENTRES))
    refused(path, "X grows from")
    path = write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        kept = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", data=zeros, compression="gzip").attrs.update(kept)
    refused(path, "does not hold it")
