"""A ledger and its rollups for a test: records to write, the doors that sum them, and sums made by another hand."""

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler import store
from handler.billing.buckets import WIDTHS, Bucket, Group, Sums
from handler.billing.ledger import Ledger, Record, Work
from handler.billing.minutes import Minutes
from handler.billing.recount import Recount
from handler.billing.register import Entry
from handler.billing.renewal import Renewal
from handler.billing.rollups import Rollups
from handler.events.stream import Stream
from tests.stack.ministack import Tables

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NOON = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
MIDNIGHT = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())
FUNCTION = "emblet-Ledger"
_numbers = itertools.count()
_threads = ThreadPoolExecutor(16)


class Books:
    """Of one account, which no other test has. `client`: what reads and sums; records are written without faults."""

    def __init__(self, tables: Tables, client: "Callable[[], DynamoDBClient]" = store.dynamodb) -> None:
        self.tables, self.account = tables, f"acct_books_{next(_numbers)}"
        self.minutes, self.rollups = (
            Minutes(client, tables.usage, _threads),
            Rollups(client, tables.rollups),
        )
        self.recount = Recount(self.minutes, self.rollups)
        self.stream = Stream(self.recount, ThreadPoolExecutor(4), FUNCTION)
        self.records: list[Record] = []

    def seen_by(self, client: "Callable[[], DynamoDBClient]") -> "Books":
        """The same books, as a consumer with another client has them."""
        other = Books(self.tables, client)
        other.account, other.records = self.account, self.records
        return other

    def entry(self) -> Entry:
        """The account's in the register; a new one where there is none."""
        found = [each for each in self.rollups.register.entries() if each.account == self.account]
        return found[0] if found else Entry(self.account)

    def renewed(self, until: datetime) -> None:
        """All its hours have been summed until then."""
        assert self.rollups.register.renewed(self.entry(), int(until.timestamp()), late=True)

    def renewal(self, *others: "Books") -> Renewal:
        """Of this account, and of others; but for tests, it is of all that there are."""
        return Renewal(self.recount, lambda: [each.entry() for each in (self, *others)])

    def record(self, time: datetime = NOON, tokens: int = 5, **others: Any) -> Record:
        """A record that is not written yet."""
        work_hash = f"{random.getrandbits(64):016x}"
        work = Work(f"work-{next(_numbers)}", work_hash, time, others.pop("door", "http"))
        facts: dict[str, Any] = {"key_id": "key_a", "model": "bge-m3", "requests": 1, "price": Decimal("0.01")} | others
        return Record(work, self.account, tokens=tokens, **facts)

    def write(self, *records: Record) -> None:
        for record in records or [self.record()]:
            assert Ledger(store.dynamodb, self.tables.usage).write(record)
            self.records.append(record)

    def write_some(self, count: int, minutes: int = 180, seed: int = 0) -> list[Record]:
        """Records over so many minutes from noon on, of several keys, models, doors and prices."""
        chance = random.Random(seed)
        made = [
            self.record(
                NOON + timedelta(minutes=chance.randrange(minutes), seconds=chance.random() * 50),
                chance.randrange(9000),
                key_id=chance.choice(["key_a", "key_b", "key_c"]),
                model=chance.choice(["bge-m3", "all-minilm-l6-v2"]),
                door=chance.choice(["http", "message", "batch"]),
                requests=chance.choice([1, 1, 250]),
                price=chance.choice([Decimal("0.01"), Decimal("0.005"), Decimal("0.000000000001"), Decimal("7")]),
            )
            for _ in range(count)
        ]
        self.write(*made)
        return made

    def right(self, width: str) -> list[Bucket]:
        """What the records that were written come to."""
        buckets: dict[int, list[Record]] = {}
        for record in self.records:
            start = int(record.work.time.timestamp()) // WIDTHS[width] * WIDTHS[width]
            buckets.setdefault(start, []).append(record)
        return [Bucket(start, len(records), _groups(records)) for start, records in sorted(buckets.items())]

    def held(self, width: str) -> list[Bucket]:
        """What there is from 40 days before the records to 40 days after them."""
        rollups = Rollups(store.dynamodb, self.tables.rollups)
        times = [int(record.work.time.timestamp()) for record in self.records] or [MIDNIGHT]
        return list(rollups.read(self.account, width, min(times) - 40 * 86400, max(times) + 40 * 86400))

    def agree(self) -> bool:
        """Whether every rollup there is, and no other, says what the records come to."""
        return all(self.held(width) == self.right(width) for width in WIDTHS)

    def event(self, *records: Record) -> dict[str, Any]:
        """What the stream says of them (all of them), in this order."""
        return {"Records": [entry(record.key(), "INSERT") for record in records or self.records]}

    def check(self, *, mend: bool = False) -> list[tuple[str, int, str, bool]]:
        """Width, begin, what, mended."""
        found = self.recount.day(self.account, MIDNIGHT, mend=mend)
        return [(each.width, each.start, each.what, each.mended) for each in found]


def _groups(records: list[Record]) -> dict[Group, Sums]:
    groups: dict[Group, Sums] = {}
    for record in records:
        kind = "batch input_tokens" if record.work.door == "batch" else "input_tokens"
        group = Group(record.key_id, record.model, f"{record.model}, {kind}")
        if record.tokens or record.requests:
            one = Sums(record.tokens, record.requests, record.tokens * record.price / 1_000_000)
            groups[group] = groups.get(group, Sums()) + one
    return groups


def entry(key: dict[str, Any], name: str) -> dict[str, Any]:
    """A record of a stream of keys."""
    number = str(10**20 + next(_numbers))
    change = {"Keys": key, "SequenceNumber": number, "SizeBytes": 100, "StreamViewType": "KEYS_ONLY"}
    return {"eventName": name, "eventSource": "aws:dynamodb", "dynamodb": change}


def failures(*records: dict[str, Any]) -> dict[str, Any]:
    """The door's answer that names the first of these, or none."""
    return {"batchItemFailures": [{"itemIdentifier": each["dynamodb"]["SequenceNumber"]} for each in records[:1]]}
