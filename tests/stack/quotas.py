"""An account with limits in a test: what it uses, what of that is recorded, and what its months are corrected to."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler import store
from handler.billing import records
from handler.billing.corrections import Corrections
from handler.billing.keys import Caller
from handler.billing.ledger import Ledger, Record
from handler.billing.limits import Counters
from handler.billing.renewal import Renewed
from handler.contract.limits import Demand, Limits
from handler.events.drain import Drain
from handler.events.schedule import Job, Schedule
from tests.stack.books import Books
from tests.stack.ministack import Tables
from tests.stack.queues import Queue

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

USD = Decimal("0.000000000007")  # of a token
PRICE = USD * 1_000_000
PLENTY = Limits(tokens_per_month=10**9, usd_per_month=Decimal(10**6))
HOUR = 3600

Used = tuple[int, Decimal]  # tokens, USD
NOTHING: Used = 0, Decimal(0)

_numbers = itertools.count()


def used(tokens: int) -> Used:
    return tokens, tokens * USD


class Quota:
    """An account that no other test has, and the Limits table, which holds nothing else."""

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self.tables, self.clock, self.books = tables, clock, Books(tables)
        self.account, self.owner = self.books.account, f"account#{self.books.account}"
        self.key = f"key_quota_{next(_numbers):08}"
        for item in tables.counters():
            store.dynamodb().delete_item(TableName=tables.limits, Key={"id": item["id"]})

    def count(
        self,
        tokens: int,
        at: float | None = None,
        *,
        key: str = "",
        limits: Limits = PLENTY,
        client: "Callable[[], DynamoDBClient]" = store.dynamodb,
    ) -> None:
        """A request that came `at` and is counted now, on its key and its account."""
        who = Caller(self.account, key or self.key, "inference", limits, limits)
        demand = Demand("bge-m3", tokens, tokens * USD, self.clock() if at is None else at)
        Counters(client, self.tables.limits, self.clock).take(who, demand)

    def record(self, tokens: int, at: float | None = None, *, key: str = "", **others: Any) -> Record:
        """The record of a request that came `at`, not written yet."""
        time = datetime.fromtimestamp(self.clock() if at is None else at, UTC)
        return self.books.record(time, tokens, key_id=key or self.key, price=PRICE, **others)

    def write(self, record: Record, *, heard: bool = True) -> None:
        """Into the ledger; `heard`: its stream has told the rollups."""
        self.books.write(record)
        if heard:
            self.books.stream(self.books.event(record), None)

    def use(self, tokens: int, at: float | None = None, *, key: str = "") -> None:
        """Counted, answered and recorded."""
        self.count(tokens, at, key=key)
        self.write(self.record(tokens, at, key=key))

    def corrections(self, client: "Callable[[], DynamoDBClient]" = store.dynamodb) -> Corrections:
        return Corrections(client, self.tables.limits, self.books.recount, "emblet-Ledger", self.clock)

    def correct(self, until: float | None = None) -> int:
        """As the hourly event does it, now or at a time in the past; the stream has lost nothing of who is known."""
        now = int(self.clock() if until is None else until)
        return self.corrections()(now // HOUR * HOUR - HOUR, renewed=Renewed(frozenset(self.books.rollups.accounts())))

    def hourly(self, *jobs: Job, now: float | None = None) -> None:
        """The hourly event of this account, now or of a time in the past; its job is the correction, or these."""
        time = f"{datetime.fromtimestamp(self.clock() if now is None else now, UTC):%Y-%m-%dT%H:%M:%SZ}"
        Schedule(self.books.renewal(), jobs or [self.corrections()])({"time": time}, None)

    def drain(self, client: "Callable[[], DynamoDBClient]" = store.dynamodb) -> Drain:
        """The door of the ledger queue; `client`: of its counters."""
        ledger = Ledger(store.dynamodb, self.tables.usage, self.tables.entries)
        return Drain(ledger, Counters(client, self.tables.limits, self.clock), self.books.rollups.register)

    def deliver(self, record: Record, door: Drain | None = None) -> bool:
        """Whether the door is done with a record from the queue; the stream tells the rollups of what is written."""
        queue = Queue()
        queue.send(records.dumps(record))
        done = queue.deliver(door or self.drain()) == 1
        held = store.dynamodb().get_item(TableName=self.tables.usage, Key=record.key(), ConsistentRead=True)
        if "Item" in held and record not in self.books.records:
            self.books.records.append(record)
            self.books.stream(self.books.event(record), None)
        return done

    def item(self, owner: str = "") -> dict[str, Any]:
        key = {"id": {"S": owner if "#" in owner else f"key#{owner or self.key}"}}
        return dict(
            store.dynamodb().get_item(TableName=self.tables.limits, Key=key, ConsistentRead=True).get("Item", {})
        )

    def month(self, owner: str = "", month: str = "2026-11") -> Used:
        """What it has of the month: the account's key, another's, or the account (`owner`)."""
        item, none = self.item(owner), {"N": "0"}
        return int(item.get(f"tokens@{month}", none)["N"]), Decimal(item.get(f"usd@{month}", none)["N"])

    def hours(self, owner: str = "") -> dict[str, int]:
        """The tokens of fields of hours that are left."""
        names = (name for name in self.item(owner) if name.startswith("tokens@"))
        minute, month = len("tokens@2026-11-24T12:00"), len("tokens@2026-11")
        return {
            name.removeprefix("tokens@"): int(self.item(owner)[name]["N"])
            for name in names
            if len(name) not in (minute, month)
        }

    def recorded(self, owner: str = "", month: str = "2026-11") -> Used:
        """What the ledger itself has, records that no rollup sums yet among it."""
        key = owner or self.key
        of_it = [each for each in self.books.records if "#" in key or each.key_id == key]
        return used(sum(each.tokens for each in of_it if f"{each.work.time:%Y-%m}" == month))
