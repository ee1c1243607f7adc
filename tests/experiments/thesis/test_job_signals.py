"""Ctrl-C and SIGTERM in the processes of --jobs."""

import multiprocessing
import signal
import time
from multiprocessing.util import register_after_fork

import pytest

from experiments.thesis import training_jobs
from mrcnn.files.interruption import Interruption, held_back


def work(alive, flag, folder):
    """A training in a process of --jobs: it saves after the step in which it is asked to end."""
    training_jobs._end_with(alive, flag)
    with held_back() as waiting:
        (folder / "begun").touch()
        try:
            for _ in range(2000):
                time.sleep(0.01)
                waiting.check()
        except Interruption:
            (folder / "saved").touch()
            raise


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_jobs_save_when_they_are_interrupted_but_not_when_their_parent_is_gone(tmp_path, is_interrupted):
    context = multiprocessing.get_context("fork")
    alive, end = context.Pipe(duplex=False)
    flag = context.Value("b", False, lock=False)
    process = context.Process(target=work, args=(alive, flag, tmp_path))
    # The child must not hold this end itself, as one that is spawned does not.
    register_after_fork(end, lambda connection: connection.close())
    process.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    flag.value = is_interrupted
    end.close()
    process.join(30)
    assert process.exitcode not in (0, None)
    assert (tmp_path / "saved").exists() == is_interrupted


def test_worker_leaves_signals_to_the_first_process(monkeypatch):
    ignored = []
    monkeypatch.setattr(training_jobs.signal, "signal", lambda number, handler: ignored.append((number, handler)))
    monkeypatch.setattr(training_jobs, "_end_with", lambda *arguments: (_ for _ in ()).throw(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        training_jobs._start_worker(None, None, 1)
    assert ignored == [(signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_IGN)]


def test_interruption_sets_the_flag_before_the_pipe_is_closed(monkeypatch, tmp_path):
    seen = []

    class Pool:
        """A pool that is interrupted while it waits."""

        def __init__(self, processes, context, start, arguments):
            self.alive, self.flag = arguments[0], arguments[3]

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            pass

        def submit(self, *arguments):
            raise Interruption(signal.SIGTERM)

        def shutdown(self, cancel_futures):
            assert self.alive.poll(0), "the pipe is closed"
            seen.append(bool(self.flag.value))

    monkeypatch.setattr(training_jobs, "ProcessPoolExecutor", Pool)
    jobs = [training_jobs.TrainingJob({}, {}, tmp_path / name, {}) for name in "ab"]
    with pytest.raises(Interruption):
        training_jobs.run_jobs(jobs, 2)
    assert seen == [True]
