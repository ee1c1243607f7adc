"""Training the detector by Keras: epochs, resumed after the last one, on one device or several."""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.data.augmentation import Augmentation
from mrcnn.data.batches import TrainingImages
from mrcnn.data.dataset import Dataset
from mrcnn.files.devices import is_chief
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import (
    ReplicaBatches,
    StepBar,
    StepLog,
    StopAtFault,
    fit,
    list_checkpoints,
    load_newest_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from mrcnn.files.hdf5 import load_weights
from mrcnn.training.folder import CHECKPOINTS, LOG
from mrcnn.training.step import LOSS_NAMES, DetectorModel, make_optimizer

log = logging.getLogger(__name__)


class KeepEpochs(keras.callbacks.Callback):
    """After each epoch write its checkpoint, and, where a path is given, the weights in Matterport's layout."""

    def __init__(self, folder: Path, weights_path: Callable[[int], Path] | None):
        super().__init__()
        self.folder, self.weights_path = folder, weights_path

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the files; a kill between them leaves the checkpoint before, to whose weights the others belong."""
        save_checkpoint(self.model, self.folder, epoch + 1, kept=2)
        if self.weights_path:
            self.model.save_weights(self.weights_path(epoch + 1))
        remove_checkpoints(self.folder, kept=1)


def fit_detector(
    model: DetectorModel,
    config: Config,
    train: Sequence[Dataset],
    validation: Sequence[Dataset],
    *,
    epochs: int,
    learning_rate: float,
    folder: Path,
    augmentation: Augmentation | None,
    first_epoch: int | None = None,
    is_resumed: bool = True,
    no_augmentation_sources: Collection[str] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    weights_path: Callable[[int], Path] | None = None,
) -> None:
    """Train up to a number of epochs. Other arguments are of `MaskRCNN.train`.

    Args:
        model: changed in place; its strategy shares the batches.
        config: settings; BATCH_SIZE is that of the global batch.
        train: datasets to learn from.
        validation: for the validation losses; none are computed if it is empty or VALIDATION_STEPS is 0.
        folder: takes `log.csv` and `checkpoint/`.
        first_epoch: epochs that the weights have had; None takes weights and optimiser of the newest checkpoint.
        is_resumed: whether the optimiser's state of `first_epoch` is taken from its checkpoint, if there is one.
        weights_path: gives the path for the weights after an epoch; None keeps none but the last.

    Raises:
        InputError: if there are no images, the batch cannot be divided, a loss is not finite, or the checkpoint in
            `folder` does not fit.
    """
    if not any(dataset.num_images for dataset in train):
        raise InputError("the detector has no image to train on: give a centre with masks")
    strategy = model.distribute_strategy
    if config.BATCH_SIZE % strategy.num_replicas_in_sync:
        raise InputError(
            f"a batch of {config.BATCH_SIZE} images (IMAGES_PER_GPU x GPU_COUNT) cannot be shared evenly by "
            f"{strategy.num_replicas_in_sync} devices"
        )
    steps_per_epoch = math.ceil(config.STEPS_PER_EPOCH)  # scripts divide for it
    with strategy.scope():
        compile_detector(model, learning_rate, epochs * steps_per_epoch)
        if first_epoch is None:
            first_epoch = load_newest_checkpoint(model, folder / CHECKPOINTS)
        elif is_resumed:
            _load_optimizer(model, folder / CHECKPOINTS, first_epoch)
        if not isinstance(model.optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            model.optimizer.learning_rate = learning_rate  # not the checkpoint's
    if first_epoch >= epochs:
        return
    if first_epoch:
        log.info("detector: going on after epoch %d of %d", first_epoch, epochs)
    chief = is_chief(strategy)
    first_step, total = first_epoch * steps_per_epoch, epochs * steps_per_epoch
    advice = "lower LEARNING_RATE, or check the masks; the last epoch's checkpoint is kept"
    watchers = [
        StopAtFault((*LOSS_NAMES, "loss"), advice),
        StepBar(total=total, initial=first_step, desc="detector", disable=not chief),
        *([StepLog(folder / LOG, first_epoch)] if chief else []),
        *callbacks,
        *([KeepEpochs(folder / CHECKPOINTS, weights_path)] if chief else []),
    ]
    images = TrainingImages(
        train, config, config.BATCH_SIZE, augmentation, no_augmentation_sources=no_augmentation_sources
    )
    held_out = None
    if config.VALIDATION_STEPS and any(dataset.num_images for dataset in validation):
        number = math.ceil(config.VALIDATION_STEPS)
        held_out = TrainingImages(validation, config, config.BATCH_SIZE, shuffle=False, num_batches=number)
        held_out = ReplicaBatches(held_out, strategy)
    with _without_graph_rewriting():
        batches = ReplicaBatches(images, strategy, first_step)
        lengths = {"steps_per_epoch": steps_per_epoch, "initial_epoch": first_epoch, "epochs": epochs}
        fit(model, batches, held_out, callbacks=watchers, **lengths)


def compile_detector(model: DetectorModel, learning_rate: float, total_steps: int) -> None:
    """Compile the model as its config says, in the scope of its strategy; not again where nothing has changed.

    The optimiser of an earlier training goes on. It is built on the layers that are frozen too, so that a run that
    began with `layers="heads"` can go on with "all".
    """
    optimizer = make_optimizer(model.config, learning_rate, total_steps)
    schedule = optimizer._learning_rate
    wanted = [tuple(variable.path for variable in model.trainable_variables)]
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        wanted.append(tuple(schedule.get_config().values()))
    if model.compiled_for == tuple(wanted):
        return
    if model.compiled_for is None:
        optimizer.build(_learnable_variables(model))
    else:
        optimizer = model.optimizer
        if len(wanted) > 1:
            optimizer.learning_rate = schedule
    model.compile(optimizer=optimizer, jit_compile=False)
    model.compiled_for = tuple(wanted)


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


def _learnable_variables(model: DetectorModel) -> list[keras.Variable]:
    """Every variable that can learn, those of frozen layers included."""
    frozen = [layer for layer in model.weighted_layers() if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    variables = list(model.trainable_variables)
    for layer in frozen:
        layer.trainable = False
    return variables


def _load_optimizer(model: DetectorModel, folder: Path, epoch: int) -> None:
    """The optimiser's state after an epoch, if its checkpoint is there; the weights stay as they are."""
    path = dict(list_checkpoints(folder)).get(epoch)
    if path is not None:
        weights = model.get_weights()
        load_weights(model, path, advice="the training cannot resume from it: give another model_dir, or remove it")
        model.set_weights(weights)
