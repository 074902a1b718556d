"""Which texts run next, and together: one run at a time on all cores, shared by as many waiting texts as fit.

There is no thread of its own: of the callers that wait, one runs what is next, its own texts or not, and who has all
vectors leaves. What arrives meanwhile joins the next run; nothing waits for company.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from handler.engine.pace import Pace
from handler.engine.session import RunOptions, Session, run_options

Matrix = npt.NDArray[np.float32]


class NonFiniteVectorError(Exception):
    """The model produced NaN or infinity for the input of this index."""

    def __init__(self, index: int) -> None:
        super().__init__(f"input {index}")
        self.index = index


class DeadlineError(Exception):
    """The deadline came before all texts were encoded; what was running has been stopped."""


@dataclass(eq=False)
class _Call:
    """What a caller asked for; `waiting` are the texts that no run has taken, `open` those without a vector."""

    texts: Sequence[Sequence[int]]
    vectors: Matrix
    waiting: deque[int] = field(init=False)
    open: int = field(init=False)
    broken: int | None = None  # the text that has no finite vector
    gone: bool = False

    def __post_init__(self) -> None:
        self.waiting, self.open = deque(range(len(self.texts))), len(self.texts)

    @property
    def next(self) -> Sequence[int]:
        return self.texts[self.waiting[0]]


class Turns:
    """The session's runs. Texts share one while they have `together` tokens at most; 0: each runs alone."""

    def __init__(self, session: Session, dimensions: int, pace: Pace, together: int) -> None:
        self.pace = pace
        self._session, self._dimensions, self._together = session, dimensions, together
        self._calls: deque[_Call] = deque()  # those with texts that wait, in the order of their turns
        self._running = False
        self._ended = threading.Condition()

    def vectors(self, texts: Sequence[Sequence[int]], deadline: float | None) -> Matrix:
        """float32 [texts, dimensions] of token ids. Raises NonFiniteVectorError and DeadlineError."""
        call = _Call(texts, np.empty((len(texts), self._dimensions), np.float32))
        if not texts:
            return call.vectors
        with self._ended:
            self._calls.append(call)
        try:
            with _stop(deadline) as stop:
                while self._wait(call, deadline):
                    self._run(stop)
        finally:
            with self._ended:
                call.gone = True
                if call in self._calls:
                    self._calls.remove(call)
        return call.vectors

    def _wait(self, call: _Call, deadline: float | None) -> bool:
        """Until nothing runs, and the caller is to run what is next, or until it has its vectors."""
        with self._ended:
            while True:
                if call.broken is not None:
                    raise NonFiniteVectorError(call.broken)
                if not call.open:
                    return False
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise DeadlineError
                if not self._running:
                    self._running = True
                    return True
                self._ended.wait(left)

    def _run(self, stop: RunOptions | None) -> None:
        taken = self._take()
        texts = [call.texts[index] for call, index in taken]
        lengths = list(map(len, texts))
        feed = {
            "input_ids": np.array(list(chain.from_iterable(texts)), np.int64),
            "lengths": np.array(lengths, np.int64),
        }
        vectors, start = None, time.perf_counter()
        try:
            vectors = self._session.run(["dense"], feed, stop)[0]
        except Exception:  # onnxruntime's own exceptions have no common base
            if stop is not None and stop.terminate:
                raise DeadlineError from None
            raise
        finally:  # what was stopped would have taken longer: it counts as what it took
            self.pace.measured(self.pace.cost(lengths), time.perf_counter() - start)
            self._give(taken, vectors)

    def _take(self) -> list[tuple[_Call, int]]:
        """The texts of the next run: one of each call in turn, for as long as they fit."""
        taken: list[tuple[_Call, int]] = []
        tokens = 0
        with self._ended:
            while self._calls:
                tokens += len(self._calls[0].next)
                if taken and tokens > self._together:
                    break
                call = self._calls.popleft()
                taken.append((call, call.waiting.popleft()))
                if call.waiting:
                    self._calls.append(call)
        return taken

    def _give(self, taken: list[tuple[_Call, int]], vectors: Matrix | None) -> None:
        """Each its vector; where a run gave none, its texts wait again, for those who have not left."""
        with self._ended:
            for place, (call, index) in reversed(list(enumerate(taken))):
                if vectors is not None:
                    call.vectors[index] = vectors[place]
                    call.open -= 1
                    if not np.isfinite(vectors[place]).all():
                        call.broken = index
                elif not call.gone:
                    if not call.waiting:
                        self._calls.appendleft(call)
                    call.waiting.appendleft(index)
            self._running = False
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
