"""The first pass: a batch's file is streamed once, every line of it checked, and cut into shards. Whether the file
fails is decided here, before any work is billed."""

import logging
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest

from handler.batches import cost, lines
from handler.batches.bucket import Bucket, GoneError, work
from handler.batches.duplicates import Names
from handler.batches.lines import FaultError, Line
from handler.batches.queue import Shard, Shards
from handler.batches.results import Results
from handler.contract import errors, fields
from handler.contract.batches import (
    DUPLICATE,
    EMPTY,
    GONE,
    MOST_FAULTS,
    NOT_SERVED,
    OTHER_MODEL,
    TOO_MANY,
    Batch,
    Fault,
)
from handler.contract.inputs import MAX_INPUTS
from handler.contract.models import Models
from handler.settings import Settings

log = logging.getLogger(__name__)

_STALLED_S = 3600  # one that waits longer has another sent, which does nothing where it only waited
_RANGE = struct.Struct("<QQQ")  # begin, end and lines of a shard, in the plan's object


@dataclass
class Plan:
    """What was found in a file. `ranges`: begin, end and lines of each shard, one after the other."""

    model: str = ""
    total: int = 0
    ranges: "array[int]" = field(default_factory=lambda: array("Q"))
    faults: list[Fault] = field(default_factory=list)

    @property
    def shards(self) -> int:
        return len(self.ranges) // 3

    def told(self) -> dict[str, str]:
        """What is written of the plan's object: of two attempts that cut otherwise, it is the one that is there."""
        return {"model": self.model, "total": str(self.total), "shards": str(self.shards)}

    def dumps(self) -> bytes:
        return b"".join(_RANGE.pack(*self.ranges[place : place + 3]) for place in range(0, len(self.ranges), 3))


@dataclass(frozen=True)
class Bounds:
    """What a file may have, 0 for any number, and what a line and a shard may."""

    requests: int = 0
    inputs: int = 0
    bytes: int = 0
    line: int = 8 << 20
    shard: int = 400_000

    @classmethod
    def of(cls, config: Settings) -> "Bounds":
        return cls(
            config.batch_max_requests,
            config.batch_max_inputs,
            config.batch_max_bytes,
            config.batch_max_line_bytes,
            config.batch_shard_bytes,
        )


class Planner:
    """Plans batches whose files lie in the bucket. `models`: those that are served."""

    def __init__(self, results: Results, queue: Shards, models: Models, bounds: Bounds) -> None:
        self._jobs, self._bucket, self._done = results.jobs, results.bucket, results.done
        self._queue, self._models, self._bounds = queue, models, bounds

    def plan(self, batch: Batch) -> Batch | None:
        """The batch `in_progress` with its first shards sent; None where it has failed or is in another state. Done
        twice, it is done once: what an earlier attempt has got done is found."""
        if batch.status == "validating" and batch.ends is None:
            try:
                chunks, etag = self._bucket.stream(batch.input_key, etag=batch.etag)
                found = read(chunks, self._models, self._bounds)
                if self._bucket.size(batch.input_key) is None:  # deleted while it was read, which S3 brings to its end
                    raise GoneError
            except GoneError:
                found, etag = Plan(faults=[GONE]), ""
            if found.faults:
                self._jobs.fail(batch, tuple(found.faults))
                return None
            told = self._bucket.put_new(_plan(batch, etag), found.dumps(), found.told())
            total, shards = int(told["total"]), int(told["shards"])
            planned = self._jobs.plan(batch, told.get("model", ""), etag, total, shards, self._queue.at_once)
            batch = planned or self._jobs.get(batch.account, batch.id)
        if batch.status != "in_progress" or batch.ends is not None:
            return None
        self._send(batch, self._done.due(batch))
        return batch

    def resume(self, batch: Batch) -> None:
        """Send what of a batch has lost its message or has ended among the dead letters: its shards whose turn has
        long been. Raises StoreUnavailableError."""
        if batch.status == "in_progress":
            self._send(batch, self._done.due(batch, self._jobs.clock() - _STALLED_S))

    def _send(self, batch: Batch, due: list[int]) -> None:
        if due:
            found = shards(self._bucket, batch, due[0], due[-1] + 1)
            self._queue.send([each for each in found if each.number in due])


def shards(bucket: Bucket, batch: Batch, start: int, end: int) -> Iterator[Shard]:
    """Shards of a batch that is planned, as its plan has them."""
    if start >= end:
        return
    rest, place = b"", start
    for chunk in bucket.read(_plan(batch, batch.etag), start * _RANGE.size, end * _RANGE.size):
        rest += chunk
        whole = len(rest) - len(rest) % _RANGE.size
        for begin, stop, count in _RANGE.iter_unpack(rest[:whole]):
            yield Shard(batch.account, batch.id, place, begin, stop, count)
            place += 1
        rest = rest[whole:]


def _plan(batch: Batch, etag: str) -> str:
    """Of the file with this tag: an object may have been put again since an attempt that came no further."""
    return work(batch, "plan-" + etag.strip('"'))


def read(chunks: Iterable[bytes], models: Models, bounds: Bounds) -> Plan:
    """The plan of a file. Memory does not grow with it, but for 24 bytes a shard."""
    with Names() as names:
        reading = _Reading(models, bounds, names)
        for line in lines.split(_counted(chunks, reading), bounds.line):
            reading.take(line)
            if len(reading.plan.faults) >= MOST_FAULTS or reading.is_over:
                return reading.plan
        return reading.end()


def _counted(chunks: Iterable[bytes], reading: "_Reading") -> Iterator[bytes]:
    for chunk in chunks:
        reading.size += len(chunk)
        yield chunk


class _Reading:
    """The file as far as it has been read."""

    def __init__(self, models: Models, bounds: Bounds, names: Names) -> None:
        self.plan, self.size, self.is_over = Plan(), 0, False
        self._models, self._bounds, self._names = models, bounds, names
        self._limits = any((bounds.requests, bounds.inputs, bounds.bytes))
        self._known: dict[str, str] = {}  # a name that lines have → the model's id
        self._inputs = 0
        self._model = models.all[0]
        self._start = self._end = self._lines = self._in_shard = 0
        self._attention = 0.0  # of the lines in the shard, in bytes

    def take(self, line: Line) -> None:
        plan = self.plan
        plan.total += 1
        try:
            asked = lines.request(line)
            inputs = lines.inputs(asked.body) if asked.body is not None else 1
            if asked.body is not None:
                self._check_model(asked.body["model"])
        except FaultError as error:
            plan.faults.append(error.at(line.number, self._bounds.line))
            return
        self._names.add(asked.custom_id, line.number)
        self._inputs += inputs
        if self._limits:
            self._limit()
        attention = cost.attention(self._model, line.end - line.offset, asked.body, inputs) if asked.body else 0.0
        self._cut(line, inputs, attention)

    def end(self) -> Plan:
        plan = self.plan
        self._close()
        if not plan.total:
            plan.faults.append(EMPTY)
        room = MOST_FAULTS - len(plan.faults)
        repeated = nsmallest(room, self._names.repeated())
        plan.faults += [DUPLICATE.at(line, "custom_id", first=first) for line, first in repeated]
        plan.faults.sort(key=lambda fault: fault.line or 0)
        return plan

    def _check_model(self, name: str) -> None:
        """It must be one that is served, and that of the lines before. Raises FaultError."""
        if name not in self._known:
            try:
                self._known[name] = self._models.find(name).id
            except errors.ApiError:
                served = fields.quoted(tuple(model.id for model in self._models.all))
                raise FaultError(NOT_SERVED, "body.model", id=name, values=served) from None
        self.plan.model = self.plan.model or self._known[name]
        if self._known[name] != self.plan.model:
            raise FaultError(OTHER_MODEL, "body.model", id=name, model=self.plan.model)

    def _limit(self) -> None:
        for what, most, found in (
            ("requests", self._bounds.requests, self.plan.total),
            ("inputs", self._bounds.inputs, self._inputs),
            ("bytes", self._bounds.bytes, self.size),
        ):
            if most and found > most:
                fault = Fault(TOO_MANY.code, TOO_MANY.message.format(most=most, what=what))
                self.plan.faults, self.is_over = [fault], True
                return

    def _cut(self, line: Line, inputs: int, attention: float) -> None:
        """A shard takes lines while what they cost is little, by which its time is bounded, and their bytes and inputs,
        by which its result is."""
        costs = line.end - self._start + self._attention + attention
        full = costs > self._bounds.shard or self._in_shard + inputs > MAX_INPUTS
        if self._lines and full:
            self._close()
        if not self._lines:
            self._start = line.offset
        self._end, self._lines, self._in_shard = line.end, self._lines + 1, self._in_shard + inputs
        self._attention += attention

    def _close(self) -> None:
        if self._lines:
            self.plan.ranges.extend((self._start, self._end, self._lines))
        self._lines, self._in_shard, self._attention = 0, 0, 0.0
