"""Counters of a month against the ledger: ahead until an hour is closed and corrected, then equal, never behind."""

import itertools
import logging
import math
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from handler import store
from handler.billing.buckets import Bucket, Group, Sums
from handler.billing.corrections import correct
from handler.billing.limits import Counters
from handler.contract.limits import Limits
from tests.billing.conftest import NOON, Clock, caller, counted, demand
from tests.stack import faults
from tests.stack.ministack import Tables

HOUR = int(NOON) // 3600 * 3600
CLOSED = HOUR + 2 * 3600  # an hour after the end of NOON's
PLENTY = Limits(tokens_per_month=10**9, usd_per_month=Decimal(10**6))
USD = Decimal("0.000000000007")  # of a token
NOTHING = 0, Decimal(0)


class Ledger:
    """Rollups of what was recorded: `read` as Rollups has it, each hour's bucket whole."""

    def __init__(self) -> None:
        self.hours: dict[tuple[str, int], dict[Group, Sums]] = {}
        self.reads = 0

    def record(self, account: str, key_id: str, at: float, tokens: int, line: str = "bge-m3, input_tokens") -> None:
        groups = self.hours.setdefault((account, int(at) // 3600 * 3600), {})
        group = Group(key_id, "bge-m3", line)
        groups[group] = groups.get(group, Sums()) + Sums(tokens, 1, tokens * USD)

    def read(self, account: str, width: str, start: int, end: int) -> Iterator[Bucket]:
        assert width == "1h"
        self.reads += 1
        for (whose, hour), groups in sorted(self.hours.items(), key=lambda each: each[0]):
            if whose == account and start <= hour < end:
                yield Bucket(hour, sum(sums.requests for sums in groups.values()), groups)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


_numbers = itertools.count()


@pytest.fixture
def account(tables: Tables) -> str:
    """One that has used nothing, in a table that holds nothing else."""
    items = store.dynamodb().scan(TableName=tables.limits)["Items"]
    for item in items:
        store.dynamodb().delete_item(TableName=tables.limits, Key={"id": item["id"]})
    return f"acct_{next(_numbers)}"


def use(counters: Counters, account: str, key_id: str, tokens: int, at: float) -> None:
    """Count a request on a key and an account that have limits."""
    counters.take(caller(key_id, PLENTY, PLENTY, account), demand(tokens, tokens * USD, at))


def run(tables: Tables, ledger: Ledger, now: float = CLOSED) -> int:
    return correct(store.dynamodb, tables.limits, ledger, now)


def month(tables: Tables, owner: str) -> tuple[int, Decimal]:
    fields = counted(tables, owner)
    return int(fields.get("tokens@2026-11", 0)), fields.get("usd@2026-11", Decimal(0))


def hours(tables: Tables, owner: str) -> set[str]:
    """The fields of hours that are left."""
    fields = counted(tables, owner, "tokens").keys() | counted(tables, owner, "usd").keys()
    return {field for field in fields if len(field.partition("@")[2]) == len("2026-11-24T12")}


def test_what_was_counted_and_not_recorded_is_taken_off_key_and_account(
    counters: Counters, tables: Tables, clock: Clock, ledger: Ledger, account: str, key_id: str
) -> None:
    use(counters, account, key_id, 5, NOON)
    ledger.record(account, key_id, NOON, 5)
    use(counters, account, key_id, 100, NOON)  # refused, failed, or counted twice
    other = f"{key_id}-b"
    use(counters, account, other, 3, NOON)
    ledger.record(account, other, NOON, 3)
    assert run(tables, ledger) == 3
    assert month(tables, key_id) == (5, 5 * USD)
    assert month(tables, other) == (3, 3 * USD)
    assert month(tables, f"account#{account}") == (8, 8 * USD)
    assert hours(tables, key_id) == hours(tables, f"account#{account}") == set()
    assert ledger.reads == 1, "once for all keys of an account"


def test_a_keys_records_are_summed_over_its_line_items(
    counters: Counters, tables: Tables, ledger: Ledger, account: str, key_id: str
) -> None:
    for line in ("bge-m3, input_tokens", "bge-m3, batch input_tokens"):
        use(counters, account, key_id, 5, NOON)
        ledger.record(account, key_id, NOON, 5, line)
    run(tables, ledger)
    assert month(tables, key_id) == month(tables, f"account#{account}") == (10, 10 * USD)


def test_an_hour_is_left_alone_until_it_has_been_closed_for_an_hour(
    counters: Counters, tables: Tables, ledger: Ledger, account: str, key_id: str
) -> None:
    use(counters, account, key_id, 5, NOON)
    assert run(tables, ledger, CLOSED - 1) == 0
    assert month(tables, key_id) == (5, 5 * USD)
    assert run(tables, ledger, CLOSED) == 2
    assert month(tables, key_id) == NOTHING


def test_what_is_counted_in_a_later_hour_is_never_erased(
    counters: Counters, tables: Tables, clock: Clock, ledger: Ledger, account: str, key_id: str
) -> None:
    use(counters, account, key_id, 100, NOON)
    clock.now = CLOSED + 5.0
    use(counters, account, key_id, 7, clock.now)
    run(tables, ledger, clock.now)
    assert month(tables, key_id) == (7, 7 * USD)
    assert counted(tables, key_id, "tokens")["tokens@2026-11-24T14"] == 7


def test_a_limit_that_began_within_the_hour_is_held_against_all_of_it(
    counters: Counters, tables: Tables, ledger: Ledger, account: str, key_id: str
) -> None:
    """What the ledger has more is added, so that the counter is not behind."""
    ledger.record(account, key_id, HOUR, 50)
    use(counters, account, key_id, 5, NOON)
    ledger.record(account, key_id, NOON, 5)
    run(tables, ledger)
    assert month(tables, key_id) == (55, 55 * USD)


def test_running_again_or_many_at_once_changes_nothing(
    counters: Counters, tables: Tables, ledger: Ledger, account: str, key_id: str
) -> None:
    for number in range(10):
        use(counters, account, f"{key_id}-{number}", 5, NOON)
        ledger.record(account, f"{key_id}-{number}", NOON, 4)
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda _: run(tables, ledger), range(8)))
    assert sum(done) == 11
    assert {month(tables, f"{key_id}-{number}") for number in range(10)} == {(4, 4 * USD)}
    assert month(tables, f"account#{account}") == (40, 40 * USD)
    assert run(tables, ledger) == 0


@pytest.mark.parametrize(
    ("code", "status", "done", "times"),
    [
        ("ThrottlingException", 400, False, 1),
        ("ThrottlingException", 400, False, 2),
        ("ThrottlingException", 400, False, 3),
        ("InternalServerError", 500, True, 1),
        ("InternalServerError", 500, True, 2),
        ("InternalServerError", 500, True, 3),
        ("InternalServerError", 500, False, 99),
    ],
)
def test_whatever_dynamodb_answers_an_hour_is_corrected_once(
    counters: Counters,
    tables: Tables,
    ledger: Ledger,
    account: str,
    key_id: str,
    code: str,
    status: int,
    done: bool,
    times: int,
) -> None:
    use(counters, account, key_id, 9, NOON)
    use(counters, account, f"{key_id}-b", 9, NOON)
    ledger.record(account, key_id, NOON, 4)
    client = faults.client("UpdateItem", times, code=code, status=status, done=done)
    correct(lambda: client, tables.limits, ledger, CLOSED)
    for owner, left in ((key_id, 4), (f"{key_id}-b", 0), (f"account#{account}", 4)):
        assert month(tables, owner)[0] >= left, "never behind"
    run(tables, ledger)
    assert month(tables, key_id) == (4, 4 * USD)
    assert month(tables, f"{key_id}-b") == NOTHING
    assert month(tables, f"account#{account}") == (4, 4 * USD)


def test_rollups_out_of_reach_correct_nothing(counters: Counters, tables: Tables, account: str, key_id: str) -> None:
    class Away(Ledger):
        def read(self, *_: object) -> Iterator[Bucket]:
            raise store.StoreUnavailableError("ThrottlingException on Rollups")

    use(counters, account, key_id, 9, NOON)
    with pytest.raises(store.StoreUnavailableError):
        correct(store.dynamodb, tables.limits, Away(), CLOSED)
    assert month(tables, key_id) == (9, 9 * USD)


def test_the_last_hours_of_a_month_are_corrected_in_their_month(
    counters: Counters, tables: Tables, clock: Clock, ledger: Ledger, account: str, key_id: str
) -> None:
    clock.now = last = 1796083199.0  # 2026-11-30T23:59:59Z
    use(counters, account, key_id, 9, last)
    ledger.record(account, key_id, last, 4)
    clock.now += 2 * 3600
    use(counters, account, key_id, 3, clock.now)
    run(tables, ledger, clock.now)
    assert month(tables, key_id) == (4, 4 * USD)
    assert counted(tables, key_id)["tokens@2026-12"] == 3


def test_a_month_that_is_forgotten_is_not_made_anew(
    counters: Counters, tables: Tables, ledger: Ledger, account: str, key_id: str
) -> None:
    use(counters, account, key_id, 9, NOON)
    store.dynamodb().update_item(
        TableName=tables.limits,
        Key={"id": {"S": f"key#{key_id}"}},
        UpdateExpression="REMOVE #t, #u",
        ExpressionAttributeNames={"#t": "tokens@2026-11", "#u": "usd@2026-11"},
    )
    run(tables, ledger)
    assert set(counted(tables, key_id)) == {"requests@2026-11-24T12:00", "tokens@2026-11-24T12:00"}
    assert hours(tables, key_id) == set()


def test_a_run_ends_at_its_deadline_and_the_next_goes_on(
    counters: Counters, tables: Tables, ledger: Ledger, account: str, key_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    use(counters, account, key_id, 9, NOON)
    with caplog.at_level(logging.INFO):
        assert correct(store.dynamodb, tables.limits, ledger, CLOSED, time.monotonic()) == 0
        assert correct(store.dynamodb, tables.limits, ledger, CLOSED, math.inf) == 2
    messages = [each.getMessage() for each in caplog.records if each.getMessage().startswith("correction:")]
    assert messages == [
        "correction: out of time after 1 items; 0 hours corrected",
        "correction: 2 items read, 2 hours corrected, 0 failed",
    ]


def test_through_a_day_of_faults_counters_are_never_behind_the_ledger_and_equal_it_in_the_end(
    tables: Tables, clock: Clock, ledger: Ledger, account: str, key_id: str
) -> None:
    """Requests that fail after they were counted, counts whose answers are lost, corrections that run late, twice, in
    part or not at all, clocks apart: the month is at least what is recorded, always."""
    chance = random.Random(8)
    recorded: dict[str, int] = {}
    keys = [f"{key_id}-{number}" for number in range(3)]
    clock.now = HOUR
    for _ in range(150):
        clock.now += chance.uniform(60, 1200)
        for key in chance.sample(keys, 2):
            tokens, at = chance.randint(1, 9), clock.now - chance.uniform(0, 200)
            lost = chance.random() < 0.2
            client = faults.client("UpdateItem", 1, code="InternalServerError", status=500, done=True)
            counters = Counters((lambda client=client: client) if lost else store.dynamodb, tables.limits, clock)  # type: ignore[misc]
            use(counters, account, key, tokens, at)
            if chance.random() < 0.7:
                ledger.record(account, key, at, tokens)
                for owner in (key, f"account#{account}"):
                    recorded[owner] = recorded.get(owner, 0) + tokens
        if chance.random() < 0.2:
            broken = faults.client(
                "UpdateItem", chance.randint(0, 4), code="InternalServerError", status=500, done=chance.random() < 0.5
            )
            correct(lambda: broken, tables.limits, ledger, clock.now)  # noqa: B023
        for owner, tokens in recorded.items():
            assert month(tables, owner)[0] >= tokens, "never behind"
            assert month(tables, owner)[1] >= tokens * USD
    run(tables, ledger, clock.now + 3 * 3600)
    for owner, tokens in recorded.items():
        assert month(tables, owner) == (tokens, tokens * USD)
