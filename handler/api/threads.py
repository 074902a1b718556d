"""Where a request's blocking work is done."""

import threading
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")


class Threads:
    """So many requests' work at once. A server's event loop has all its requests, and each step a thread of its own. On
    Lambda (`alone`) there is a loop for each of the calls at once, whose thread has nothing else to do; what limits
    them together cannot be anyio's, which is for one loop."""

    def __init__(self, at_once: int, *, alone: bool) -> None:
        self._limiter = None if alone else CapacityLimiter(at_once)
        self._slots = threading.BoundedSemaphore(at_once)

    async def run(self, work: Callable[[], T]) -> T:
        if self._limiter is not None:
            return await to_thread.run_sync(work, limiter=self._limiter)
        with self._slots:
            return work()
