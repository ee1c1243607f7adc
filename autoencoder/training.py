"""Training the autoencoder on all centres at once (thesis sections 2.10 and 3.4.3)."""

import logging
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from autoencoder.config import AutoencoderConfig
from autoencoder.data import make_dataset
from autoencoder.folder import (
    CHECKPOINTS,
    CONFIG,
    RUN,
    SCALING,
    WEIGHTS,
    TrainedAutoencoder,
    check_same_run,
    clear_run,
    describe_stores,
    file_hash,
    load_autoencoder,
    read_run,
)
from autoencoder.logs import LOSSES, TrainingLog
from autoencoder.network import build_autoencoder
from autoencoder.scaling import FeatureScaling
from autoencoder.step import make_train_step
from mrcnn.atomic import atomic_path, write_json
from mrcnn.errors import InputError
from mrcnn.feature_store import StorePath

logger = logging.getLogger(__name__)

_KEPT_CHECKPOINTS = 2


def train_autoencoder(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    output: str | os.PathLike,
    *,
    strategy: tf.distribute.Strategy | None = None,
    resume: bool = True,
    progress: bool = True,
    command: Sequence[str] = (),
) -> TrainedAutoencoder:
    """Train an autoencoder and leave it in a folder.

    A training that was broken off goes on at its last checkpoint, with the batches that would have come next.
    One that came to its end, with the same config and stores, is loaded and returned.

    Args:
        config: the settings.
        stores: feature store by centre, or the shards of one; the order gives the centre ids.
        output: the folder; it gets `config.json`, `run.json`, `weights.weights.h5`, `scaling.npz`, `log.csv`
            and `tensorboard/`, and `checkpoints/` while the training lasts.
        strategy: how to use several devices of one machine, such as `tf.distribute.MirroredStrategy()`; None
            is one device.
        resume: False removes what an earlier training left in `output` and begins anew.
        progress: whether to show progress bars.
        command: the command line, to be kept in `run.json`.

    Returns:
        The trained autoencoder, loaded from `output`.

    Raises:
        InputError: if a store cannot be used, the stores come from different detectors, `output` holds
            another autoencoder, a checkpoint is damaged, or a loss is no longer finite.
    """
    output = Path(output)
    strategy = strategy or tf.distribute.get_strategy()
    described = describe_stores(stores)
    source = _source_id(config, tuple(stores))
    if not resume:
        clear_run(output)
    earlier = read_run(output)
    if earlier is not None:
        check_same_run(output, earlier, config, described)
        if earlier["complete"]:
            logger.info("%s: trained already", output)
            return load_autoencoder(output)
    else:
        # Without a record nothing says what such checkpoints belong to.
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    num_cells = sum(store["cells"] for store in described.values())
    num_steps = config.num_steps(num_cells)
    if config.adaptation != "none" and len(stores) == 1:
        logger.warning("one centre only: there is nothing to adapt to, so the adaptation loss stays 0")
    record = {
        "complete": False,
        "seed": config.seed,
        "source_centre": tuple(stores)[source],
        "stores": described,
        "cells": num_cells,
        "steps": num_steps,
        "replicas": strategy.num_replicas_in_sync,
        "versions": _versions(),
        "command": list(command),
    }
    # The config before the record: where there is a record, there is a config to compare with.
    config.save(output / CONFIG)
    write_json(output / RUN, record)
    scaling = _fit_or_load_scaling(config, stores, output, known=earlier is not None, progress=progress)

    with strategy.scope():
        model = build_autoencoder(config)
        optimizer = keras.optimizers.Adam(config.learning_rate)
        optimizer.build(model.trainable_variables)
    step_variable = tf.Variable(0, dtype=tf.int64, trainable=False)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step_variable)
    manager = tf.train.CheckpointManager(checkpoint, str(output / CHECKPOINTS), max_to_keep=_KEPT_CHECKPOINTS)
    start_step = _restore(checkpoint, manager, step_variable)
    train_step = make_train_step(model, optimizer, config, strategy, source, len(stores))

    def save_checkpoint(step: int) -> None:
        step_variable.assign(step)
        manager.save(checkpoint_number=step)

    with TrainingLog(output, every=config.log_every, start_step=start_step) as log:
        losses = _run_steps(
            config,
            stores,
            scaling,
            strategy,
            train_step,
            log,
            save_checkpoint,
            start_step,
            num_steps,
            progress,
        )
        record["seconds"] = round(log.seconds, 1)
    with atomic_path(output / WEIGHTS) as temporary:
        model.save_weights(temporary)
    record.update(
        complete=True,
        losses=losses,
        parameters=model.count_params(),
        weights_sha256=file_hash(output / WEIGHTS),
    )
    write_json(output / RUN, record)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    return load_autoencoder(output)


def _run_steps(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    scaling: FeatureScaling,
    strategy: tf.distribute.Strategy,
    train_step: Callable[[Any, tf.Tensor], tf.Tensor],
    log: TrainingLog,
    save_checkpoint: Callable[[int], None],
    start_step: int,
    num_steps: int,
    progress: bool,
) -> dict[str, float]:
    """Train from `start_step` to `num_steps`; returns the losses of the last step."""
    losses = np.zeros(len(LOSSES))
    if start_step >= num_steps:
        return {}

    def make_local_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        if context.num_input_pipelines != 1:
            raise InputError("training over several machines is not supported; use one with several devices")
        return make_dataset(config, stores, scaling, start_step=start_step, num_replicas=strategy.num_replicas_in_sync)

    batches = iter(strategy.distribute_datasets_from_function(make_local_dataset))
    with tqdm(total=num_steps, initial=start_step, desc="autoencoder", unit="step", disable=not progress) as bar:
        for step in range(start_step, num_steps):
            weight = tf.constant(config.adaptation_weight(step), tf.float32)
            losses = train_step(_next_batch(batches), weight).numpy()
            _check_finite(losses, step + 1)
            log.add(step + 1, losses, last=step + 1 == num_steps)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == num_steps:
                save_checkpoint(step + 1)
            bar.set_postfix(dict(zip(LOSSES, (f"{x:.4f}" for x in losses), strict=True)), refresh=False)
            bar.update()
    return {name: float(value) for name, value in zip(LOSSES, losses, strict=True)}


def _next_batch(batches) -> Any:
    """Take a batch; a store that turned out to be damaged comes as the error that the reader raised."""
    try:
        return next(batches)
    except tf.errors.OpError as error:
        for line in error.message.splitlines():
            _, found, message = line.partition("InputError: ")
            if found:
                raise InputError(message) from None
        raise


def _check_finite(losses: np.ndarray, step: int) -> None:
    if np.all(np.isfinite(losses)):
        return
    by_name = dict(zip(LOSSES, losses, strict=True))
    # The terms before their sum, which is never finite when a term is not.
    name = next(name for name in (*LOSSES[1:], LOSSES[0]) if not np.isfinite(by_name[name]))
    raise InputError(f"{name} is {by_name[name]} at step {step}; lower learning_rate or beta and train again")


def _source_id(config: AutoencoderConfig, centres: tuple[str, ...]) -> int:
    if config.source_centre is None:
        return 0
    if config.source_centre not in centres:
        raise InputError(f"source_centre {config.source_centre!r} is not among the centres ({', '.join(centres)})")
    return centres.index(config.source_centre)


def _fit_or_load_scaling(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    output: Path,
    *,
    known: bool,
    progress: bool,
) -> FeatureScaling:
    """Fit the scaling, unless the training that is resumed has done so."""
    if known and (output / SCALING).exists():
        return FeatureScaling.load(output / SCALING)
    scaling = FeatureScaling.fit(config.feature_scaling, stores, progress=progress)
    scaling.save(output / SCALING)
    return scaling


def _restore(checkpoint: tf.train.Checkpoint, manager: tf.train.CheckpointManager, step: tf.Variable) -> int:
    """Restore the last checkpoint, if there is one; returns the number of steps done."""
    if manager.latest_checkpoint is None:
        return 0
    try:
        checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{manager.latest_checkpoint}: damaged checkpoint ({reason}); train again with --overwrite"
        ) from None
    logger.info("resuming after step %d", int(step))
    return int(step)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
    }
