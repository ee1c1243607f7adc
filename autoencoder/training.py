"""Training of the autoencoder on all centres at once (thesis sections 2.10 and 3.4.3)."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from autoencoder.adaptation import check_custom_loss
from autoencoder.batches import make_batches
from autoencoder.config import ADAPTATIONS, AutoencoderConfig
from autoencoder.folder import (
    CHECKPOINTS,
    SCALING,
    WEIGHTS,
    AutoencoderFolder,
    TrainedAutoencoder,
    describe_stores,
    load_autoencoder,
    load_newest_checkpoint,
    save_checkpoint,
)
from autoencoder.label_shift import count_types, format_counts, shift_warnings
from autoencoder.log import CollapseWatch, TrainingLog
from autoencoder.scaling import FeatureScaling
from autoencoder.step import LOSSES, TrainingState, make_train_step, metric_names
from mrcnn.feature_store import StorePath
from mrcnn.files.devices import is_chief
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import save_weights
from mrcnn.files.interruption import held_back
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import file_hash, versions

logger = logging.getLogger(__name__)


class Workers:
    """One process, or several under a MultiWorkerMirroredStrategy: the chief writes the files; places count from 0."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy, self.is_chief = strategy, is_chief(strategy)
        # Every process has equally many replicas: of n each, the second one has n to 2 n - 1.
        ids = strategy.experimental_distribute_values_from_function(lambda context: context.replica_id_in_sync_group)
        own = strategy.experimental_local_results(ids)
        self.place, self.number = int(own[0]) // len(own), strategy.num_replicas_in_sync // len(own)

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
        state, metrics, seconds = _take_steps(folder, stores, scaling, centres.index(source_centre), workers)
        parameters = state.model.count_params()
        record |= {"seconds": round(seconds, 1), "losses": metrics, "parameters": parameters}
        if not workers.is_chief:
            return TrainedAutoencoder(folder.path, config, record, scaling, state.model)
        save_weights(state.model, folder.path / WEIGHTS)
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
    folder: AutoencoderFolder, stores: Mapping[str, StorePath], scaling: FeatureScaling, source: int, workers: Workers
) -> tuple[TrainingState, dict[str, float], float]:
    """Train from the last checkpoint on; return the state, what the last step measured, and seconds in all."""
    config, num_steps, strategy, is_chief = folder.config, folder.num_steps, workers.strategy, workers.is_chief
    names = metric_names(config)
    with strategy.scope():
        state = TrainingState.build(config, len(stores))
    start_step, metrics = _restore(state, len(names), folder.path / CHECKPOINTS, workers)
    train_step = make_train_step(state, config, strategy, source, len(stores))
    share = {"num_replicas": strategy.num_replicas_in_sync, "num_pipelines": workers.number, "pipeline": workers.place}
    parts = make_batches(config, stores, scaling, source=source, start_step=start_step, **share)
    watch = CollapseWatch(len(stores))
    log = TrainingLog(folder.path if is_chief else None, names, every=config.log_every, start_step=start_step)
    bar = Bar(total=num_steps, initial=start_step, desc="autoencoder", unit="step", disable=not is_chief)
    with held_back() as interruption, closing(parts), log, bar:
        for step in range(start_step + 1, num_steps + 1):
            weight = tf.constant(config.adaptation_weight(step - 1), tf.float32)
            batch = strategy.experimental_distribute_values_from_function(lambda _: next(parts))
            with workers.together():
                metrics = train_step(batch, weight).numpy()
            # The terms before their sum, which is never finite when a term is not.
            for i in (*range(1, len(names)), 0):
                if not np.isfinite(metrics[i]):
                    advice = "lower learning_rate or beta and train again"
                    raise InputError(f"{names[i]} is {metrics[i]} at step {step}; {advice}")
            is_last, is_interrupted = step == num_steps, interruption.is_due
            means = log.add(step, metrics, last=is_last)
            if is_chief and means is not None:
                watch.add(step, means)
            if is_chief and (step % config.checkpoint_every == 0 or is_last or is_interrupted):
                save_checkpoint(folder.path / CHECKPOINTS, step, state.get_values(), metrics)
            if is_interrupted:
                interruption.check()
            bar.set_postfix({name: f"{x:.4f}" for name, x in zip(LOSSES, metrics, strict=False)}, refresh=False)
            bar.update()
        return state, dict(zip(names, metrics.tolist(), strict=True)), log.seconds


def _restore(state: TrainingState, num_metrics: int, folder: Path, workers: Workers) -> tuple[int, np.ndarray]:
    """Set the state to that of the last checkpoint, if any; return the steps done and what the last measured."""
    initial, nothing = state.get_values(), np.zeros(num_metrics, np.float32)

    def load() -> list[np.ndarray]:
        step, metrics, values = load_newest_checkpoint(folder) or (0, nothing, initial)
        if [value.shape for value in (metrics, *values)] != [value.shape for value in (nothing, *initial)]:
            raise InputError(f"{folder}: checkpoints of another network; train again with --overwrite")
        return [np.int64(step), metrics, *values]

    step, metrics, *values = workers.from_chief(load, like=[np.int64(0), nothing, *initial])
    if step:
        for variable, value in zip(state.variables, values, strict=True):
            variable.assign(value)
        logger.info("resuming after step %d", step)
    return int(step), metrics
