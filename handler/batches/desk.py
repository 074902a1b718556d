"""What callers do with batches: begin them and cancel them. The work is others'."""

import time
from collections.abc import Callable

from handler import store
from handler.batches.files import Files
from handler.batches.jobs import Jobs, ReusedError
from handler.batches.queue import CLOSE, PLAN, Steps
from handler.batches.rows import new_id
from handler.billing.keys import Caller
from handler.billing.work import Identity
from handler.contract import errors
from handler.contract.batches import MOST, WINDOW_S, Asked, Batch
from handler.contract.errors import ApiError
from handler.contract.files import File, Page
from handler.settings import Settings


class Desk:
    """The batches of all accounts. Every call raises StoreUnavailableError where a store cannot be reached."""

    def __init__(self, jobs: Jobs, files: Files, steps: Steps, clock: Callable[[], float] = time.time) -> None:
        self.jobs, self._files, self._steps, self._clock = jobs, files, steps, clock

    @classmethod
    def open(cls, config: Settings) -> "Desk":
        files = Files.open(config)
        return cls(Jobs(files.rows), files, Steps(store.queues, config.plans_queue))

    def create(
        self, asked: Asked, caller: Caller, key_hash: str, identity: Identity | None, again_s: float = 0
    ) -> tuple[Batch, bool]:
        """A batch of a file's lines, and whether it is new: under the same `identity` it is made once, and found also
        when its file is gone. `again_s`: seconds within which what asks for it without one may have asked before, by
        itself: then it is what it was. Raises 400."""
        name = (identity.id, identity.asked) if identity else ()
        try:
            made, new = self.jobs.named(caller.account, *name) if name else None, False
            if not name and again_s:
                made = self._made_before(asked, caller.account, key_hash, self._clock() - again_s)
            if made is None:
                batch = self._batch(asked, caller, key_hash)
                made = self.jobs.create(batch, *name)
                new = made.id == batch.id
        except ReusedError:
            raise errors.KEY_REUSED.error(param="Idempotency-Key") from None
        if made.status == "validating":
            self._steps.try_send(made, PLAN)
        return made, new

    def cancel(self, account: str, batch_id: str) -> Batch:
        """Raises 404, and 400 where it has ended otherwise."""
        batch = self.jobs.cancel(account, batch_id)
        if batch.status == "cancelling":
            self._steps.try_send(batch, CLOSE)
        return batch

    def _made_before(self, asked: Asked, account: str, key_hash: str, since: float) -> Batch | None:
        """The newest batch since then that was asked for with the same words and key."""
        said = (asked.input_file_id, asked.metadata, asked.output_lasts_s, key_hash)
        found, _ = self.jobs.page(account, Page(MOST))
        for batch in found:
            same = said == (batch.input_file_id, batch.metadata, batch.output_lasts_s, batch.key_hash)
            if same and batch.created_at >= int(since):
                return batch
        return None

    def _batch(self, asked: Asked, caller: Caller, key_hash: str) -> Batch:
        file, now = self._file(asked, caller.account), self._clock()
        return Batch(
            id=new_id("batch_", now),
            account=caller.account,
            input_file_id=file.id,
            input_key=file.key,
            created_at=int(now),
            expires_at=int(now) + WINDOW_S,
            output_lasts_s=asked.output_lasts_s,
            key_id=caller.key_id,
            key_hash=key_hash,
            metadata=asked.metadata,
        )

    def _file(self, asked: Asked, account: str) -> File:
        try:
            file = self._files.find(account, asked.input_file_id)
        except ApiError:
            raise _unfit(asked, "ids of files of this account") from None
        if file.purpose != "batch":
            raise _unfit(asked, f"files of purpose 'batch', and this one is of purpose '{file.purpose}'")
        if file.status != "processed":
            not_put = "the bytes of this one have not been put yet: PUT them to its upload.url first"
            raise _unfit(asked, f"files that are processed, and {not_put}")
        return file


def _unfit(asked: Asked, values: str) -> ApiError:
    return errors.INVALID_VALUE.error(param="input_file_id", value=asked.input_file_id, values=values)
