"""The begun epoch of a training that was interrupted: weights, optimiser state and the losses of its steps so far."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import keras

from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import save_weights

_NAME = re.compile(r"^part-(\d+)-(\d+)\.weights\.h5$")


class EpochPart(NamedTuple):
    """Where a training stands within an epoch.

    Attributes:
        epoch: epochs that are done.
        losses: of each step since then.
        path: weights and optimiser state.
    """

    epoch: int
    losses: list[dict[str, float]]
    path: Path


def save_part(folder: Path, model: keras.Model, epoch: int, losses: Sequence[dict[str, float]]) -> None:
    """Write the state between two steps of an epoch to a run's folder.

    Args:
        folder: of the run.
        model: with its optimiser.
        epoch: epochs that are done.
        losses: of each step since then, one at least.
    """
    path = folder / "checkpoint" / f"part-{epoch:04d}-{len(losses):06d}.weights.h5"
    # The losses first: where there are weights, there are the losses that belong to them.
    write_json(_losses_path(path), list(losses))
    save_weights(model, path)
    remove_parts(folder, kept=(path, _losses_path(path)))


def find_part(folder: Path, epoch: int, steps_per_epoch: int) -> EpochPart | None:
    """The furthest part after so many epochs, if an interruption left one.

    Args:
        folder: of the run.
        epoch: epochs that are done.
        steps_per_epoch: of the training that may go on from it; one of shorter epochs cannot.

    Raises:
        InputError: if its losses cannot be read.
    """
    found = []
    for path in (folder / "checkpoint").glob("part-*.weights.h5"):
        match = _NAME.match(path.name)
        if match and int(match[1]) == epoch and int(match[2]) <= steps_per_epoch:
            found.append((int(match[2]), path))
    if not found:
        return None
    steps, path = max(found)
    try:
        losses = json.loads(_losses_path(path).read_text(encoding="utf-8"))
        if len(losses) != steps:
            raise ValueError(f"losses of {len(losses)} steps")
        return EpochPart(epoch, losses, path)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{_losses_path(path)}: cannot be read ({error}); remove {path.name}, and this epoch begins again"
        ) from None


def remove_parts(folder: Path, kept: Collection[Path] = ()) -> None:
    """Remove what `save_part` wrote, once an epoch or the training is done."""
    # The weights before their losses, see `save_part`.
    for path in sorted((folder / "checkpoint").glob("part-*"), reverse=True):
        if path not in kept:
            path.unlink()


def _losses_path(path: Path) -> Path:
    return path.with_name(path.name.replace(".weights.h5", ".losses.json"))
