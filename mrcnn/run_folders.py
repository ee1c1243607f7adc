"""Matterport's folders of runs: `<model_dir>/<name><date>/mask_rcnn_<name>_<epoch>.h5`."""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from mrcnn.errors import InputError

# Windows' separator too, in paths that old scripts carry around.
CHECKPOINT_PATH = re.compile(r"(?:.*[/\\])?[\w-]+\d{8}T\d{4,6}[/\\]mask_rcnn_[\w-]+_(\d{4})\.h5$")


class MissingCheckpoint(InputError, FileNotFoundError):
    """There is no checkpoint to go on from; scripts may catch it under either name."""


class RunFolder(NamedTuple):
    """A run's folder and how far it has come.

    Attributes:
        folder: of its checkpoints and logs.
        epoch: epochs that it has had.
    """

    folder: Path
    epoch: int


def run_folder(
    model_dir: str | os.PathLike, name: str, model_path: str | os.PathLike | None = None, now: datetime | None = None
) -> RunFolder:
    """The folder that a run writes to: that of the checkpoint it goes on from, or a new one with the date.

    Args:
        model_dir: folder of all runs.
        name: of the configuration.
        model_path: weights that were loaded, or None.
        now: time of a new folder's name; None takes the clock.
    """
    match = CHECKPOINT_PATH.match(str(model_path)) if model_path else None
    if match:
        return RunFolder(Path(model_path).parent, int(match.group(1)))
    date = (now or datetime.now()).strftime("%Y%m%dT%H%M%S")
    return RunFolder(Path(model_dir) / f"{name.lower()}{date}", 0)


def checkpoint_name(name: str, epoch: int | str) -> str:
    """File name of the weights after `epoch` epochs; text such as "{epoch:04d}" stands in for a number."""
    number = f"{epoch:04d}" if isinstance(epoch, int) else epoch
    return f"mask_rcnn_{name.lower()}_{number}.h5"


def find_last(model_dir: str | os.PathLike, name: str) -> Path:
    """The newest checkpoint of the newest run.

    Raises:
        MissingCheckpoint: if there is no run of that name, or it has no checkpoint.
    """
    key = name.lower()
    # Somebody may have added a word to the date.
    dated = re.compile(re.escape(key) + r"\d{8}T\d{4,6}(?!\d)")
    folders = sorted(p for p in Path(model_dir).glob(f"{key}*") if p.is_dir() and dated.match(p.name))
    if not folders:
        raise MissingCheckpoint(f"{model_dir}: no run of {key!r} there; train one, or name the weights")
    checkpoints = sorted(folders[-1].glob("mask_rcnn*.h5"))
    if not checkpoints:
        raise MissingCheckpoint(f"{folders[-1]}: no checkpoint there; its training ended before the first epoch did")
    return checkpoints[-1]
