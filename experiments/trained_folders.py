"""Where the trained models lie in the folder that a user names: it may be theirs, or that of a run that holds them."""

import os
from pathlib import Path

from mrcnn.errors import InputError

# Every autoencoder has one, and nothing else does.
AUTOENCODER_MARK = "scaling.npz"


def detector_folder(run: str | os.PathLike) -> Path:
    """The folder of the detector: `run` itself, or `detector` in it.

    Args:
        run: what `aecfe detector train` or `aecfe run` wrote.
    """
    run = Path(run)
    return run / "detector" if (run / "detector" / "config.json").is_file() else run


def autoencoder_folder(run: str | os.PathLike) -> Path:
    """The folder of the autoencoder: `run` itself, or the only one in it.

    Args:
        run: what `aecfe train` or `aecfe run` wrote.

    Raises:
        InputError: if there is none, or there are several.
    """
    run = Path(run)
    if (run / AUTOENCODER_MARK).is_file():
        return run
    found = sorted(path.parent for path in run.glob(f"*/{AUTOENCODER_MARK}"))
    if not found:
        raise InputError(f"{run}: no trained autoencoder there; give what `aecfe train` or `aecfe run` wrote")
    if len(found) > 1:
        raise InputError(f"{run}: holds several autoencoders; name one of them: {', '.join(map(str, found))}")
    return found[0]
