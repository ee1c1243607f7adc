"""What a training changes: networks and optimizers, and their checkpoints."""

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
from mrcnn.files.errors import InputError

logger = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2

_NAME = re.compile(r"step-(\d{8})\.npz")
_STEP, _METRICS = "step", "metrics"


@dataclass(frozen=True)
class TrainingState:
    """Networks and optimizers of a training.

    Attributes:
        model: as from `build_autoencoder`.
        optimizer: Adam, built for the model; with loss scaling under mixed_float16.
        discriminator: as from `build_discriminator`, under "adversarial".
        discriminator_optimizer: Adam, built for the discriminator.
    """

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
        """Set all variables, on every replica.

        Raises:
            ValueError: if their number or a shape differs.
        """
        for variable, value in zip(self.variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise ValueError(f"{variable.path}: shape {value.shape} instead of {tuple(variable.shape)}")
            variable.assign(value)


def save_checkpoint(
    folder: str | os.PathLike, step: int, values: list[np.ndarray], metrics: np.ndarray | None = None
) -> None:
    """Write the values of a state after a step, atomically, and remove all but the newest checkpoints.

    Args:
        folder: of the checkpoints.
        step: number of steps done.
        values: as from `TrainingState.get_values`.
        metrics: what the step measured.
    """
    folder = Path(folder)
    with atomic_path(folder / f"step-{step:08d}.npz") as temporary, open(temporary, "wb") as handle:
        about = {_STEP: np.int64(step), _METRICS: np.zeros(0) if metrics is None else metrics}
        np.savez(handle, **about, **{f"{i:04d}": value for i, value in enumerate(values)})
    remove_old_checkpoints(folder)


def remove_old_checkpoints(folder: str | os.PathLike) -> None:
    """Remove all but the newest checkpoints; a process that is killed may leave one more."""
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


def load_newest_checkpoint(folder: str | os.PathLike) -> tuple[int, list[np.ndarray]] | None:
    """Read the newest checkpoint that is whole; one that is damaged is passed over with a warning.

    Returns:
        Number of steps done, and the values; None if there is no checkpoint at all.

    Raises:
        InputError: if there are checkpoints, and all are damaged.
    """
    paths = list_checkpoints(folder)
    for path in paths:
        try:
            arrays = read_arrays(path, advice="it is passed over")
            num_values = len(arrays) - 1 - (_METRICS in arrays)
            return _step_of(path, arrays), [arrays[f"{i:04d}"] for i in range(num_values)]
        except (OSError, InputError, KeyError) as error:
            logger.warning("%s: damaged checkpoint (%s), passed over", path, str(error) or type(error).__name__)
    if paths:
        raise InputError(f"{paths[0].parent}: every checkpoint is damaged; train again with --overwrite")
    return None


def load_metrics(folder: str | os.PathLike, step: int) -> np.ndarray:
    """What the step that a checkpoint was written after had measured; empty if the checkpoint does not tell."""
    path = Path(folder) / f"step-{step:08d}.npz"
    arrays = read_arrays(path, advice="train again with --overwrite")
    return arrays.get(_METRICS, np.zeros(0))


def _step_of(path: Path, arrays: dict[str, np.ndarray]) -> int:
    step = arrays[_STEP]
    if step.shape != () or step.dtype.kind != "i" or int(step) != checkpoint_step(path):
        raise InputError(f"{path}: does not hold the step of its name")
    if any(value.dtype.kind not in "fiub" for value in arrays.values()):
        raise InputError(f"{path}: holds more than numbers")
    return int(step)
