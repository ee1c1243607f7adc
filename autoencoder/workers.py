"""Processes that share a training: what the chief knows and the others have to be told."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from mrcnn.files.devices import is_chief, place_of
from mrcnn.files.errors import InputError


class Workers:
    """One process, or several under a MultiWorkerMirroredStrategy: the chief writes the files; places count from 0."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy, self.is_chief = strategy, is_chief(strategy)
        self.place, self.number = place_of(strategy)

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

        @tf.function
        def send(values):
            def pick(values):
                context = tf.distribute.get_replica_context()
                # The first replica of all is the chief's; where the others hold NaN, a product would keep it.
                first = tf.equal(context.replica_id_in_sync_group, 0)
                mine = [tf.where(first, value, tf.zeros_like(value)) for value in values]
                return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

            return [self.strategy.experimental_local_results(v)[0] for v in self.strategy.run(pick, args=(values,))]

        return [value.numpy() for value in send([tf.constant(array, tf.float64) for array in arrays])]
