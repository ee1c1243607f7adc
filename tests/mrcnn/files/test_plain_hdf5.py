"""HDF5 files of unknown origin: arrays inside the file itself are let through, and nothing else."""

import io

import h5py
import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import check_heaps, check_items, check_plain, check_weights_file, list_items, read_note


def make(path, change=lambda file: None):
    with h5py.File(path, "w") as file:
        file.create_group("layers/a/vars")["0"] = np.ones((3, 2), np.float32)
        file["layers"].attrs["names"] = np.array([b"a"])
        change(file)
    return path


def refused(path, reason):
    with pytest.raises(InputError, match=reason) as caught:
        check_weights_file(path, advice="get it again")
    text = str(caught.value)
    assert text.startswith(str(path)) and len(text.splitlines()) == 1


def test_plain_files_are_let_through(tmp_path):
    check_weights_file(make(tmp_path / "a.h5"), advice="")
    zipped = make(
        tmp_path / "b.h5", lambda f: f.create_dataset("c", data=np.eye(99), compression="gzip", chunks=(9, 9))
    )
    check_weights_file(zipped, advice="")
    check_weights_file(make(tmp_path / "c.h5", lambda f: f.create_dataset("empty", (0, 3))), advice="")
    check_plain(io.BytesIO((tmp_path / "a.h5").read_bytes()), "here", advice="")


def virtual(file):
    layout = h5py.VirtualLayout((3,), "float32")
    layout[...] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.__setitem__("x", h5py.SoftLink("/layers")), "/x lies elsewhere"),
        (lambda f: f.__setitem__("layers/x", h5py.ExternalLink("/etc/hostname", "/")), "/layers/x lies elsewhere"),
        (lambda f: f.__setitem__("layers/up", f["/"]), "under another name too"),
        (lambda f: f.__setitem__("twice", f["layers"]), "under another name too"),
        (lambda f: f.create_dataset("x", (3,), "f4", external=[("/etc/hostname", 0, 12)]), "in another file"),
        (virtual, "in another file"),
        (lambda f: f.create_dataset("x", (2**40, 3), "f4", chunks=(100, 3)), "does not hold it"),
        (lambda f: f.create_dataset("x", (2**30,), "f4", chunks=(100,), compression="gzip"), "does not hold it"),
        (lambda f: f.create_dataset("x", (3,), h5py.ref_dtype), "not numbers"),
        (lambda f: f.create_dataset("x", data=["a"]), "not numbers"),
        (lambda f: f.create_dataset("x", data=np.zeros(3, "V4")), "not numbers"),
        (lambda f: f.create_dataset("x", data=np.zeros(3, "i4"), scaleoffset=2), "unusual way"),
        (lambda f: f.__setitem__("x", np.dtype("f4")), "no array"),
        (lambda f: f.__setitem__("a\nb", 3), "odd name"),
        (lambda f: f.attrs.__setitem__("a", f["layers"].ref), "attribute a of / is of type object"),
    ],
)
def test_everything_else_is_refused(change, reason, tmp_path):
    refused(make(tmp_path / "a.h5", change), reason)


def test_an_array_that_grows_too_much_is_refused(tmp_path):
    def zeros(file):
        dataset = file.create_dataset("x", (2**23,), "f4", chunks=(2**20,), compression="gzip")
        for start in range(0, 2**23, 2**20):
            dataset[start : start + 2**20] = 0

    refused(make(tmp_path / "a.h5", zeros), "does not hold it")


def test_files_that_are_none_are_refused(tmp_path):
    refused(tmp_path / "absent.h5", "no such file; get it again")
    refused(tmp_path, "cannot be read")
    (tmp_path / "a.h5").write_text("text")
    refused(tmp_path / "a.h5", "not an HDF5 file")
    (tmp_path / "b.h5").write_bytes(b"")
    refused(tmp_path / "b.h5", "not an HDF5 file")
    data = make(tmp_path / "c.h5").read_bytes()
    (tmp_path / "c.h5").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "c.h5", "damaged or refused")


def test_a_link_is_followed_within_its_folder_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    make(tmp_path / "elsewhere" / "a.h5")
    (tmp_path / "b.h5").symlink_to(tmp_path / "elsewhere" / "a.h5")
    refused(tmp_path / "b.h5", "link to a file of another folder")
    make(tmp_path / "c.h5")
    (tmp_path / "d.h5").symlink_to("c.h5")
    check_weights_file(tmp_path / "d.h5", advice="")


def with_texts(path, texts):
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=texts, dtype=h5py.string_dtype())
    return path


def check_texts(path):
    check_heaps(path)
    with h5py.File(path) as file:
        check_items(list_items(file), path.stat().st_size, with_texts=True)


def test_texts_are_let_through_where_they_are_wanted(tmp_path):
    check_texts(with_texts(tmp_path / "a.h5", ["a", "b" * 1000]))
    refused(tmp_path / "a.h5", "not numbers")


def test_texts_that_share_their_memory_are_refused(tmp_path):
    path = with_texts(tmp_path / "a.h5", ["a" * 10**5, *["b"] * 99])
    with h5py.File(path) as file:
        place = file["t"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[place : place + 1600] = bytes(data[place : place + 16]) * 100
    path.write_bytes(data)
    with pytest.raises(ValueError, match="longer texts than there is room for"):
        check_texts(path)


def test_a_heap_on_which_hdf5_would_never_end_is_refused(tmp_path):
    path = with_texts(tmp_path / "a.h5", ["a" * 8])
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    free = heap + 16 + 16 + 8  # behind the heap's own header and the one text
    assert data[free : free + 2] == b"\0\0"
    data[free + 8 : free + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="holds an object of 0 bytes"):
        check_heaps(path)
    refused(path, "holds an object of 0 bytes")
    data[heap + 8 : heap + 16] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(ValueError, match="larger than the file"):
        check_heaps(path)


def test_list_items_looks_at_the_members_that_are_named(tmp_path):
    path = make(tmp_path / "a.h5", lambda f: f.__setitem__("x", h5py.SoftLink("/layers")))
    with h5py.File(path) as file:
        assert list(list_items(file, ("layers",))) == [
            "/",
            "/layers",
            "/layers/a",
            "/layers/a/vars",
            "/layers/a/vars/0",
        ]
        with pytest.raises(KeyError, match="no other"):
            list_items(file, ("other",))


def test_read_note_reads_one_text_and_nothing_else(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["uns/run"] = "text"
        file["uns/number"] = 3
        file["obs"] = h5py.ExternalLink("/etc/hostname", "/")
    assert read_note(path, "uns/run") == "text"
    for name in ("uns/number", "uns/none", "uns", "obs", "obs/x"):
        with pytest.raises(InputError, match=f"a.h5: has no text {name}"):
            read_note(path, name)
    with pytest.raises(InputError, match="has no text"):
        read_note(tmp_path / "absent.h5", "uns/run")
