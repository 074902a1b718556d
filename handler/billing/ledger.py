"""The ledger: one record per piece of work, written before its answer leaves, never changed and never deleted.

`python -m handler.billing.ledger replay LOGFILE` writes what only the log could take (ledgertool.py).
"""

import logging
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING

from handler import store
from handler.billing import budget, entries, records, retries
from handler.billing.budget import Budget
from handler.billing.entries import Seen
from handler.billing.outbox import Outbox
from handler.billing.puts import Met, Puts
from handler.billing.records import Record
from handler.billing.work import Attempt, Identity, Work

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

__all__ = ["Attempt", "Identity", "Ledger", "Outcome", "Record", "Work"]

log = logging.getLogger(__name__)

_LONGEST = timedelta(days=3650)  # what waited anywhere may have been repeated meanwhile


class Outcome(Enum):
    """What became of a record."""

    BILLED = auto()
    REPLAYED = auto()  # its work has been billed already
    REUSED = auto()  # its identity is another work's; nothing was written


class Ledger:
    """The Usage table, with the Entries beside it and, behind it, the queue for what it does not take.

    `window_s`: how far an SDK's attempts at one call may lie apart; up to the next whole minute, so that either of two
    is found from the other.
    """

    def __init__(
        self,
        client: Callable[[], "DynamoDBClient"],
        table: str,
        entries_table: str = "",
        outbox: Outbox | None = None,
        window_s: int = 600,
    ) -> None:
        self._puts, self._outbox = Puts(client, table, entries_table), outbox
        self._window = timedelta(minutes=math.ceil(window_s / 60))
        self._hurried = outbox is not None

    @property
    def knows_identities(self) -> bool:
        """Whether work that has an identity can be recorded."""
        return bool(self._puts.entries)

    def warm(self) -> None:
        """Make the client and its connection before the first record has to; a table out of reach is only logged."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._holds({"pk": {"S": "none"}, "sk": {"S": "none"}})
        except (BotoCoreError, ClientError) as error:
            log.warning("Usage table out of reach: %s", store.reason(error, self._puts.usage))

    def write(self, record: Record) -> Outcome:
        """Record a piece of work whose answer is made, within `budget.SECONDS`, or leave that to the ledger queue: then
        it counts as billed, and is found a repetition where it is written.

        Raises StoreUnavailableError only where there is no queue; then nothing is billed and no answer may leave.
        """
        try:
            return self._write(record, datetime.now(UTC), self._budget())
        except store.StoreUnavailableError as error:
            if self._outbox is None:
                return self._certain(record, error)
            self._outbox.keep(record)
            return Outcome.BILLED

    def is_reused(self, record: Record) -> bool:
        """Whether work that has an identity would be REUSED if it were recorded now, and has not been billed all the
        same: for doors whose answers leave before they are recorded. Raises StoreUnavailableError."""
        entry = self._puts.entry(record, self._budget())
        if entry is None or not entries.refuses(record, entry):
            return False
        with store.answering(self._puts.usage):
            return not self._holds(record.key())

    def is_billed(self, record: Record) -> bool:
        """Whether the work of a record is in the ledger, with whatever else it says. Raises StoreUnavailableError."""
        entry = self._puts.entry(record, self._budget()) if record.work.identity is not None else None
        if entry is not None and not entries.refuses(record, entry):
            return True
        with store.answering(self._puts.usage):
            return self._holds(record.key())

    def settle(self, record: Record) -> Outcome:
        """Write a record whose answer has left long since: any number of times, in any order with others, as much is
        billed; within bounds where several calls with one body are in one window (retries.py). Raises
        StoreUnavailableError."""
        outcome = self._write(record, record.work.time + _LONGEST, Budget(budget.PATIENT_S, store.TIMEOUT_S))
        if outcome is Outcome.REUSED:  # and yet it was answered
            met = self._puts.put(record.item(), Budget(budget.PATIENT_S, store.TIMEOUT_S))
            outcome = Outcome.BILLED if met is None else Outcome.REPLAYED
        return outcome

    def _write(self, record: Record, now: datetime, allowance: Budget) -> Outcome:
        """`now`: until when other attempts at the same call may have been made."""
        if record.work.identity is not None:
            return self._write_named(record, allowance)
        if retries.looks(record, now):
            found = retries.find(self._puts, record, self._window, now, allowance)
            if found.itself or found.excused or self._excuse(record, found.older, allowance):
                return Outcome.REPLAYED
        return _known(self._puts.put(record.item(), allowance), allowance)

    def _write_named(self, record: Record, allowance: Budget) -> Outcome:
        met = self._puts.put(record.item(), allowance, record)
        if met is None or met.entry is None:
            return _known(met, allowance)
        match entries.seen(record, met.entry):
            case Seen.ITSELF:
                return _known(met, allowance)
            case Seen.BEFORE:
                return Outcome.REPLAYED
            case Seen.OTHERWISE | Seen.LATER:
                return Outcome.REUSED

    def _excuse(self, record: Record, older: list[records.Item], allowance: Budget) -> bool:
        """Whether one of these records excuses this one, and no other of its count."""
        attempt, mine = record.work.attempt, {"S": record.work.id}
        assert attempt is not None  # noqa: S101  (no other looks)
        for each in older:
            met = self._puts.put(record.excuse(each, attempt.count), allowance)
            if met is None or (met.item or {}).get("work") == mine:
                return True
        return False

    def _certain(self, record: Record, error: store.StoreUnavailableError) -> Outcome:
        """Both attempts' answers may be lost and the record be there; what is recorded is answered."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            held = self._holds(record.key())
        except (BotoCoreError, ClientError):
            held = False
        if not held:
            raise error
        return Outcome.BILLED

    def _holds(self, key: records.Item) -> bool:
        answer = self._puts.client().get_item(TableName=self._puts.usage, Key=key, ConsistentRead=True)
        return "Item" in answer

    def _budget(self) -> Budget:
        if self._hurried:
            return Budget(budget.SECONDS, store.HURRIED_S)
        return Budget(2 * store.TIMEOUT_S + budget.SECONDS, store.TIMEOUT_S)


def _known(met: Met | None, allowance: Budget) -> Outcome:
    """A put that found its own record there: an earlier attempt of ours has written it and its answer was lost, or the
    same event has come twice."""
    return Outcome.BILLED if met is None or allowance.failures else Outcome.REPLAYED


if __name__ == "__main__":
    from handler.billing import ledgertool

    sys.exit(ledgertool.main())
