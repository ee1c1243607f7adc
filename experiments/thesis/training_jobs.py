"""Training of many autoencoders, one after the other or several at a time in processes of their own."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.files.errors import InputError, first_line
from mrcnn.files.interruption import handle_signals
from mrcnn.files.progress import Bar, hide_bars

EMBEDDING = "embedding.h5ad"
ADVICE = "run the same command again to go on from here, with a smaller --jobs if memory ran out"
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


def run_job(job: TrainingJob, resume: bool = True) -> None:
    """Train and embed; what is there already is kept, unless `resume` is False.

    Raises:
        InputError: as `train_autoencoder` and `embed`, naming the folder.
    """
    import keras

    from autoencoder.config import AutoencoderConfig
    from autoencoder.embedding import embed, is_embedding_of
    from autoencoder.training import train_autoencoder

    # Graphs of earlier trainings would stay in memory.
    keras.utils.clear_session()
    train_autoencoder(AutoencoderConfig.from_dict(job.config), job.stores, job.folder, resume=resume)
    path = job.folder / EMBEDDING
    if not is_embedding_of(path, job.folder):
        embed(job.folder, job.stores, path, splits=job.splits)


def default_jobs() -> int:
    """How many trainings at a time: 2 where there are several cores and no GPU, else 1.

    A short training spends much of its time on building its graph, which one core does alone.
    """
    import tensorflow as tf

    return 1 if (os.cpu_count() or 1) < 2 or tf.config.list_physical_devices("GPU") else 2


def run_jobs(jobs: Sequence[TrainingJob], num_processes: int, *, resume: bool = True) -> None:
    """Run several jobs; those that are done stay done if another one fails or all are interrupted.

    A fault is raised once the others that had begun have ended. An interruption ends them after the step at hand.

    Args:
        jobs: what to train.
        num_processes: how many at a time. More than 1 takes processes of their own, which share the cores out evenly
            and take the GPUs in turn.
        resume: False removes earlier trainings of these jobs first.

    Raises:
        InputError: of the first job that failed, or if a process was killed.
    """
    num_processes = min(num_processes, len(jobs))
    if not jobs:
        return
    with Bar(total=len(jobs), desc="autoencoders", disable=None) as bar:
        if num_processes == 1:
            for job in jobs:
                run_job(job, resume)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        start = (context.Value("i", 0), max(1, (os.cpu_count() or 1) // num_processes))
        with ProcessPoolExecutor(num_processes, context, _start_worker, start) as pool:
            try:
                _run_in_pool(pool, num_processes, list(jobs), resume, bar)
            except KeyboardInterrupt:
                for process in multiprocessing.active_children():
                    process.terminate()  # each saves after the step at hand
                raise


def _run_in_pool(pool: ProcessPoolExecutor, num_processes: int, waiting: list[TrainingJob], resume: bool, bar) -> None:
    """Run all jobs. No more are handed out than run at once, so that none begins after a fault."""
    running: dict[Future, TrainingJob] = {}
    while waiting or running:
        while waiting and len(running) < num_processes:
            job = waiting.pop(0)
            running[pool.submit(_run_in_worker, job, resume)] = job
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            _check(future, running.pop(future))
            bar.update()


def _check(future: Future, job: TrainingJob) -> None:
    """Raise what a job raised, as an InputError where the user can mend it."""
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


def _start_worker(num_started, threads: int) -> None:
    """Prepare a process, before TensorFlow computes anything.

    Args:
        num_started: shared count of the processes.
        threads: that this one may compute on.
    """
    # Ctrl-C reaches all processes of a terminal; the first one decides, and sends the others SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    hide_bars()
    Bar.set_lock(threading.RLock())  # that for several processes would be left behind by one that is killed
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    with num_started.get_lock():
        number, num_started.value = num_started.value, num_started.value + 1
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        own = gpus[number % len(gpus)]
        tf.config.set_visible_devices(own, "GPU")
        tf.config.experimental.set_memory_growth(own, True)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _end_with_parent() -> None:
    """End this process with the one that started it, whatever ended that."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_in_worker(job: TrainingJob, resume: bool) -> None:
    """Run a job, and let its warnings say which it is."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"warning: {job.folder.name}: %(message)s"))
    logger = logging.getLogger("autoencoder")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)
    with handle_signals():
        run_job(job, resume)
