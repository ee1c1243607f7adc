"""Training of the autoencoder on all centres at once (thesis sections 2.10 and 3.4.3)."""

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from autoencoder.adaptation import check_custom_loss
from autoencoder.batches import CellBatches
from autoencoder.collapse import CollapseWatch
from autoencoder.config import ADAPTATIONS, AutoencoderConfig
from autoencoder.folder import (
    CHECKPOINTS,
    LOG,
    SCALING,
    WEIGHTS,
    AutoencoderFolder,
    TrainedAutoencoder,
    describe_stores,
    load_autoencoder,
)
from autoencoder.label_shift import count_types, format_counts, shift_warnings
from autoencoder.scaling import FeatureScaling
from autoencoder.step import AutoencoderModel, metric_names
from mrcnn.feature_store import StorePath
from mrcnn.files.devices import is_chief, local_replicas
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import (
    Checkpoints,
    EndAt,
    ReplicaBatches,
    StepBar,
    StepLog,
    StopAtFault,
    fit,
    last_row,
    load_newest_checkpoint,
    read_log,
)
from mrcnn.files.hdf5 import save_weights
from mrcnn.files.interruption import held_back
from mrcnn.files.provenance import file_hash, versions

logger = logging.getLogger(__name__)


class Workers:
    """One process, or several under a MultiWorkerMirroredStrategy: the chief writes the files; places count from 0."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy, self.is_chief = strategy, is_chief(strategy)
        own = local_replicas(strategy)
        self.place, self.number = own.start // len(own), strategy.num_replicas_in_sync // len(own)

    def from_chief(self, make: Callable[[], Sequence[np.ndarray]], like: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Let the chief alone make arrays, of the shapes and types of `like`, and give them to every process.

        What `make` raised is raised on the chief; on the others an `InputError` says that the chief has stopped.
        """
        if self.number == 1:
            return list(make())
        failure, arrays = None, like
        if self.is_chief:
            try:
                arrays = make()
            except Exception as error:
                failure = error
        (failed,) = self._send([np.float64(failure is not None)])
        if failure is not None:
            raise failure
        if failed:
            raise InputError("the first process of this training has stopped before it began; see its own message")
        return [value.astype(model.dtype) for value, model in zip(self._send(arrays), like, strict=True)]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run something that all processes do at once; an InputError tells if one of the others is lost meanwhile."""
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            if self.number == 1:
                raise
            raise InputError(
                "another process of this training has stopped, see its own message; start all of them again with the "
                "same command to go on from the last checkpoint"
            ) from error

    def _send(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The chief's arrays, as float64."""

        def pick(*values: tf.Tensor) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            # The first replica of all is the chief's; where the others hold NaN, a product would keep it.
            first = tf.equal(context.replica_id_in_sync_group, 0)
            mine = [tf.where(first, value, tf.zeros_like(value)) for value in values]
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        send = tf.function(lambda *values: self.strategy.run(pick, args=values))
        sent = send(*[tf.constant(array, tf.float64) for array in arrays])
        return [self.strategy.experimental_local_results(value)[0].numpy() for value in sent]


def train_autoencoder(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    output: str | os.PathLike,
    *,
    strategy: tf.distribute.Strategy | None = None,
    resume: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainedAutoencoder:
    """Train an autoencoder, leave it in a folder and load it from there.

    A training that was broken off resumes at its last checkpoint, with the batches that would have come next; where
    signals are handled (`mrcnn.files.interruption`), an interruption makes one after the step at hand. One that
    came to its end, with the same config and stores, is loaded and returned; with more `steps` it is trained on.

    Args:
        config: the settings.
        stores: feature store by centre, or the shards of one; the order gives the centre ids.
        output: the folder; see `folder` for its files.
        strategy: how to use several devices, such as `tf.distribute.MirroredStrategy()`, or several processes,
            `mrcnn.files.devices.multi_worker_strategy()`; None is one device. Of several processes only the first
            writes, and only it needs to see `output`; all of them need the stores.
        resume: False removes what an earlier training left in `output` and begins anew.
        callbacks: further Keras callbacks; their `model` is an `AutoencoderModel`. An epoch is `log_every` steps, the
            logs have the numbers of `metric_names`, "step" and "seconds".

    Raises:
        InputError: if a store cannot be used, the stores come from different detectors, a loss of the user's own
            fails, `output` holds another autoencoder or another run is writing it, every checkpoint is damaged, a loss
            is no longer finite, or another process is lost.
    """
    strategy = strategy or tf.distribute.get_strategy()
    workers = Workers(strategy)
    if config.adaptation not in ADAPTATIONS:
        check_custom_loss(config.adaptation, config.latent_size)
    described = describe_stores(stores)
    centres = list(stores)
    source_centre = config.source_centre or centres[0]
    if source_centre not in centres:
        raise InputError(f"source_centre {source_centre!r} is not among the centres ({', '.join(centres)})")
    num_cells = sum(store["cells"] for store in described.values())
    folder = AutoencoderFolder(output, config, described, config.num_steps(num_cells))
    record = {
        "seed": config.seed,
        "source_centre": source_centre,
        "stores": described,
        "cells": num_cells,
        "steps": folder.num_steps,
        "replicas": strategy.num_replicas_in_sync,
        "versions": versions(),
        "command": sys.argv,
    }
    with ExitStack() as stack:

        def claim() -> list[np.ndarray]:
            is_wanted = stack.enter_context(folder.writing(overwrite=not resume))
            if is_wanted:
                folder.prepare(record, resume=resume)
            return [np.array(is_wanted)]

        if not workers.from_chief(claim, like=[np.array(False)])[0]:
            logger.info("%s: trained already", folder.path)
            return load_autoencoder(folder.path)
        if workers.is_chief:
            _tell_of_centres(config, stores, source_centre)
        scaling = _agree_on_scaling(config, stores, folder.path, workers)
        with strategy.scope():
            model = AutoencoderModel(config, len(stores), centres.index(source_centre))
            model.compile_for_training()
        _restore(model, folder.path / CHECKPOINTS, workers)
        _take_steps(model, folder, stores, scaling, workers, callbacks)
        parameters = model.network.count_params()
        if not workers.is_chief:
            return TrainedAutoencoder(folder.path, config, record | {"parameters": parameters}, scaling, model.network)
        last = last_row(folder.path / LOG) or {}
        losses = {name: last.get(name) for name in metric_names(config)}
        save_weights(model.network, folder.path / WEIGHTS)
        if model.steps_done < folder.num_steps:
            record["stopped_after"] = model.steps_done  # by a callback
        record |= {"seconds": last.get("seconds"), "losses": losses, "parameters": parameters}
        folder.write(True, record | {"weights_sha256": file_hash(folder.path / WEIGHTS)})
    return load_autoencoder(folder.path)


def _tell_of_centres(config: AutoencoderConfig, stores: Mapping[str, StorePath], source_centre: str) -> None:
    """Log what there is to learn from, and what may harm the adaptation."""
    counts = count_types(stores)
    logger.info("cells by type and centre:\n%s", format_counts(counts))
    if config.adaptation in ("none", "normal"):
        return
    if len(stores) == 1:
        logger.warning("one centre only: there is nothing to adapt to, so the adaptation loss stays 0")
    for warning in shift_warnings(counts, source_centre):
        logger.warning(warning)


def _agree_on_scaling(
    config: AutoencoderConfig, stores: Mapping[str, StorePath], output: Path, workers: Workers
) -> FeatureScaling:
    """Fit the scaling, unless the training that is resumed has done so; the same in every process."""

    def fit_or_load() -> tuple[np.ndarray, np.ndarray]:
        if not (output / SCALING).exists():
            FeatureScaling.fit(config.feature_scaling, stores).save(output / SCALING)
        scaling = FeatureScaling.load(output / SCALING)
        return scaling.mean, scaling.deviation

    shape = FeatureScaling.shape(config.feature_scaling, len(stores))
    statistics = workers.from_chief(fit_or_load, like=[np.zeros(shape, np.float32)] * 2)
    return FeatureScaling(config.feature_scaling, tuple(stores), *statistics)


def _take_steps(
    model: AutoencoderModel,
    folder: AutoencoderFolder,
    stores: Mapping[str, StorePath],
    scaling: FeatureScaling,
    workers: Workers,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train from the step on that the model has come to."""
    config, num_steps = folder.config, folder.num_steps
    start_step = model.steps_done
    if start_step >= num_steps:
        return
    log_path = folder.path / LOG
    first_epoch = sum(row["step"] <= start_step for row in read_log(log_path))
    share = {"num_processes": workers.number, "process": workers.place}
    share["num_replicas"] = workers.strategy.num_replicas_in_sync
    names = metric_names(config)
    advice = "lower learning_rate or beta and train again"
    with (
        closing(CellBatches(config, stores, scaling, source=model.source, **share)) as cells,
        held_back() as interruption,
        workers.together(),
    ):
        watchers = [
            StopAtFault((*names[1:], names[0]), advice),
            EndAt(num_steps, interruption),
            StepBar(total=num_steps, initial=start_step, desc="autoencoder", disable=not workers.is_chief),
            *([StepLog(log_path, first_epoch), CollapseWatch(len(stores))] if workers.is_chief else []),
            *callbacks,
            *([Checkpoints(folder.path / CHECKPOINTS, config.checkpoint_every)] if workers.is_chief else []),
        ]
        fit(
            model,
            ReplicaBatches(cells, workers.strategy, start_step, is_own=True),
            callbacks=watchers,
            steps_per_epoch=config.log_every,
            initial_epoch=first_epoch,
            epochs=first_epoch + math.ceil((num_steps - start_step) / config.log_every),
        )


def _restore(model: AutoencoderModel, folder: Path, workers: Workers) -> None:
    """Set the model to its last checkpoint, if any, in every process."""

    def load() -> list[np.ndarray]:
        load_newest_checkpoint(model, folder)
        return [keras.ops.convert_to_numpy(variable) for variable in model.state]

    like = [keras.ops.convert_to_numpy(variable) for variable in model.state]
    for variable, value in zip(model.state, workers.from_chief(load, like=like), strict=True):
        variable.assign(value)
    if model.steps_done:
        logger.info("resuming after step %d", model.steps_done)
