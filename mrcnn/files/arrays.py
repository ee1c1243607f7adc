"""Reading .npz files of arrays: nothing is unpickled, and a damaged file is named."""

import os

import numpy as np

from mrcnn.files.errors import InputError, one_line


def read_arrays(path: str | os.PathLike, *, advice: str, missing: str | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Raises:
        InputError: that says what to do, if the file is missing (`missing`, or else `advice`), damaged or no .npz
            file, or holds Python objects (`advice`).
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing or advice}") from None
    except Exception as error:  # zipfile, zlib and NumPy raise some ten kinds
        raise InputError(f"{path}: damaged, or not an .npz file of arrays ({one_line(error)}); {advice}") from None
