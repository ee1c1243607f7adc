"""Writing HDF5 files where a disk may get full.

HDF5 copes badly with that: what a closed dataset could not write is told nowhere, and a file that cannot be closed may
crash the process. So it never sees a write that fails.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py

from mrcnn.atomic import atomic_path

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
