"""The planner and the finisher of a batch over stand-ins that keep nothing, so that what they take is their own."""

import io
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from handler import models
from handler.batches import join
from handler.batches.bucket import Bucket
from handler.batches.finish import Finisher
from handler.batches.plan import Bounds, Planner
from handler.batches.queue import Shards, Steps
from handler.batches.results import Results
from handler.batches.rows import Rows
from handler.contract.batches import Batch
from handler.contract.models import Models
from handler.engine import manifest
from handler.settings import Settings
from tests.conftest import HOUSE

MODEL = "all-minilm-l6-v2"
RESULT = 100  # bytes of a stub's line
PER_SHARD = 3000  # lines of a finished shard
_LINE = b'{"custom_id":"c-%d","method":"POST","url":"/v1/embeddings","body":{"model":"' + MODEL.encode() + b'",'
_LINE += b'"input":"a text of some words, as they come","encoding_format":"base64"}}\n'
_ROWS = 1000  # of a page of DynamoDB's


class Lines:
    """A file of short lines as S3 streams it, never whole in memory. `seconds`: what making them took."""

    def __init__(self, lines: int) -> None:
        self._lines, self.seconds = lines, 0.0

    def iter_chunks(self, _size: int) -> Iterator[bytes]:
        for start in range(0, self._lines, 5000):
            began = time.perf_counter()
            chunk = b"".join(_LINE % number for number in range(start, min(start + 5000, self._lines)))
            self.seconds += time.perf_counter() - began
            yield chunk


class Body(io.BytesIO):
    def iter_chunks(self, size: int) -> Iterator[bytes]:
        while chunk := self.read(size):
            yield chunk


class S3:
    """S3 with one file of lines, a plan, and results of any size; what is joined is counted and forgotten."""

    def __init__(self, lines: int) -> None:
        self.lines, self.parts, self.smallest, self.bytes = Lines(lines), 0, 1 << 40, 0
        self._last, self._plan = 0, b""

    def get_object(self, *, Key: str, Range: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803
        if Key == "in":
            return {"Body": self.lines, "ETag": "e"}
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        found = self._plan[first : last + 1] if "/plan-" in Key else b"x" * (last - first + 1)
        return {"Body": Body(found), "ETag": "e"}

    def put_object(self, *, Body: bytes, **_: Any) -> None:  # noqa: N803
        self._plan = Body

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        from botocore.exceptions import ClientError

        if Key == "in":
            return {"ContentLength": 1}
        raise ClientError({"Error": {"Code": "404", "Message": ""}}, "HeadObject")

    def create_multipart_upload(self, **_: Any) -> dict[str, str]:
        return {"UploadId": "u"}

    def upload_part(self, *, Body: bytes, **_: Any) -> dict[str, str]:  # noqa: N803
        self.smallest = min(self.smallest, self._last or 1 << 40)
        self.parts, self._last, self.bytes = self.parts + 1, len(Body), self.bytes + len(Body)
        return {"ETag": "e"}

    def complete_multipart_upload(self, **_: Any) -> dict[str, str]:
        return {}


class Table:
    """A Jobs table in which every shard of a batch is done."""

    def __init__(self, lines: int) -> None:
        self._lines, self.shards = lines, -(-lines // PER_SHARD)

    def query(self, *, ExclusiveStartKey: Any = None, **_: Any) -> dict[str, Any]:  # noqa: N803
        start = int(ExclusiveStartKey["sk"]["S"]) + 1 if ExclusiveStartKey else 0
        rows = [self._row(shard) for shard in range(start, min(start + _ROWS, self.shards))]
        more = start + _ROWS < self.shards
        return {"Items": rows} | ({"LastEvaluatedKey": {"sk": rows[-1]["sk"]}} if more else {})

    def _row(self, shard: int) -> dict[str, Any]:
        lines = min(PER_SHARD, self._lines - shard * PER_SHARD)
        numbers = {"completed": lines, "failed": 0, "tokens": 5 * lines, "output": lines * RESULT, "errors": 0}
        return {"sk": {"S": f"{shard:08}"}, **{name: {"N": str(value)} for name, value in numbers.items()}}


class Jobs:
    """The batch that is asked for, in whatever state it is put."""

    def __init__(self, lines: int) -> None:
        self.rows, self.ended = Rows(lambda: Table(lines), "stub"), ""  # type: ignore[arg-type, return-value]
        self.faults: tuple[Any, ...] = ()

    def clock(self) -> float:
        return time.time()

    def plan(self, batch: Batch, model: str, etag: str, total: int, shards: int, at_once: int) -> Batch:
        planned = replace(batch, status="in_progress", times={"in_progress_at": int(self.clock())})
        return replace(planned, model=model, etag=etag, total=total, shards=shards, at_once=at_once)

    def fail(self, _batch: Batch, faults: tuple[Any, ...]) -> None:
        self.faults = faults

    def finalize(self, batch: Batch) -> Batch:
        return replace(batch, status="finalizing")

    def end(self, _batch: Batch, status: str, *_: Any) -> bool:
        self.ended = status
        return True


class Queues:
    def send_message_batch(self, **_: Any) -> dict[str, Any]:
        return {}


def batch(**more: Any) -> Batch:
    return Batch("batch_stub", "acct", "file-stub", "in", 0, 86400, 86400, **more)


def planned(lines: int) -> float:
    """Plan a batch of so many lines; the seconds that it took, without those for making the lines."""
    served = Models(models.of_layer(manifest.load(HOUSE / "model_layer/out" / MODEL), Settings()))
    jobs, s3 = Jobs(0), S3(lines)  # none of its shards is done
    results = Results(jobs, _bucket(s3), None)  # type: ignore[arg-type]
    planner = Planner(results, Shards(Queues, "u", 16), served, Bounds())
    start = time.perf_counter()
    made = planner.plan(batch())
    seconds = time.perf_counter() - start
    assert made is not None, jobs.faults[:3]
    assert made.total == lines
    return seconds - s3.lines.seconds


def finished(lines: int) -> float:
    """Finish a batch of so many done lines; the seconds that it took. What S3 demands of parts is held to."""
    jobs, s3, shards = Jobs(lines), S3(lines), Table(lines).shards
    results = Results(jobs, _bucket(s3), None)  # type: ignore[arg-type]
    finisher = Finisher(results, Steps(Queues, "u"), 8 << 20)
    done = batch(status="in_progress", shards=shards, done=shards, total=lines, completed=lines)
    start = time.perf_counter()
    finisher.finish(done, lambda: False)
    seconds = time.perf_counter() - start
    assert (jobs.ended, s3.bytes) == ("completed", lines * RESULT)
    assert s3.smallest >= join.PART
    assert s3.parts <= 10_000
    return seconds


def _bucket(s3: S3) -> Bucket:
    return Bucket(lambda: s3, "stub")  # type: ignore[arg-type, return-value]


def peak_mib() -> float:
    """Of this process, so far. (getrusage's may be that of who has started it.)"""
    return _status("VmHWM")


def now_mib() -> float:
    return _status("VmRSS")


def _status(name: str) -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        found = re.search(rf"{name}:\s+(\d+)", status.read())
    assert found is not None
    return int(found[1]) / 1024
