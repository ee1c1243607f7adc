"""TensorBoard event files, whose faults are errors of files and not of TensorFlow's graph."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import tensorflow as tf

from mrcnn.files.errors import InputError, one_line


class SummaryWriter:
    """Write numbers, step by step, to a file of events in `folder`; each writer makes one of its own.

    An `OSError` says that the disk is full, an `InputError` that the folder cannot be written to for another reason.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = os.fspath(folder)
        with self._faults():
            self._writer = tf.summary.create_file_writer(self._folder)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write one point of each curve, and flush them."""
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
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._folder) from None
        except tf.errors.OpError as error:
            raise InputError(f"{self._folder}: cannot be written ({one_line(error)}); choose another place") from None
