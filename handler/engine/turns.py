"""Which texts run next, and together: as many runs at once as there are threads, each shared by as many waiting texts
as fit.

A run beside which the other threads have as much to do has a thread to itself, any other has them all. Of a call the
longest texts go first, so that little is left for the end. It is served by its own thread and helpers, which run
whatever is next, its own texts or not, until it has all its vectors; once they are all being run, its own thread runs
no others', which would keep it from its caller. What arrives meanwhile joins the next run; nothing waits for company.

Calls take turns, a text each, and one of which nothing is being run comes before those of which something is. So
however large the others are, a call waits for one run to end, which is `together` tokens or one text, and then for a
text of each call that has waited like it.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate

import numpy as np

from handler.engine.calls import Call, DeadlineError, Matrix, NonFiniteVectorError, Run, Waiting
from handler.engine.pace import Pace
from handler.engine.sessions import Sessions
from handler.engine.stops import Stops
from handler.engine.targets import CPU

log = logging.getLogger(__name__)

_TOKENS = 2048  # of all runs at once, if there is more than one: a run of 8,192 needs most of a gigabyte


class Turns:
    """The sessions' runs, `at_once` of them. Texts share one while they have `together` tokens at most (0: each runs
    alone) and are no more than `texts`."""

    def __init__(
        self,
        sessions: Sessions,
        dimensions: int,
        pace: Pace,
        together: int,
        at_once: int,
        texts: int = CPU.texts,
    ) -> None:
        self.pace, self._texts = pace, texts
        self._sessions, self._dimensions = sessions, dimensions
        self._together, self._at_once = together, at_once
        self._calls: deque[Call] = deque()  # those with texts that wait, in the order of their turns
        self._running: list[Run] = []
        self._last = 0.0  # when one ended
        self._failing: tuple[float, float] | None = None  # when the first and the last did, since one that did not
        self._lock = threading.Lock()
        self._idle: list[Waiting] = []
        self._stops = Stops()
        self._closed = False
        self._helpers = ThreadPoolExecutor(max(1, at_once - 1), "run")

    def vectors(
        self, texts: Sequence[Sequence[int]], deadline: float | None, gone: threading.Event | None = None
    ) -> Matrix:
        """float32 [texts, dimensions] of token ids. Raises NonFiniteVectorError, DeadlineError, and what the session
        raises."""
        vectors = np.empty((len(texts), self._dimensions), np.float32)
        if not texts:
            return vectors
        call, helpers = Call(texts, vectors, math.inf if deadline is None else deadline, gone), list[Future[None]]()
        with self._lock:
            place = next((n for n, other in enumerate(self._calls) if other.running), len(self._calls))
            self._calls.insert(place, call)
        try:
            for _ in range(min(self._at_once, len(texts)) - 1):
                helpers.append(self._helpers.submit(self._serve, call, helps=True))
            self._serve(call, helps=False)
        finally:
            with self._lock:
                call.left = True
                if call in self._calls:
                    self._calls.remove(call)
                self._tell()
            for each in helpers:
                each.cancel()
        return vectors

    @property
    def under_way(self) -> float:
        """Seconds since the oldest of the runs that are under way began; 0 where there is none."""
        with self._lock:
            begun = [run.begun for run in self._running]
        return time.perf_counter() - min(begun) if begun else 0.0

    @property
    def failing(self) -> float:
        """Seconds from the first to the last of the runs that have failed, or made nothing finite, since one that did
        not."""
        with self._lock:
            return self._failing[1] - self._failing[0] if self._failing else 0.0

    def close(self) -> None:
        """End every run and every call, those to come too, with DeadlineError."""
        with self._lock:
            self._closed, self._failing = True, None
            self._stops.end_all()
            for each in self._idle:
                each.turn.notify()

    def _serve(self, call: Call, *, helps: bool) -> None:
        thread = Waiting(call, threading.Condition(self._lock), helps)
        while run := self._next(thread):
            self._run(run, thread.until)

    def _next(self, thread: Waiting) -> Run | None:
        """The next run, as soon as there is room for it; none where the thread's call has all its vectors."""
        call = thread.call
        with self._lock:
            try:
                while True:
                    if call.broken is not None:
                        raise NonFiniteVectorError(call.broken)
                    if call.failed is not None:
                        raise call.failed
                    if self._closed or (call.gone is not None and call.gone.is_set()):
                        raise DeadlineError
                    if not call.open or call.left:
                        return None
                    left = call.deadline - time.monotonic()
                    if left <= 0:
                        raise DeadlineError
                    if thread.may_run and self._has_room:
                        return self._take()
                    self._idle.append(thread)
                    thread.turn.wait(min(left, threading.TIMEOUT_MAX))
                    self._idle.remove(thread)
            finally:
                self._tell_next()

    def _tell(self) -> None:
        """Wake the threads whose calls are over, and one for the next run: all of them, at each run's end, would take
        each other's time."""
        for each in self._idle:
            if each.call.is_over:
                each.turn.notify()
        self._tell_next()

    def _tell_next(self) -> None:
        """Wake a thread that may run what is next, where there is room for it; it tells another. One of the call whose
        text is next waits for no run longer than it would, and another until its own deadline alone."""
        if not (self._has_room and (able := [each for each in self._idle if each.may_run])):
            return
        max(able, key=lambda each: (each.call is self._calls[0], each.until)).turn.notify()

    @property
    def _has_room(self) -> bool:
        """Whether something waits, and its run may begin beside the others: long texts need memory."""
        if not self._calls or len(self._running) >= self._at_once:
            return False
        if not self._running:
            return True
        return sum(run.tokens for run in self._running) + max(self._together, len(self._calls[0].next)) <= _TOKENS

    def _run(self, run: Run, until: float) -> None:
        """Run it for as long as somebody waits for it, and until then at most."""
        vectors, run.begun = None, time.perf_counter()
        try:
            with self._stops.until(min(run.end, until)) as stop:
                try:
                    vectors = run.session.run(["dense"], run.feed, stop)[0]
                except Exception as error:  # onnxruntime's own exceptions have no common base
                    if not stop.terminate:
                        self._fail(run, error)
        finally:
            self._give(run, vectors)

    def _fail(self, run: Run, error: Exception) -> None:
        """What is raised is so by the threads of the call whose texts they are, which may be another's."""
        now = time.perf_counter()
        with self._lock:
            self._failing = self._failing_until(now)
            run.fail(error)

    def _failing_until(self, now: float) -> tuple[float, float]:
        return self._failing[0] if self._failing else now, now

    def _take(self) -> Run:
        """One text of each call in turn, for as long as they fit."""
        run = Run([], 0, self._sessions.whole)
        while self._calls:
            full = run.tokens + len(self._calls[0].next) > self._together or len(run.texts) == self._texts
            if run.texts and (full or not self._calls[0].goes_with(run.texts[-1][0])):
                break
            call = self._calls.popleft()
            run.tokens += len(call.next)
            run.texts.append((call, call.waiting.popleft()))
            call.running += 1
            if call.waiting:
                self._calls.append(call)
        if self._has_beside(run):
            run.session = self._sessions.single
        self._running.append(run)
        return run

    def _has_beside(self, run: Run) -> bool:
        """Whether each other thread has as much to do meanwhile; what waits counts where there is memory for both."""
        others = self._at_once - 1
        waiting: Iterable[int] = ()
        if self._calls and run.tokens + others * max(self._together, len(self._calls[0].next)) <= _TOKENS:
            waiting = (len(call.texts[index]) for call in self._calls for index in call.waiting)
        under_way = sum(each.tokens for each in self._running)
        return any(beside >= others * run.tokens for beside in accumulate(waiting, initial=under_way))

    def _give(self, run: Run, vectors: Matrix | None) -> None:
        """Each its vector; where a run gave none, its texts wait again, for those who have not left."""
        lengths = run.lengths
        finite = [] if vectors is None else [bool(np.isfinite(each).all()) for each in vectors]
        with self._lock:
            now = time.perf_counter()
            if vectors is not None:
                self._failing = None if any(finite) else self._failing_until(now)
            if not run.failed:
                # Of runs at the same time, no second counts twice. What was stopped would have taken longer: it counts
                # as what it took.
                self.pace.measured(self.pace.cost(lengths), now - max(run.begun, self._last))
                self._last = now
            for place, (call, index) in reversed(list(enumerate(run.texts))):
                call.running -= 1
                if vectors is not None:
                    call.vectors[index] = vectors[place]
                    call.open -= 1
                    if not finite[place]:
                        call.broken = index
                elif not call.is_over:
                    if not call.waiting:
                        self._calls.appendleft(call)
                    call.waiting.appendleft(index)
            self._running.remove(run)
            self._tell()
        if log.isEnabledFor(logging.DEBUG):
            calls, took = len({call for call, _ in run.texts}), (now - run.begun) * 1e3
            log.debug("a run of %d texts of %d calls, %d tokens, %.1f ms", len(lengths), calls, run.tokens, took)
