"""Writing HDF5 files where a disk may get full.

HDF5 copes badly with that: what a closed dataset could not write is told nowhere, and a file that cannot be closed may
crash the process. So it never sees a write that fails.
"""

import io
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import h5py
import numpy as np

from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError, one_line

_ROOM_FOR_NAMES = 2**18  # bytes that a file of weights takes beside the weights, at most


class HasVariables(Protocol):
    """A Keras model, as far as it matters here."""

    variables: list[Any]

    def save_weights(self, filepath: Path) -> None:
        """Write the weights."""


@contextmanager
def atomic_hdf5(path: str | os.PathLike) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Give a new HDF5 file that gets its final name when the block ends without an error.

    Args:
        path: the final name.

    Yields:
        The opened file, and a function that raises what a write has raised: to be called after each block of rows,
        since what the disk did not take is kept in memory.

    Raises:
        OSError: if the disk is full, or what else `atomic_path` raises.
    """
    with atomic_path(path) as temporary, open(temporary, "wb+", buffering=0) as handle:
        stream = _Stream(handle)
        with h5py.File(stream, "w") as file:
            yield file, stream.check
        stream.check()


def save_weights(model: HasVariables, path: str | os.PathLike) -> None:
    """Write a model's weights, and those of its optimiser, to a file that Keras opens by itself, atomically.

    Args:
        model: of Keras.
        path: the final name, which ends with `.weights.h5`.

    Raises:
        OSError: if the disk is full, which is found out before Keras begins.
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else [])]
    size = sum(variable.value.dtype.size * variable.value.shape.num_elements() for variable in variables)
    with atomic_path(path) as temporary:
        _check_room(temporary, size + _ROOM_FOR_NAMES)
        model.save_weights(temporary)


def _check_room(path: Path, size: int) -> None:
    """Find out whether a file of so many bytes can be made; there is an empty one afterwards."""
    with open(path, "wb") as handle:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, size)
        handle.truncate(0)


class _Stream:
    """A file for HDF5 on which no write fails: what the disk does not take is kept in memory, and the error too.

    Args:
        handle: opened for reading and writing, without a buffer.

    Attributes:
        error: the first one of a write, or None.
    """

    def __init__(self, handle):
        self.error: OSError | None = None
        self._handle, self._place = handle, 0
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the error, if there was one."""
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        if whence == os.SEEK_SET:
            self._place = offset
        else:
            self._place = offset + (self._place if whence == os.SEEK_CUR else self._end())
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def write(self, data) -> int:
        """Write all of the data, or keep them."""
        data = memoryview(data).cast("B")
        done = 0
        try:
            self._handle.seek(self._place)
            while self.error is None and done < len(data):
                done += self._handle.write(data[done:])
        except OSError as error:
            self.error = error
        if done < len(data):
            self._kept.append((self._place + done, bytes(data[done:])))
        self._place += len(data)
        return len(data)

    def read(self, size: int) -> bytes:
        """Read; by this method h5py knows a file."""
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def readinto(self, buffer) -> int:
        """Read from the disk, and over it what was kept."""
        view = memoryview(buffer).cast("B")
        self._handle.seek(self._place)
        there = 0
        while there < len(view) and (more := self._handle.readinto(view[there:])):
            there += more
        view[there:] = bytes(len(view) - there)
        for start, data in self._kept:
            first, last = max(start, self._place), min(start + len(data), self._place + len(view))
            if first < last:
                view[first - self._place : last - self._place] = data[first - start : last - start]
        self._place += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file."""
        size = self._place if size is None else size
        if self.error is None:
            try:
                self._handle.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Nothing waits here."""

    def _end(self) -> int:
        return max([self._handle.seek(0, os.SEEK_END), *(start + len(data) for start, data in self._kept)])


_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
_MAX_OBJECTS = 100_000
_MAX_ATTRIBUTES = 1000  # of one object
_MAX_RATIO = 100  # what somebody has computed hardly shrinks; zeros do, but few arrays are full of them
_ALWAYS_READ = 16 * 2**20  # bytes that an array may grow to, whatever its ratio
_TEXTS_AT_ONCE = 256 * 2**20  # bytes
_MAX_NAME = 1024  # characters
Item = h5py.Group | h5py.Dataset
_DAMAGED = (OSError, RuntimeError, LookupError, TypeError, ValueError, OverflowError, AttributeError, MemoryError)


def check_weights_file(path: str | os.PathLike, *, advice: str) -> None:
    """Check that a file of weights can be given to Keras.

    Args:
        path: the file.
        advice: what to do if it is refused, for the message.

    Raises:
        InputError: if it is missing, a link to another folder, or not as `check_plain` wants it.
    """
    path = Path(path)
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        raise InputError(f"{path}: is a link to a file of another folder, which is refused; copy the file itself here")
    try:
        check_heaps(path)
        with open(path, "rb") as handle:
            check_plain(handle, str(path), advice=advice)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged or refused ({one_line(error)}); {advice}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {advice}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); {advice}") from None


def check_plain(handle: BinaryIO, where: str, *, advice: str) -> None:
    """Check an opened file of weights.

    Args:
        handle: the file.
        where: what to call it.
        advice: what to do if it is refused, for the message.

    Raises:
        InputError: if it is no HDF5 file or damaged, or not as `list_items` and `check_items` want it.
    """
    if handle.read(len(_SIGNATURE)) != _SIGNATURE:
        raise InputError(f"{where}: not an HDF5 file; {advice}")
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    try:
        if isinstance(handle, io.BytesIO):
            _check_heaps(handle.getvalue())
        with h5py.File(handle, "r") as file:
            check_items(list_items(file), size)
    except _DAMAGED as error:
        raise InputError(f"{where}: damaged or refused ({one_line(error)}); {advice}") from None


def check_heaps(path: str | os.PathLike) -> None:
    """Check the places of a file where texts of variable length lie, before anything of it is read.

    HDF5 itself goes round for ever where the free space of such a place states a size of 0, as a single flipped bit can
    make it, and nothing in Python can end that.

    Raises:
        ValueError: if one is damaged.
        OSError: if the file cannot be read.
    """
    with open(path, "rb") as handle:
        if handle.seek(0, os.SEEK_END):
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_heaps(data)


def _check_heaps(data: bytes | mmap.mmap) -> None:
    # Global heap collections of the HDF5 file format: signature, version, three bytes, size; then objects of index,
    # references, four bytes, size and a content that is filled up to eight bytes. Index 0 is the free space, and its
    # size counts its own header.
    start = data.find(b"GCOL")
    while start >= 0:
        if data[start + 4 : start + 5] == b"\1":
            end = start + int.from_bytes(data[start + 8 : start + 16], "little")
            place = start + 16
            if end > len(data) or end < place:
                raise ValueError(f"heap at byte {start} is larger than the file")
            while place + 16 <= end:
                index = int.from_bytes(data[place : place + 2], "little")
                size = int.from_bytes(data[place + 8 : place + 16], "little")
                step = size if index == 0 else 16 + -(-size // 8) * 8
                if step < 16 or place + step > end:
                    raise ValueError(f"heap at byte {start} holds an object of {size} bytes")
                place += step
        start = data.find(b"GCOL", start + 4)


def check_items(items: Mapping[str, Item], num_bytes: int, *, with_texts: bool = False) -> None:
    """Check groups and arrays before they are read.

    Args:
        items: by path, as from `list_items`.
        num_bytes: size of the file.
        with_texts: whether arrays may hold text as well as numbers.

    Raises:
        ValueError: if an array holds anything else, such as references, has its values in another file, or states
            more than the file holds. h5py raises other errors on damaged files.
    """
    datasets = {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}
    # Texts lie outside of the arrays that refer to them, so that many rows may name one long text.
    largest = max((dataset.id.get_storage_size() for dataset in datasets.values()), default=0)
    room = max(num_bytes - largest, 2**16)
    for name, dataset in datasets.items():
        _check_dataset(dataset, name, with_texts, room)
    for name, item in items.items():
        _check_attributes(item, name, room)


def read_note(path: str | os.PathLike, name: str) -> str:
    """Read one text of an HDF5 file, and nothing else of it.

    Args:
        path: the file.
        name: path of the text in it, such as "uns/run" of an `.h5ad` file.

    Raises:
        InputError: if there is no such file or text, or it is damaged or lies elsewhere.
    """
    try:
        check_heaps(path)
        with h5py.File(path, "r", locking="best-effort") as file:
            place = f"/{name}"
            note = list_items(file, (name.partition("/")[0],))[place]
            check_items({place: note}, os.path.getsize(path), with_texts=True)
            text = note.asstr()[()]
            text.encode()
            return text
    except _DAMAGED as error:
        raise InputError(f"{path}: has no text {name} that can be read ({one_line(error)})") from None


def list_items(file: h5py.File, names: Sequence[str] | None = None) -> dict[str, Item]:
    """Every group and array by its path, without following a link out of the file or in circles.

    Args:
        file: an opened file.
        names: members of the root to look at; None stands for all.

    Returns:
        By path, the root included.

    Raises:
        ValueError: if there is a link, something that is no group or array, or something under two names: a way may
            lead back to where it came from.
        KeyError: if one of `names` is not there.
    """
    found: dict[str, Item] = {"/": file}
    waiting: list[h5py.Group] = [file]
    seen = {h5py.h5o.get_info(file.id).addr}
    while waiting:
        group = waiting.pop()
        if len(group) > _MAX_OBJECTS:
            raise ValueError(f"{len(group)} members of {_shown(group.name)}")
        for name in names if names is not None and group is file else group:
            where = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if link is None:
                raise KeyError(f"no {name}")
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{_shown(where)} lies elsewhere, it is a link")
            if len(name) > _MAX_NAME or not name.isprintable():
                raise ValueError(f"odd name {_shown(where)}")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise ValueError(f"{_shown(where)} is in the file under another name too")
            seen.add(address)
            if len(seen) > _MAX_OBJECTS:
                raise ValueError(f"more than {_MAX_OBJECTS} arrays")
            if not isinstance(item, (h5py.Group, h5py.Dataset)):
                raise ValueError(f"{_shown(where)} is no array")
            found[where] = item
            if isinstance(item, h5py.Group):
                waiting.append(item)
    return found


def _check_dataset(dataset: h5py.Dataset, name: str, with_texts: bool, room: int) -> None:
    where = _shown(name)
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{where} lies elsewhere, its values are in another file")
    if with_texts and dataset.shape is None:
        return  # an empty value, as anndata writes None
    is_text = with_texts and h5py.check_string_dtype(dataset.dtype) is not None
    if dataset.shape is None or not (is_text or dataset.dtype.kind in "fiub"):
        raise ValueError(f"{where} holds {str(dataset.dtype)[:60]}, not numbers{' or text' if with_texts else ''}")
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - _FILTERS:
        raise ValueError(f"{where} is compressed in an unusual way")
    stored = dataset.id.get_storage_size()
    width = dataset.id.get_type().get_size()
    size = float(np.prod(dataset.shape, dtype=np.float64)) * width
    # Where nothing is compressed, what is stated is held. Chunks at the edge may hold more.
    if size > (max(_ALWAYS_READ, _MAX_RATIO * stored) if filters and stored else stored):
        raise ValueError(f"{where} states shape {dataset.shape} but does not hold it")
    chunk = float(np.prod(dataset.chunks, dtype=np.float64)) * width if dataset.chunks else 0.0
    if chunk > max(_ALWAYS_READ, size):
        raise ValueError(f"{where} has chunks larger than itself")
    if dataset.dtype.kind == "O":
        _check_texts(dataset, where, room)


def _check_texts(dataset: h5py.Dataset, where: str, room: int) -> None:
    """Add texts up, a few at a time: no more of them than there is room for can be different ones."""
    total = 0
    rows = max(1, _TEXTS_AT_ONCE // room)
    if dataset.ndim == 0:
        return  # one text is no larger than the file
    if dataset.ndim != 1:
        raise ValueError(f"{where} holds text of shape {dataset.shape}")
    for start in range(0, len(dataset), rows):
        total += sum(map(len, dataset[start : start + rows]))
        if total > room:
            raise ValueError(f"{where} holds longer texts than there is room for")


def _check_attributes(item: h5py.Group | h5py.Dataset, name: str, room: int) -> None:
    if len(item.attrs) > _MAX_ATTRIBUTES:
        raise ValueError(f"{_shown(name)} has {len(item.attrs)} attributes")
    for key in item.attrs:
        attribute = item.attrs.get_id(key)
        number = float(np.prod(attribute.shape or (), dtype=np.float64))
        is_text = h5py.check_string_dtype(attribute.dtype) is not None
        # HDF5 crashes on types that it does not know, as a single flipped bit can make them.
        if not is_text and attribute.dtype.kind not in "fiub":
            raise ValueError(f"attribute {_shown(key)} of {_shown(name)} is of type {str(attribute.dtype)[:60]}")
        size = number * attribute.get_type().get_size()
        if attribute.dtype.kind == "O":
            size = number * room if number > 1 else 0
        if size > _TEXTS_AT_ONCE:
            raise ValueError(f"attribute {_shown(key)} of {_shown(name)} is too large")


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= 100 else ascii(name[:100])
