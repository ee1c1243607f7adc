"""Reading vectors of cells from files: embeddings of an autoencoder, or what any other network made of the same cells.

Two formats are read. An .h5ad file has the vectors in X, dense or sparse, and the columns centre, key and cell_type in
obs. An .npz file has the arrays:

    X, vectors or features   float or int (n, d)
    key                      str (n,), the image's key in its centre, as in feature stores
    centre                   str (n,)
    cell_type                str (n,), "" for none; may be absent

Such files come from elsewhere. Nothing is unpickled, and what a file says of its sizes is checked before it is read.
"""

import logging
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from mrcnn.files.errors import InputError, first_line
from mrcnn.files.hdf5 import check_plain

logger = logging.getLogger(__name__)

SUFFIXES = (".h5ad", ".npz")
COLUMNS = ("centre", "key", "cell_type")
VECTOR_NAMES = ("X", "vectors", "features")
MAX_BYTES = 8 * 2**30
_ALWAYS_READ = 16 * 2**20  # bytes that an array may grow to, whatever its ratio
_MAX_RATIO = 100  # texts of a fixed width shrink much, vectors hardly
_MAX_HEADER = 2**16  # bytes of an array's header
MAX_STRING = 4096  # characters; the longest path that Linux takes
_NPZ = "an .npz file needs X (n, d) of numbers, and key and centre (n,) of text"
# What h5py, anndata, zipfile and NumPy raise on files that are damaged or made up.
_UNREADABLE = (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile)
_UNREADABLE += (zlib.error, MemoryError, SyntaxError, tokenize.TokenError)

Vectors = dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]


def read_vectors(path: str | Path) -> Vectors:
    """Vectors, keys and cell types of an .h5ad or .npz file, by centre.

    Args:
        path: file whose name ends in .h5ad or .npz.

    Returns:
        By centre, in order of first appearance: float32 array of shape (n, d), and a dict of the str arrays "key" and
        "cell_type" of shape (n,); rows as in the file.

    Raises:
        InputError: if the file is missing, damaged, of another format, lacks something, or holds NaN, too much or,
            as .npz, a key twice in a centre.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: vectors are read from .h5ad and .npz files; give one of these")
    return read_embedding(path) if suffix == ".h5ad" else _read_npz(path)


def read_embedding(path: str | Path) -> Vectors:
    """Latents, keys and cell types of an .h5ad file, by centre; as `read_vectors`.

    Raises:
        InputError: if the file is missing, damaged, too large, lacks the columns, or holds NaN or infinite values.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such embedding; run aecfe embed")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            check_plain(file, ("obs", "X"))
            _check_size(path, sum(_stated_bytes(file, name) for name in ("obs", "X")))
            # Nothing else is read, however large it may be.
            cells, vectors = (anndata.io.read_elem(file[name]) for name in ("obs", "X"))
        if sparse.issparse(vectors):
            vectors.check_format(full_check=True)  # an index out of range would be written to as it is
            vectors = vectors.toarray()
        vectors = np.asarray(vectors)
        missing = set(COLUMNS) - set(cells.columns)
    except InputError:
        raise
    except Exception as error:  # some of anndata's own are private to it, and derive from nothing else
        raise InputError(f"{path}: not an .h5ad file that can be read ({first_line(error)})") from None
    if missing:
        raise InputError(f"{path}: obs lacks {', '.join(sorted(missing))}")
    if vectors.shape[:1] != (len(cells),):
        raise InputError(f"{path}: X has shape {vectors.shape}, but obs {len(cells)} rows; write the file again")
    if vectors.dtype.kind not in "fiu":
        raise InputError(f"{path}: X is of type {vectors.dtype}; save it as float32")
    return _by_centre(path, vectors, {name: _column_of_obs(path, cells, name) for name in COLUMNS})


def align_vectors(
    vectors: np.ndarray, keys: Sequence[str] | np.ndarray, wanted_keys: Sequence[str] | np.ndarray, where: str
) -> np.ndarray:
    """Bring the rows of one centre to the order of other cells, mostly those of a feature store.

    A key says which image a cell is from. Where an image has several cells, here or there, a key does not say which of
    them a row is; then nothing but the same keys in the same order is accepted.

    Args:
        vectors: array of shape (n, d).
        keys: of shape (n,).
        wanted_keys: of shape (m,).
        where: names the file and centre in errors.

    Returns:
        Array of shape (m, d); rows that are not wanted are left out and counted in the log.

    Raises:
        InputError: if keys are missing, or repeat without being the same ones in the same order.
        ValueError: if there is not one key for each vector.
    """
    keys, wanted_keys = np.asarray(keys, str), np.asarray(wanted_keys, str)
    if keys.shape != (len(vectors),):
        raise ValueError(f"{where}: {len(vectors)} vectors but keys of shape {keys.shape}")
    if np.array_equal(keys, wanted_keys):
        return vectors
    row_of = {key: row for row, key in enumerate(keys.tolist())}
    missing = [key for key in wanted_keys.tolist() if key not in row_of]
    if missing:
        raise InputError(
            f"{where}: lacks {len(missing)} of {len(wanted_keys)} keys, first {missing[0]!r}; add vectors of these"
        )
    if len(row_of) < len(keys) or len(set(wanted_keys.tolist())) < len(wanted_keys):
        raise InputError(f"{where}: images with several cells; give the very cells of the store, in its order")
    if len(keys) > len(wanted_keys):
        logger.info("%s: %d vectors are of no wanted cell and left out", where, len(keys) - len(wanted_keys))
    return vectors[[row_of[key] for key in wanted_keys.tolist()]]


def _stated_bytes(group: h5py.Group, name: str) -> int:
    """Bytes that a member of an .h5ad file takes in memory, by what it says of itself; a sparse matrix as a dense one.

    Raises:
        ValueError: if its data lie in other files, which nobody who gives a file away means to name.
    """
    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(f"no {name}")
    item = group[name] if isinstance(link, h5py.HardLink) else None
    if item is None or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
        raise ValueError(f"{name} lies elsewhere")
    if isinstance(item, h5py.Dataset):
        return math.prod(item.shape) * item.dtype.itemsize
    dense = math.prod(int(side) for side in item.attrs["shape"]) * 4 if "shape" in item.attrs else 0
    return dense + sum(_stated_bytes(item, part) for part in item)


def _column_of_obs(path: str | Path, cells: pd.DataFrame, name: str) -> np.ndarray:
    """A column as a str array of shape (n,), "" where a value is missing."""
    texts = np.where(cells[name].isna(), "", cells[name].astype(str))
    # Every row of a str array is as wide as its longest.
    if max(map(len, texts), default=0) > MAX_STRING:
        raise InputError(f"{path}: obs has a {name} of more than {MAX_STRING} characters; shorten it")
    return texts.astype(str)


def _read_npz(path: Path) -> Vectors:
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_NPZ}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in (*VECTOR_NAMES, *COLUMNS) if f"{name}.npy" in archive.namelist()]
            headers = {name: _read_header(archive, f"{name}.npy") for name in members}
    except _UNREADABLE as error:
        raise InputError(f"{path}: damaged or not an .npz file ({first_line(error)}); {_NPZ}") from None
    _check_headers(path, headers)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_held(archive, headers)
        # With the suffix: a member of the name without it would go first, and its header was not looked at.
        with np.load(path, allow_pickle=False) as arrays:
            columns = {name: arrays[f"{name}.npy"] for name in headers}
        columns = {name: np.char.decode(v, "utf-8") if v.dtype.kind == "S" else v for name, v in columns.items()}
    except _UNREADABLE as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); write it again") from None
    vectors = next(columns.pop(name) for name in VECTOR_NAMES if name in columns)
    by_centre = _by_centre(path, vectors, {"cell_type": np.full(len(vectors), ""), **columns})
    for centre, (_, labels) in by_centre.items():
        names, numbers = np.unique(labels["key"], return_counts=True)
        if np.any(numbers > 1):
            first = str(names[numbers > 1][0])
            raise InputError(f"{path}: centre {centre!r} has {first!r} more than once; give one vector for each key")
    return by_centre


def _read_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that a member of an .npz file states."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"{name} is of version {version}")
        shape, _, dtype = read[version](member)
        if any(isinstance(side, bool) or side < 0 for side in shape):
            raise ValueError(f"{name} states shape {shape}")
        return shape, dtype


def _check_held(archive: zipfile.ZipFile, headers: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Refuse arrays that are larger or smaller than the members that hold them, or members that grow too much."""
    for name, (shape, dtype) in headers.items():
        info = archive.getinfo(f"{name}.npy")
        num_bytes = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and not 0 < info.file_size - num_bytes <= _MAX_HEADER:
            raise ValueError(f"{name} states shape {shape} of {dtype} but does not hold it")
        if info.file_size > max(_ALWAYS_READ, _MAX_RATIO * info.compress_size):
            raise ValueError(f"{name} grows from {info.compress_size} to {info.file_size} bytes")


def _check_headers(path: Path, headers: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Refuse arrays that are missing or of the wrong type, shape or size by what their headers state."""
    named = [name for name in VECTOR_NAMES if name in headers]
    if len(named) > 1:
        raise InputError(f"{path}: has {' and '.join(named)}; keep the one that holds the vectors")
    missing = [*([] if named else ["X"]), *(name for name in ("key", "centre") if name not in headers)]
    if missing:
        raise InputError(f"{path}: has no {' and no '.join(missing)}; {_NPZ}")
    for name, (shape, dtype) in headers.items():
        is_vectors = name in VECTOR_NAMES
        wanted = "numbers, as float32" if is_vectors else "text of fixed length, as np.array(names, dtype=str)"
        if dtype.hasobject:
            raise InputError(f"{path}: {name} holds Python objects, which are not read; save it as {wanted}")
        if dtype.kind not in ("fiu" if is_vectors else "US"):
            raise InputError(f"{path}: {name} is of type {dtype}; save it as {wanted}")
        if len(shape) != 1 + is_vectors:
            raise InputError(f"{path}: {name} has shape {shape}; {_NPZ}")
    lengths = {name: shape[0] for name, (shape, _) in headers.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{path}: arrays differ in length ({listed}); {_NPZ}")
    _check_size(path, sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values()))


def _check_size(path: str | Path, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise InputError(
            f"{path}: states {num_bytes / 2**30:.1f} GiB of vectors, at most {MAX_BYTES / 2**30:g} are read; split it"
        )


def _by_centre(path: str | Path, vectors: np.ndarray, columns: Mapping[str, np.ndarray]) -> Vectors:
    """Sort rows by centre, once they are known to be usable."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise InputError(f"{path}: vectors have shape {vectors.shape}; at least one cell and one feature are needed")
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32, copy=False)
    # By the sum of each row, which needs no mask as large as the vectors.
    sums = vectors.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums))[0])
        raise InputError(f"{path}: the vector in row {row} holds NaN or infinite values; mend it")
    for name in ("centre", "key"):
        if np.any(columns[name] == ""):
            row = int(np.flatnonzero(columns[name] == "")[0])
            raise InputError(f"{path}: row {row} has no {name}; fill it in")
    by_centre = {}
    for centre in dict.fromkeys(columns["centre"].tolist()):
        rows = columns["centre"] == centre
        by_centre[centre] = (vectors[rows], {name: columns[name][rows] for name in ("key", "cell_type")})
    return by_centre


def standardise_by_centre(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring every feature to mean 0 and deviation 1 within each centre, which needs no label.

    It is the simplest alignment of centres, and so the one that any other has to beat.

    Args:
        features: by centre, float array of shape (n, d).

    Returns:
        The same, float32; a feature that is constant in a centre is 0 there.
    """
    return {centre: standardise(values) for centre, values in features.items()}


def standardise(values: np.ndarray) -> np.ndarray:
    """Bring every feature of some cells, of shape (n, d), to mean 0 and deviation 1: float32; a constant one is 0."""
    values = np.asarray(values, dtype=np.float32)
    if not len(values):
        return values
    deviation = values.std(axis=0)
    shifted = values - values.mean(axis=0)
    return np.divide(shifted, deviation, out=np.zeros_like(shifted), where=deviation > 1e-6)
