"""Which session a run is for: one with a thread for each core, or one with a single thread beside others like it.

Runs at once on one session share its threads: on two cores three of them want to run, and a caller that has done its
part of a product waits for a thread that another run has. Each with one thread, 256 short texts take 0.85 of the time.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from handler.engine.manifest import LayerError
from handler.engine.session import Session

log = logging.getLogger(__name__)


class Sessions:
    """`whole` has all threads. `open_single` opens one that has a single thread, or None where that would hold the
    matrices a second time; None: there is none to open."""

    def __init__(self, whole: Session, open_single: Callable[[], Session | None] | None = None) -> None:
        self.whole, self._open = whole, open_single
        self._single: Future[Session | None] | None = None
        self._lock = threading.Lock()

    @property
    def single(self) -> Session:
        """The session of one thread once it is open, and until then `whole`: the first who asks has it opened, and
        nobody waits for it."""
        if self._open is None:
            return self.whole
        with self._lock:
            if self._single is None:
                opener = ThreadPoolExecutor(1, "session")
                self._single = opener.submit(_opened, self._open)
                opener.shutdown(wait=False)
        return (self._single.done() and self._single.result()) or self.whole


def _opened(open_single: Callable[[], Session | None]) -> Session | None:
    try:
        return open_single()
    except LayerError as error:
        log.error("runs beside others share all threads: %s", error)
        return None
