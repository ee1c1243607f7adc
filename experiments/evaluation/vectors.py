"""Vectors of cells from files: embeddings of an autoencoder, or what any other network made of the same cells.

Two formats are read. An .h5ad file has the vectors in X, dense or sparse, and centre, image_id and cell_type in obs. An
.npz file has the arrays below. `image_id` may be named `key`, as older versions of this package did:

    X, vectors or features   float or int (n, d)
    image_id                 str (n,), as in feature stores
    centre                   str (n,)
    cell_type                str (n,), "" for none; may be absent
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from mrcnn.files.arrays import read_arrays
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.hdf5 import open_plain

logger = logging.getLogger(__name__)

SUFFIXES = (".h5ad", ".npz")
COLUMNS = ("centre", "image_id", "cell_type")
OLD_NAMES = {"key": "image_id"}
VECTOR_NAMES = ("X", "vectors", "features")
MAX_BYTES = 8 * 2**30  # of a sparse matrix made dense
MAX_STRING = 4096  # characters; every row of a str array is as wide as its longest
_NPZ = "an .npz file needs X (n, d) of numbers, and image_id and centre (n,) of text"
_H5AD = "an .h5ad file needs X of numbers and, in obs, centre, image_id and cell_type"

Vectors = dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]


def read_vectors(path: str | Path) -> Vectors:
    """Vectors, image_ids and cell types of an .h5ad or .npz file, by centre.

    Returns:
        By centre, in order of first appearance: float32 (n, d), and the str arrays "image_id" and "cell_type" of shape
        (n,); rows as in the file.

    Raises:
        InputError: if the file is missing, damaged, of another format, lacks something, or holds NaN, too much or,
            as .npz, an image_id twice in a centre.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: vectors are read from .h5ad and .npz files; give one of these")
    vectors, columns = _read_npz(path) if suffix == ".npz" else _read_h5ad(path)
    if missing := [name for name in ("centre", "image_id") if name not in columns]:
        raise InputError(f"{path}: lacks {' and '.join(missing)}; {_NPZ if suffix == '.npz' else _H5AD}")
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or 0 in vectors.shape:
        raise InputError(
            f"{path}: X is of type {vectors.dtype} and shape {vectors.shape}; give numbers of cells and features"
        )
    columns.setdefault("cell_type", np.full(len(vectors), ""))
    for name, texts in columns.items():
        if texts.dtype.kind != "U" or texts.shape != vectors.shape[:1]:
            raise InputError(
                f"{path}: {name} is of type {texts.dtype} and shape {texts.shape}, not a text for each of the "
                f"{len(vectors)} vectors"
            )
    cells = pd.DataFrame(columns)
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32, copy=False)
    faults = {
        # By the sum of each row, which needs no mask as large as the vectors.
        "holds NaN or infinite values": ~np.isfinite(vectors.sum(axis=1, dtype=np.float64)),
        "has no centre": columns["centre"] == "",
        "has no image_id": columns["image_id"] == "",
    }
    if suffix == ".npz":  # an embedding may hold several cells of an image, in the order of its store
        faults["has an image_id that was there before"] = cells.duplicated(["centre", "image_id"]).to_numpy()
    for fault, rows in faults.items():
        if rows.any():
            raise InputError(f"{path}: row {np.argmax(rows)} {fault}; mend it")
    rows_of = cells.groupby("centre", sort=False).indices
    return {
        centre: (vectors[rows], {name: columns[name][rows] for name in ("image_id", "cell_type")})
        for centre, rows in rows_of.items()
    }


def _read_h5ad(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    if not path.is_file():
        raise InputError(f"{path}: no such embedding; run aecfe embed")
    with open_plain(path, advice=_H5AD, names=("obs", "X")) as file:
        try:  # nothing else is read, however large it may be
            cells, vectors = (anndata.io.read_elem(file[name]) for name in ("obs", "X"))
            if sparse.issparse(vectors):
                vectors.check_format(full_check=True)  # an index out of range would be written to as it is
                if math.prod(vectors.shape) * 4 > MAX_BYTES:
                    raise ValueError(f"X has more than {MAX_BYTES >> 30} GiB")
                vectors = vectors.toarray()
            cells = cells if "image_id" in cells else cells.rename(columns=OLD_NAMES)
            cells = cells[[name for name in COLUMNS if name in cells]]
            texts = cells.astype(str).mask(cells.isna(), "")
            if len(texts) and texts.map(len).max(axis=None) > MAX_STRING:
                raise ValueError(f"obs has texts of more than {MAX_STRING} characters")
        except Exception as error:  # some of anndata's own are private to it, and derive from nothing else
            raise InputError(f"{path}: not an .h5ad file that can be read ({one_line(error)}); {_H5AD}") from None
    return np.asarray(vectors), {name: texts[name].to_numpy(str) for name in texts}


def _read_npz(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    arrays = read_arrays(path, advice=_NPZ)
    named = [name for name in VECTOR_NAMES if name in arrays]
    if len(named) != 1:
        raise InputError(f"{path}: has {' and '.join(named) or 'no X'}; give one array of vectors, since {_NPZ}")
    arrays = {**{OLD_NAMES.get(name, name): array for name, array in arrays.items()}, **arrays}
    columns = {name: arrays[name] for name in COLUMNS if name in arrays}
    for name, texts in columns.items():
        columns[name] = np.char.decode(texts, "utf-8", "replace") if texts.dtype.kind == "S" else texts
    return arrays[named[0]], columns


def align_vectors(
    vectors: np.ndarray, image_ids: Sequence[str] | np.ndarray, wanted_ids: Sequence[str] | np.ndarray, where: str
) -> np.ndarray:
    """Bring the rows of one centre, of shape (n, d), to the order of other cells.

    Where an image has several cells, here or there, its image_id does not say which of them a row is; then nothing but
    the same image_ids in the same order is accepted.

    Returns:
        Array of shape (m, d), m the wanted image_ids; rows that are not wanted are left out and counted in the log.

    Raises:
        InputError: beginning with `where`, if image_ids are missing, or repeat in another order.
    """
    there, wanted = pd.Index(np.asarray(image_ids, str)), pd.Index(np.asarray(wanted_ids, str))
    if there.equals(wanted):
        return vectors
    missing = wanted[~wanted.isin(there)]
    if len(missing):
        raise InputError(
            f"{where}: lacks {len(missing)} of {len(wanted)} image_ids, first {missing[0]!r}; add their vectors"
        )
    if not there.is_unique or not wanted.is_unique:
        raise InputError(f"{where}: images with several cells; give the very cells of the store, in its order")
    if len(there) > len(wanted):
        logger.info("%s: %d vectors are of no wanted cell and left out", where, len(there) - len(wanted))
    return vectors[there.get_indexer(wanted)]


def standardise(values: np.ndarray) -> np.ndarray:
    """Bring every feature of some cells, of shape (n, d), to mean 0 and standard deviation 1, a constant one to 0.

    Done within each centre it needs no label. It is the simplest alignment, and so the one that others have to beat.
    """
    values = np.asarray(values, dtype=np.float32)
    if not len(values):
        return values
    deviation = values.std(axis=0)
    shifted = values - values.mean(axis=0)
    return np.divide(shifted, deviation, out=np.zeros_like(shifted), where=deviation > 1e-6)
