"""HDF5 files: written whole or not at all, and those of others refused where they reach out or claim too much."""

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError, one_line

_ROOM_FOR_NAMES = 2**18  # bytes that a file of weights takes beside the weights, at most
_MAX_RATIO = 100  # what somebody has computed hardly shrinks; zeros do, but few arrays are full of them
_ALWAYS_READ = 16 * 2**20  # bytes that an array may grow to, whatever its ratio
_ERRNO = re.compile(r"\berrno = (\d+)")
_DAMAGED = (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, MemoryError, SystemError)


@contextmanager
def atomic_hdf5(path: str | os.PathLike, version: str = "earliest") -> Iterator[h5py.File]:
    """Give a new HDF5 file that gets its final name when the block ends without an error, as by `atomic_path`.

    Flush a dataset after it was written: what a closed one could not write is told nowhere.

    Args:
        path: the final name.
        version: of HDF5 that can read it; from "v110" on, the structure of the file has checksums.
    """
    with atomic_path(path) as temporary:
        file = h5py.File(temporary, "w", libver=(version, "v110"))
        try:
            yield file
            file.flush()
            file.close()
        except BaseException as error:
            os.truncate(temporary, 0)  # HDF5 crashes the process where the disk does not take what it still holds
            with suppress(RuntimeError, OSError):
                file.close()
            number = _ERRNO.search(str(error))
            if number and isinstance(error, (OSError, RuntimeError)):
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
            raise


def save_weights(model: Any, path: str | os.PathLike) -> None:
    """Write a Keras model's weights, and those of its optimiser, to a `.weights.h5` file; room is asked for first."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else [])]
    size = sum(variable.value.dtype.size * variable.value.shape.num_elements() for variable in variables)
    with atomic_path(path) as temporary:
        check_room(path, size + _ROOM_FOR_NAMES)
        model.save_weights(temporary)


def check_room(path: str | os.PathLike, num_bytes: int) -> None:
    """Raise the error of a full disk if so many bytes have no room where `path` is to lie; its folder is there."""
    if shutil.disk_usage(Path(path).parent).free < num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@contextmanager
def open_plain(path: str | os.PathLike, *, advice: str, names: Sequence[str] | None = None) -> Iterator[h5py.File]:
    """Open a file that others may have written, once all that is going to be read was found to be plain.

    Args:
        path: the file.
        advice: what to do if it is refused, for the message.
        names: members of the root that are going to be read; None stands for all.

    Raises:
        InputError: if the file is missing or damaged; if something is a link, lies in another file, is neither number
            nor text, or states more than the file holds; or if the block meets with damage.
    """
    with damage_named(path, advice), h5py.File(path, "r", locking="best-effort") as file:
        num_bytes = file.id.get_filesize()

        # The visit ends with the first fault that is returned; h5py cannot bear errors there.
        def fault_of(name: str, link: Any) -> str | None:
            if names is not None and name.partition("/")[0] not in names:
                return None
            if not isinstance(link, h5py.HardLink):
                return f"{name[:100]} lies elsewhere, it is a link"
            item = file[name]
            has_values = isinstance(item, h5py.Dataset) and item.shape is not None
            fault = _fault_of_dataset(item, num_bytes) if has_values else None
            return fault and f"{name[:100]} {fault}"

        if fault := file.visititems_links(fault_of):
            raise ValueError(fault)
        yield file


@contextmanager
def damage_named(path: str | os.PathLike, advice: str) -> Iterator[None]:
    """Turn what h5py raises on a file that is missing or damaged into an `InputError` that names it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {advice}") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: damaged or refused ({one_line(error)}); {advice}") from None


def _fault_of_dataset(dataset: h5py.Dataset, num_bytes: int) -> str | None:
    if dataset.external or dataset.is_virtual:
        return "lies elsewhere, its values are in another file"
    if h5py.check_string_dtype(dataset.dtype) is None and dataset.dtype.kind not in "fiub":
        return f"holds {str(dataset.dtype)[:60]}, not numbers or text"
    width = dataset.id.get_type().get_size()
    size = math.prod(dataset.shape) * width
    is_packed = dataset.id.get_create_plist().get_nfilters() > bool(dataset.fletcher32)
    # Where nothing is compressed, what is stated is held.
    if size > (max(_ALWAYS_READ, _MAX_RATIO * num_bytes) if is_packed else num_bytes):
        return f"states shape {dataset.shape} but does not hold it"
    if math.prod(dataset.chunks or (0,)) * width > max(_ALWAYS_READ, size):
        return "has chunks larger than itself"
    return None


def load_weights(model: Any, path: str | os.PathLike, *, advice: str) -> None:
    """Load the weights of a model or trainer from a file that others may have written, checked as by `open_plain`.

    Raises:
        InputError: that ends with `advice`, if the file is missing, refused, damaged or of another network.
    """
    with open_plain(path, advice=advice):
        pass
    try:
        model.load_weights(path)
    except Exception as error:  # Keras and h5py raise many types
        raise InputError(f"{path}: damaged, or of another network ({one_line(error)}); {advice}") from None


def read_note(path: str | os.PathLike, name: str) -> str:
    """Read one text, such as "uns/run" of an `.h5ad` file; an `InputError` says what `open_plain` refuses."""
    with open_plain(path, advice=f"it has no text {name} that can be read", names=(name.partition("/")[0],)) as file:
        return file[name].asstr()[()]
