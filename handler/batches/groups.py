"""Lines of a shard as the engine is given them: many together, or each alone."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handler.batches import cost, lines
from handler.batches.careful import Careful, Fate
from handler.batches.lines import Line, Request, Unreadable
from handler.bulk import Answered
from handler.contract import errors
from handler.contract.batches import Batch

TOGETHER = 64  # lines that are given to the engine together

Asked = tuple[Line, Request | Unreadable]


@dataclass(frozen=True)
class Group:
    """Lines that go to the engine together, from the `first` on, by its place in the shard; `alone`: one beside which
    nothing else may be under way, and whose `fate` is known."""

    batch: Batch
    first: int
    lines: Sequence[Asked]
    fate: Fate = Fate.OPEN
    alone: bool = False

    def failed(self) -> list[Answered]:
        """What its lines get whose answer is a 500 for good."""
        return [self.refused(line) for line, _ in self.lines]

    def refused(self, line: Line) -> Answered:
        """What a line of it gets for which there is no better answer."""
        return Answered.refused(errors.UNFORESEEN.error(id=f"req_{lines.named(self.batch.id, line.offset)}"))

    def too_late(self, deadline: float | None) -> list[Answered]:
        """What its lines get for which no execution has had the time."""
        seconds = 0.0 if deadline is None else deadline - time.monotonic()
        sizes = [(line.end - line.offset) // cost.TOKEN for line, _ in self.lines]
        told = [errors.DEADLINE.error(n=f"About {tokens}", s=max(1, round(seconds))) for tokens in sizes]
        return [Answered.refused(each) for each in told]


def one_by_one(batch: Batch, found: Iterator[Line], at: Careful) -> Iterator[Group]:
    """Each line alone, once it is kept that it is under way."""
    for place, line in enumerate(found):
        yield Group(batch, place, [(line, lines.planned(line))], at.begin(line.offset), alone=True)


def together(batch: Batch, found: Iterator[Line]) -> Iterator[Group]:
    """As many lines a group as are given to the engine together."""
    first, group = 0, list[Asked]()
    for line in found:
        group.append((line, lines.planned(line)))
        if len(group) == TOGETHER:
            yield Group(batch, first, group)
            first, group = first + TOGETHER, []
    if group:
        yield Group(batch, first, group)
