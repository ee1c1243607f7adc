"""Reading .npz files of arrays: nothing is unpickled, and a damaged file is named."""

import os
import zipfile
import zlib

import numpy as np

from mrcnn.files.errors import InputError, one_line

_UNREADABLE = (OSError, EOFError, LookupError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: str | os.PathLike, *, advice: str, missing: str | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Args:
        path: the file.
        advice: what to do if it cannot be read, for the message.
        missing: what to do if there is no such file; None stands for `advice`.

    Raises:
        InputError: if the file is missing, damaged or no .npz file, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing or advice}") from None
    except (*_UNREADABLE, TypeError, AttributeError) as error:  # an .npy file gives an array, which is no context
        raise InputError(f"{path}: damaged, or not an .npz file of arrays ({one_line(error)}); {advice}") from None
