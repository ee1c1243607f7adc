"""Training of the autoencoder on all centres at once (thesis sections 2.10 and 3.4.3)."""

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
from autoencoder.config import ADAPTATIONS, AutoencoderConfig
from autoencoder.custom_losses import check_custom_loss
from autoencoder.folder import (
    CHECKPOINTS,
    CONFIG,
    SCALING,
    WEIGHTS,
    AutoencoderFolder,
    TrainedAutoencoder,
    describe_stores,
    load_autoencoder,
)
from autoencoder.label_shift import count_types, format_counts, shift_warnings
from autoencoder.log import CollapseWatch, TrainingLog
from autoencoder.scaling import FeatureScaling
from autoencoder.state import TrainingState, load_newest_checkpoint, remove_old_checkpoints, save_checkpoint
from autoencoder.step import LOSSES, make_train_step, metric_names
from autoencoder.workers import Workers
from mrcnn.feature_store import StorePath
from mrcnn.files.atomic import remove_leftovers
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import save_weights
from mrcnn.files.interruption import held_back
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import file_hash, versions

logger = logging.getLogger(__name__)


def train_autoencoder(
    config: AutoencoderConfig,
    stores: Mapping[str, StorePath],
    output: str | os.PathLike,
    *,
    strategy: tf.distribute.Strategy | None = None,
    resume: bool = True,
) -> TrainedAutoencoder:
    """Train an autoencoder and leave it in a folder.

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

    Returns:
        The trained autoencoder, loaded from `output`.

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
    source = _source_id(config, tuple(stores))
    num_cells = sum(store["cells"] for store in described.values())
    num_steps = config.num_steps(num_cells)
    folder = AutoencoderFolder(output, config, described, num_steps)
    record = {
        "seed": config.seed,
        "source_centre": list(stores)[source],
        "stores": described,
        "cells": num_cells,
        "steps": num_steps,
        "replicas": strategy.num_replicas_in_sync,
        "versions": versions(),
        "command": sys.argv,
    }
    with ExitStack() as stack:

        def claim() -> list[np.ndarray]:
            is_wanted = stack.enter_context(folder.writing(overwrite=not resume))
            if is_wanted:
                _prepare(folder, config, record, resume)
            return [np.array(is_wanted)]

        if not workers.from_chief(claim, like=[np.array(False)])[0]:
            logger.info("%s: trained already", folder.path)
            return load_autoencoder(folder.path)
        if workers.is_chief:
            _tell_of_centres(config, stores, source)
        scaling = _agree_on_scaling(config, stores, folder.path, workers)
        training = _Training(config, stores, scaling, source, strategy, workers, folder.path, num_steps)
        state, metrics, seconds = training.run()
        parameters = state.model.count_params()
        record |= {"seconds": round(seconds, 1), "losses": metrics, "parameters": parameters}
        if not workers.is_chief:
            return TrainedAutoencoder(folder.path, config, record, scaling, state.model)
        save_weights(state.model, folder.path / WEIGHTS)
        folder.write(True, record | {"weights_sha256": file_hash(folder.path / WEIGHTS)})
    return load_autoencoder(folder.path)


def _prepare(folder: AutoencoderFolder, config: AutoencoderConfig, record: Mapping[str, Any], resume: bool) -> None:
    """Make a locked folder ready for a training, or for going on with the one that it holds."""
    # Without a record nothing says what checkpoints and statistics belong to.
    if not resume or folder.record is None:
        folder.clear()
    else:
        folder.check_can_go_on()
    remove_leftovers(folder.path / CHECKPOINTS)
    remove_old_checkpoints(folder.path / CHECKPOINTS)
    # The config before the record: where there is a record, there is a config to compare with.
    config.save(folder.path / CONFIG)
    folder.write(False, record)


@dataclass(frozen=True)
class _Training:
    """The steps of a training in a folder that is ready, to which the chief writes."""

    config: AutoencoderConfig
    stores: Mapping[str, StorePath]
    scaling: FeatureScaling
    source: int
    strategy: tf.distribute.Strategy
    workers: Workers
    output: Path
    num_steps: int

    def run(self) -> tuple[TrainingState, dict[str, float], float]:
        """Train from the last checkpoint on; return state, what the last step measured, and seconds in all."""
        config, num_steps, is_chief = self.config, self.num_steps, self.workers.is_chief
        names = metric_names(config)
        with self.strategy.scope():
            state = TrainingState.build(config, len(self.stores))
        start_step, metrics = self._restore(state, len(names))
        train_step = make_train_step(state, config, self.strategy, self.source, len(self.stores))
        batches = self._distributed_batches(start_step)
        watch = CollapseWatch(len(self.stores))
        log = TrainingLog(self.output if is_chief else None, names, every=config.log_every, start_step=start_step)
        shown = {"desc": "autoencoder", "unit": "step", "disable": not is_chief}
        with (
            held_back() as interruption,
            closing(batches),
            log,
            Bar(total=num_steps, initial=start_step, **shown) as bar,
        ):
            for step in range(start_step + 1, num_steps + 1):
                weight = tf.constant(config.adaptation_weight(step - 1), tf.float32)
                batch = next(batches)
                with self.workers.together():
                    metrics = train_step(batch, weight).numpy()
                _check_finite(names, metrics, step)
                is_last, is_interrupted = step == num_steps, interruption.is_due
                means = log.add(step, metrics, last=is_last)
                if is_chief and means is not None:
                    watch.add(step, means)
                if is_chief and (step % config.checkpoint_every == 0 or is_last or is_interrupted):
                    save_checkpoint(self.output / CHECKPOINTS, step, state.get_values(), metrics)
                if is_interrupted:
                    interruption.check()
                bar.set_postfix({name: f"{x:.4f}" for name, x in zip(LOSSES, metrics, strict=False)}, refresh=False)
                bar.update()
            return state, dict(zip(names, metrics.tolist(), strict=True)), log.seconds

    def _restore(self, state: TrainingState, num_metrics: int) -> tuple[int, np.ndarray]:
        """Set the state to that of the last checkpoint, if any; return the steps done and what the last measured."""
        initial, nothing = state.get_values(), np.zeros(num_metrics, np.float32)
        folder = self.output / CHECKPOINTS

        def load() -> list[np.ndarray]:
            step, metrics, values = load_newest_checkpoint(folder) or (0, nothing, initial)
            if [value.shape for value in (metrics, *values)] != [value.shape for value in (nothing, *initial)]:
                raise InputError(f"{folder}: checkpoints of another network; train again with --overwrite")
            return [np.int64(step), metrics, *values]

        step, metrics, *values = self.workers.from_chief(load, like=[np.int64(0), nothing, *initial])
        if step:
            state.set_values(values)
            logger.info("resuming after step %d", step)
        return int(step), metrics

    def _distributed_batches(self, start_step: int) -> Generator[Any, None, None]:
        """The global batches, each cut up among all replicas of all processes."""
        parts = make_batches(
            self.config,
            self.stores,
            self.scaling,
            source=self.source,
            start_step=start_step,
            num_replicas=self.strategy.num_replicas_in_sync,
            num_pipelines=self.workers.number,
            pipeline=self.workers.place,
        )
        with closing(parts):
            while True:
                yield self.strategy.experimental_distribute_values_from_function(lambda _: next(parts))


def _check_finite(names: Sequence[str], metrics: np.ndarray, step: int) -> None:
    # The terms before their sum, which is never finite when a term is not.
    for i in (*range(1, len(names)), 0):
        if not np.isfinite(metrics[i]):
            raise InputError(f"{names[i]} is {metrics[i]} at step {step}; lower learning_rate or beta and train again")


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
