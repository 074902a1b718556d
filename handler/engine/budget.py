"""The time of one request, watched while its text becomes tokens: that alone may take longer than there is."""

import threading
import time
from array import array
from collections.abc import Iterable
from typing import TypeAlias

from handler.engine.pace import Pace

Run: TypeAlias = "array[int]"  # token ids at four bytes each: a request may spell tens of millions of them


class LateError(Exception):
    """No answer can be made in time. `tokens`: what was counted by then, without the specials; `again`: whether the
    time went to others, so that another try may be in time."""

    def __init__(self, tokens: int, *, again: bool) -> None:
        super().__init__(f"{tokens} tokens")
        self.tokens, self.again = tokens, again


class Budget:
    """`cost`, for `pace`, of the runs that were added, those that are alike counted once. The `deadline`, a time of
    time.monotonic() (None: none), lay `seconds` ahead when the request came; `gone`, an event, ends it sooner."""

    def __init__(self, pace: Pace, deadline: float | None, seconds: float, gone: threading.Event | None = None) -> None:
        self.cost = 0.0
        self._pace, self._deadline, self._seconds, self._gone = pace, deadline, seconds, gone
        self.is_doubtful = pace.is_doubtful  # now: while text is read for long, what was measured does not become so
        self._known: set[bytes] = set()
        self._begun = time.monotonic()

    def add(self, runs: Iterable[Run]) -> None:
        new = []
        for run in runs:
            if (key := run.tobytes()) not in self._known:
                self._known.add(key)
                new.append(len(run))
        self.cost += self._pace.cost(new)

    def check(self, tokens: int, *, by_pace: bool) -> None:
        """Raise LateError once the deadline has come, and with `by_pace` once what was added would by measurement
        take longer than all the time that the request was given."""
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise LateError(tokens, again=now - self._begun < self._seconds / 2)
        if self._gone is not None and self._gone.is_set():
            raise LateError(tokens, again=True)
        if by_pace and self._pace.seconds(self.cost) > self._seconds and not self.is_doubtful:
            raise LateError(tokens, again=False)
