"""Networks and optimizers of a training, and their checkpoints."""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from autoencoder.adaptation import build_discriminator
from autoencoder.config import AutoencoderConfig
from autoencoder.network import build_autoencoder
from mrcnn.files.arrays import read_arrays
from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError, one_line

logger = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2
_NAME = re.compile(r"step-(\d{8})\.npz")


@dataclass(frozen=True)
class TrainingState:
    """Model and Adam of a training, with loss scaling under mixed_float16, and those of a discriminator if any."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    discriminator: keras.Model | None = None
    discriminator_optimizer: keras.optimizers.Optimizer | None = None

    @classmethod
    def build(cls, config: AutoencoderConfig, num_centres: int) -> "TrainingState":
        """Make everything anew, with weights that follow from the seed; to be called in the strategy's scope."""
        model = build_autoencoder(config)
        optimizer: keras.optimizers.Optimizer = keras.optimizers.Adam(config.learning_rate)
        if config.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
        if config.adaptation != "adversarial":
            return cls(model, optimizer)
        seed = int(np.random.SeedSequence(config.seed).generate_state(4)[3])  # the first three are the model's
        discriminator = build_discriminator(config.latent_size, num_centres, seed=seed)
        second = keras.optimizers.Adam(config.discriminator_learning_rate)
        second.build(discriminator.trainable_variables)
        return cls(model, optimizer, discriminator, second)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a checkpoint holds, in a fixed order."""
        parts = (self.model, self.optimizer, self.discriminator, self.discriminator_optimizer)
        return [variable for part in parts if part is not None for variable in part.variables]

    def get_values(self) -> list[np.ndarray]:
        """Copies of all variables."""
        return [np.array(variable) for variable in self.variables]

    def set_values(self, values: list[np.ndarray]) -> None:
        """Set all variables, on every replica."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)


def save_checkpoint(folder: str | os.PathLike, step: int, values: list[np.ndarray], metrics: np.ndarray) -> None:
    """Write the values of a state after a step, and what it measured, and remove all but the newest checkpoints."""
    with atomic_path(Path(folder) / f"step-{step:08d}.npz") as temporary, open(temporary, "wb") as handle:
        np.savez(handle, step=np.int64(step), metrics=metrics, **{f"{i:04d}": value for i, value in enumerate(values)})
    remove_old_checkpoints(folder)


def remove_old_checkpoints(folder: str | os.PathLike) -> None:
    """Remove all but the newest checkpoints, also those that a killed run did not come to remove."""
    for path in list_checkpoints(folder)[KEPT_CHECKPOINTS:]:
        path.unlink()


def list_checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The checkpoints in a folder, newest first; none if there is no such folder."""
    folder = Path(folder)
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, reverse=True)


def checkpoint_step(path: Path) -> int:
    """Number of steps that a checkpoint has had, by its name."""
    return int(_NAME.fullmatch(path.name)[1])


def load_newest_checkpoint(folder: str | os.PathLike) -> tuple[int, np.ndarray, list[np.ndarray]] | None:
    """Read the newest checkpoint that is whole; one that is damaged is passed over with a warning.

    Returns:
        Steps done, what the last of them measured, and the values; None if there is no checkpoint at all.

    Raises:
        InputError: if there are checkpoints, and all are damaged.
    """
    paths = list_checkpoints(folder)
    for path in paths:
        try:
            arrays = read_arrays(path, advice="it is passed over")  # each has a checksum
            step, metrics = int(arrays.pop("step")), arrays.pop("metrics")
            return step, metrics, [arrays[f"{i:04d}"] for i in range(len(arrays))]
        except (InputError, KeyError, TypeError) as error:
            logger.warning("%s: damaged checkpoint (%s), passed over", path, one_line(error))
    if paths:
        raise InputError(f"{paths[0].parent}: every checkpoint is damaged; train again with --overwrite")
    return None
