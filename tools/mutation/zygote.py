"""A process that has imported what the tests need and forks for each run of them.

    python tools/mutation/zygote.py SOCKET

TensorFlow takes seconds to import and a mutant's tests mostly less than one, so it is imported once and nothing is run:
each fork then starts like a fresh interpreter. None of this project's modules is imported here, since these are what a
mutant changes. Requests come one after the other over the Unix socket, a JSON line each, see `ask.py`.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = ("cv2", "h5py", "tensorflow", "keras", "pycocotools.cocoeval", "skimage.metrics")
# One core is enough, and threads do not survive a fork.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ARGUMENTS = ["-q", "-x", "-p", "no:cacheprovider", "--assert=plain", "--no-header"]
LONGEST_OUTPUT = 4000


class Order:
    """Runs first the tests that take little time and have found many mutants; notes both for the next run."""

    def __init__(self, seconds: dict[str, float], kills: dict[str, int]):
        self.known, self.kills = seconds, kills
        self.seconds: dict[str, float] = {}
        self.failed: str | None = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.known.get(item.nodeid, 1.0) / (1 + self.kills.get(item.nodeid, 0)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def run_tests(arguments: list[str], order: Order, result: int) -> None:
    """Run pytest in this process, write what came of it to a file descriptor, and end the process."""
    gc.disable()
    started = time.perf_counter()
    code = pytest.main([*ARGUMENTS, *arguments], plugins=[order])
    outcome = {
        "exit": int(code),
        "failed": order.failed,
        "seconds": time.perf_counter() - started,
        "tests": order.seconds,
    }
    os.write(result, json.dumps(outcome).encode() + b"\n")
    # Nothing of TensorFlow's is to be taken down; the process ends at once.
    os._exit(0)


def run_forked(arguments: list[str], timeout: float, order: Order) -> dict[str, Any]:
    """Run pytest in a forked process and return its outcome, {"exit": "timeout"} or {"exit": "crash"}."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as output:
        process = os.fork()
        if process == 0:
            os.setsid()
            os.close(reading)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            run_tests(arguments, order, writing)
        os.close(writing)
        text = read_until(reading, time.monotonic() + timeout)
        # With everything that the tests have started.
        try:
            os.killpg(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(process, 0)
        os.close(reading)
        output.seek(0)
        printed = output.read().decode(errors="replace")[-LONGEST_OUTPUT:]
    outcome = {"exit": "timeout"} if text is None else json.loads(text) if text else {"exit": "crash"}
    return {**outcome, "output": printed}


def read_until(descriptor: int, end: float) -> bytes | None:
    """What comes from a pipe up to the end of the line or of the pipe; None if that does not come in time."""
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(end - time.monotonic(), 0.0))
        if not ready:
            return None
        part = os.read(descriptor, 65536)
        parts.append(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)


def serve(path: Path) -> None:
    """Answer requests until the process is ended."""
    seconds: dict[str, float] = {}
    kills: dict[str, int] = {}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rwb") as stream:
                request = json.loads(stream.readline())
                os.chdir(request["folder"])
                outcome = run_forked(request["arguments"], request["timeout"], Order(seconds, kills))
                seconds.update(outcome.pop("tests", {}) if outcome["exit"] == 0 else {})
                if failed := outcome.get("failed"):
                    kills[failed] = kills.get(failed, 0) + 1
                try:
                    stream.write(json.dumps(outcome).encode() + b"\n")
                except BrokenPipeError:
                    # The asking process was ended; the next one is to be answered all the same.
                    pass


def import_libraries() -> None:
    """Import what takes long, so that no fork has to."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # pytest takes as long to find its plugins as for the tests, and they need none.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)


if __name__ == "__main__":
    # Two mutants of one file may be written within the second by which Python tells sources apart.
    sys.dont_write_bytecode = True
    import_libraries()
    # Objects that the garbage collector does not touch stay shared with the forked processes.
    gc.collect()
    gc.freeze()
    serve(Path(sys.argv[1]))
