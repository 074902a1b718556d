"""A DynamoDB that answers everything, and slowly: a caller waits no longer for its record, and is billed once."""

import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config

from handler import store
from handler.billing.budget import Budget
from handler.billing.ledger import Attempt, Ledger, Outcome, Record, Work
from handler.billing.limits import Counters
from handler.billing.outbox import Outbox
from handler.billing.register import Register
from handler.events.drain import Drain
from tests.billing.conftest import Clock
from tests.stack.ministack import MiniStack, Tables
from tests.stack.outage import Fault, Outage
from tests.stack.queues import Queue

WIDEST_S = 3600  # as RETRY_WINDOW may be
LONGEST_S = 2.5
FOREVER = 10_000
_numbers = itertools.count()


@pytest.fixture
def outage(ministack: MiniStack) -> Iterator[Outage]:
    with Outage(ministack.endpoint) as outage:
        yield outage


def slow(outage: Outage, timeout_s: float) -> Any:
    """A client that waits so long for an answer, once."""
    once = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=store._CONNECT_S,
        read_timeout=timeout_s,
        max_pool_connections=64,
    )
    return boto3.client("dynamodb", endpoint_url=outage.url, config=once)


def attempt(account: str, count: int, ago_s: float) -> Record:
    came = datetime.now(UTC) - timedelta(seconds=ago_s)
    work = Work(f"{next(_numbers):032x}", "d7" * 32, came, "http", attempt=Attempt(count, 1.0))
    return Record(work, account, "key_1", "bge-m3", 5, 1, Decimal("0.01"))


@pytest.mark.parametrize("late_s", [0.05, 0.4])
@pytest.mark.parametrize("ago_s", [0.1, 3.0], ids=["it looks back", "it looks ahead too"])
def test_looking_through_the_widest_window_is_within_the_bound(
    tables: Tables, outage: Outage, ago_s: float, late_s: float
) -> None:
    account, queue = f"acct_{uuid.uuid4().hex[:12]}", Queue()
    plain = Ledger(store.dynamodb, tables.usage, tables.entries, window_s=WIDEST_S)
    assert plain.write(attempt(account, 0, 1800)) is Outcome.BILLED
    outage.begin(Fault("Query", FOREVER, late_s=late_s), Fault("PutItem", FOREVER, late_s=late_s))
    clients = {name: slow(outage, seconds) for name, seconds in (("embed", store.HURRIED_S), ("ledger", 10))}
    hurried = Ledger(
        lambda: clients["embed"],
        tables.usage,
        tables.entries,
        Outbox(lambda: boto3.client("sqs"), queue.url, "f"),
        window_s=WIDEST_S,
    )
    start = time.perf_counter()
    hurried.write(attempt(account, 1, ago_s))
    assert time.perf_counter() - start < LONGEST_S
    patient = Ledger(lambda: clients["ledger"], tables.usage, tables.entries, window_s=WIDEST_S)
    queue.deliver(Drain(patient, Counters(store.dynamodb, tables.limits), Register(store.dynamodb, tables.rollups)))
    records = [item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#")]
    assert sum(int(item["tokens"]["N"]) for item in records) == 5
    assert len([item for item in records if "work" in item]) == 1, "the retry is excused, now or from the queue"


def test_nothing_is_begun_that_could_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, begun = Clock(0), list[float]()
    monkeypatch.setattr("handler.billing.budget.time", SimpleNamespace(monotonic=clock))
    budget = Budget(30, 10)

    def operation() -> None:
        begun.append(clock.now)
        clock.now += 6

    with pytest.raises(store.StoreUnavailableError, match="no time left for Usage"):  # noqa: PT012
        while True:
            budget.call(operation, "Usage")
    assert begun == [0, 6, 12, 18]


def test_a_wide_window_finds_what_came_an_hour_before_and_no_more(tables: Tables) -> None:
    account = f"acct_{uuid.uuid4().hex[:12]}"
    ledger = Ledger(store.dynamodb, tables.usage, tables.entries, window_s=WIDEST_S)
    ledger.settle(attempt(account, 0, WIDEST_S - 5))
    retry = attempt(account, 1, 0)
    assert ledger.settle(retry) is Outcome.REPLAYED
    later = replace(retry, work=replace(retry.work, id="later", time=retry.work.time + timedelta(seconds=120)))
    assert ledger.settle(replace(later, work=replace(later.work, attempt=Attempt(2, 1.0)))) is Outcome.BILLED
