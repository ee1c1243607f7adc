"""Training the autoencoder on all centres at once (thesis sections 2.10 and 3.4.3)."""

import logging
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from autoencoder.batches import make_batches
from autoencoder.config import AutoencoderConfig
from autoencoder.custom_losses import check_own_loss, is_own_loss
from autoencoder.folder import (
    CHECKPOINTS,
    RUN,
    SCALING,
    WEIGHTS,
    TrainedAutoencoder,
    describe_stores,
    is_finished,
    load_autoencoder,
    prepare_folder,
)
from autoencoder.label_shift import count_types, format_counts, shift_warnings
from autoencoder.log import CollapseWatch, TrainingLog
from autoencoder.scaling import FeatureScaling
from autoencoder.state import (
    TrainingState,
    load_metrics,
    load_newest_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from autoencoder.step import LOSSES, make_train_step, metric_names
from autoencoder.workers import Workers
from mrcnn.feature_store import StorePath
from mrcnn.files.atomic import OutputLock, remove_leftovers, write_json
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import save_weights
from mrcnn.files.interruption import held_back
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import file_hash, versions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """What is trained on what; `output` is None in a process that writes nothing."""

    config: AutoencoderConfig
    stores: Mapping[str, StorePath]
    scaling: FeatureScaling
    source: int
    strategy: tf.distribute.Strategy
    workers: Workers
    output: Path | None
    num_steps: int


def train_autoencoder(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    output: str | os.PathLike,
    *,
    strategy: tf.distribute.Strategy | None = None,
    resume: bool = True,
) -> TrainedAutoencoder:
    """Train an autoencoder and leave it in a folder.

    A training that was broken off goes on at its last checkpoint, with the batches that would have come next; where
    signals are handled (`mrcnn.files.interruption`), an interruption makes one after the step at hand. One that
    came to its end, with the same config and stores, is loaded and returned; with more `steps` it is trained on.

    Args:
        config: the settings.
        stores: feature store by centre, or the shards of one; the order gives the centre ids.
        output: the folder; it gets `config.json`, `run.json`, `weights.weights.h5`, `scaling.npz`, `log.csv`,
            `tensorboard/` and `checkpoints/` with the optimizer's state.
        strategy: how to use several devices, such as `tf.distribute.MirroredStrategy()`, or several processes,
            `mrcnn.files.devices.multi_worker_strategy()`; None is one device. Of several processes only the first
            writes, and only it needs to see `output`; all of them need the stores.
        resume: False removes what an earlier training left in `output` and begins anew.

    Returns:
        The trained autoencoder, loaded from `output`.

    Raises:
        InputError: if a store cannot be used, the stores come from different detectors, a loss of the user's own
            fails, `output` holds another autoencoder or another run is writing it, every checkpoint is damaged, a loss
            is no longer finite, or another process is lost.
    """
    output = Path(output)
    strategy = strategy or tf.distribute.get_strategy()
    workers = Workers(strategy)
    centres = tuple(stores)
    if is_own_loss(config.adaptation):
        check_own_loss(config.adaptation, config.latent_size)
    described = describe_stores(stores)
    source = _source_id(config, centres)
    num_cells = sum(store["cells"] for store in described.values())
    num_steps = config.num_steps(num_cells)
    record = {
        "complete": False,
        "seed": config.seed,
        "source_centre": centres[source],
        "stores": described,
        "cells": num_cells,
        "steps": num_steps,
        "replicas": strategy.num_replicas_in_sync,
        "versions": versions(),
        "command": sys.argv,
    }
    with ExitStack() as stack:
        (finished,) = workers.from_chief(
            lambda: [np.array(_claim_folder(stack, output, config, record, resume))], like=[np.array(False)]
        )
        if finished:
            logger.info("%s: trained already", output)
            return load_autoencoder(output)
        return _train(config, stores, output, record, workers, strategy, source)


def _claim_folder(
    stack: ExitStack, output: Path, config: AutoencoderConfig, record: dict[str, Any], resume: bool
) -> bool:
    """Make the folder ready and lock it until the stack ends, unless the training has come to its end before.

    Returns:
        Whether it has: such a folder may be read-only.
    """
    if resume and is_finished(output, config, record):
        return True
    stack.enter_context(OutputLock(output, inside=True))
    remove_leftovers(output / CHECKPOINTS)
    remove_old_checkpoints(output / CHECKPOINTS)
    return prepare_folder(output, config, record, resume=resume)


def _train(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    output: Path,
    record: dict[str, Any],
    workers: Workers,
    strategy: tf.distribute.Strategy,
    source: int,
) -> TrainedAutoencoder:
    """Train in a folder that is ready, from its last checkpoint on."""
    if workers.is_chief:
        _tell_of_centres(config, stores, source)
    scaling = _agree_on_scaling(config, stores, output, workers)
    with strategy.scope():
        state = TrainingState.build(config, len(stores))
    start_step = _restore(state, output, workers)
    written_to = output if workers.is_chief else None
    task = _Task(config, stores, scaling, source, strategy, workers, written_to, record["steps"])
    metrics, seconds = _run_steps(task, state, start_step)
    record.update(complete=True, seconds=round(seconds, 1), losses=metrics, parameters=state.model.count_params())
    if not workers.is_chief:
        return TrainedAutoencoder(output, config, record, scaling, state.model)
    save_weights(state.model, output / WEIGHTS)
    record["weights_sha256"] = file_hash(output / WEIGHTS)
    write_json(output / RUN, record)
    return load_autoencoder(output)


def _run_steps(task: _Task, state: TrainingState, start_step: int) -> tuple[dict[str, float], float]:
    """Train from a step on to the end.

    Returns:
        What the last step measured, nothing if there was none to do; and the seconds of the whole training.
    """
    config, output, num_steps = task.config, task.output, task.num_steps
    names = metric_names(config)
    # Of a training that was killed after its last checkpoint, before it noted them.
    is_over = output is not None and 0 < start_step == num_steps
    metrics = load_metrics(output / CHECKPOINTS, start_step) if is_over else np.zeros(0)
    train_step = make_train_step(state, config, task.strategy, task.source, len(task.stores))
    batches = _distributed_batches(task, start_step)
    watch = CollapseWatch(len(task.stores))
    log = TrainingLog(output, names, every=config.log_every, start_step=start_step)
    shown = output is not None
    with (
        held_back() as interruption,
        closing(batches),
        log,
        Bar(total=num_steps, initial=start_step, desc="autoencoder", unit="step", disable=not shown) as bar,
    ):
        for step in range(start_step, num_steps):
            weight = tf.constant(config.adaptation_weight(step), tf.float32)
            batch = next(batches)
            with task.workers.together():
                metrics = train_step(batch, weight).numpy()
            _check_finite(names, metrics, step + 1)
            last = step + 1 == num_steps
            is_interrupted = interruption.is_due
            means = log.add(step + 1, metrics, last=last)
            if means is not None and output is not None:
                watch.add(step + 1, means)
            if output is not None and ((step + 1) % config.checkpoint_every == 0 or last or is_interrupted):
                save_checkpoint(output / CHECKPOINTS, step + 1, state.get_values(), metrics)
            if is_interrupted:
                interruption.check()
            bar.set_postfix({name: f"{x:.4f}" for name, x in zip(LOSSES, metrics, strict=False)}, refresh=False)
            bar.update()
        return {name: float(value) for name, value in zip(names, metrics, strict=False)}, log.seconds


def _distributed_batches(task: _Task, start_step: int) -> Generator[Any, None, None]:
    """The global batches, each cut up among all replicas of all processes."""

    parts = make_batches(
        task.config,
        task.stores,
        task.scaling,
        source=task.source,
        start_step=start_step,
        num_replicas=task.strategy.num_replicas_in_sync,
        num_pipelines=task.workers.number,
        pipeline=task.workers.place,
    )
    with closing(parts):
        while True:
            yield task.strategy.experimental_distribute_values_from_function(lambda _: next(parts))


def _check_finite(names: Sequence[str], metrics: np.ndarray, step: int) -> None:
    if np.all(np.isfinite(metrics)):
        return
    by_name = dict(zip(names, metrics, strict=True))
    # The terms before their sum, which is never finite when a term is not.
    name = next(name for name in (*names[1:], names[0]) if not np.isfinite(by_name[name]))
    raise InputError(f"{name} is {by_name[name]} at step {step}; lower learning_rate or beta and train again")


def _source_id(config: AutoencoderConfig, centres: tuple[str, ...]) -> int:
    if config.source_centre is None:
        return 0
    if config.source_centre not in centres:
        raise InputError(f"source_centre {config.source_centre!r} is not among the centres ({', '.join(centres)})")
    return centres.index(config.source_centre)


def _tell_of_centres(config: AutoencoderConfig, stores: Mapping[str, StorePath], source: int) -> None:
    """Log what there is to learn from, and what may harm the adaptation."""
    counts = count_types(stores)
    logger.info("cells by type and centre:\n%s", format_counts(counts))
    if config.adaptation in ("none", "normal"):
        return
    if len(stores) == 1:
        logger.warning("one centre only: there is nothing to adapt to, so the adaptation loss stays 0")
    for warning in shift_warnings(counts, tuple(stores)[source]):
        logger.warning(warning)


def _agree_on_scaling(
    config: AutoencoderConfig, stores: Mapping[str, StorePath], output: Path, workers: Workers
) -> FeatureScaling:
    """Fit the scaling, unless the training that is resumed has done so; the same in every process."""

    def fit_or_load() -> tuple[np.ndarray, np.ndarray]:
        if (output / SCALING).exists():
            scaling = FeatureScaling.load(output / SCALING)
        else:
            scaling = FeatureScaling.fit(config.feature_scaling, stores)
            scaling.save(output / SCALING)
        return scaling.mean, scaling.deviation

    shape = FeatureScaling.shape(config.feature_scaling, len(stores))
    statistics = workers.from_chief(fit_or_load, like=[np.zeros(shape, np.float32)] * 2)
    return FeatureScaling(config.feature_scaling, tuple(stores), *statistics)


def _restore(state: TrainingState, output: Path, workers: Workers) -> int:
    """Set the state to that of the last checkpoint, if there is one; returns the number of steps done."""
    initial = state.get_values()

    def load() -> list[np.ndarray]:
        step, values = load_newest_checkpoint(output / CHECKPOINTS) or (0, initial)
        if [value.shape for value in values] != [value.shape for value in initial]:
            raise InputError(f"{output / CHECKPOINTS}: checkpoints of another network; train again with --overwrite")
        return [np.int64(step), *values]

    step, *values = workers.from_chief(load, like=[np.int64(0), *initial])
    if step:
        state.set_values(values)
        logger.info("resuming after step %d", step)
    return int(step)
