"""A trained detector as a folder: `config.json` and the weights."""

import hashlib
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.atomic import write_json
from mrcnn.config import Config
from mrcnn.errors import InputError, first_line
from mrcnn.hdf5_files import save_weights
from mrcnn.json_values import read_json_file
from mrcnn.network.assembly import DetectorParts
from mrcnn.plain_hdf5 import check_weights_file

WEIGHTS_NAME = "weights.weights.h5"
CONFIG_NAME = "config.json"
_SMALL_NETWORK = 256 * 2**20  # bytes that do no harm


def save_detector(parts: DetectorParts, config: Config, folder: Path) -> None:
    """Write settings and weights to `folder`, each whole or not at all, the weights last."""
    write_json(folder / CONFIG_NAME, config.to_dict())
    save_weights(parts, folder / WEIGHTS_NAME)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a finished detector.

    Raises:
        InputError: if the folder holds none.
    """
    path = folder / CONFIG_NAME
    if not path.is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise InputError(f"{folder}: no trained detector there ({CONFIG_NAME} and {WEIGHTS_NAME} expected)")
    advice = "copy the detector's folder again"
    settings = read_json_file(path, missing=advice, advice=advice)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not the settings of a detector; copy the detector's folder again")
    return settings


def load_parts(parts: DetectorParts, path: Path) -> None:
    """Load what `MaskRCNN.save` wrote.

    Raises:
        InputError: if the file is damaged, of another architecture, or refers to other files.
    """
    check_weights_file(path, advice="copy the detector's folder again")
    try:
        parts.load_weights(path)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: these weights do not fit the configuration ({first_line(error)})") from error
    for variable in parts.variables:
        if not np.all(np.isfinite(keras.ops.convert_to_numpy(variable))):
            raise InputError(f"{path}: {variable.path} holds NaN or infinity; copy the detector's folder again")


def check_can_hold(config: Config, path: Path) -> None:
    """Refuse a configuration of a far larger network than the weights beside it, before its memory is asked for.

    Raises:
        InputError: if the file cannot hold the weights of its largest layers.
    """
    hidden, channels = config.FPN_CLASSIF_FC_LAYERS_SIZE, config.TOP_DOWN_PYRAMID_SIZE
    pooled = config.POOL_SIZE**2 * channels
    num_weights = hidden * (pooled + hidden + 5 * config.NUM_CLASSES) + 36 * channels**2
    # Four bytes each. Nothing is compressed, unless by somebody who repacked the file.
    if 4 * num_weights > 4 * path.stat().st_size + _SMALL_NETWORK:
        raise InputError(
            f"{path}: has {path.stat().st_size} bytes, far less than the network of {CONFIG_NAME} needs; copy the "
            "detector's folder again"
        )


def detector_hash(folder: str | os.PathLike) -> str:
    """SHA-256 of a trained detector's configuration and weights, which names the features that it gives."""
    digest = hashlib.sha256()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        with open(Path(folder) / name, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
