"""How long work takes on this machine, by measurement: what lets a request be refused before it is begun."""

import math
import threading
import time
from collections.abc import Callable, Iterable

from handler.engine.targets import CPU, Target

_MEMORY = 0.98  # of what was measured before, with each run that is measured: some fifty runs
_MOST = 3.0  # times as long as expected a run may count: a process that was stopped for a while is not a slow one
_OLD_S = 10.0  # after which an idle machine may have become faster than it was when it was last measured


class Pace:
    """The measured rate, and the work that has been taken and not yet done. Safe for many threads."""

    def __init__(
        self,
        hidden: int,
        together: int = 0,
        clock: Callable[[], float] = time.monotonic,
        most: float = math.inf,
        target: Target = CPU,
    ) -> None:
        """`together`: tokens that texts may have which share a run; `most`: requests that may be taken at once."""
        self._company, self._together, self._clock, self._most = target.attention * hidden, together, clock, most
        self._run, self._texts = target.run, target.texts
        self._cost = self._seconds = self._last = 0.0
        self._taken: list[float] = []
        self._lock = threading.Lock()

    def cost(self, lengths: Iterable[int]) -> float:
        """Of texts of these lengths in tokens, as the number of tokens that cost as much in a run of many: a text costs
        as much as its tokens, and for each token the attention to all the others; and a run something beside that."""
        cost, room, seats = 0.0, 0, 0
        for length in lengths:
            if length > room or not seats:
                cost, room, seats = cost + self._run, max(length, self._together), self._texts
            room, seats = room - length, seats - 1
            cost += length * (1 + length / self._company)
        return cost

    def seconds(self, cost: float) -> float:
        """How long so much work takes alone; 0 before anything has been measured."""
        with self._lock:
            return cost * self._seconds / self._cost if self._cost else 0.0

    @property
    def is_doubtful(self) -> bool:
        """Whether what was measured is old and nothing is under way: what was too slow then may be tried again."""
        with self._lock:
            return not self._taken and self._clock() - self._last > _OLD_S

    def measured(self, cost: float, seconds: float) -> None:
        with self._lock:
            self._last = self._clock()
            if self._cost:
                seconds = min(seconds, _MOST * cost * self._seconds / self._cost)
            self._cost = self._cost * _MEMORY + cost
            self._seconds = self._seconds * _MEMORY + seconds

    def take(self, cost: float, patience: float) -> float | None:
        """Take work that may wait for so many seconds; how many it would have to wait where it is not taken, because
        they are more or because as many requests are taken as may be.

        Requests take turns, text by text: of a larger one, no more than its own size is done before a smaller one.
        """
        with self._lock:
            ahead = sum(min(cost, other) for other in self._taken) * self._seconds / self._cost if self._cost else 0.0
            if ahead > patience or len(self._taken) >= self._most:
                return ahead
            self._taken.append(cost)
            return None

    def give_back(self, cost: float) -> None:
        """Work that was taken is done, or will not be."""
        with self._lock:
            self._taken.remove(cost)
