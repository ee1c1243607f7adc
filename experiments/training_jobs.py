"""Training many autoencoders, one after the other or several at a time in processes of their own."""

import logging
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mrcnn.errors import InputError

log = logging.getLogger(__name__)

EMBEDDING = "embedding.h5ad"


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


def run_job(job: TrainingJob, command: Sequence[str], resume: bool = True, progress: bool = False) -> Path:
    """Train and embed; what is there already is kept.

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
    train_autoencoder(config, job.stores, job.folder, resume=resume, progress=progress, command=command)
    path = job.folder / EMBEDDING
    if not is_embedding_of(path, job.folder):
        embed(job.folder, job.stores, path, splits=job.splits, progress=progress)
    return path


def run_jobs(jobs: Sequence[TrainingJob], num_processes: int, command: Sequence[str], *, progress: bool = True) -> None:
    """Run several jobs.

    Those that are done stay done if another one fails; the fault is raised once the others that had begun have ended.

    Args:
        jobs: what to train.
        num_processes: how many at a time. More than 1 takes processes of their own, which share the cores out evenly.
        command: the command line, for `run.json`.
        progress: show a bar.

    Raises:
        InputError: of the first job that failed.
    """
    if not jobs:
        return
    bar = tqdm(total=len(jobs), desc="autoencoders", disable=None if progress else True)
    if num_processes <= 1 or len(jobs) == 1:
        with bar:
            for job in jobs:
                run_job(job, command, progress=progress and len(jobs) == 1)
                bar.update()
        return
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    pool = ProcessPoolExecutor(
        num_processes, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(threads,)
    )
    with bar, pool:
        futures = {pool.submit(run_job, job, command): job for job in jobs}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except (InputError, OSError):
                    raise
                except Exception as error:
                    # A process that was killed, as where memory ran out, takes the whole pool down.
                    reason = " ".join((str(error) or type(error).__name__).split())
                    raise InputError(
                        f"{futures[future].folder}: its training ended early ({reason}); run the same command again, "
                        "with a smaller --jobs if memory ran out"
                    ) from error
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(threads: int) -> None:
    """Limit the threads of a process, before TensorFlow computes anything."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    logging.getLogger("autoencoder").setLevel(logging.ERROR)
