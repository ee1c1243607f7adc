import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.training import train_autoencoder
from mrcnn.files.fitting import list_checkpoints

SCRIPT = str(Path(__file__).parent / "worker_process.py")


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]


def command_of(settings, stores, output):
    paths = {centre: str(path) for centre, path in stores.items()}
    return [sys.executable, SCRIPT, json.dumps(settings), json.dumps(paths), str(output)]


class Cluster:
    """Processes on this machine that share a training; each has an output folder of its own."""

    def __init__(self, folder, settings, stores, number=2):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(number)]
        self.outputs = [folder / f"output{i}" for i in range(number)]
        self.logs = [folder / f"log{i}.txt" for i in range(number)]
        self.processes = []
        for i in range(number):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": ""}
            command = command_of(settings, stores, self.outputs[i])
            with open(self.logs[i], "w") as log:
                self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, timeout=240):
        deadline = time.monotonic() + timeout
        return [process.wait(max(deadline - time.monotonic(), 1)) for process in self.processes]

    def text(self, i):
        return self.logs[i].read_text(errors="replace")


# At a low learning rate: Adam makes a whole step of a gradient that is rounding alone, so that at its usual one the
# adaptation loss differs by tens of percent after four steps.
def test_two_processes_and_two_devices_give_what_one_gives(stores, tiny_settings, tmp_path):
    settings = {**tiny_settings, "adaptation": "adversarial", "beta": 0.2, "learning_rate": 1e-5}
    one = train_autoencoder(AutoencoderConfig(**settings), stores, tmp_path / "one")
    subprocess.run(command_of(settings, stores, tmp_path / "mirrored"), check=True, capture_output=True, timeout=240)
    with Cluster(tmp_path, settings, stores) as cluster:
        assert cluster.wait() == [0, 0], cluster.text(0) + cluster.text(1)
    mirrored, first, second = (np.load(tmp_path / f"{name}.npz") for name in ("mirrored", "output0", "output1"))
    for name, expected in zip(first.files, one.model.get_weights(), strict=True):
        np.testing.assert_allclose(first[name], expected, atol=1e-5)
        np.testing.assert_allclose(mirrored[name], expected, atol=1e-5)
        np.testing.assert_array_equal(second[name], first[name])
    losses = json.loads((tmp_path / "mirrored" / "run.json").read_text())["losses"]
    assert losses == pytest.approx(one.run["losses"], rel=1e-3)
    # Only the first process has written anything.
    run = json.loads((cluster.outputs[0] / "run.json").read_text())
    assert run["complete"] and run["replicas"] == 2
    assert not cluster.outputs[1].exists()


def test_killed_process_ends_the_others_with_a_message_and_leaves_a_checkpoint(stores, tiny_settings, tmp_path):
    settings = {**tiny_settings, "steps": 100_000, "checkpoint_every": 2}
    with Cluster(tmp_path, settings, stores) as cluster:
        deadline = time.monotonic() + 120
        while not list_checkpoints(cluster.outputs[0] / "checkpoints"):
            assert time.monotonic() < deadline and cluster.processes[0].poll() is None, cluster.text(0)
            time.sleep(0.2)
        cluster.processes[1].send_signal(signal.SIGKILL)
        assert cluster.processes[0].wait(timeout=120) == 2, cluster.text(0)[-3000:]
    assert "error: another process of this training has stopped" in cluster.text(0)
    assert list_checkpoints(cluster.outputs[0] / "checkpoints")
    assert not json.loads((cluster.outputs[0] / "run.json").read_text())["complete"]


def test_processes_end_where_the_first_refuses_the_folder(stores, tiny_settings, tmp_path):
    (tmp_path / "output0").mkdir()
    (tmp_path / "output0" / "run.json").write_text("not JSON")
    with Cluster(tmp_path, tiny_settings, stores) as cluster:
        assert cluster.wait(120) == [2, 2]
    assert "run.json: not valid JSON" in cluster.text(0)
    assert "the first process of this training has stopped before it began" in cluster.text(1)


def test_slurm_script_of_the_guide_writes_the_cluster():
    guide = (Path(__file__).parents[2] / "docs" / "many-gpus.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"<<EOF\n(.*?)\nEOF", guide, flags=re.DOTALL)
    for tasks, hosts in (("1(x3)", ["n1", "n2", "n3"]), ("2,1", ["n1", "n2"])):
        command = [sys.executable, "-", "7000", "2", tasks, *hosts]
        done = subprocess.run(command, input=program, text=True, capture_output=True, check=True)
        workers = ["n1:7000", "n2:7000", "n3:7000"] if len(hosts) == 3 else ["n1:7000", "n1:7001", "n2:7000"]
        assert json.loads(done.stdout) == {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 2}}
