"""What callers have asked of the engine, the threads that wait for it, and the runs that their texts share."""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from handler.engine.session import Session

Matrix = npt.NDArray[np.float32]


class NonFiniteVectorError(Exception):
    """The model produced NaN or infinity for the input of this index."""

    def __init__(self, index: int) -> None:
        super().__init__(f"input {index}")
        self.index = index


class DeadlineError(Exception):
    """The deadline came before all texts were encoded, and what was running has been stopped; or nobody waits for them
    any more; or the process ends."""


@dataclass(eq=False)
class Call:
    """What a caller asked for, until `deadline`, by time.monotonic(); `waiting` are the texts that no run has taken,
    the longest first, `open` those without a vector, `running` those in a run."""

    texts: Sequence[Sequence[int]]
    vectors: Matrix
    deadline: float
    gone: threading.Event | None
    waiting: deque[int] = field(init=False)
    open: int = field(init=False)
    running: int = 0
    broken: int | None = None  # the text that has no finite vector
    failed: Exception | None = None  # what a run of its own texts alone has raised
    apart: bool = False  # it shares no run: one that it shared has failed, and nobody knows by whose text
    left: bool = False

    def __post_init__(self) -> None:
        longest = sorted(range(len(self.texts)), key=lambda index: -len(self.texts[index]))
        self.waiting, self.open = deque(longest), len(self.texts)

    @property
    def next(self) -> Sequence[int]:
        return self.texts[self.waiting[0]]

    @property
    def is_over(self) -> bool:
        """Whether no thread has to wait for it any longer."""
        if not self.open or self.left or self.broken is not None or self.failed is not None:
            return True
        return time.monotonic() >= self.deadline or (self.gone is not None and self.gone.is_set())

    def goes_with(self, other: "Call") -> bool:
        """Whether they may share a run."""
        return other is self or not (self.apart or other.apart)


@dataclass(eq=False)
class Waiting:
    """A thread that waits for its turn, or for its call's end; `helps`: no caller waits with it."""

    call: Call
    turn: threading.Condition
    helps: bool

    @property
    def may_run(self) -> bool:
        return self.helps or bool(self.call.waiting)

    @property
    def until(self) -> float:
        """Until when it may be at others' texts."""
        return math.inf if self.helps else self.call.deadline


@dataclass(eq=False)
class Run:
    """The texts that share a run, by their calls and places in these."""

    texts: list[tuple[Call, int]]
    tokens: int
    session: Session
    begun: float = field(default_factory=time.perf_counter)
    failed: bool = False

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(call.texts[index]) for call, index in self.texts]

    @property
    def feed(self) -> dict[str, npt.NDArray[np.int64]]:
        """What the graph takes: the texts' ids in a row, and how many are whose."""
        ids = chain.from_iterable(call.texts[index] for call, index in self.texts)
        return {"input_ids": np.array(list(ids), np.int64), "lengths": np.array(self.lengths, np.int64)}

    @property
    def end(self) -> float:
        """From when on nobody waits for it, by time.monotonic()."""
        return max(call.deadline for call, _ in self.texts)

    def fail(self, error: Exception) -> None:
        """It has failed: that is its call's failure, and where several have shared it, each is tried by itself."""
        self.failed, calls = True, {call for call, _ in self.texts}
        for call in calls:
            call.apart = True
            if len(calls) == 1:
                call.failed = error
