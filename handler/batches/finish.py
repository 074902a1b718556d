"""The third pass: what is left of a batch is closed, its results are made one file of outputs and one of errors, and it
has its last state."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from handler.batches import plan
from handler.batches.bucket import result, work
from handler.batches.jobs import Jobs
from handler.batches.join import OutOfTimeError, Piece, join
from handler.batches.queue import CLOSE, FINISH, PLAN, RESUME, Shard, Steps
from handler.batches.results import Results
from handler.batches.rows import new_id
from handler.contract.batches import CANCELLED, EXPIRED, FINAL, LOST, Batch, Fault
from handler.contract.files import File

log = logging.getLogger(__name__)

_AT_ONCE = 8  # shards that are closed
_LOST_S = 900  # after which a batch that is not planned has lost its message


class Finisher:
    """Ends batches. `longest`: bytes of a line."""

    def __init__(self, results: Results, steps: Steps, longest: int) -> None:
        self._results, self._steps, self._longest = results, steps, longest
        self._jobs, self._bucket = results.jobs, results.bucket

    def close(self, batch: Batch, is_over: Callable[[], bool]) -> None:
        """Give each line that no shard has reached its error, and finish. What there is no time for comes with another
        message. Raises StoreUnavailableError."""
        cancelled = batch.status == "cancelling"
        if batch.shards is None:
            ended = self._jobs.end(batch, "cancelled" if cancelled else "expired", None, None)
            now = batch if ended else self._jobs.get(batch.account, batch.id)
            if ended or now.shards is None:
                return
            batch = now  # it has been planned just now
        with ThreadPoolExecutor(_AT_ONCE, "close") as pool:
            left = self._left(batch)
            while some := list(islice(left, 4 * _AT_ONCE)):
                if is_over():
                    self._steps.send(batch, CLOSE)
                    return
                why = CANCELLED if cancelled else EXPIRED
                done = [pool.submit(self._results.unreached, batch, each, why, self._longest) for each in some]
                for each in done:
                    each.result()
        self.finish(self._jobs.get(batch.account, batch.id), is_over)

    def finish(self, batch: Batch, is_over: Callable[[], bool]) -> None:
        """Join what came of the shards, once all are done. Raises StoreUnavailableError."""
        if batch.status in FINAL or batch.shards is None or batch.done != batch.shards:
            return
        if batch.status == "in_progress":
            finalizing = self._jobs.finalize(batch)
            if finalizing is None:
                finalizing = self._jobs.get(batch.account, batch.id)
                if finalizing.status not in ("finalizing", "cancelling"):
                    return
            batch = finalizing
        try:
            output = join(self._bucket, self._outputs(batch), batch.output_key, work(batch, "joined/output-"), is_over)
            errors = join(self._bucket, self._errors(batch), batch.error_key, work(batch, "joined/error-"), is_over)
        except OutOfTimeError:
            self._steps.send(batch, FINISH)
            return
        status = "cancelled" if batch.status == "cancelling" else batch.ends or "completed"
        made = self._file(batch, batch.output_key, output), self._file(batch, batch.error_key, errors)
        if self._jobs.end(batch, status, *made, self._lost(batch)):
            log.info("batch %s is %s: %d bytes of output, %d of errors", batch.id, status, output, errors)

    def _left(self, batch: Batch) -> Iterator[Shard]:
        assert batch.shards is not None  # noqa: S101  (it is planned)
        done = {number for number, _ in self._results.done.of(batch)}
        for shard in plan.shards(self._bucket, batch, 0, batch.shards):
            if shard.number not in done:
                yield shard

    def _outputs(self, batch: Batch) -> Iterator[Piece]:
        for number, counts in self._results.done.of(batch):
            yield Piece(result(batch, number), 0, counts.output)

    def _errors(self, batch: Batch) -> Iterator[Piece]:
        for number, counts in self._results.done.of(batch):
            yield Piece(result(batch, number), counts.output, counts.output + counts.errors)

    def _lost(self, batch: Batch) -> tuple[Fault, ...]:
        """What is to be said of lines that could not be read: of a shard whose file was gone, or whose result is none,
        each has failed, and none has an error."""
        done = self._results.done.of(batch) if batch.failed else ()
        lost = sum(counts.failed for _, counts in done if not counts.errors)
        return (replace(LOST, message=LOST.message.format(n=lost)),) if lost else ()

    def _file(self, batch: Batch, key: str, size: int) -> File | None:
        if not size:
            return None
        now, name = self._jobs.clock(), key.rpartition("/")[2]
        expires_at = int(now) + batch.output_lasts_s
        return File(
            *(new_id("file-", now), batch.account, key, size, int(now), name, "batch_output", "processed", expires_at)
        )


class Overdue:
    """The hourly work on batches: those whose time is up expire, and what a lost message was to do is asked for
    again."""

    def __init__(self, jobs: Jobs, steps: Steps) -> None:
        self._jobs, self._steps = jobs, steps

    def __call__(self, *_: object) -> None:
        """Raises StoreUnavailableError."""
        now = self._jobs.clock()
        for batch in self._jobs.open():
            if batch.expires_at <= now and batch.status in ("validating", "in_progress") and batch.ends is None:
                batch = self._jobs.expire(batch) or batch
            if do := _next(batch, now):
                self._steps.send(batch, do)


def _next(batch: Batch, now: float) -> str | None:
    """What an open batch may wait for."""
    if batch.status == "cancelling" or (batch.ends is not None and batch.status != "finalizing"):
        return CLOSE
    if batch.status == "validating":
        return PLAN if now - batch.created_at > _LOST_S else None
    return FINISH if batch.done == batch.shards else RESUME
