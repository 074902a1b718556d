"""When runs that are under way are ended: once nobody waits for them any longer, or all at once."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from handler.engine.session import RunOptions, run_options


class Stops:
    """One thread sees to all ends: one for each call took a fifth of a short text's run. It looks again at the next end
    that it knows of, whether its run has ended or not, and ends itself where it knows of none."""

    def __init__(self) -> None:
        self._ends: dict[RunOptions, float] = {}
        self._looks, self._running, self._over = math.inf, False, False
        self._sooner = threading.Condition()

    @contextmanager
    def until(self, end: float) -> Iterator[RunOptions]:
        """Options for a run that ends at this time of time.monotonic() (infinity: at none), or with all others."""
        options = run_options()
        try:
            with self._sooner:
                self._ends[options] = end
                options.terminate = self._over
                if end < self._looks:
                    self._look(end)
            yield options
        finally:
            with self._sooner:
                del self._ends[options]

    def end_all(self) -> None:
        """Those that are under way, and those to come."""
        with self._sooner:
            self._over = True
            for options in self._ends:
                options.terminate = True

    def _look(self, end: float) -> None:
        if not self._running:
            threading.Thread(target=self._see, name="deadlines", daemon=True).start()
            self._running = True  # not before: where none can be started, the next who asks tries again
        self._looks = end
        self._sooner.notify()

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
                    self._sooner.wait(min(self._looks - now, threading.TIMEOUT_MAX))
