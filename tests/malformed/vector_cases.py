"""Malformed vectors of cells: .h5ad and .npz files that are cut, changed, linked, too large or carry objects."""

import functools
import io
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from case import Case, file_of
from scipy import sparse

from experiments.vector_files import Vectors, read_vectors

AT_LEAST = 450

_X = np.arange(24, dtype=np.float32).reshape(6, 4) / 7
_COLUMNS = {
    "centre": ["north"] * 4 + ["south"] * 2,
    "key": [f"{number}.png" for number in range(6)],
    "cell_type": ["a", "b", "", "a", "b", "b"],
}

READERS = {".h5ad": read_vectors, ".npz": read_vectors}


def is_sound(found: Vectors) -> None:
    """Values as they were written."""
    assert list(found) == ["north", "south"]
    np.testing.assert_array_equal(found["north"][0], _X[:4])
    np.testing.assert_array_equal(found["south"][0], _X[4:])
    assert found["south"][1]["key"].tolist() == ["4.png", "5.png"]


def is_valid(found: Vectors) -> None:
    """Some vectors: a flipped bit of an array without checksum gives others."""
    for vectors, labels in found.values():
        assert vectors.dtype == np.float32 and vectors.ndim == 2 and np.isfinite(vectors.sum(dtype=np.float64))
        assert all(len(labels[name]) == len(vectors) for name in ("key", "cell_type"))
        assert all(labels["key"] != "")


@functools.cache
def h5ad_bytes(kind: str = "dense", **options: Any) -> bytes:
    """A sound .h5ad file."""
    x = sparse.csr_matrix(_X) if kind == "sparse" else _X
    cells = pd.DataFrame(_COLUMNS, index=[str(n) for n in range(6)])
    if kind == "categories":
        cells = cells.astype("category")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5ad"
        anndata.AnnData(x, obs=cells).write_h5ad(path, **options)
        return path.read_bytes()


def npz_bytes(*, compressed: bool = False, **changes: Any) -> bytes:
    """An .npz file; None leaves an array out."""
    arrays = {"X": _X, **{name: np.array(values) for name, values in _COLUMNS.items()}, **changes}
    buffer = io.BytesIO()
    kept = {name: array for name, array in arrays.items() if array is not None}
    (np.savez_compressed if compressed else np.savez)(buffer, **kept)
    return buffer.getvalue()


def cases(reader: str, seed: int) -> Iterator[Case]:
    """The cases of a reader."""
    yield from _h5ad(seed) if reader == ".h5ad" else _npz(seed)


def _edited(change: Callable[[h5py.File], Any], kind: str = "dense") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "other.h5ad").write_bytes(h5ad_bytes())
        path = folder / "a.h5ad"
        path.write_bytes(h5ad_bytes(kind))
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def _h5ad(seed: int) -> Iterator[Case]:
    data = h5ad_bytes()
    random = np.random.default_rng(seed)
    for kind in ("dense", "sparse", "categories"):
        yield Case(f"sound, {kind}", file_of("a.h5ad", h5ad_bytes(kind)), "accepted", is_sound)
    yield Case("compressed", file_of("a.h5ad", h5ad_bytes(compression="gzip")), "accepted", is_sound)
    for end in sorted({0, 8, 96, len(data) - 1, *random.integers(0, len(data), 20).tolist()}):
        yield Case(f"cut after {end} bytes", file_of("a.h5ad", data[:end]), "refused")
    for kind in ("dense", "sparse", "categories"):
        sound = h5ad_bytes(kind)
        for place in random.choice(len(sound), 60, replace=False).tolist():
            flipped = bytearray(sound)
            flipped[place] ^= 1 << int(random.integers(8))
            yield Case(f"a bit of byte {place}, {kind}", file_of("a.h5ad", bytes(flipped)), "either", is_valid)
    for name in ("obs", "X", "obs/key", "obs/centre", "obs/cell_type", "obs/_index"):
        yield Case(f"without {name}", _edited(lambda f, name=name: f.__delitem__(name)), "refused")
        for what, link in {
            "soft link": h5py.SoftLink("/kept"),
            "soft link to itself": h5py.SoftLink(f"/{name}"),
            "external link": h5py.ExternalLink("other.h5ad", name),
            "external link to a system file": h5py.ExternalLink("/etc/hostname", "/"),
        }.items():
            change = _edited(lambda f, n=name, link=link: (f.move(n, "kept"), f.__setitem__(n, link)))
            yield Case(f"{what} for {name}", change, "refused")
        yield Case(f"{name} as a number", _edited(lambda f, name=name: _put(f, name, 3)), "refused")
    for name in ("X", "obs/key"):
        stored = _edited(lambda f, n=name: _external(f, n))
        yield Case(f"external storage of {name}", stored, "refused")
        yield Case(f"virtual {name}", _edited(lambda f, n=name: _virtual(f, n)), "refused")
    for name, values in {
        "NaN": np.where(_X == _X[2, 1], np.nan, _X),
        "infinite": np.where(_X == _X[2, 1], np.inf, _X),
        "too large for float32": np.where(_X == _X[2, 1], 1e300, _X.astype(float)),
        "complex": _X.astype(complex),
        "text": np.array([["a"] * 4] * 6, "S1"),
        "rows missing": _X[:5],
        "one dimension": _X[:, 0],
        "three dimensions": _X[..., np.newaxis],
        "no column": _X[:, :0],
        "opaque": np.zeros((6, 4), "V4"),
        "booleans": _X > 1,
    }.items():
        yield Case(f"X: {name}", _edited(lambda f, v=values: _put(f, "X", v)), "refused")
    for shape in ((2**20, 2**12), (2**40, 2**20), (6, 2**60)):
        yield Case(f"X of shape {shape}", _edited(lambda f, s=shape: _stated(f, s)), "refused")
    yield Case("X compressed a thousandfold", _edited(_bomb), "refused")
    yield Case("X in chunks of a gigabyte", _edited(_wide_chunks), "refused")
    yield Case("texts that share their memory", _edited(_shared_texts), "refused")
    for name, value in {
        "encoding-type": "pickle",
        "encoding-version": "99",
        "column-order": ["a"],
        "_index": "none",
    }.items():
        yield Case(
            f"obs: {name} {value}", _edited(lambda f, n=name, v=value: f["obs"].attrs.__setitem__(n, v)), "refused"
        )
    for name in ("encoding-type", "encoding-version", "column-order", "_index"):
        expect = "either" if name.startswith("encoding") else "refused"
        # Without them anndata takes the group for what older versions wrote.
        yield Case(f"obs without {name}", _edited(lambda f, n=name: f["obs"].attrs.__delitem__(n)), expect, is_sound)
    for shape in ([6, 2**40], [2**40, 4], [-6, 4], [6], [7, 4], [6, 3], ["a", "b"]):
        change = _edited(lambda f, s=shape: f["X"].attrs.__setitem__("shape", s), "sparse")
        yield Case(f"sparse shape {shape}", change, "refused")
    for part, value in {"indices": 10**6, "indptr": 10**6, "data": np.nan}.items():
        change = _edited(lambda f, p=part, v=value: f["X"][p].__setitem__(2, v), "sparse")
        yield Case(f"sparse {part} {value}", change, "refused")
        yield Case(f"sparse without {part}", _edited(lambda f, p=part: f["X"].__delitem__(p), "sparse"), "refused")
    for code in (-5, 100):
        change = _edited(lambda f, c=code: f["obs/key/codes"].__setitem__(1, c), "categories")
        yield Case(f"category {code}", change, "refused")
    circle = _edited(lambda f: f["obs"].__setitem__("up", f["/"]))
    yield Case("a hard link to a group above", circle, "refused")
    yield Case("groups that double 60 times", _edited(_doubling), "refused")
    yield Case("text", file_of("a.h5ad", "a,b\n1,2\n"), "refused")
    yield Case("folder", lambda folder: _as_folder(folder / "a.h5ad"), "refused")
    yield Case("absent", lambda folder: folder / "a.h5ad", "refused")
    yield Case("of another suffix", file_of("a.csv", "a,b\n1,2\n"), "refused")


def _as_folder(path: Path) -> Path:
    path.mkdir()
    return path


def _put(file: h5py.File, name: str, value: Any) -> None:
    kept = dict(file[name].attrs)
    del file[name]
    dataset = file.create_dataset(name, data=value)
    for key, text in kept.items():
        if key in ("encoding-type", "encoding-version"):
            dataset.attrs[key] = text


def _external(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    kept = dict(file[name].attrs)
    del file[name]
    size = int(np.prod(shape)) * 4
    file.create_dataset(name, shape, "float32", external=[("/etc/hostname", 0, size)]).attrs.update(kept)


def _virtual(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    kept = dict(file[name].attrs)
    del file[name]
    layout = h5py.VirtualLayout(shape, "float32")
    layout[...] = h5py.VirtualSource("other.h5ad", "X", shape)
    file.create_virtual_dataset(name, layout).attrs.update(kept)


def _stated(file: h5py.File, shape: tuple[int, ...]) -> None:
    kept = dict(file["X"].attrs)
    del file["X"]
    file.create_dataset("X", shape, "float32", chunks=(1, 1024)).attrs.update(kept)


def _bomb(file: h5py.File) -> None:
    kept = dict(file["X"].attrs)
    del file["X"]
    dataset = file.create_dataset("X", (6, 2**25), "float32", chunks=(1, 2**20), compression="gzip")
    dataset[0] = 0
    dataset.attrs.update(kept)


def _wide_chunks(file: h5py.File) -> None:
    kept = dict(file["X"].attrs)
    del file["X"]
    dataset = file.create_dataset("X", (6, 4), "float32", chunks=(6, 2**25), maxshape=(6, None), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), b"x" * 200)
    dataset.attrs.update(kept)


def _shared_texts(file: h5py.File) -> None:
    """Let 4000 rows of a column name one text of a megabyte."""
    kept = dict(file["obs/key"].attrs)
    del file["obs/key"]
    dataset = file.create_dataset("obs/key", (4000,), h5py.string_dtype(), chunks=None)
    dataset[0] = "a" * 2**20
    dataset.attrs.update(kept)
    file.flush()
    place = dataset.id.get_offset()
    name = file.filename
    file.close()
    data = bytearray(Path(name).read_bytes())
    data[place : place + 16 * 4000] = bytes(data[place : place + 16]) * 4000
    Path(name).write_bytes(bytes(data))


def _doubling(file: h5py.File) -> None:
    group = file.create_group("obs/deep")
    for number in range(60):
        inner = file.create_group(f"level{number}")
        group["a"] = group["b"] = inner
        group = inner


def _members(data: bytes, **changes: bytes | None) -> bytes:
    """The archive with other members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if name not in changes:
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _header(text: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = len(text.encode("latin-1")).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode("latin-1") + body


class _Trap:
    """Makes a file when it is unpickled; the case's folder is the working folder of nobody, so its name says where."""

    def __reduce__(self):
        return open, ("/tmp/sprung-by-a-vector-file", "w")


def _is_not_sprung(found: Vectors) -> None:
    assert not Path("/tmp/sprung-by-a-vector-file").exists()
    is_sound(found)


def _npz(seed: int) -> Iterator[Case]:
    data = npz_bytes()
    random = np.random.default_rng(seed)
    yield Case("sound", file_of("a.npz", data), "accepted", is_sound)
    yield Case("compressed", file_of("a.npz", npz_bytes(compressed=True)), "accepted", is_sound)
    yield Case("in Fortran's order", file_of("a.npz", npz_bytes(X=np.asfortranarray(_X))), "accepted", is_sound)
    for end in sorted({0, 1, 4, 30, len(data) - 1, len(data) - 22, *random.integers(0, len(data), 20).tolist()}):
        yield Case(f"cut after {end} bytes", file_of("a.npz", data[:end]), "refused")
    for compressed in (False, True):
        sound = npz_bytes(compressed=compressed)
        for place in random.choice(len(sound), 50, replace=False).tolist():
            flipped = bytearray(sound)
            flipped[place] ^= 1 << int(random.integers(8))
            name = f"a bit of byte {place}{', compressed' if compressed else ''}"
            # Each member has a checksum: what is read is right, or it is not read.
            yield Case(name, file_of("a.npz", bytes(flipped)), "either", is_sound)
    for name, changes in {
        "no X": {"X": None},
        "no key": {"key": None},
        "no centre": {"centre": None},
        "two of X": {"vectors": _X},
        "flat": {"X": _X.ravel()},
        "deep": {"X": _X[..., np.newaxis]},
        "rows missing": {"X": _X[:4]},
        "no column": {"X": _X[:, :0]},
        "no row": {"X": _X[:0], **{n: np.array(v)[:0] for n, v in _COLUMNS.items()}},
        "NaN": {"X": np.where(_X == _X[2, 1], np.nan, _X)},
        "infinite": {"X": np.where(_X == _X[2, 1], -np.inf, _X)},
        "too large": {"X": _X.astype(float) * 1e300},
        "complex": {"X": _X.astype(complex)},
        "booleans": {"X": _X > 1},
        "dates": {"X": np.zeros((6, 4), "M8[s]")},
        "records": {"X": np.zeros((6, 4), [("a", "f4")])},
        "key a number": {"key": np.arange(6)},
        "key twice": {"key": np.array(["0.png"] * 6)},
        "key empty": {"key": np.array(["a", "", "c", "d", "e", "f"])},
        "centre empty": {"centre": np.array(["a", "", "a", "a", "a", "a"])},
        "keys not UTF-8": {"key": np.array([b"1", b"\xff", b"3", b"4", b"5", b"6"])},
        "objects for X": {"X": _X.astype(object)},
        "objects for keys": {"key": np.array(_COLUMNS["key"], object)},
    }.items():
        yield Case(name, file_of("a.npz", npz_bytes(**changes)), "refused")
    trap = _npy(np.array([[_Trap()] * 4] * 6))
    yield Case("a pickle for X", file_of("a.npz", _members(data, **{"X.npy": trap})), "refused")
    yield Case("a pickle beside it", file_of("a.npz", _members(data, **{"more.npy": trap})), "accepted", _is_not_sprung)
    yield Case("a pickle without suffix", file_of("a.npz", _members(data, X=trap)), "accepted", _is_not_sprung)
    yield Case("a bare pickle", file_of("a.npz", pickle.dumps(_Trap())), "refused")
    head = "{{'descr': {!r}, 'fortran_order': False, 'shape': {}, }}\n"
    for name, text in {
        "huge": head.format("<f4", "(6, 1073741824)"),
        "absurd": head.format("<f4", f"(6, {2**62})"),
        "larger than 64 bits": head.format("<f4", f"(6, {2**70})"),
        "negative": head.format("<f4", "(6, -4)"),
        "booleans as sides": head.format("<f4", "(True, 4)"),
        "no tuple": head.format("<f4", "6"),
        "unknown type": head.format("<q9", "(6, 4)"),
        "object": head.format("|O", "(6, 4)"),
        "a huge type": head.format("<U400000000", "(6, 4)"),
        "code": "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (6, 4)}\n",
        "no dict": "[1, 2]\n",
        "keys missing": "{'descr': '<f4'}\n",
        "deep": "(" * 9000 + "\n",
        "many signs": "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "-" * 9000 + "1,)}\n",
        "long": "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4), }" + " " * 60_000 + "\n",
        "empty": "",
    }.items():
        for body in (b"", _X.tobytes()):
            changed = _members(data, **{"X.npy": _header(text, body)})
            yield Case(f"header: {name}, {len(body)} bytes", file_of("a.npz", changed), "refused")
    for version in (b"\x03\x00", b"\x09\x00"):
        changed = _members(data, **{"X.npy": _header(head.format("<f4", "(6, 4)"), _X.tobytes(), version)})
        yield Case(f"version {version[0]}", file_of("a.npz", changed), "refused")
    longer = _members(data, **{"X.npy": _npy(_X) + b"more" * 30_000})
    yield Case("bytes behind the values", file_of("a.npz", longer), "refused")
    for name, content in (
        ("X.npy", _header(head.format("<f4", "(6, 83886080)"))),
        ("key.npy", _header(head.format("<U80000000", "(6,)"))),
    ):
        yield Case(f"zip bomb for {name}", _bomb_npz(name, content), "refused")
    yield Case("encrypted", file_of("a.npz", _encrypted(data)), "refused")
    yield Case("a member twice", _twice(data), "either", is_sound)
    yield Case("a path that leads out", file_of("a.npz", _members(data, **{"../key.npy": b"x"})), "accepted", is_sound)
    yield Case("an array alone", file_of("a.npz", _npy(_X)), "refused")
    yield Case("text", file_of("a.npz", "a,b\n1,2\n"), "refused")
    yield Case("folder", lambda folder: _as_folder(folder / "a.npz"), "refused")
    yield Case("absent", lambda folder: folder / "a.npz", "refused")


def _bomb_npz(name: str, header: bytes) -> Callable[[Path], Path]:
    """A member of 2 GB of zeros."""

    def make(folder: Path) -> Path:
        path = folder / "a.npz"
        path.write_bytes(_members(npz_bytes(), **{name: None}))
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(header)
                block = bytes(2**24)
                for _ in range(30):
                    member.write(block)
        return path

    return make


def _encrypted(data: bytes) -> bytes:
    """Set the flag that says so, in both headers of each member."""
    changed = bytearray(data)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = data.find(signature)
        while start >= 0:
            changed[start + offset] |= 1
            start = data.find(signature, start + 4)
    return bytes(changed)


def _twice(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "a.npz"
        path.write_bytes(data)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("X.npy", _npy(_X))
        return path

    return make


def WARM_UP() -> None:  # noqa: N802
    """Read once, so that imports are no part of a case."""
    with tempfile.TemporaryDirectory() as folder:
        is_sound(read_vectors(file_of("a.h5ad", h5ad_bytes())(Path(folder))))
