"""A trained detector as a folder: `config.json` and the weights."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mrcnn.atomic import atomic_path, write_json
from mrcnn.config import Config
from mrcnn.errors import InputError
from mrcnn.network.assembly import DetectorParts

WEIGHTS_NAME = "weights.weights.h5"
CONFIG_NAME = "config.json"


def save_detector(parts: DetectorParts, config: Config, folder: Path) -> None:
    """Write settings and weights to `folder`, each whole or not at all, the weights last."""
    write_json(folder / CONFIG_NAME, config.to_dict())
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        parts.save_weights(temporary)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a finished detector.

    Raises:
        InputError: if the folder holds none.
    """
    path = folder / CONFIG_NAME
    if not path.is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise InputError(f"{folder}: no trained detector there ({CONFIG_NAME} and {WEIGHTS_NAME} expected)")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not the settings of a detector; copy the detector's folder again")
    return settings


def load_parts(parts: DetectorParts, path: Path) -> None:
    """Load what `MaskRCNN.save` wrote.

    Raises:
        InputError: if the file is damaged or of another architecture.
    """
    try:
        parts.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{path}: these weights do not fit the configuration ({str(error).splitlines()[0]})"
        ) from error


def detector_hash(folder: str | os.PathLike) -> str:
    """SHA-256 of a trained detector's configuration and weights, which names the features that it gives."""
    digest = hashlib.sha256()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        with open(Path(folder) / name, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
