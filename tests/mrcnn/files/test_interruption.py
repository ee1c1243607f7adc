"""Signals end a work at once, or after the step at hand where it asks for that."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from mrcnn.files import interruption
from mrcnn.files.interruption import Interruption, handle_signals, held_back


@pytest.fixture(autouse=True)
def forget():
    yield
    interruption._number = None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_raises_at_once_and_is_forgotten(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as raised, handle_signals():
        os.kill(os.getpid(), number)
        raise AssertionError("went on")
    assert isinstance(raised.value, Interruption) and raised.value.number == number
    assert signal.getsignal(number) == before
    with held_back() as waiting:
        assert not waiting.is_due


def test_signal_waits_for_the_step():
    steps, told = [], []
    with pytest.raises(Interruption) as raised, handle_signals(told.append):
        with held_back() as waiting:
            for step in range(5):
                if step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                steps.append(step)
                assert waiting.is_due == (step == 2)
                waiting.check()
    assert steps == [0, 1, 2] and told == [signal.SIGTERM] and raised.value.number == signal.SIGTERM


def test_signal_after_the_last_step_comes_when_the_block_ends_and_hides_no_error():
    with pytest.raises(Interruption), handle_signals(), held_back():
        with held_back():
            pass
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(ValueError, match="mine"), handle_signals(), held_back():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("mine")


def test_ignored_signals_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handle_signals():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)

    def work():
        with handle_signals():
            done.append(signal.getsignal(signal.SIGTERM))

    done, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [before]


TWICE = """
import os
import signal
from mrcnn.files import interruption

clock = [10.0]
interruption.time.monotonic = lambda: clock[0]
try:
    with interruption.handle_signals(), interruption.held_back() as waiting:
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] += {seconds}
        os.kill(os.getpid(), signal.SIGTERM)
        waiting.check()
except interruption.Interruption:
    os._exit(77)
"""


# Launchers send the same signal to the process and to its group.
@pytest.mark.parametrize("seconds, status", [(1.5, -signal.SIGTERM), (0.1, 77)])
def test_second_signal_ends_the_process_at_once(seconds, status):
    child = subprocess.run([sys.executable, "-c", TWICE.format(seconds=seconds)], timeout=120)
    assert child.returncode == status
