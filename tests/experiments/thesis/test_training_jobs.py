import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import tensorflow as tf

from autoencoder.config import AutoencoderConfig
from experiments.evaluation.vectors import read_vectors
from experiments.thesis import training_jobs
from experiments.thesis.training_jobs import EMBEDDING, TrainingJob, run_jobs
from mrcnn.files.errors import InputError

CONFIG = AutoencoderConfig(image_size=32, latent_size=4, global_batch_size=8, steps=1, adaptation="none")
# A run of jobs that train nothing and wait to be interrupted. Each process starts this module too.
PROGRAM = """
import os, sys, time
from pathlib import Path
from unittest.mock import MagicMock

tf = sys.modules["tensorflow"] = MagicMock()
tf.config.list_physical_devices.return_value = ["gpu 0", "gpu 1"]
tf.errors.ResourceExhaustedError = MemoryError
from experiments.thesis import training_jobs
from mrcnn.files.interruption import handle_signals, held_back

def wait(job, resume):
    job.folder.mkdir()
    (job.folder / "gpu").write_text(tf.config.set_visible_devices.call_args.args[0])
    (job.folder / "new").write_text(str(os.getpid()))
    (job.folder / "new").rename(job.folder / "pid")
    with held_back() as waiting:
        while not waiting.is_due:
            time.sleep(0.01)
        (job.folder / "saved").touch()
        waiting.check()

training_jobs.run_job = wait
if __name__ == "__main__":
    jobs = [training_jobs.TrainingJob({}, {}, Path(folder), {}) for folder in sys.argv[1:]]
    with handle_signals():
        training_jobs.run_jobs(jobs, 2)
"""


@pytest.fixture
def running(tmp_path):
    """A run of three jobs of which two have begun: its process, and by folder the processes of the two."""
    (tmp_path / "program.py").write_text(PROGRAM)
    folders = [tmp_path / name for name in "abc"]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not all((folder / "pid").exists() for folder in folders[:2]):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    yield process, {folder: int((folder / "pid").read_text()) for folder in folders[:2]}
    process.kill()
    process.wait()
    process.stderr.close()


def is_running(pid):
    """Whether a process has not ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_an_interruption_lets_every_process_save_and_begins_nothing_more(running, tmp_path):
    process, begun = running
    assert {(folder / "gpu").read_text() for folder in begun} == {"gpu 0", "gpu 1"}
    process.send_signal(signal.SIGTERM)
    assert "Interruption" in process.communicate()[1]
    assert all((folder / "saved").exists() for folder in begun)
    assert not (tmp_path / "c").exists()


def test_processes_end_with_the_one_that_started_them(running):
    process, begun = running
    process.kill()
    while any(map(is_running, begun.values())):
        time.sleep(0.01)
    assert not any((folder / "saved").exists() for folder in begun)


def test_a_killed_process_is_told_in_one_line(running):
    process, begun = running
    os.kill(next(iter(begun.values())), signal.SIGKILL)
    last = process.communicate()[1].strip().splitlines()[-1]
    assert "InputError" in last and "a process of --jobs was killed" in last and "smaller --jobs" in last
    assert not any(map(is_running, begun.values()))


def test_run_jobs_ends_those_that_began_though_another_one_fails(study_data, tmp_path):
    splits = {"anna": {"images/00.png": "test"}}
    job = TrainingJob(CONFIG, study_data[1], tmp_path / "right", splits)
    wrong = replace(job, config=CONFIG.replace(source_centre="carl"), folder=tmp_path / "wrong")
    with pytest.raises(InputError, match=r"source_centre 'carl' is not among the centres \(anna, bert\)"):
        run_jobs([wrong, job], 2)
    latents = read_vectors(job.folder / EMBEDDING)
    assert {c: vectors.shape for c, (vectors, _) in latents.items()} == {"anna": (20, 4), "bert": (20, 4)}


def test_lack_of_memory_is_told_in_one_line(tmp_path, monkeypatch):
    logger = logging.getLogger("autoencoder")
    for name in ("handlers", "propagate", "level"):  # as they are, after the test
        monkeypatch.setattr(logger, name, getattr(logger, name))
    for error in (tf.errors.ResourceExhaustedError(None, None, "full"), MemoryError("full")):
        monkeypatch.setattr(training_jobs, "run_job", MagicMock(side_effect=error))
        with pytest.raises(InputError, match=r"7: out of memory \(full\); run .*smaller --jobs"):
            training_jobs._run_in_worker(TrainingJob(CONFIG, {}, tmp_path / "7", {}), True)
