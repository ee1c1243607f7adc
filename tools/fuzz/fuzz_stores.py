"""Fuzzes the readers of HDF5 and .npz files: feature stores, embeddings, weights and statistics.

The first byte tells what is read and how the file is made. A file is a sound one with some bytes changed, or one that
h5py wrote with columns, links, types, shapes and attributes as the input says.
"""

import functools
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent))
with atheris.instrument_imports(include=["mrcnn", "experiments"], enable_loader_override=False):
    from harness import start

    from experiments.vector_files import read_vectors
    from mrcnn.array_files import read_arrays
    from mrcnn.keras_h5 import StoredWeights
    from mrcnn.plain_hdf5 import check_weights_file
    from mrcnn.store_shards import ShardedStore

import h5py
import numpy as np
import store_cases
import vector_cases

DTYPES = ("float16", "float32", "float64", "uint8", "int32", "int64", "S4", "S1", "V3", "bool", "complex64")
ADVICE = "get it again"


def read_weights(path: Path) -> None:
    """A file of weights before Keras sees it, then by the names of layers."""
    check_weights_file(path, advice=ADVICE)
    with StoredWeights(path, lambda name: name == "a") as stored:
        for layer, kinds in stored.shapes.items():
            for kind in kinds:
                stored.read(layer, kind)


def read_shards(path: Path) -> None:
    """A store as one of several."""
    with ShardedStore([path]) as store:
        store.read("box", 0, len(store))


@functools.cache
def weights_bytes() -> bytes:
    """Weights in Matterport's layout."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = np.array([b"a", b"b"])
        for name in "ab":
            file.create_group(name).attrs["weight_names"] = np.array([f"{name}/kernel:0".encode()])
            file[name][f"{name}/kernel:0"] = np.ones((3, 2), np.float32)
    return buffer.getvalue()


def read_npz(path: Path) -> None:
    """Any arrays."""
    read_arrays(path, max_bytes=2**26, missing=ADVICE, advice=ADVICE)


READERS: tuple[tuple[str, Callable[[Path], Any], Callable[[], bytes]], ...] = (
    ("a.h5", store_cases.read_store, store_cases.store_bytes),
    ("a.h5", read_shards, store_cases.store_bytes),
    ("a.h5ad", read_vectors, vector_cases.h5ad_bytes),
    ("a.h5ad", read_vectors, functools.partial(vector_cases.h5ad_bytes, "categories")),
    ("a.h5ad", read_vectors, functools.partial(vector_cases.h5ad_bytes, "sparse")),
    ("a.npz", read_vectors, vector_cases.npz_bytes),
    ("a.npz", read_npz, functools.partial(vector_cases.npz_bytes, compressed=True)),
    ("a.h5", read_weights, weights_bytes),
)


def read(data: bytes, folder: Path) -> None:
    """Make the file and read it."""
    given = atheris.FuzzedDataProvider(data)
    choice = given.ConsumeIntInRange(0, 2 * len(READERS) - 1)
    name, reader, sound = READERS[choice % len(READERS)]
    path = folder / name
    if choice < len(READERS) or name.endswith(".npz"):
        path.write_bytes(_changed(given, sound()))
    else:
        path.write_bytes(sound())
        try:
            with h5py.File(path, "r+") as file:
                _restructure(given, file)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, MemoryError, OverflowError):
            return  # h5py does not write that
    reader(path)


def _changed(given: atheris.FuzzedDataProvider, content: bytes) -> bytes:
    """Up to eight changes: a few bytes somewhere, mostly in the structure, which lies in the first kilobytes."""
    changed = bytearray(content)
    for _ in range(given.ConsumeIntInRange(1, 8)):
        last = len(changed) - 1 if given.ConsumeBool() else min(len(changed) - 1, 16_000)
        place = given.ConsumeIntInRange(0, max(last, 0))
        kind = given.ConsumeIntInRange(0, 3)
        if kind == 0:
            changed[place : place + 1] = bytes([given.ConsumeIntInRange(0, 255)])
        elif kind == 1:
            changed[place : place + 8] = given.ConsumeBytes(8).ljust(8, b"\0")
        elif kind == 2:
            changed[place] ^= 1 << given.ConsumeIntInRange(0, 7)
        else:
            del changed[len(changed) - given.ConsumeIntInRange(0, min(2000, len(changed))) :]
        if not changed:
            break
    return bytes(changed)


def _restructure(given: atheris.FuzzedDataProvider, file: h5py.File) -> None:
    """Up to four things that h5py can do to a file."""
    names: list[str] = []
    file.visit(names.append)
    for _ in range(given.ConsumeIntInRange(1, 4)):
        name = given.PickValueInList(names)
        if name not in file:
            continue
        _restructure_one(given, file, name, names)


def _restructure_one(given: atheris.FuzzedDataProvider, file: h5py.File, name: str, names: list[str]) -> None:
    kind = given.ConsumeIntInRange(0, 6)
    if kind == 0:
        del file[name]
    elif kind == 1:
        other = given.PickValueInList(names)
        link = given.PickValueInList(
            [
                h5py.SoftLink(f"/{other}"),
                h5py.ExternalLink("/etc/hostname", "/"),
                h5py.ExternalLink(file.filename, other),
            ]
        )
        del file[name]
        file[name] = link
    elif kind == 2:
        item = file[given.PickValueInList(names)]
        del file[name]
        file[name] = item
    elif kind == 3:
        item = given.PickValueInList([file, file[name]])
        attributes = list(item.attrs) or ["a"]
        _set_attribute(given, item, given.PickValueInList(attributes))
    elif kind == 4:
        kept = dict(file[name].attrs)
        del file[name]
        shape = tuple(given.ConsumeIntInRange(0, 300) for _ in range(given.ConsumeIntInRange(0, 4)))
        dtype = given.PickValueInList(list(DTYPES))
        options: dict[str, Any] = {}
        if given.ConsumeBool() and shape and 0 not in shape:
            options = {"chunks": True, "compression": given.PickValueInList([None, "gzip", "lzf"])}
        values = int(np.prod(shape, dtype=np.int64)) <= 10**5 and given.ConsumeBool()
        data = np.frombuffer(given.ConsumeBytes(16).ljust(16, b"\1") * 10**5, np.uint8) if values else None
        dataset = file.create_dataset(name, shape, dtype, **options)
        if data is not None:
            size = int(np.prod(shape, dtype=np.int64)) * dataset.dtype.itemsize
            dataset[...] = data[:size].view(dataset.dtype).reshape(shape) if size else 0
        dataset.attrs.update(kept)
    elif kind == 5 and isinstance(file[name], h5py.Dataset) and file[name].shape:
        place = tuple(given.ConsumeIntInRange(0, side - 1) if side else 0 for side in file[name].shape)
        if 0 not in file[name].shape:
            file[name][place] = given.ConsumeFloat() if given.ConsumeBool() else given.ConsumeInt(8)
    elif kind == 6 and isinstance(file[name], h5py.Dataset) and file[name].chunks:
        file[name].resize(given.ConsumeIntInRange(0, 2**20), axis=0)


def _set_attribute(given: atheris.FuzzedDataProvider, item: Any, key: str) -> None:
    kind = given.ConsumeIntInRange(0, 5)
    if kind == 0:
        del item.attrs[key]
    elif kind == 1:
        item.attrs[key] = given.ConsumeInt(8)
    elif kind == 2:
        text = given.ConsumeBytes(given.ConsumeIntInRange(1, 40))
        item.attrs.create(key, np.bytes_(text), dtype=h5py.string_dtype("utf-8", max(len(text), 1)))
    elif kind == 3:
        item.attrs[key] = given.ConsumeUnicodeNoSurrogates(20)
    elif kind == 4:
        item.attrs[key] = [given.ConsumeInt(4) for _ in range(given.ConsumeIntInRange(0, 4))]
    else:
        item.attrs[key] = [given.ConsumeUnicodeNoSurrogates(5) for _ in range(given.ConsumeIntInRange(1, 4))]


def seeds() -> Iterator[bytes]:
    """Some bytes for each reader and way: the sound files are no part of the input."""
    random = np.random.default_rng(0)
    for _ in range(40):
        for choice in range(2 * len(READERS)):
            # What is taken in a range comes from the end of the input.
            yield random.bytes(48) + bytes([choice])


if __name__ == "__main__":
    start(read, seeds)
