"""Reading ahead: in order, within bounds, and with errors where they belong."""

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mrcnn.files.read_ahead import read_ahead


def read_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_read_ahead_keeps_the_order():
    delays = np.random.default_rng(0).uniform(0, 0.004, 60)

    def read(number):
        time.sleep(delays[number])
        return number

    assert list(read_ahead(read, range(60), num_ahead=7, num_threads=4)) == list(range(60))
    assert list(read_ahead(read, [], num_ahead=7)) == []
    assert not read_threads()


def test_read_ahead_works_beside_the_caller_and_within_its_bound():
    started = []
    gate = threading.Event()

    def read(number):
        started.append(number)
        gate.wait(10)
        return number

    results = read_ahead(read, range(100), num_ahead=5, num_threads=8)
    threading.Timer(0.05, gate.set).start()
    assert next(results) == 0
    assert len(started) <= 5
    for taken in range(1, 20):
        assert next(results) == taken
        assert max(started) <= taken + 4
    # The caller does nothing now: what is read meanwhile is read beside it.
    until = time.monotonic() + 10
    while max(started) < 23 and time.monotonic() < until:
        time.sleep(0.01)
    assert max(started) == 23
    results.close()
    while read_threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not read_threads() and max(started) == 23


def test_read_ahead_that_is_garbage_waits_for_no_thread_that_waits_for_the_collector():
    is_reading, lock = threading.Event(), threading.Lock()

    def read(number):
        if number:
            is_reading.set()
            with lock:  # as that of HDF5, which any thread of a program may have
                pass
        return number

    with lock:
        results = read_ahead(read, range(9), num_ahead=3, num_threads=1)
        assert next(results) == 0 and is_reading.wait(10)
        results = [results]
        results.append(results)  # nothing but the garbage collector finds it now
        del results
        collector = threading.Thread(target=gc.collect, daemon=True)
        collector.start()
        collector.join(10)
        assert not collector.is_alive()


ENDING = """
import time
from mrcnn.files.read_ahead import read_ahead

results = read_ahead(lambda number: time.sleep(0.01), range(10**6), num_ahead=100, num_threads=1)
next(results)
raise RuntimeError("nobody catches this")
"""


def test_read_ahead_does_not_keep_a_program_from_ending():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("RuntimeError: nobody catches this")


def test_read_ahead_holds_fewer_results_when_they_are_large():
    made = []

    def read(number):
        made.append(number)
        return np.zeros(1000, np.uint8)

    results = read_ahead(read, range(50), num_ahead=40, num_threads=1, max_bytes=3500)
    for _ in range(45):
        next(results)
    # Before the first result nothing is known of the size; then three are ahead, the fourth is the caller's.
    assert len(made) <= 45 + 3
    results.close()
    assert [r.nbytes for r in read_ahead(read, range(3), num_ahead=2, max_bytes=1)] == [1000] * 3


def test_read_ahead_raises_an_error_in_its_turn():
    def read(number):
        if number == 3:
            raise OSError("broken")
        return number

    results = read_ahead(read, range(10), num_ahead=6)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="broken"):
        next(results)
    assert not read_threads()
