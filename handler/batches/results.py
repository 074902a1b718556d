"""What has come of shards, whoever has executed or closed them: put first writer wins, then recorded and counted by
what is told of the object that is there."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO

from handler.batches import lines
from handler.batches.bucket import Bucket, GoneError, result
from handler.batches.done import Counts, Done
from handler.batches.jobs import Jobs
from handler.batches.lines import Line, Writer
from handler.batches.queue import Shard
from handler.billing.ledger import Ledger, Record, Work
from handler.contract.batches import Batch, Unreached

log = logging.getLogger(__name__)

_IN_MEMORY = 64 << 20  # bytes of a result; what is larger lies on disk until it is put


class Results:
    """What has come of shards: in the bucket, in the ledger, and counted, in this order."""

    def __init__(self, jobs: Jobs, bucket: Bucket, ledger: Ledger) -> None:
        self.jobs, self.bucket, self._ledger = jobs, bucket, ledger
        self.done = Done(jobs.rows, jobs.clock)

    def settle(self, batch: Batch, shard: Shard, told: Mapping[str, str]) -> bool:
        """Record and count a result by what is `told` of it, any number of times: once it counts. Whether it was now.
        Of an object that another hand has put there nothing is: then all lines have failed. Raises
        StoreUnavailableError."""
        try:
            counts = Counts(**{name: int(told[name]) for name in Counts.__dataclass_fields__})
            record = _record(batch, shard.number, counts, told) if counts.completed else None
        except (KeyError, ValueError, ArithmeticError):
            log.error("%s is no result: shard %d has failed", result(batch, shard.number), shard.number)
            counts, record = Counts(0, shard.lines, 0, 0, 0), None
        if record is not None:
            self._ledger.write(record)
        return self.done.count(batch, shard.number, counts)

    def told(self, batch: Batch, number: int) -> Mapping[str, str] | None:
        """What is told of a result that is there."""
        return self.bucket.head(result(batch, number))

    def put(self, batch: Batch, number: int, made: "Made", facts: Mapping[str, str]) -> Mapping[str, str]:
        """Put a result where there is none; what is told of the one that is there then."""
        counts = {name: str(value) for name, value in vars(made.counts()).items()}
        with made.body() as body:
            return self.bucket.put_new(result(batch, number), body, counts | dict(facts))

    def unreached(self, batch: Batch, shard: Shard, why: Unreached, longest: int) -> None:
        """A shard that nobody will execute: each of its lines says why. Where an attempt has a result, that counts."""
        if (found := self.told(batch, shard.number)) is None:
            with Made(batch) as made:
                try:
                    for line in read(self.bucket, batch, shard, longest):
                        made.unreached(line, why)
                except GoneError:
                    made.lost(shard.lines)
                found = self.put(batch, shard.number, made, {})
        self.settle(batch, shard, found)


class Made:
    """A result while it is made: lines of output, lines of errors, and what is to be told of them."""

    def __init__(self, batch: Batch) -> None:
        self._writer, self._errors = Writer(batch.id), bytearray()
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  (ends with ours)
        self._completed = self._failed = self._tokens = self._output = 0

    def __enter__(self) -> "Made":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def answered(self, line: Line, custom_id: str | None, status: int, body: bytes, tokens: int) -> None:
        text = self._writer.answered(line.offset, custom_id, status, body)
        if status == 200:
            self._output += self._file.write(text)
            self._completed += 1
            self._tokens += tokens
        else:
            self._errors += text
            self._failed += 1

    def unreached(self, line: Line, why: Unreached) -> None:
        custom_id = lines.planned(line).custom_id
        self._errors += self._writer.unreached(line.offset, custom_id, why)
        self._failed += 1

    def lost(self, count: int) -> None:
        """Lines that cannot be read any more: their file has been deleted."""
        self._failed = count - self._completed

    def counts(self) -> Counts:
        return Counts(self._completed, self._failed, self._tokens, self._output, len(self._errors))

    def body(self) -> IO[bytes]:
        self._file.seek(self._output)
        self._file.write(self._errors)
        self._file.seek(0)
        return self._file


def read(bucket: Bucket, batch: Batch, shard: Shard, longest: int) -> Iterator[Line]:
    """The lines of a shard. Raises GoneError where the file is not the one that was planned."""
    chunks = bucket.read(batch.input_key, shard.start, shard.end, batch.etag)
    return lines.split(chunks, longest, shard.start)


def _record(batch: Batch, number: int, counts: Counts, told: Mapping[str, str]) -> Record:
    """The ledger's record of a shard: the same, whoever makes it."""
    name = hashlib.sha256(f"{batch.id}#{number}".encode()).hexdigest()
    made_at = datetime.fromtimestamp(batch.created_at, UTC)  # of results that do not tell of their own time yet
    time_of = datetime.fromisoformat(told["time"]) if "time" in told else made_at
    work = Work(f"{batch.id}-{number:08}", name, time_of, "batch")
    price = Decimal(told["price"])
    return Record(work, batch.account, told["key_id"], told["model"], counts.tokens, counts.completed, price)
