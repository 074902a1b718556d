"""The second pass: the lines of a shard are embedded, in full batches of the engine's, and what came of them becomes
its result, unless another's is there."""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from math import inf
from typing import Any

from handler.batches import careful, plan
from handler.batches.bucket import GoneError
from handler.batches.careful import BusyError, Careful, Fate
from handler.batches.done import Progress
from handler.batches.groups import Asked, Group, one_by_one, together
from handler.batches.lines import Line
from handler.batches.queue import CLOSE, FINISH, Shard, Shards, Steps
from handler.batches.results import Made, Results, read
from handler.batches.takings import Takings
from handler.bulk import Answered, Counted
from handler.contract import errors
from handler.contract.batches import Batch
from handler.engine.engine import DeadlineError
from handler.payers import Payer

log = logging.getLogger(__name__)

_GROUPS = 3  # under way: while the engine has two of them, one is read or written
_CAREFUL = 3  # received so often, it goes line by line
_WAITS = 1 / 3  # of an execution's time, as long as a shard takes, for another that goes line by line in its process
_MUCH = 1 / 20  # of it: one that has waited so long had not all its time

Embed = Callable[[Sequence[Mapping[str, Any]], Payer, float | None, Counted], list[Answered]]


class OtherModelError(ValueError):
    """The batch is of a model that this function does not serve. It waits for one that does."""


class Worker:
    """Executes shards. `payer`: who pays for a batch's lines; `embed`: `Bulk.answer`; `probe`: `Bulk.probe`; `longest`:
    bytes of a line; `deaths`: after which it is dead (`careful.DEATHS`); `served`: ids of models."""

    def __init__(
        self,
        results: Results,
        shards: Shards,
        steps: Steps,
        payer: Callable[[Batch], Payer],
        embed: Embed,
        probe: Callable[[float | None], None],
        longest: int,
        deaths: int,
        served: Collection[str],
    ) -> None:
        self._results, self._shards, self._steps = results, shards, steps
        self._jobs, self._bucket = results.jobs, results.bucket
        self._payer, self._embed, self._probe = payer, embed, probe
        self._longest, self._deaths, self._served = longest, deaths, served

    def run(self, shard: Shard, received: int = 1, deadline: float | None = None) -> None:
        """Execute a shard, and see to what comes after it. Any number of times, at once or one after the other: it has
        one result, and one record of that. Raises StoreUnavailableError, BusyError, OtherModelError, or
        DeadlineError at the `deadline`."""
        batch = self._jobs.find(shard.account, shard.batch)
        if batch is None or batch.status != "in_progress" or batch.ends is not None:
            return  # what is left of it is closed
        if batch.expires_at <= self._jobs.clock():
            if self._jobs.expire(batch):
                self._steps.try_send(batch, CLOSE)
            return
        progress = self._results.done.progress(batch, shard.number)
        follows = progress is Progress.DONE  # whoever has counted it may have ended before it sent the next
        if progress is Progress.OPEN:
            told = self._results.told(batch, shard.number)
            if told is None:
                told = self._execute(batch, shard, received, deadline)
            follows = self._results.settle(batch, shard, told)
        if follows:
            self._follow(batch, shard)
        now = self._jobs.get(batch.account, batch.id)
        if now.status == "in_progress" and now.done == now.shards:
            self._steps.send(batch, FINISH)

    def _follow(self, batch: Batch, shard: Shard) -> None:
        """Send the shard whose turn it is after this one, and note that: if each event that comes again sent another,
        and that one another, there would soon be more of them than shards."""
        assert batch.shards is not None  # noqa: S101  (it is in progress)
        following = shard.number + batch.at_once
        if following < batch.shards:
            self._shards.send(list(plan.shards(self._bucket, batch, following, following + 1)))
            self._results.done.follow(batch, shard.number)

    def _execute(self, batch: Batch, shard: Shard, received: int, deadline: float | None) -> Mapping[str, str]:
        """What is told of the result, ours or another's."""
        if batch.model and batch.model not in self._served:
            raise OtherModelError(f"batch {batch.id} is of {batch.model}; here is {', '.join(self._served)}")
        takings = Takings(self._jobs.rows, batch, shard.number, self._payer(batch), self._jobs.clock())
        payer = takings.payer
        with Made(batch) as made:
            try:
                with (
                    self._groups(batch, shard, received, deadline) as groups,
                    closing(self._answers(groups, takings, deadline)) as answered,
                ):
                    for group, answers in answered:
                        for (line, asked), answer in zip(group, answers, strict=True):
                            made.answered(line, asked.custom_id, answer.status, answer.body, answer.tokens)
            except GoneError:
                log.error("the file of batch %s has changed or gone: shard %d has failed", batch.id, shard.number)
                made.lost(shard.lines)
            facts = {
                "model": str(batch.model),
                "key_id": payer.caller.key_id,
                "price": f"{payer.price:f}",
                "time": payer.time.isoformat(),
            }
            return self._results.put(batch, shard.number, made, facts)

    @contextmanager
    def _groups(self, batch: Batch, shard: Shard, received: int, deadline: float | None) -> Iterator[Iterator[Group]]:
        """The lines of a shard, whose line under way is taken back as soon as the block ends, not once whatever still
        refers to it has been collected."""
        place = careful.of_shard(batch, shard.number)
        if received < _CAREFUL and not careful.has_begun(self._jobs.rows, place):
            yield together(batch, read(self._bucket, batch, shard, self._longest))
            return
        with self._alone(deadline) as waited:
            self._probe(deadline)  # by whose illness no line is to be blamed
            own = Careful(self._jobs.rows, place, deadline, self._deaths, waited=waited)
            with own as at:
                # Where it ends the process, this is what is left of it.
                log.warning(
                    "shard %d of batch %s goes line by line, received %d times", shard.number, batch.id, received
                )
                yield one_by_one(batch, read(self._bucket, batch, shard, self._longest), at)

    @contextmanager
    def _alone(self, deadline: float | None) -> Iterator[bool]:
        """Of all shards in this process, the one that goes line by line, beside no message that is tried alone: what
        ends the process is told of one line. Those that it ends together come again together, and would each be at the
        same line as before. Whether it has waited long for that. Raises BusyError."""
        begun = time.monotonic()
        left = inf if deadline is None else max(0.0, deadline - begun)
        if not careful.ALONE.acquire(timeout=-1.0 if deadline is None else left * _WAITS):
            raise BusyError("another shard goes line by line in this process, or a message alone")
        try:
            yield time.monotonic() - begun > left * _MUCH
        finally:
            careful.ALONE.release()

    def _answers(
        self, groups: Iterator[Group], takings: Takings, deadline: float | None
    ) -> Generator[tuple[Sequence[Asked], list[Answered]], None, None]:
        """Groups and their answers in order. While the engine has one, the next is read and the one before written."""
        under_way: deque[tuple[Group, Future[list[Answered]]]] = deque()
        with ThreadPoolExecutor(2, "lines") as pool:
            try:
                for group in groups:
                    under_way.append((group, pool.submit(self._answer, group, takings, deadline)))
                    while len(under_way) >= (1 if group.alone else _GROUPS):
                        first, answers = under_way.popleft()
                        yield first.lines, answers.result()
                while under_way:
                    first, answers = under_way.popleft()
                    yield first.lines, answers.result()
            finally:
                for _, each in under_way:
                    each.cancel()

    def _answer(self, group: Group, takings: Takings, deadline: float | None) -> list[Answered]:
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineError
        if group.fate is Fate.DEAD:
            return group.failed()
        if group.fate is Fate.LATE:
            return group.too_late(deadline)
        places = enumerate((asked.body for _, asked in group.lines), group.first)
        # By the name that the plan found: a line's own may be an alias that this function does not know, or no more.
        readable = {place: {**body, "model": group.batch.model} for place, body in places if body is not None}
        found = self._embedded(group, readable, takings, deadline) if readable else []
        if found is None:
            return group.failed()
        answers = iter(found)
        return [self._refused(group, line) if asked.body is None else next(answers) for line, asked in group.lines]

    def _refused(self, group: Group, line: Line) -> Answered:
        if not line.cut:
            return group.refused(line)
        return Answered.refused(errors.BODY_TOO_LARGE.error(n=line.end - line.offset, limit=self._longest))

    def _embedded(
        self, group: Group, bodies: Mapping[int, Mapping[str, Any]], takings: Takings, deadline: float | None
    ) -> list[Answered] | None:
        """None where a line alone fails for good."""
        counted = takings.of([*bodies])
        embed = partial(self._embed, [*bodies.values()], takings.payer, deadline, counted)
        if not group.alone:
            return embed()

        def failed(name: str) -> None:
            log.error("a line of batch %s has failed: %s", group.batch.id, name)

        return careful.attempt(embed, partial(self._probe, deadline), failed)
