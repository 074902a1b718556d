"""How long work takes on this machine, by measurement: what lets a request be refused before it is begun."""

import threading
from collections.abc import Iterable

# A text costs as much as its tokens, and for each token the attention to all the others: measured on bge-m3's geometry
# (hidden 1,024), 671 tokens a second at 512 tokens and 152 at 8,192, so that 1.7 · hidden others cost as much as one
# token more. Beside that a run costs some tokens however short its text is (336 a second at 8 tokens, 937 at 128).
_ATTENTION = 1.7
_RUN = 16.0

_MEMORY = 0.98  # of what was measured before, with each run that is measured: some fifty runs


class Pace:
    """The measured rate, and the work that has been taken and not yet done. Safe for many threads."""

    def __init__(self, hidden: int) -> None:
        self._company = _ATTENTION * hidden
        self._cost = self._seconds = self._taken = 0.0
        self._lock = threading.Lock()

    def cost(self, lengths: Iterable[int]) -> float:
        """Of texts of these lengths in tokens, as the number of tokens of short texts that cost as much."""
        return sum(_RUN + length * (1 + length / self._company) for length in lengths)

    def seconds(self, cost: float) -> float:
        """How long so much work takes alone; 0 before anything has been measured."""
        with self._lock:
            return cost * self._seconds / self._cost if self._cost else 0.0

    def measured(self, cost: float, seconds: float) -> None:
        with self._lock:
            self._cost = self._cost * _MEMORY + cost
            self._seconds = self._seconds * _MEMORY + seconds

    def take(self, cost: float, patience: float) -> float | None:
        """Take work that may wait for so many seconds; how many it would have to wait where it is not taken."""
        with self._lock:
            ahead = self._taken * self._seconds / self._cost if self._cost else 0.0
            if ahead > patience:
                return ahead
            self._taken += cost
            return None

    def give_back(self, cost: float) -> None:
        """Work that was taken is done, or will not be."""
        with self._lock:
            self._taken = max(0.0, self._taken - cost)
