"""Reading .npz files that others may have written: nothing is unpickled, and no size is believed that is not held."""

import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mrcnn.files.errors import InputError, one_line

_MAX_MEMBERS = 10_000
# DEFLATE shrinks zeros by a factor of 1000, but hardly any array that somebody has computed.
MAX_RATIO = 100
_ALWAYS_READ = 2**20  # bytes that a member may grow to, whatever its ratio
_UNREADABLE = (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
# RuntimeError covers encrypted members, unknown compression and headers that are nested too deep.
_UNREADABLE += (RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


def read_arrays(
    path: str | os.PathLike, *, max_bytes: int, missing: str, advice: str, max_ratio: float = MAX_RATIO
) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Args:
        path: the file.
        max_bytes: most that all of them may take.
        missing: what to say or do if there is no such file, for the message.
        advice: what to do if it cannot be read, for the message.
        max_ratio: most by which a member of more than 1 MiB may have been shrunk.

    Returns:
        The arrays by name, none of them of Python objects.

    Raises:
        InputError: if the file is missing, damaged or no .npz file, holds Python objects, or states sizes that it
            does not hold or that are too large.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _list_members(archive, max_bytes, max_ratio)
            return {name: _read_member(archive, info) for name, info in members.items()}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing}") from None
    except _UNREADABLE as error:
        raise InputError(f"{path}: damaged, or not an .npz file of arrays ({one_line(error)}); {advice}") from None


def _list_members(archive: zipfile.ZipFile, max_bytes: int, max_ratio: float) -> dict[str, zipfile.ZipInfo]:
    """The members by the name of their array, once their sizes are known to be fine."""
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise ValueError(f"{len(infos)} arrays")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        # The caches of comparisons name an array after two centres, one on each line.
        is_name = all(line and line.isprintable() for line in name.split("\n"))
        if name == info.filename or not is_name or name in members:
            raise ValueError(f"odd or doubled member {info.filename[:60]!a}")
        if info.file_size > max(_ALWAYS_READ, max_ratio * info.compress_size):
            raise ValueError(f"{name} grows from {info.compress_size} to {info.file_size} bytes")
        members[name] = info
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise ValueError(f"{total / 2**20:.0f} MiB of arrays, at most {max_bytes / 2**20:.0f} are read")
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Read one array; the archive has a checksum for it, which is compared at its very end."""
    with archive.open(info) as member:
        shape, dtype = read_header(member)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects, which are not read")
        # A header of ten numbers may state an array that fills the memory.
        if math.prod(shape) * dtype.itemsize != info.file_size - member.tell():
            raise ValueError(f"{info.filename} states shape {shape} of {dtype} but does not hold it")
        member.seek(0)
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise ValueError(f"{info.filename} holds more than its array")
    return array


def read_header(member: zipfile.ZipExtFile) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that a member of an .npz file states; leaves it where the values begin.

    Raises:
        ValueError: if it is no array, or of a version that NumPy writes for none of ours.
    """
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"{member.name} is of version {version}")
    shape, _, dtype = read[version](member)
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise ValueError(f"{member.name} states shape {shape}")
    return shape, dtype
