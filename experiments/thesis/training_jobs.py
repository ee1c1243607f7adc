"""Training many autoencoders, one after the other or several at a time in processes of their own."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mrcnn.files.errors import InputError, first_line
from mrcnn.files.interruption import interrupt, wait_for_blocks
from mrcnn.files.progress import Bar, hide_bars

log = logging.getLogger(__name__)

EMBEDDING = "embedding.h5ad"
ADVICE = "run the same command again to go on from here, with a smaller --jobs if memory ran out"
SECONDS_TO_SAVE = 60.0  # that a step and its checkpoint may take after an interruption
_OUT_OF_MEMORY = ("MemoryError", "ResourceExhaustedError")  # Python's and TensorFlow's, which is not imported here


@dataclass(frozen=True)
class TrainingJob:
    """An autoencoder to train, and to embed all cells with.

    Attributes:
        config: settings of `AutoencoderConfig`.
        stores: feature store by centre.
        folder: of the autoencoder; the embedding lies in it.
        splits: by centre and image key, the part of the split.
    """

    config: Mapping[str, Any]
    stores: Mapping[str, Path]
    folder: Path
    splits: Mapping[str, Mapping[str, str]]


def run_job(job: TrainingJob, resume: bool = True) -> Path:
    """Train and embed; what is there already is kept.

    Args:
        job: what to train.
        resume: False removes an earlier training first.

    Returns:
        Path of the embedding.

    Raises:
        InputError: as `train_autoencoder` and `embed`, naming the folder.
    """
    import keras

    from autoencoder.config import AutoencoderConfig
    from autoencoder.embedding import embed, is_embedding_of
    from autoencoder.training import train_autoencoder

    # Graphs of earlier trainings would stay in memory.
    keras.utils.clear_session()
    config = AutoencoderConfig.from_dict(job.config)
    train_autoencoder(config, job.stores, job.folder, resume=resume)
    path = job.folder / EMBEDDING
    if not is_embedding_of(path, job.folder):
        embed(job.folder, job.stores, path, splits=job.splits)
    return path


def default_jobs() -> int:
    """How many trainings at a time: 2 where there are several cores and no GPU, else 1.

    A short training spends much of its time on building its graph, which one core does alone.
    """
    import tensorflow as tf

    return 1 if (os.cpu_count() or 1) < 2 or tf.config.list_physical_devices("GPU") else 2


def run_jobs(
    jobs: Sequence[TrainingJob],
    num_processes: int,
    *,
    resume: bool = True,
) -> None:
    """Run several jobs.

    Those that are done stay done if another one fails; the fault is raised once the others that had begun have ended.
    An interruption ends them after the step at hand, and the end of this process, whatever ends it, at once.

    Args:
        jobs: what to train.
        num_processes: how many at a time. More than 1 takes processes of their own, which share the cores out evenly
            and take the GPUs in turn.
        resume: False removes earlier trainings of these jobs first.

    Raises:
        InputError: of the first job that failed, or if a process ended before its job.
    """
    if not jobs:
        return
    bar = Bar(total=len(jobs), desc="autoencoders", disable=None)
    num_processes = min(num_processes, len(jobs))
    if num_processes <= 1:
        with bar:
            for job in jobs:
                run_job(job, resume)
                bar.update()
        return
    context = multiprocessing.get_context("spawn")
    alive, end = context.Pipe(duplex=False)
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    is_interrupted = context.Value("b", False, lock=False)
    start = (alive, context.Value("i", 0), threads, is_interrupted)
    with bar, alive, end, ProcessPoolExecutor(num_processes, context, _start_worker, start) as pool:
        try:
            futures = {pool.submit(_run_in_worker, job, resume): job for job in jobs}
            for future in as_completed(futures):
                _check(future, futures[future])
                bar.update()
        except BaseException as error:
            if not isinstance(error, Exception):
                is_interrupted.value = True
                end.close()  # or an interruption would wait for hours of training
            pool.shutdown(cancel_futures=True)
            raise


def _check(future, job: TrainingJob) -> None:
    """Raise what a job raised.

    Raises:
        InputError: where the user can mend it.
    """
    try:
        future.result()
    except BrokenProcessPool:
        # It does not say which of the processes it was; the jobs of all of them end with it.
        raise InputError(
            f"{job.folder.parent}: a process of --jobs was killed, as happens where memory runs out; {ADVICE}"
        ) from None
    except Exception as error:
        if type(error).__name__ not in _OUT_OF_MEMORY:
            raise
        raise InputError(f"{job.folder}: out of memory ({first_line(error)}); {ADVICE}") from error


def _start_worker(alive: Connection, counter, threads: int, is_interrupted=None) -> None:
    """Prepare a process, before TensorFlow computes anything.

    Args:
        alive: see `_end_with`.
        counter: shared number of the processes that were started.
        threads: that it may compute on.
        is_interrupted: see `_end_with`.
    """
    # An interruption of the terminal reaches all its processes, as a scheduler's may; the first one decides.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _end_with(alive, is_interrupted)
    hide_bars()
    Bar.set_lock(threading.RLock())  # that for several processes would be left behind by one that is killed
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    with counter.get_lock():
        place, counter.value = counter.value, counter.value + 1
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        own = gpus[place % len(gpus)]
        tf.config.set_visible_devices(own, "GPU")
        tf.config.experimental.set_memory_growth(own, True)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _end_with(alive: Connection, is_interrupted=None) -> None:
    """End this process when the other end of a pipe is closed, as the death of the process that holds it does too.

    Args:
        alive: this end of the pipe.
        is_interrupted: shared flag, set before the pipe is closed where a training shall save its state first.
    """

    def wait() -> None:
        with suppress(EOFError, OSError):  # as Windows tells of it
            alive.poll(None)
        if is_interrupted is not None and is_interrupted.value:
            interrupt()
            wait_for_blocks(SECONDS_TO_SAVE)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run_in_worker(job: TrainingJob, resume: bool) -> Path:
    """Run a job, and let its warnings say which it is."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"warning: {job.folder.name}: %(message)s"))
    logger = logging.getLogger("autoencoder")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)
    return run_job(job, resume)
