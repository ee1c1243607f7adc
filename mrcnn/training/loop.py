"""Training the detector: the loop over epochs, on one device or several, resumed after its last checkpoint."""

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.data.augmentation import Augmentation
from mrcnn.data.batches import Example, training_batches
from mrcnn.data.dataset import Dataset
from mrcnn.files.devices import is_chief
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import load_weights
from mrcnn.files.progress import Bar
from mrcnn.network.assembly import DetectorParts
from mrcnn.training.folder import LOG, checkpoints
from mrcnn.training.log import EpochLog, check_finite, read_rows
from mrcnn.training.step import DetectorTrainer, make_optimizer

log = logging.getLogger(__name__)


def fit_detector(
    parts: DetectorParts,
    config: Config,
    train: Sequence[Dataset],
    validation: Sequence[Dataset],
    *,
    epochs: int,
    learning_rate: float,
    folder: Path,
    augmentation: Augmentation | None,
    first_epoch: int | None = None,
    no_augmentation_sources: Collection[str] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    strategy: tf.distribute.Strategy | None = None,
) -> list[dict[str, Any]]:
    """Train, from the last finished epoch on that `folder` holds. Other arguments and results are of `MaskRCNN.train`.

    Args:
        parts: the weights, made in the scope of `strategy`; changed in place.
        config: settings; BATCH_SIZE is that of the global batch.
        train: datasets to learn from.
        validation: for the validation losses; none are computed if it is empty or VALIDATION_STEPS is 0.
        folder: takes `log.csv`, `checkpoint/` and `tensorboard/`.
        first_epoch: epochs that the weights have had; resumes from the checkpoint of just so many or the last one
            before. None takes the newest checkpoint.
        strategy: how several devices share the batch; None takes the one in force.

    Raises:
        InputError: if there are no images, the batch cannot be divided, a loss is not finite, or the checkpoint in
            `folder` does not fit.
    """
    if not any(dataset.num_images for dataset in train):
        raise InputError("the detector has no image to train on: give a centre with masks")
    strategy = strategy or tf.distribute.get_strategy()
    if config.BATCH_SIZE % strategy.num_replicas_in_sync:
        raise InputError(
            f"a batch of {config.BATCH_SIZE} images (IMAGES_PER_GPU x GPU_COUNT) cannot be shared evenly by "
            f"{strategy.num_replicas_in_sync} devices"
        )
    steps_per_epoch = math.ceil(config.STEPS_PER_EPOCH)  # scripts divide for it
    total_steps = epochs * steps_per_epoch
    with strategy.scope():
        trainer = DetectorTrainer(parts, config)
        trainer.compile(optimizer=make_optimizer(config, learning_rate, total_steps), jit_compile=False)
        trainer.optimizer.build(_learnable_variables(parts))
        first_epoch = _resume(trainer, folder, first_epoch)
        if not isinstance(trainer.optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            trainer.optimizer.learning_rate = learning_rate  # not the checkpoint's
    if first_epoch:
        log.info("detector: resuming after epoch %d of %d", first_epoch, epochs)
    rows = read_rows(folder / LOG, first_epoch)
    if first_epoch >= epochs:
        return rows
    first_step = first_epoch * steps_per_epoch
    chief = is_chief(strategy)
    records = EpochLog(folder if chief else None, rows)
    watchers = keras.callbacks.CallbackList(list(callbacks), model=trainer)
    watchers.set_params({"epochs": epochs, "steps": steps_per_epoch, "verbose": 0})
    train_step = _compiled(trainer.train_on_replica, strategy)
    validation_step = _compiled(trainer.validate_on_replica, strategy)
    trainer.stop_training = False
    batches = training_batches(
        train, config, config.BATCH_SIZE, augmentation, first_step, no_augmentation_sources=no_augmentation_sources
    )
    bar = Bar(total=total_steps, initial=first_step, desc="detector", unit="step", smoothing=0.05, disable=not chief)
    watchers.on_train_begin()
    try:
        with closing(batches), closing(bar), _without_graph_rewriting():
            bar.set_postfix_str("compiling the training step")
            for epoch in range(first_epoch, epochs):
                watchers.on_epoch_begin(epoch)
                losses = []
                for step in range(steps_per_epoch):
                    watchers.on_train_batch_begin(step)
                    losses.append(train_step(next(batches)))
                    check_finite(trainer, losses[-1])
                    bar.update()
                    bar.set_postfix_str(f"loss {losses[-1]['loss']:.3f}", refresh=False)
                    watchers.on_train_batch_end(step, losses[-1])
                if epoch == first_epoch:
                    bar.set_postfix_str("compiling the validation step")
                watchers.on_test_begin()
                logs = _means(losses) | _validate(validation, config, validation_step)
                watchers.on_epoch_end(epoch, logs)
                # The checkpoint comes last: where there is one, all else of its epoch is done.
                records.add(trainer, epoch + 1, logs)
                if trainer.stop_training:
                    break
    finally:
        watchers.on_train_end()
    return rows


@contextmanager
def _without_graph_rewriting() -> Iterator[None]:
    """Leave out TensorFlow's rewriting of graphs on a CPU while the block lasts.

    Of a graph this size it takes longer than all else before the first step, and the steps become no faster. On a GPU
    it chooses the layout of tensors, which pays.
    """
    option = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: before or not tf.config.list_logical_devices("GPU")})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def _learnable_variables(parts: DetectorParts) -> list[keras.Variable]:
    """Every variable that can learn, those of frozen layers included.

    The optimiser is built on all of them, so that a run that began with `layers="heads"` can go on with "all".
    """
    frozen = [layer for layer in parts.named_layers() if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    variables = list(parts.trainable_variables)
    for layer in frozen:
        layer.trainable = False
    return variables


def _resume(trainer: DetectorTrainer, folder: Path, first_epoch: int | None) -> int:
    """Load the checkpoint to resume from, if there is one; the number of epochs done."""
    done = dict(checkpoints(folder))
    if first_epoch is None:
        first_epoch = max(done, default=0)
    elif first_epoch not in done:
        # A kill between an epoch's weights and its checkpoint: that epoch is done again.
        first_epoch = max((epoch for epoch in done if epoch < first_epoch), default=first_epoch)
    if first_epoch in done:
        advice = "the training cannot resume from it: give another model_dir, or remove it"
        load_weights(trainer, done[first_epoch], advice=advice)
    return first_epoch


def _compiled(replica_step, strategy: tf.distribute.Strategy):
    """A step over a global batch: its losses, the same on every replica, as numbers."""

    @tf.function
    def step(batch):
        outputs = strategy.run(replica_step, args=(batch,))
        return {name: strategy.experimental_local_results(value)[0] for name, value in outputs.items()}

    def take(batch: Example) -> dict[str, float]:
        def part(context: tf.distribute.experimental.ValueContext) -> dict[str, tf.Tensor]:
            """The equal part of a replica; every process has read the whole batch."""
            size = len(batch["images"]) // context.num_replicas_in_sync
            start = size * context.replica_id_in_sync_group
            return {name: tf.constant(value[start : start + size]) for name, value in batch.items()}

        outputs = step(strategy.experimental_distribute_values_from_function(part))
        return {name: float(value) for name, value in outputs.items()}

    return take


def _validate(datasets: Sequence[Dataset], config: Config, step) -> dict[str, float]:
    """Mean losses, by name with "val_", over the same images whenever it is called."""
    if not config.VALIDATION_STEPS or not any(dataset.num_images for dataset in datasets):
        return {}
    with closing(training_batches(datasets, config, config.BATCH_SIZE, shuffle=False)) as batches:
        means = _means([step(batch) for batch in islice(batches, math.ceil(config.VALIDATION_STEPS))])
    return {f"val_{name}": value for name, value in means.items()}


def _means(losses: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in losses) / len(losses) for name in losses[0]}
