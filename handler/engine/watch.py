"""An engine that brings nothing, from the start or any more, ends its process, so that its host starts another: a run
that hangs would never end, and a GPU that has failed once fails each run."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from handler.engine.turns import Turns

log = logging.getLogger(__name__)

_LOOKS = 10  # at the runs, while one has the time that it may have
_FIRST_S = 300.0  # at least, for a first run: a GPU's fetches hundreds of megabytes of kernels, from whatever disk


def watch(
    turns: Turns, seconds: float, good: Sequence[Sequence[int]], prepares: Callable[[], bool] = lambda: False
) -> None:
    """From here on the process ends, with status 1, once a run takes longer than so many seconds, or than a first run
    may while it `prepares`; or once all have failed for as long, and `good` texts' ids do too: it may have been one bad
    text, again and again."""
    threading.Thread(target=_watch, args=(turns, seconds, good, prepares), name="watch", daemon=True).start()


def _watch(turns: Turns, seconds: float, good: Sequence[Sequence[int]], prepares: Callable[[], bool]) -> None:
    probe: Future[Any] | None = None  # beside this thread, which sees whether it hangs
    with ThreadPoolExecutor(1, "probe") as prober:
        while True:
            if (under_way := turns.under_way) > (max(seconds, _FIRST_S) if prepares() else seconds):
                _end(under_way)
            if (failing := turns.failing) <= seconds:
                probe = None
            elif probe is None:
                log.error("all runs have failed for %.0f s: a good one is tried", failing)
                with suppress(RuntimeError):  # no thread can be started: the next look tries again
                    probe = prober.submit(turns.vectors, good, None)
            elif probe.done() and probe.exception():
                _end(failing)
            time.sleep(seconds / _LOOKS)


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """The first run: where it takes longer than so many seconds, and than minutes, the process ends with status 1."""
    most = max(seconds, _FIRST_S)
    timer = threading.Timer(most, _end, (most,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(seconds: float) -> None:
    log.critical("No run has brought anything for %.0f s: the process ends, so that its host starts another.", seconds)
    logging.shutdown()
    # Not in order: that would wait for the run. No answer leaves before its record is written, so that none is lost.
    os._exit(1)
