"""Usage that tests make up: records in the ledger, the rollups that they come to, and what any of them add up to."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

from handler import store
from handler.billing.buckets import WIDTHS, Bucket, Group, Sums, cost, line_item
from handler.billing.ledger import Ledger, Record, Work
from handler.billing.rollups import Rollups
from tests.stack.ministack import Tables

K = TypeVar("K")
Spent = tuple[int, int, Fraction]  # tokens, requests, USD

MODELS = ("bge-m3", "all-minilm-l6-v2")
DOORS = ("http", "message", "batch")
PRICES = tuple(map(Decimal, ("0.01", "0.005", "0.013", "0.000000000001", "123456789.000000000001", "0")))
# A leap day between two months: buckets of every width begin here.
EDGES = [datetime(2024, 2, 28, 12, tzinfo=UTC) + timedelta(hours=12 * half) for half in range(1, 6)]


def made_up(seed: int, accounts: Sequence[str], n: int) -> list[Record]:
    """Records of these accounts from 2024-02-28 to 03-02, many of them at the very edge of a minute, hour or day."""
    rng = random.Random(seed)
    return [_record(rng, rng.choice(accounts)) for _ in range(n)]


def _record(rng: random.Random, account: str) -> Record:
    time = rng.choice(EDGES) + timedelta(microseconds=rng.choice((-1, 0, 1)))
    if rng.random() < 0.7:
        time += timedelta(hours=rng.randint(-11, 11), minutes=rng.choice((0, 1, 30, 59)), seconds=rng.choice((0, 59)))
    door = rng.choice(DOORS)
    work = Work(f"{rng.getrandbits(128):032x}", f"{rng.getrandbits(64):016x}", time, door)
    tokens, requests = rng.choice((0, 1, rng.randint(2, 300_000))), rng.randint(1, 50) if door == "batch" else 1
    key_id = f"key_{account}_{rng.randint(1, 3)}"
    return Record(work, account, key_id, rng.choice(MODELS), tokens, requests, rng.choice(PRICES))


def write(tables: Tables, records: Iterable[Record]) -> None:
    """Into the ledger, and each bucket's row into the rollups."""
    records = list(records)
    ledger, rollups = Ledger(store.dynamodb, tables.usage), Rollups(store.dynamodb, tables.rollups)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ledger.write, records))
        assert all(pool.map(lambda row: rollups.set(*row), _rows(records)))


def _rows(records: Iterable[Record]) -> list[tuple[str, str, Bucket]]:
    rows: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        for width, seconds in WIDTHS.items():
            rows[record.account, width, starts(record, seconds)].append(record)
    return [(account, width, _bucket(start, of_it)) for (account, width, start), of_it in rows.items()]


def _bucket(start: int, records: Sequence[Record]) -> Bucket:
    groups: dict[Group, Sums] = defaultdict(Sums)
    for each in records:
        group = Group(each.key_id, each.model, line_item(each.model, each.work.door))
        groups[group] += Sums(each.tokens, each.requests, cost(each.tokens, each.price))
    return Bucket(start, len(records), groups)


def starts(record: Record, seconds: int) -> int:
    """Where the bucket of this width begins that a record belongs to."""
    return int(record.work.time.timestamp()) // seconds * seconds


def spent(records: Iterable[Record], by: Callable[[Record], K]) -> dict[K, Spent]:
    """Sums by whatever tells records apart, in the arithmetic of fractions, which no context rounds."""
    sums: dict[K, Spent] = defaultdict(lambda: (0, 0, Fraction(0)))
    for each in records:
        tokens, requests, usd = sums[by(each)]
        paid = Fraction(each.price) * each.tokens / 1_000_000
        sums[by(each)] = tokens + each.tokens, requests + each.requests, usd + paid
    return dict(sums)
