"""The folder of an autoencoder: what lies in it, and whether it fits a config and a set of feature stores."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from autoencoder.config import AutoencoderConfig
from autoencoder.network import FEATURE_DECODER_LAYERS, build_autoencoder
from autoencoder.scaling import FeatureScaling
from autoencoder.state import checkpoint_step, list_checkpoints
from mrcnn.feature_store import StorePath, StoreReader, open_store
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError, first_line
from mrcnn.files.hdf5 import check_weights_file
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import file_hash

CONFIG = "config.json"
RUN = "run.json"
SCALING = "scaling.npz"
WEIGHTS = "weights.weights.h5"
LOG = "log.csv"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"

_FINGERPRINT_FIELDS = ("key", "box", "score")
_READ_ROWS = 4096  # rows of the small fields above


@dataclass(frozen=True)
class TrainedAutoencoder:
    """A trained autoencoder, as `load_autoencoder` gives it.

    Attributes:
        folder: where it lies.
        config: what it was trained with.
        run: content of `run.json`: stores, versions, steps, losses and so on.
        scaling: to apply to features before the encoder.
        model: from scaled features to latents, features and images, as from `build_autoencoder`.
    """

    folder: Path
    config: AutoencoderConfig
    run: dict[str, Any]
    scaling: FeatureScaling
    model: keras.Model

    @property
    def encoder(self) -> keras.Model:
        """From scaled features `(batch, 14, 14, 256)` to latents `(batch, latent_size)`."""
        return self.model.get_layer("encoder")

    @property
    def detector_hash(self) -> str:
        """Hash of the detector whose features it was trained on."""
        return next(iter(self.run["stores"].values()))["detector_hash"]


def load_autoencoder(folder: str | os.PathLike) -> TrainedAutoencoder:
    """Load a trained autoencoder.

    Args:
        folder: what `train_autoencoder` wrote to.

    Raises:
        InputError: if a file is missing or damaged, or the training has not come to its end.
    """
    folder = Path(folder)
    config = AutoencoderConfig.load(folder / CONFIG, missing="is this the folder of a trained autoencoder?")
    run = read_run(folder)
    if run is None or not run["complete"]:
        raise InputError(f"{folder}: the training of this autoencoder is not finished; run it again to go on")
    scaling = FeatureScaling.load(folder / SCALING)
    if scaling.kind != config.feature_scaling or scaling.centres != tuple(run["stores"]):
        raise InputError(f"{folder / SCALING}: of other features than {RUN} and {CONFIG} tell of; train again")
    weights = folder / WEIGHTS
    check_weights_file(weights, advice="train again")
    if "weights_sha256" in run and file_hash(weights) != run["weights_sha256"]:
        raise InputError(f"{weights}: not the weights that {RUN} tells of; copy the whole folder again, or train again")
    _check_can_hold(config, weights)
    model = build_autoencoder(config)
    try:
        model.load_weights(weights)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{weights}: damaged, or of another network ({first_line(error)}); train again") from None
    return TrainedAutoencoder(folder, config, run, scaling, model)


def _check_can_hold(config: AutoencoderConfig, weights: Path) -> None:
    """Refuse a far larger network than the weights are of, before its memory is asked for."""
    channels, kernel, _ = FEATURE_DECODER_LAYERS[0]
    least = 4 * config.latent_size * channels * kernel**2
    if least > 2 * weights.stat().st_size:
        raise InputError(f"{weights}: too small for the latent_size of {CONFIG}, {config.latent_size}; train again")


def read_run(folder: str | os.PathLike) -> dict[str, Any] | None:
    """Read `run.json`; None if there is none.

    Raises:
        InputError: if it is not what a training writes.
    """
    path = Path(folder) / RUN
    if not path.exists():
        return None
    run = read_json_file(path, missing="train again", advice="train again", allow_nan=True)
    stores = run.get("stores") if isinstance(run, dict) else None
    whole = isinstance(stores, dict) and stores and isinstance(run.get("complete"), bool)
    texts = [run.get("weights_sha256", "")] if whole else []
    texts += [s.get("detector_hash") if isinstance(s, dict) else None for s in stores.values()] if whole else []
    if not whole or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: not the record of a training; train again")
    return run


def clear_run(folder: str | os.PathLike) -> None:
    """Remove what an earlier training left in a folder, and nothing else."""
    folder = Path(folder)
    # The record goes first: a folder without it is no trained autoencoder, whatever else is still there.
    for name in (RUN, CONFIG, WEIGHTS, SCALING, LOG):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, TENSORBOARD):
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def describe_stores(stores: Mapping[str, StorePath]) -> dict[str, dict[str, Any]]:
    """Say what each store holds, so that two runs can be compared.

    The fingerprint is a SHA-256 over keys, boxes and scores of all cells and the detector's hash: reading the
    features as well would take as long as an epoch.

    Args:
        stores: feature store by centre, or the shards of one.

    Returns:
        Dict by centre of `path`, `cells`, `detector_hash` and `fingerprint`.

    Raises:
        InputError: if there is no store, one is empty, unreadable or of another centre, or two come from
            different detectors.
    """
    if not stores:
        raise InputError("no feature stores are given; name at least one")
    described = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            if store.centre != centre:
                raise InputError(f"{store.path}: holds centre {store.centre!r}, not {centre!r}; correct the name")
            if len(store) == 0:
                raise InputError(f"{store.path}: holds no cells; leave this centre out")
            described[centre] = {
                "path": ", ".join(str(path) for path in store.paths),
                "cells": len(store),
                "detector_hash": store.detector_hash,
                "fingerprint": _fingerprint(store),
            }
    first, *others = described.values()
    for other in others:
        if other["detector_hash"] != first["detector_hash"]:
            raise InputError(
                f"{other['path']}: made by another detector ({other['detector_hash'][:12]}) than "
                f"{first['path']} ({first['detector_hash'][:12]}); extract all centres with one detector"
            )
    return described


def is_finished(folder: str | os.PathLike, config: AutoencoderConfig, record: Mapping[str, Any]) -> bool:
    """Say whether a folder holds this very training at its end.

    Args:
        folder: the folder.
        config: what is to be trained.
        record: of this training, as in `prepare_folder`.

    Raises:
        InputError: if it holds another training.
    """
    earlier = read_run(folder)
    if earlier is None:
        return False
    check_same_run(Path(folder), earlier, config, record["stores"])
    return earlier["complete"] and earlier["steps"] == record["steps"]


def prepare_folder(
    folder: str | os.PathLike, config: AutoencoderConfig, record: Mapping[str, Any], *, resume: bool
) -> bool:
    """Make a folder ready for a training, or for going on with the one that it holds.

    Args:
        folder: the folder.
        config: what is to be trained.
        record: of this training, for `run.json`; not complete.
        resume: False removes an earlier training.

    Returns:
        Whether this training has come to its end before; the folder is then left as it is.

    Raises:
        InputError: if the folder holds another training, or a longer one.
    """
    folder = Path(folder)
    if not resume:
        clear_run(folder)
    if is_finished(folder, config, record):
        return True
    earlier = read_run(folder)
    if earlier is None:
        # Without a record nothing says what such checkpoints and statistics belong to.
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        (folder / SCALING).unlink(missing_ok=True)
    else:
        _check_can_go_on(folder, earlier, record["steps"])
    # The config before the record: where there is a record, there is a config to compare with.
    config.save(folder / CONFIG)
    write_json(folder / RUN, record)
    return False


def _check_can_go_on(folder: Path, earlier: Mapping[str, Any], num_steps: int) -> None:
    newest = list_checkpoints(folder / CHECKPOINTS)[:1]
    if newest and checkpoint_step(newest[0]) > num_steps:
        raise InputError(
            f"{folder}: has been trained for {checkpoint_step(newest[0])} steps, more than {num_steps}; choose another "
            "output or --overwrite"
        )
    if earlier["complete"] and not newest:
        raise InputError(
            f"{folder}: was trained for {earlier['steps']} steps and cannot go on, since its {CHECKPOINTS}/ is gone; "
            "choose another output or --overwrite"
        )


def check_same_run(
    folder: Path, run: dict[str, Any], config: AutoencoderConfig, stores: dict[str, dict[str, Any]]
) -> None:
    """Refuse to go on in a folder where another config or other stores were trained.

    Only how long is trained may differ.

    Args:
        folder: where `run` and a config lie.
        run: as from `read_run`.
        config: what is to be trained now.
        stores: as from `describe_stores`.

    Raises:
        InputError: if something differs; it says what.
    """
    there = AutoencoderConfig.load(folder / CONFIG, missing="is this the folder of a trained autoencoder?")
    differences = [f"{name} is {getattr(there, name)!r} there" for name in config.differences(there)]
    if not differences and _without_paths(run["stores"]) != _without_paths(stores):
        differences = ["its feature stores are others"]
    if differences:
        raise InputError(
            f"{folder}: holds another autoencoder ({'; '.join(differences)}); choose another output or --overwrite"
        )


def _fingerprint(store: StoreReader) -> str:
    digest = hashlib.sha256(json.dumps([store.centre, store.detector_hash, store.settings]).encode())
    for start in range(0, len(store), _READ_ROWS):
        for field in _FINGERPRINT_FIELDS:
            values = store.read(field, start, min(start + _READ_ROWS, len(store)))
            digest.update("\0".join(values.tolist()).encode() if field == "key" else values.tobytes())
    return digest.hexdigest()


def _without_paths(stores: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    # A list, since the order of the centres decides which is the source.
    return [(centre, {k: v for k, v in store.items() if k != "path"}) for centre, store in stores.items()]
