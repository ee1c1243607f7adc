"""Trainings that repeat to the last bit."""

import tensorflow as tf

from mrcnn.files.errors import InputError


def compute_on_one_thread() -> None:
    """Let TensorFlow compute on one thread, so that the same seed gives the same numbers on the same machine.

    What several threads add up depends on which comes first; the differences grow with every step. On a GPU this
    changes nothing, since the gradient of RoIAlign has no repeatable kernel there.

    Raises:
        InputError: if TensorFlow has computed already.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        raise InputError("a repeatable run must be asked for before TensorFlow has computed anything") from None
