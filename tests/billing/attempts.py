"""Records of what was asked for more than once, and what an account has been billed for it."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from handler.billing.ledger import Attempt, Identity, Record, Work
from tests.stack.ministack import Tables

NOON = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BODY, OTHER = "a3" * 32, "a4" * 32
numbers = itertools.count()


def record(account: str, **work: Any) -> Record:
    made = Work(f"{next(numbers):032x}", BODY, NOON, "http")
    return Record(replace(made, **work), account, "key_1", "bge-m3", 5, 1, Decimal("0.01"))


def attempt(account: str, count: int, after_s: float = 0.0, patience_s: float | None = 600.0, **work: Any) -> Record:
    """Attempt number `count`, come in so many seconds after noon."""
    return record(account, attempt=Attempt(count, patience_s), time=NOON + timedelta(seconds=after_s), **work)


def named(account: str, name: str = "b" * 64, asked: str = BODY, after: timedelta = timedelta(), **work: Any) -> Record:
    return record(account, identity=Identity("http", name, asked, 48 * 3600), time=NOON + after, **work)


def tokens(tables: Tables, account: str) -> int:
    """What the account has been billed."""
    return sum(int(item["tokens"]["N"]) for item in tables.records() if item["pk"]["S"].startswith(f"{account}#"))
