"""TensorBoard event files, whose faults are errors of files and not of TensorFlow's graph."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import tensorflow as tf

from mrcnn.files.errors import one_line


class SummaryWriter:
    """Write numbers, step by step, to a file of events in `folder`; each writer makes one of its own."""

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
        except tf.errors.OpError as error:
            number = errno.ENOSPC if isinstance(error, tf.errors.ResourceExhaustedError) else errno.EIO
            raise OSError(number, one_line(error), self._folder) from None
