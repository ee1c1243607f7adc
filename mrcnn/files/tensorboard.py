"""TensorBoard event files, written so that a full disk does not end a training."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import tensorflow as tf

from mrcnn.files.errors import InputError


class SummaryWriter:
    """Write numbers, step by step, to a file of events.

    What TensorFlow raises where a file cannot be written names an operation of its graph; here it is one line.

    Args:
        folder: gets the file; each writer makes one of its own.

    Raises:
        OSError: if the disk is full.
        InputError: if the folder cannot be written to for another reason.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = Path(folder)
        with self._faults():
            self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write one point of each curve, and flush them.

        Raises:
            OSError, InputError: as above.
        """
        with self._faults():
            with self._writer.as_default():
                for name, value in values.items():
                    tf.summary.scalar(name, value, step=step)
            self._writer.flush()

    def close(self) -> None:
        """Close the file; all that was written is flushed."""
        with suppress(tf.errors.OpError):
            self._writer.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.ResourceExhaustedError:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder)) from None
        except tf.errors.OpError as error:
            reason = " ".join(str(error.message).split())[:200]
            raise InputError(f"{self._folder}: cannot be written ({reason}); choose another place") from None
