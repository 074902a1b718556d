"""A clock to turn, counters that go by it, and what the tests ask of them."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from handler import store
from handler.billing.limits import Counters
from handler.contract.errors import ApiError
from handler.contract.limits import Limits
from tests.stack.ministack import Tables

NOON = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC).timestamp()


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


_numbers = itertools.count()


@pytest.fixture
def key_id() -> str:
    """A key that has used nothing."""
    return f"key_{next(_numbers):016}"


def item(tables: Tables, key_id: str) -> dict[str, Any]:
    found = store.dynamodb().get_item(TableName=tables.limits, Key={"id": {"S": f"key#{key_id}"}}, ConsistentRead=True)
    return dict(found.get("Item", {}))


def counted(tables: Tables, key_id: str) -> dict[str, int]:
    return {name: int(value["N"]) for name, value in item(tables, key_id).items() if name != "id"}


def take(counters: Counters, key_id: str, limits: Limits, tokens: int = 1) -> str | None:
    """The type of the 429, None if the request passes."""
    try:
        counters.take(key_id, limits, tokens, "bge-m3")
    except ApiError as error:
        return error.problem.type
    return None
