"""Peers take turns: in every round each encodes the load once, beginning with another, and the machine's peaks are
measured among them. What is compared is what was measured in the same round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.bound import FP32, INT8, OPERATIONS, Peaks, Work
from tests.benchmarks.peers import OURS
from tests.benchmarks.process import Matrix, Pass, Worker, WorkerError

LEAST = 2  # passes of the slowest, after a warm-up


@dataclass
class Entry:
    """A peer with one of its batch sizes. `passes`: by round, where it had its turn."""

    peer: str
    batch: int
    worker: Worker
    passes: dict[int, Pass] = field(default_factory=dict)
    cosines: tuple[float, float] | None = None  # mean and least, against float32
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.peer}, batches of {self.batch}" if self.batch else self.peer

    @property
    def spent(self) -> float:
        return sum(each.seconds for each in self.passes.values())

    def warm_up(self, reference: Matrix) -> None:
        vectors = self.worker.vectors(self.batch, len(reference))
        cosines = np.einsum("ij,ij->i", vectors.astype(np.float64), reference.astype(np.float64))
        self.cosines = float(cosines.mean()), float(cosines.min())

    def take(self, turn: int) -> None:
        self.passes[turn] = self.worker.encode(self.batch)

    @property
    def memory(self) -> int:
        """Bytes, the most of any pass."""
        return max((each.memory for each in self.passes.values()), default=0)

    @property
    def cores(self) -> float:
        """How many it had: fewer than its threads where others took them, or where it waits for itself."""
        return statistics.median(each.cpu_seconds / each.seconds for each in self.passes.values())

    def rates(self, work: Work) -> list[float]:
        return [work.tokens / each.seconds for each in self.passes.values()]

    def over(self, other: "Entry") -> float:
        """How often as fast as another."""
        both = self.passes.keys() & other.passes.keys()
        return statistics.median(other.passes[each].seconds / self.passes[each].seconds for each in both)

    def share(self, work: Work, precision: str, measured: Mapping[int, Peaks]) -> float:
        """Of the bound."""
        return statistics.median(
            work.tokens / each.seconds / work.rate(precision, measured[turn]) for turn, each in self.passes.items()
        )


def take_turns(
    entries: Sequence[Entry],
    machine: Worker,
    texts: list[list[int]],
    reference: Matrix,
    passes: int,
    budget: float,
    tell: Callable[[str], None],
    peaks: Callable[[Worker], Peaks] | None = None,
) -> dict[int, Peaks]:
    """Fill the entries; the machine's peaks by round, a CPU's unless `peaks` measures others. Who has had `budget`
    seconds and LEAST passes sits out, except for ours, which the others are held against.

    One whose worker ends has the reason as its `fault`, and takes no further part.
    """
    for worker in dict.fromkeys(each.worker for each in entries):
        worker.give(texts)
    for entry in entries:
        tell(f"warm-up: {entry}")
        try:
            entry.warm_up(reference)
        except WorkerError as error:
            entry.fault = str(error)
    measured = {}
    for turn in range(passes):
        measured[turn] = (peaks or _peaks)(machine)
        start = turn * len(entries) // passes
        for entry in [*entries[start:], *entries[:start]]:
            if entry.fault or (len(entry.passes) >= LEAST and entry.spent > budget and entry.peer != OURS):
                continue
            tell(f"round {turn + 1} of {passes}: {entry}")
            try:
                entry.take(turn)
            except WorkerError as error:
                entry.fault = str(error)
    return measured


def _peaks(machine: Worker) -> Peaks:
    int8, fp32 = (OPERATIONS / min(machine.encode(kind).seconds for _ in range(2)) for kind in (INT8, FP32))
    return Peaks(int8, fp32)
