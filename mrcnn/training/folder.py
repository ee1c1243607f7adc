"""A trained detector as a folder: `config.json` and the weights, and what its training leaves beside them."""

import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import remove_checkpoints
from mrcnn.files.hdf5 import atomic_hdf5, load_weights, open_plain, save_weights
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import file_hash
from mrcnn.files.run_folder import RUN
from mrcnn.network.assembly import DetectorParts
from mrcnn.training.shipped import SUMS, check_sums, write_sums

WEIGHTS_NAME = "weights.weights.h5"
CONFIG_NAME = "config.json"
LOG, SPLIT, METRICS = "log.csv", "split.json", "metrics.json"
CHECKPOINTS, TENSORBOARD = "checkpoint", "tensorboard"
_ADVICE = "copy the detector's folder again"
_SMALL_NETWORK = 256 * 2**20  # bytes that do no harm


def save_detector(parts: DetectorParts, config: Config, folder: Path) -> None:
    """Write settings and weights to `folder`, each whole or not at all, the weights last."""
    (folder / SUMS).unlink(missing_ok=True)  # of a detector that was there before
    write_json(folder / CONFIG_NAME, config.to_dict())
    save_weights(parts, folder / WEIGHTS_NAME)


def ship_detector(trained: Path, folder: Path) -> None:
    """Write a trained detector to another folder as it ships: weights in half precision, and `SHA256SUMS` of the files.

    Raises:
        InputError: if there is no finished detector, or a weight is beyond the range of half precision.
    """
    settings = read_settings(trained)
    with open_plain(trained / WEIGHTS_NAME, advice=_ADVICE) as source, atomic_hdf5(folder / WEIGHTS_NAME) as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            made = target.require_group(name) if isinstance(item, h5py.Group) else _halved(item, target, name)
            for key, value in item.attrs.items():
                made.attrs[key] = value

        source.visititems(copy)
    write_json(folder / CONFIG_NAME, settings)
    write_sums(folder, CONFIG_NAME, WEIGHTS_NAME)


def _halved(dataset: h5py.Dataset, target: h5py.File, name: str) -> h5py.Dataset:
    values = dataset[()]
    if dataset.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float16)
        if not np.all(np.isfinite(values)):
            raise InputError(f"{dataset.file.filename}: {name} is beyond the range of half precision; train it again")
    made = target.create_dataset(name, data=values)
    made.flush()
    return made


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a finished detector; InputError if the folder holds none, or not what its `SHA256SUMS` says."""
    path = folder / CONFIG_NAME
    if not path.is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise InputError(f"{folder}: no trained detector there ({CONFIG_NAME} and {WEIGHTS_NAME} expected)")
    check_sums(folder)
    settings = read_json_file(path, missing=_ADVICE, advice=_ADVICE)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not the settings of a detector; {_ADVICE}")
    return settings


def load_parts(parts: DetectorParts, keras_model: Callable[[], keras.Model], path: Path) -> None:
    """Load what `MaskRCNN.save` wrote, or its `keras_model`, which gives its optimiser too where it is compiled.

    An `InputError` says that the file is damaged or of another architecture.
    """
    advice = f"{_ADVICE}, or take the configuration that it was made with"
    with open_plain(path, advice=advice) as file:
        model = parts if "box_head" in file else keras_model()
    load_weights(model, path, advice=advice)
    for variable in parts.variables:
        if not np.all(np.isfinite(keras.ops.convert_to_numpy(variable))):
            raise InputError(f"{path}: {variable.path} holds NaN or infinity; {_ADVICE}")


def check_can_hold(config: Config, path: Path) -> None:
    """Refuse a configuration of a far larger network than the weights beside it, before its memory is asked for."""
    hidden, channels = config.FPN_CLASSIF_FC_LAYERS_SIZE, config.TOP_DOWN_PYRAMID_SIZE
    pooled = config.POOL_SIZE**2 * channels
    num_weights = hidden * (pooled + hidden + 5 * config.NUM_CLASSES) + 36 * channels**2
    # Four bytes each. Nothing is compressed, unless by somebody who repacked the file.
    if 4 * num_weights > 4 * path.stat().st_size + _SMALL_NETWORK:
        raise InputError(f"{path}: too small for the network of {CONFIG_NAME}; {_ADVICE}")


def detector_hash(folder: str | os.PathLike) -> str:
    """SHA-256 of a trained detector's configuration and weights, which names the features that it gives."""
    return file_hash(Path(folder) / CONFIG_NAME, Path(folder) / WEIGHTS_NAME)


def write_metrics(folder: Path, measured: Mapping[str, Any]) -> None:
    """Write a detector's measures by centre to `metrics.json`, with the hash of the detector that they hold for."""
    write_json(folder / METRICS, {"detector": detector_hash(folder), "centres": measured})


def read_metrics(folder: Path) -> dict[str, dict[str, Any]] | None:
    """What `write_metrics` wrote, or None if it is not there or holds for another detector."""
    known = read_optional(folder / METRICS)
    return known["centres"] if known is not None and known.get("detector") == detector_hash(folder) else None


def read_optional(path: Path) -> Any:
    """The content of a JSON file in a detector's folder, or None if it is not there."""
    if not path.exists():
        return None
    advice = "remove it or give --overwrite"
    return read_json_file(path, missing=advice, advice=advice)


def clear_training(folder: Path) -> None:
    """Remove all that an earlier training left, so that another one can begin."""
    for name in (RUN, SPLIT, METRICS, SUMS, CONFIG_NAME, WEIGHTS_NAME, LOG):
        (folder / name).unlink(missing_ok=True)
    # TensorBoard would draw the curves of both trainings as one.
    for path in (folder / TENSORBOARD).rglob("events.out.tfevents.*"):
        path.unlink()
    remove_checkpoints(folder / CHECKPOINTS)


# Windows' separator too, in paths that old scripts carry around.
CHECKPOINT_PATH = re.compile(r"(?:.*[/\\])?[\w-]+\d{8}T\d{4,6}[/\\]mask_rcnn_[\w-]+_(\d{4})\.h5$")


class MissingCheckpoint(InputError, FileNotFoundError):
    """There is no checkpoint to go on from; scripts may catch it under either name."""


def run_folder(
    model_dir: str | os.PathLike, name: str, model_path: str | os.PathLike | None = None, now: datetime | None = None
) -> tuple[Path, int]:
    """Folder that a run of Matterport's class writes to, and how many epochs it has had.

    It is that of the checkpoint `model_path`, or a new one below `model_dir`, called after `name` and the date `now`.
    """
    match = CHECKPOINT_PATH.match(str(model_path)) if model_path else None
    if match:
        return Path(model_path).parent, int(match[1])
    return Path(model_dir) / f"{name.lower()}{now or datetime.now():%Y%m%dT%H%M%S}", 0


def checkpoint_name(name: str, epoch: int | str) -> str:
    """File name of the weights after `epoch` epochs; text such as "{epoch:04d}" stands in for a number."""
    return f"mask_rcnn_{name.lower()}_{f'{epoch:04d}' if isinstance(epoch, int) else epoch}.h5"


def find_last(model_dir: str | os.PathLike, name: str) -> Path:
    """The newest checkpoint of the newest run, or MissingCheckpoint."""
    key = name.lower()
    # Somebody may have added a word to the date.
    dated = re.compile(re.escape(key) + r"\d{8}T\d{4,6}(?!\d)")
    folders = sorted(p for p in Path(model_dir).glob(f"{key}*") if p.is_dir() and dated.match(p.name))
    found = sorted(folders[-1].glob("mask_rcnn*.h5")) if folders else []
    if not found:
        where = folders[-1] if folders else model_dir
        raise MissingCheckpoint(f"{where}: no checkpoint of {key!r} there; train for an epoch, or name the weights")
    return found[-1]
