"""Peers take turns: in every round each encodes the load once, beginning with another, and the machine's peaks are
measured among them. What is compared is what was measured in the same round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.bound import FP32, INT8, OPERATIONS, Peaks, Work
from tests.benchmarks.process import Matrix, Worker, WorkerError

LEAST = 2  # passes of the slowest, after a warm-up


@dataclass
class Entry:
    """A peer with one of its batch sizes. `seconds` and `peaks`: by round, where it had its turn."""

    peer: str
    batch: int
    worker: Worker
    seconds: dict[int, float] = field(default_factory=dict)
    memory: int = 0  # bytes, the most of any pass
    cosines: tuple[float, float] | None = None  # mean and least, against float32
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.peer}, batches of {self.batch}" if self.batch else self.peer

    def warm_up(self, reference: Matrix) -> None:
        vectors = self.worker.vectors(self.batch, len(reference))
        cosines = np.einsum("ij,ij->i", vectors.astype(np.float64), reference.astype(np.float64))
        self.cosines = float(cosines.mean()), float(cosines.min())

    def take(self, turn: int) -> None:
        self.seconds[turn], memory = self.worker.seconds(self.batch)
        self.memory = max(self.memory, memory)

    def rates(self, work: Work) -> list[float]:
        return [work.tokens / each for each in self.seconds.values()]

    def over(self, other: "Entry") -> float:
        """How often as fast as another."""
        both = self.seconds.keys() & other.seconds.keys()
        return statistics.median(other.seconds[each] / self.seconds[each] for each in both)

    def share(self, work: Work, precision: str, measured: Mapping[int, Peaks]) -> float:
        """Of the bound."""
        return statistics.median(
            work.tokens / seconds / work.rate(precision, measured[each]) for each, seconds in self.seconds.items()
        )


def take_turns(
    entries: Sequence[Entry],
    machine: Worker,
    texts: list[list[int]],
    reference: Matrix,
    passes: int,
    budget: float,
    tell: Callable[[str], None],
) -> dict[int, Peaks]:
    """Fill the entries; the machine's peaks by round. A peer that has had `budget` seconds and LEAST passes sits out.

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
        measured[turn] = _peaks(machine)
        start = turn * len(entries) // passes
        for entry in [*entries[start:], *entries[:start]]:
            if entry.fault or (len(entry.seconds) >= LEAST and sum(entry.seconds.values()) > budget):
                continue
            tell(f"round {turn + 1} of {passes}: {entry}")
            try:
                entry.take(turn)
            except WorkerError as error:
                entry.fault = str(error)
    return measured


def _peaks(machine: Worker) -> Peaks:
    int8, fp32 = (OPERATIONS / min(machine.seconds(kind)[0] for _ in range(2)) for kind in (INT8, FP32))
    return Peaks(int8, fp32)
