"""A training that is killed again and again ends where one that is left alone does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autoencoder.folder import read_run
from autoencoder.state import list_checkpoints

SCRIPT = str(Path(__file__).parent / "worker_process.py")
KILLS = int(os.environ.get("AECFE_KILLS", "6"))


@pytest.mark.slow
def test_training_killed_again_and_again_ends_with_the_same_weights(stores, tiny_settings, tmp_path):
    settings = {**tiny_settings, "steps": 120, "checkpoint_every": 3, "adaptation": "adversarial"}
    paths = json.dumps({centre: str(path) for centre, path in stores.items()})

    def start(name):
        command = [sys.executable, SCRIPT, "1", json.dumps(settings), paths]
        command += [str(tmp_path / name), str(tmp_path / f"{name}.npz")]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def newest(name):
        return (list_checkpoints(tmp_path / name / "checkpoints") or [None])[0]

    whole = start("whole")
    assert whole.wait(timeout=300) == 0, whole.stderr.read()
    random = np.random.default_rng(0)
    killed_at = []
    while len(killed_at) < KILLS:
        # Most of a process' life is start-up: two of three are let go on until they have written a checkpoint.
        process, before, started = start("killed"), newest("killed"), time.monotonic()
        if random.random() < 2 / 3:
            while newest("killed") == before and process.poll() is None and time.monotonic() < started + 120:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.4))
        else:
            time.sleep(random.uniform(0, 8))
        assert process.poll() is None, f"ended before kill {len(killed_at) + 1}: {process.stderr.read()}"
        process.kill()
        process.wait()
        # What stands under a final name is whole.
        run = read_run(tmp_path / "killed") if (tmp_path / "killed").exists() else None
        assert run is None or not run["complete"]
        killed_at.append(newest("killed").name if newest("killed") else "no step")
    print("killed after", ", ".join(killed_at))
    last = start("killed")
    assert last.wait(timeout=300) == 0, last.stderr.read()
    with np.load(tmp_path / "whole.npz") as expected, np.load(tmp_path / "killed.npz") as resumed:
        worst = max(np.abs(expected[name] - resumed[name]).max() for name in expected.files)
    print("largest difference of a weight:", worst)
    assert worst <= 1e-6
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "killed")]
    steps = [[row.split(",")[0] for row in rows] for rows in logs]
    assert steps[1] == sorted(set(steps[1]), key=steps[1].index) and steps[1][-1] == steps[0][-1]
