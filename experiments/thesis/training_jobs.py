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

from autoencoder.config import AutoencoderConfig
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.interruption import handle_signals
from mrcnn.files.progress import Bar, hide_bars

EMBEDDING = "embedding.h5ad"
ADVICE = "run the same command again to go on from here, with a smaller --jobs if memory ran out"


@dataclass(frozen=True)
class TrainingJob:
    """An autoencoder to train, and to embed all cells with.

    Attributes:
        config: the settings.
        stores: feature store by centre.
        folder: of the autoencoder; the embedding lies in it.
        splits: by centre and image id, the part of the split.
    """

    config: AutoencoderConfig
    stores: Mapping[str, Path]
    folder: Path
    splits: Mapping[str, Mapping[str, str]]


def run_job(job: TrainingJob, resume: bool = True) -> None:
    """Train, as far as that is not done unless `resume` is False, and embed; errors are those of both."""
    import keras

    from autoencoder.embedding import embed
    from autoencoder.training import train_autoencoder

    # Graphs of earlier trainings would stay in memory.
    keras.utils.clear_session()
    train_autoencoder(job.config, job.stores, job.folder, resume=resume)
    embed(job.folder, job.stores, job.folder / EMBEDDING, splits=job.splits)


def default_jobs() -> int:
    """How many trainings at a time: 2 where there are several cores and no GPU, else 1.

    A short training spends much of its time on building its graph, which one core does alone.
    """
    import tensorflow as tf

    return 1 if (os.cpu_count() or 1) < 2 or tf.config.list_physical_devices("GPU") else 2


def run_jobs(jobs: Sequence[TrainingJob], num_processes: int, *, resume: bool = True) -> None:
    """Run several jobs; those that are done stay done if another one fails or all are interrupted.

    Several at a time take processes of their own, which share the cores out evenly and take the GPUs in turn. A fault
    is raised once the others that had begun have ended. An interruption ends them after the step at hand. `resume`
    False removes earlier trainings of these jobs first.
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
        is_broken = context.Event()
        start = (context.Value("i", 0), max(1, (os.cpu_count() or 1) // num_processes), is_broken)
        waiting, running = list(jobs), set[Future]()
        with ProcessPoolExecutor(num_processes, context, _start_worker, start) as pool:
            try:
                while waiting or running:
                    # No more are handed out than run at once, so that none begins after a fault.
                    while waiting and len(running) < num_processes:
                        running.add(pool.submit(_run_in_worker, waiting.pop(0), resume))
                    pool.submit(int)  # a pool notices the death of those processes alone that an earlier call began
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                        bar.update()
            except BrokenProcessPool:
                is_broken.set()
                what = "a process of --jobs was killed, as happens where memory runs out"
                raise InputError(f"{jobs[0].folder.parent}: {what}; {ADVICE}") from None
            except KeyboardInterrupt:
                for process in multiprocessing.active_children():
                    process.terminate()  # each saves after the step at hand
                raise


def _start_worker(num_started, threads: int, is_broken) -> None:
    """Prepare a process, number `num_started` of all, before TensorFlow computes on its `threads`."""
    global _is_broken
    _is_broken = is_broken
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
    import tensorflow as tf

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"warning: {job.folder.name}: %(message)s"))
    logger = logging.getLogger("autoencoder")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)
    with handle_signals():
        try:
            run_job(job, resume)
        except KeyboardInterrupt:
            # It would wait for the pool to end it, which a pool that lost a process does not.
            threading.Thread(target=lambda: _is_broken.wait() and os._exit(1), daemon=True).start()
            raise
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise InputError(f"{job.folder}: out of memory ({one_line(error)}); {ADVICE}") from None
