import multiprocessing
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.evaluation.vectors import read_vectors
from experiments.thesis import training_jobs
from experiments.thesis.training_jobs import EMBEDDING, TrainingJob, run_jobs
from mrcnn.files.errors import InputError

CONFIG = {"image_size": 32, "latent_size": 4, "global_batch_size": 8, "steps": 1, "adaptation": "none"}


@pytest.fixture(scope="module")
def jobs(study_data, tmp_path_factory):
    """Two trainings that differ in their seed."""
    root = tmp_path_factory.mktemp("jobs")
    splits = {"anna": {"images/00.png": "test"}}
    return [TrainingJob({**CONFIG, "seed": seed}, study_data[1], root / str(seed), splits) for seed in (1, 2)]


@pytest.fixture(scope="module")
def fault(jobs):
    """What a run in two processes raises whose third job asks for a centre that is not there."""
    wrong = replace(jobs[0], config={**CONFIG, "source_centre": "carl"}, folder=jobs[0].folder.with_name("wrong"))
    with pytest.raises(InputError) as raised:
        run_jobs([*jobs, wrong], 2)
    return str(raised.value)


def test_run_jobs_brings_the_fault_of_a_process_as_it_is(fault):
    assert fault == "source_centre 'carl' is not among the centres (anna, bert)"


def test_run_jobs_gives_in_processes_what_it_gives_in_turn(jobs, fault, tmp_path):
    # The two that were sound are done, though the third failed.
    first, second = (read_vectors(job.folder / EMBEDDING) for job in jobs)
    run_jobs([replace(jobs[1], folder=tmp_path)], 1)
    serial = read_vectors(tmp_path / EMBEDDING)
    for centre in ("anna", "bert"):
        np.testing.assert_allclose(second[centre][0], serial[centre][0], atol=1e-4)
        assert np.abs(first[centre][0] - serial[centre][0]).max() > 0.01  # another seed, other latents


def test_a_process_ends_with_the_one_that_started_it():
    context = multiprocessing.get_context("spawn")
    alive, end = context.Pipe(duplex=False)
    with ProcessPoolExecutor(1, context, training_jobs._end_with, (alive,)) as pool:
        pool.submit(time.sleep, 0).result()
        started = time.monotonic()
        sleeping = pool.submit(time.sleep, 60)
        end.close()
        with pytest.raises(BrokenProcessPool):
            sleeping.result()
    assert time.monotonic() - started < 20


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (BrokenProcessPool("terminated abruptly"), InputError, "a process of --jobs was killed.*smaller --jobs"),
        (ResourceExhaustedError("OOM\nmore"), InputError, r"7: out of memory \(OOM\); run .*smaller --jobs"),
        (MemoryError(), InputError, r"7: out of memory \(MemoryError\)"),
        (OSError(28, "No space left on device", "x.h5"), OSError, "No space left"),
        (KeyError("a fault of ours"), KeyError, "a fault of ours"),
    ],
)
def test_run_jobs_makes_one_line_of_what_the_user_can_mend(monkeypatch, tmp_path, error, expected, message):
    class Pool:
        """A pool in which every job ends by the error."""

        def __init__(self, *arguments):
            self.cancelled = False

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            assert self.cancelled

        def submit(self, *arguments):
            future = Future()
            future.set_exception(error)
            return future

        def shutdown(self, cancel_futures):
            self.cancelled = cancel_futures

    monkeypatch.setattr(training_jobs, "ProcessPoolExecutor", Pool)
    jobs = [TrainingJob({}, {}, tmp_path / "7", {})] * 2
    with pytest.raises(expected, match=message) as raised:
        run_jobs(jobs, 2)
    if expected is InputError:
        assert "\n" not in str(raised.value)


def test_a_process_takes_its_gpu_and_its_share_of_the_threads(monkeypatch):
    import tensorflow as tf

    calls = []

    def note(name):
        return lambda *arguments: calls.append((name, *arguments))

    monkeypatch.setattr(training_jobs, "_end_with", note("end_with"))
    monkeypatch.setattr(training_jobs.signal, "signal", note("signal"))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu0", "gpu1"])
    monkeypatch.setattr(tf.config, "set_visible_devices", note("visible"))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", note("growth"))
    threading = SimpleNamespace(
        set_intra_op_parallelism_threads=note("threads"), set_inter_op_parallelism_threads=note("graphs")
    )
    monkeypatch.setattr(tf.config, "threading", threading)
    counter = multiprocessing.get_context("spawn").Value("i", 0)
    for _ in range(3):
        training_jobs._start_worker(None, counter, 5)
    assert [call[1] for call in calls if call[0] == "visible"] == ["gpu0", "gpu1", "gpu0"]
    assert ("growth", "gpu1", True) in calls and ("threads", 5) in calls


def test_run_jobs_without_jobs_does_nothing():
    run_jobs([], 4)
