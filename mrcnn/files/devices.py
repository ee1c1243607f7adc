"""Devices and processes that share a training, as strategies of `tf.distribute`, and trainings that repeat."""

import os
from collections.abc import Sequence

import tensorflow as tf

from mrcnn.files.errors import InputError
from mrcnn.files.json_io import parse_json


def mirrored_strategy(
    gpu_count: int, devices: Sequence[str] | None = None, *, option: str = "GPU_COUNT"
) -> tf.distribute.Strategy:
    """The strategy by which `gpu_count` devices share a batch; 1 gives the strategy in force.

    Devices are the first GPUs where none are named. An `InputError` says that the machine has fewer than `option` asks.
    """
    if gpu_count == 1 and devices is None:
        return tf.distribute.get_strategy()
    if devices is None:
        gpus = tf.config.list_logical_devices("GPU")
        if len(gpus) < gpu_count:
            seen = f"TensorFlow sees {len(gpus)} GPUs here"
            raise InputError(f"{option} is {gpu_count}, but {seen}; set {option} to that")
        devices = [gpu.name for gpu in gpus[:gpu_count]]
    return tf.distribute.MirroredStrategy(list(devices))


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


def multi_worker_strategy() -> tf.distribute.Strategy:
    """The strategy by which the processes that the environment variable TF_CONFIG names share a batch.

    Each process runs the same command with its own place in `task`. Only the chief, or else worker 0, writes files.
    Call it before TensorFlow has computed anything.

    Raises:
        InputError: if TF_CONFIG is missing or not what it should be.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        settings = parse_json(text)
        task = settings["task"]
        settings["cluster"][task["type"]][task["index"]]
    except (ValueError, LookupError, TypeError):
        example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
        what = f"several workers need the environment variable TF_CONFIG, as in {example}"
        raise InputError(f"{what}; it is {text or 'not set'}") from None
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files: always, unless it is a further worker of several."""
    return strategy.extended.should_checkpoint


def local_replicas(strategy: tf.distribute.Strategy) -> range:
    """Numbers of the replicas that this process has, of all that share a batch; every process has as many."""
    ids = strategy.experimental_distribute_values_from_function(lambda context: context.replica_id_in_sync_group)
    own = [int(number) for number in strategy.experimental_local_results(ids)]
    return range(own[0], own[0] + len(own))
