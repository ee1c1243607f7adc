"""The folder of a trained autoencoder: what lies in it, and whether it fits a config and a set of feature stores."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from autoencoder.config import HOUSEKEEPING, LENGTH, AutoencoderConfig
from autoencoder.network import build_autoencoder
from autoencoder.scaling import FeatureScaling
from mrcnn.feature_store import FeatureStore, StorePath, open_store
from mrcnn.files.atomic import remove_leftovers
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import list_checkpoints
from mrcnn.files.hdf5 import load_weights
from mrcnn.files.provenance import file_hash
from mrcnn.files.run_folder import RUN, RunFolder

CONFIG = "config.json"
SCALING = "scaling.npz"
WEIGHTS = "weights.weights.h5"
LOG = "log.csv"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"

_FINGERPRINT_FIELDS = ("image_id", "box", "score")
_READ_ROWS = 4096  # rows of the small fields above


@dataclass(frozen=True)
class TrainedAutoencoder:
    """A trained autoencoder, as `load_autoencoder` gives it.

    Attributes:
        run: content of `run.json`: stores, versions, steps, losses and so on.
        scaling: to apply to features before the encoder.
        model: as from `build_autoencoder`.
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
    """Load what `train_autoencoder` left in a folder; an `InputError` names what is missing, damaged or unfinished."""
    folder = Path(folder)
    config = AutoencoderConfig.load(folder / CONFIG, missing="is this the folder of a trained autoencoder?")
    run = read_run(folder)
    if run is None or not run["complete"]:
        raise InputError(f"{folder}: the training of this autoencoder is not finished; run it again to go on")
    scaling = FeatureScaling.load(folder / SCALING)
    if scaling.kind != config.feature_scaling or scaling.centres != tuple(run["stores"]):
        raise InputError(f"{folder / SCALING}: of other features than {RUN} and {CONFIG} tell of; train again")
    weights = folder / WEIGHTS
    model = build_autoencoder(config)
    load_weights(model, weights, advice="train again")
    if "weights_sha256" in run and file_hash(weights) != run["weights_sha256"]:
        raise InputError(f"{weights}: not the weights that {RUN} tells of; copy the whole folder again, or train again")
    return TrainedAutoencoder(folder, config, run, scaling, model)


def read_run(folder: str | os.PathLike) -> dict[str, Any] | None:
    """Read `run.json`; None if there is none; an `InputError` says that it is not what a training writes."""
    run = RunFolder(folder, "autoencoder", {}).record
    stores = {} if run is None else run.get("stores")
    if isinstance(stores, dict) and all(isinstance(s, dict) and "detector_hash" in s for s in stores.values()):
        return run
    raise InputError(f"{Path(folder) / RUN}: not the record of a trained autoencoder; train again")


class AutoencoderFolder(RunFolder):
    """The folder that a training of `num_steps` writes to; only how long is trained may differ from what lies there."""

    def __init__(self, path: str | os.PathLike, config: AutoencoderConfig, stores: Mapping[str, Any], num_steps: int):
        super().__init__(path, "autoencoder", _identity(config, stores))
        self.config, self.num_steps = config, num_steps

    @property
    def record(self) -> dict[str, Any] | None:
        """As in `RunFolder`; records of earlier versions get the identity that they lack."""
        record = read_run(self.path)
        if record is not None and "identity" not in record:
            record["identity"] = _identity(AutoencoderConfig.load(self.path / CONFIG), record["stores"])
        return record

    def is_complete(self) -> bool:
        """Say whether this very training is there at its end; see `RunFolder.is_complete`."""
        return super().is_complete() and self.record["steps"] == self.num_steps

    def prepare(self, values: Mapping[str, Any], *, resume: bool) -> None:
        """Make the locked folder ready for a training with these values in its record, or for going on with one.

        What an earlier training left is removed where it is not resumed, and nothing else. An `InputError` says that
        the training to go on with is longer already, or has no checkpoint left.
        """
        record = self.record if resume else None
        if record is None:
            # The record goes first: a folder without it is no trained autoencoder, and nothing says what checkpoints
            # and statistics belong to.
            for name in (RUN, CONFIG, WEIGHTS, SCALING, LOG):
                (self.path / name).unlink(missing_ok=True)
            for name in (CHECKPOINTS, TENSORBOARD):
                shutil.rmtree(self.path / name, ignore_errors=True)
        else:
            done = max((step for step, _ in list_checkpoints(self.path / CHECKPOINTS)), default=0)
            advice = "choose another output or --overwrite"
            if done > self.num_steps:
                raise InputError(f"{self.path}: trained for {done} steps already, more than {self.num_steps}; {advice}")
            if record["complete"] and not done:
                raise InputError(f"{self.path}: cannot be trained on, since its {CHECKPOINTS}/ is gone; {advice}")
        remove_leftovers(self.path / CHECKPOINTS)
        # The config before the record: where there is a record, there is a config to compare with.
        self.config.save(self.path / CONFIG)
        self.write(False, values)


def _identity(config: AutoencoderConfig, stores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What decides an autoencoder, but for how long it is trained."""
    kept = {name: value for name, value in config.to_dict().items() if name not in (*HOUSEKEEPING, *LENGTH)}
    described = {centre: {k: v for k, v in store.items() if k != "path"} for centre, store in stores.items()}
    # A list, since the order of the centres decides which is the source.
    return {"config": kept, "centres": list(stores), "stores": described}


def describe_stores(stores: Mapping[str, StorePath]) -> dict[str, dict[str, Any]]:
    """Say what each store holds, so that two runs can be compared.

    Returns:
        Dict by centre of `path`, `cells`, `detector_hash` and `fingerprint`, a SHA-256 of image_ids, boxes, scores of
        all cells and the detector's hash: reading the features as well would take as long as an epoch.

    Raises:
        InputError: if there is no store, one is empty, unreadable or of another centre, or two come from
            different detectors.
    """
    if not stores:
        raise InputError("no feature stores are given; name at least one")
    described: dict[str, dict[str, Any]] = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            check_centre(store, centre)
            if len(store) == 0:
                raise InputError(f"{store.path}: holds no cells; leave this centre out")
            described[centre] = {
                "path": ", ".join(map(str, store.paths)),
                "cells": len(store),
                "detector_hash": store.detector_hash,
                "fingerprint": _fingerprint(store),
            }
    first = next(iter(described.values()))
    for store in described.values():
        if store["detector_hash"] != first["detector_hash"]:
            advice = "extract all centres with one detector"
            raise InputError(f"{store['path']}: made by another detector than {first['path']}; {advice}")
    return described


def check_centre(store: FeatureStore, centre: str) -> None:
    """Refuse an opened store of another centre than it is given for."""
    if store.centre != centre:
        raise InputError(f"{store.path}: holds centre {store.centre!r}, not {centre!r}; correct the name")


def _fingerprint(store: FeatureStore) -> str:
    digest = hashlib.sha256(json.dumps([store.centre, store.detector_hash, store.settings]).encode())
    for start in range(0, len(store), _READ_ROWS):
        for field in _FINGERPRINT_FIELDS:
            values = store.read(field, start, min(start + _READ_ROWS, len(store)))
            digest.update("\0".join(values.tolist()).encode() if field == "image_id" else values.tobytes())
    return digest.hexdigest()
