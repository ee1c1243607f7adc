"""Being interrupted between two steps of a long work, so that what was done can be saved.

The entry point calls `handle_signals`. A signal then raises `Interruption`, at once or, where the work said
`held_back`, when it asks. Without `handle_signals`, as in notebooks, nothing changes.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_OF_ONE_SIGNAL = 1.0  # some launchers send a signal twice, to the process and to its group

_number: int | None = None  # of the signal that waits
_since = 0.0
_blocks = 0  # that hold it back


class Interruption(KeyboardInterrupt):
    """The user or the system ends this process, by the signal `number`."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class HeldBack:
    """Given by `held_back`: tells whether an interruption waits."""

    @property
    def is_due(self) -> bool:
        """Whether one waits; save what was done, then call `check`."""
        return _number is not None

    def check(self) -> None:
        """Raise the interruption that waits, if there is one."""
        if _number is not None:
            raise Interruption(_number)


@contextmanager
def held_back() -> Iterator[HeldBack]:
    """Hold interruptions back while the block lasts; its steps ask for them, and so does its end."""
    global _blocks
    _blocks += 1
    try:
        yield HeldBack()
    finally:
        _blocks -= 1
    HeldBack().check()


@contextmanager
def handle_signals(tell: Callable[[int], None] | None = None) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interruption` while the block lasts; a second one ends the process at once.

    An ignored signal stays so, as SIGINT does in what a shell runs in the background. Nothing is done outside of the
    main thread. The number of a signal that is held back is given to `tell`, inside the handler.
    """
    global _number
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        global _number, _since
        if _number is not None:
            if time.monotonic() - _since > SECONDS_OF_ONE_SIGNAL:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        _number, _since = number, time.monotonic()
        if not _blocks:
            raise Interruption(number)
        if tell is not None:
            tell(number)

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            # None stands for a handler that is not Python's.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _number = None
