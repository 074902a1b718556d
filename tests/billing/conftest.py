"""A clock to turn, counters that go by it, and what the tests ask of them."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from handler import store
from handler.billing.keys import Caller
from handler.billing.limits import Counters
from handler.contract.errors import ApiError
from handler.contract.limits import NO_LIMITS, Demand, Limits
from tests.stack import patience
from tests.stack.ministack import Tables
from tests.stack.quotas import Quota

NOON = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC).timestamp()
CLOSED = datetime(2026, 11, 24, 14, tzinfo=UTC).timestamp()  # when NOON's hour has been over for one


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(tables: Tables, clock: Clock) -> Counters:
    return Counters(store.dynamodb, tables.limits, clock)


@pytest.fixture
def quota(tables: Tables, clock: Clock) -> Quota:
    return Quota(tables, clock)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """`store.dynamodb` waits for an emulator that many callers keep busy."""
    client = patience.client(200)
    monkeypatch.setattr(store, "_dynamodb", lambda: client)


_numbers = itertools.count()


@pytest.fixture
def key_id() -> str:
    """A key that has used nothing."""
    return f"key_{next(_numbers):016}"


def item(tables: Tables, owner: str) -> dict[str, Any]:
    """The counters of a key, or of an `account#…`."""
    key = {"id": {"S": owner if "#" in owner else f"key#{owner}"}}
    return dict(store.dynamodb().get_item(TableName=tables.limits, Key=key, ConsistentRead=True).get("Item", {}))


def counted(tables: Tables, owner: str, unit: str = "") -> dict[str, Decimal]:
    """Those of minutes and months, or of one unit, hours too; without the money of who has none to count."""
    fields = {name: Decimal(value["N"]) for name, value in item(tables, owner).items() if "@" in name}
    if unit:
        return {name: amount for name, amount in fields.items() if name.startswith(f"{unit}@")}
    return {name: amount for name, amount in fields.items() if len(name.partition("@")[2]) != 13 and amount}


def caller(key_id: str, limits: Limits = NO_LIMITS, of_account: Limits = NO_LIMITS, account: str = "acct_a") -> Caller:
    return Caller(account, key_id, "inference", limits, of_account)


def demand(tokens: int = 1, usd: str | Decimal = "0", at: float = NOON) -> Demand:
    return Demand("bge-m3", tokens, Decimal(usd), at)


def count(counters: Counters, key_id: str, limits: Limits, tokens: int = 1) -> dict[str, str]:
    """A key's request of now."""
    return counters.take(caller(key_id, limits), demand(tokens, at=counters._clock()))


def take(counters: Counters, key_id: str, limits: Limits, tokens: int = 1) -> str | None:
    """The type of the 429, None if the request passes."""
    try:
        count(counters, key_id, limits, tokens)
    except ApiError as error:
        return error.problem.type
    return None
