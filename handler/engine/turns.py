"""Which texts run next, and together: as many runs at once as the session has threads, each shared by as many waiting
texts as fit.

Every run may use all the session's threads: a lone one has them all, and of several each has its caller's and what the
others leave. A call is served by its own thread and helpers, which run whatever is next, its own texts or not, until it
has all its vectors. What arrives meanwhile joins the next run; nothing waits for company.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from handler.engine.pace import Pace
from handler.engine.session import RunOptions, Session, run_options

Matrix = npt.NDArray[np.float32]

_TOKENS = 2048  # of all runs at once, if there is more than one: a run of 8,192 needs most of a gigabyte


class NonFiniteVectorError(Exception):
    """The model produced NaN or infinity for the input of this index."""

    def __init__(self, index: int) -> None:
        super().__init__(f"input {index}")
        self.index = index


class DeadlineError(Exception):
    """The deadline came before all texts were encoded, and what was running has been stopped; or nobody waits for them
    any more."""


@dataclass(eq=False)
class _Call:
    """What a caller asked for; `waiting` are the texts that no run has taken, `open` those without a vector."""

    texts: Sequence[Sequence[int]]
    vectors: Matrix
    deadline: float | None
    gone: threading.Event | None
    waiting: deque[int] = field(init=False)
    open: int = field(init=False)
    broken: int | None = None  # the text that has no finite vector
    left: bool = False

    def __post_init__(self) -> None:
        self.waiting, self.open = deque(range(len(self.texts))), len(self.texts)

    @property
    def next(self) -> Sequence[int]:
        return self.texts[self.waiting[0]]


class Turns:
    """The session's runs, `at_once` of them. Texts share one while they have `together` tokens at most; 0: each runs
    alone."""

    def __init__(self, session: Session, dimensions: int, pace: Pace, together: int, at_once: int) -> None:
        self.pace = pace
        self._session, self._dimensions = session, dimensions
        self._together, self._at_once = together, at_once
        self._calls: deque[_Call] = deque()  # those with texts that wait, in the order of their turns
        self._running: list[int] = []  # tokens of each run
        self._last = 0.0  # when one ended
        self._ended = threading.Condition()
        self._helpers = ThreadPoolExecutor(max(1, at_once - 1), "run")

    def vectors(
        self, texts: Sequence[Sequence[int]], deadline: float | None, gone: threading.Event | None = None
    ) -> Matrix:
        """float32 [texts, dimensions] of token ids. Raises NonFiniteVectorError and DeadlineError."""
        call = _Call(texts, np.empty((len(texts), self._dimensions), np.float32), deadline, gone)
        if not texts:
            return call.vectors
        with self._ended:
            self._calls.append(call)
        with _stop(deadline) as stop:
            helpers = [self._helpers.submit(self._serve, call, stop) for _ in range(min(self._at_once, len(texts)) - 1)]
            try:
                self._serve(call, stop)
            finally:
                with self._ended:
                    call.left = True
                    if call in self._calls:
                        self._calls.remove(call)
                    self._ended.notify_all()
                for each in helpers:
                    each.cancel()
        return call.vectors

    def _serve(self, call: _Call, stop: RunOptions | None) -> None:
        while taken := self._next(call):
            self._run(taken, stop)

    def _next(self, call: _Call) -> list[tuple[_Call, int]]:
        """The texts of the next run, as soon as there is room for it; none where the call has all its vectors."""
        with self._ended:
            while True:
                if call.broken is not None:
                    raise NonFiniteVectorError(call.broken)
                if call.gone is not None and call.gone.is_set():
                    raise DeadlineError
                if not call.open or call.left:
                    return []
                left = None if call.deadline is None else call.deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise DeadlineError
                if self._has_room:
                    return self._take()
                self._ended.wait(left)

    @property
    def _has_room(self) -> bool:
        """Whether something waits, and its run may begin beside the others: long texts need memory."""
        if not self._calls or len(self._running) >= self._at_once:
            return False
        return not self._running or sum(self._running) + max(self._together, len(self._calls[0].next)) <= _TOKENS

    def _run(self, taken: list[tuple[_Call, int]], stop: RunOptions | None) -> None:
        texts = [call.texts[index] for call, index in taken]
        feed = {
            "input_ids": np.array(list(chain.from_iterable(texts)), np.int64),
            "lengths": np.array(list(map(len, texts)), np.int64),
        }
        vectors, start = None, time.perf_counter()
        try:
            vectors = self._session.run(["dense"], feed, stop)[0]
        except Exception:  # onnxruntime's own exceptions have no common base
            if stop is not None and stop.terminate:
                raise DeadlineError from None
            raise
        finally:
            self._give(taken, vectors, start)

    def _take(self) -> list[tuple[_Call, int]]:
        """One text of each call in turn, for as long as they fit."""
        taken: list[tuple[_Call, int]] = []
        tokens = 0
        while self._calls:
            if taken and tokens + len(self._calls[0].next) > self._together:
                break
            call = self._calls.popleft()
            tokens += len(call.next)
            taken.append((call, call.waiting.popleft()))
            if call.waiting:
                self._calls.append(call)
        self._running.append(tokens)
        return taken

    def _give(self, taken: list[tuple[_Call, int]], vectors: Matrix | None, start: float) -> None:
        """Each its vector; where a run gave none, its texts wait again, for those who have not left."""
        lengths = [len(call.texts[index]) for call, index in taken]
        with self._ended:
            # Of runs at the same time, no second counts twice. What was stopped would have taken longer: it counts as
            # what it took.
            now = time.perf_counter()
            self.pace.measured(self.pace.cost(lengths), now - max(start, self._last))
            self._last = now
            for place, (call, index) in reversed(list(enumerate(taken))):
                if vectors is not None:
                    call.vectors[index] = vectors[place]
                    call.open -= 1
                    if not np.isfinite(vectors[place]).all():
                        call.broken = index
                elif not call.left:
                    if not call.waiting:
                        self._calls.appendleft(call)
                    call.waiting.appendleft(index)
            self._running.remove(sum(lengths))
            self._ended.notify_all()


@contextmanager
def _stop(deadline: float | None) -> Iterator[RunOptions | None]:
    """Options for runs that end at the deadline; None for none."""
    if deadline is None:
        yield None
        return
    options = run_options()
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()
