"""Reading ahead of the network, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_READERS = 8
MAX_AHEAD_BYTES = 256 * 2**20


def read_ahead(
    read: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_ahead: int,
    num_threads: int | None = None,
    max_bytes: int = MAX_AHEAD_BYTES,
) -> Generator[Result, None, None]:
    """Yield `read(item)` for each item, in order, while threads read the next ones.

    Close the iterator when it is left before its end, so that the threads stop after what they are reading.

    Args:
        read: called in the threads; what it raises is raised here when the item's turn comes.
        items: what to read.
        num_ahead: results, finished or not, that may wait at a time.
        num_threads: None takes one for each processor core, from 2 to 8.
        max_bytes: that waiting results may take, each as many as the largest so far (`nbytes`).
    """
    items, waiting, largest = iter(items), deque[Future](), 0
    num_threads = num_threads or min(max(os.cpu_count() or 1, 2), MAX_READERS)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="read-ahead")
    is_left = False
    try:
        while True:
            room = max(min(num_ahead, max_bytes // largest), 1) if largest else num_ahead
            while len(waiting) < room:
                try:
                    item = next(items)
                except StopIteration:
                    break
                waiting.append(pool.submit(read, item))
            if not waiting:
                return
            result = waiting.popleft().result()
            largest = max(largest, getattr(result, "nbytes", 0))
            yield result
            # Otherwise the last result would live here until the caller has dealt with the next.
            del result
    except GeneratorExit:
        # The garbage collector may have closed it, in a thread that holds a lock which the others need.
        is_left = True
        raise
    finally:
        pool.shutdown(wait=not is_left, cancel_futures=True)
