"""The end of a process, before which work that was done is recorded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UnderWay:
    """How many answers are being made."""

    def __init__(self) -> None:
        self._number, self._fewer = 0, threading.Condition()

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._fewer:
            self._number += 1
        try:
            yield
        finally:
            with self._fewer:
                self._number -= 1
                self._fewer.notify_all()

    def wait(self, seconds: float) -> bool:
        """Until there is none, for so many seconds at most; whether there is none."""
        with self._fewer:
            return self._fewer.wait_for(lambda: not self._number, seconds)
