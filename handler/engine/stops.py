"""When runs are ended that are under way: at their callers' deadlines, or all at once."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from handler.engine.session import RunOptions, run_options


class Stops:
    """One thread sees to all deadlines: one for each call took a fifth of a short text's run. It looks again at the
    next deadline that it knows of, whether its call has ended or not, and ends itself where it knows of none."""

    def __init__(self) -> None:
        self._ends: dict[RunOptions, float] = {}
        self._looks, self._running = math.inf, False
        self._sooner = threading.Condition()

    @contextmanager
    def until(self, deadline: float | None) -> Iterator[RunOptions]:
        """Options for runs that end at the deadline, of time.monotonic(), or with all others."""
        options, end = run_options(), math.inf if deadline is None else deadline
        with self._sooner:
            self._ends[options] = end
            if end < self._looks:
                self._looks = end
                self._sooner.notify()
                if not self._running:
                    self._running = True
                    threading.Thread(target=self._see, name="deadlines", daemon=True).start()
        try:
            yield options
        finally:
            with self._sooner:
                del self._ends[options]

    def end_all(self) -> None:
        with self._sooner:
            for options in self._ends:
                options.terminate = True

    def _see(self) -> None:
        with self._sooner:
            while self._running:
                now = time.monotonic()
                for options, end in self._ends.items():
                    if end <= now:
                        options.terminate = True
                self._looks = min((end for end in self._ends.values() if end > now), default=math.inf)
                self._running = self._looks < math.inf
                if self._running:
                    self._sooner.wait(self._looks - now)
