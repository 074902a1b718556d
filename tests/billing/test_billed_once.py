"""One record per piece of work: what repeats it is known by its identity, or as another attempt at the same call."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from handler import store
from handler.billing.ledger import Ledger, Outcome, Record
from tests.billing.attempts import BODY, DAY, HOUR, NOON, OTHER, attempt, named, numbers, tokens
from tests.stack import faults
from tests.stack.ministack import Tables


@pytest.fixture
def account() -> str:
    """An account without records."""
    return f"acct_once_{next(numbers)}"


@pytest.fixture
def ledger(tables: Tables) -> Ledger:
    return Ledger(store.dynamodb, tables.usage, tables.entries)


# Identities


def test_what_has_been_asked_for_under_a_name_is_billed_once(ledger: Ledger, tables: Tables, account: str) -> None:
    outcomes = [ledger.write(named(account, after=HOUR * n)) for n in range(3)]
    assert outcomes == [Outcome.BILLED, Outcome.REPLAYED, Outcome.REPLAYED]
    assert tokens(tables, account) == 5


def test_a_name_that_is_used_for_something_else_is_refused_and_not_billed(
    ledger: Ledger, tables: Tables, account: str
) -> None:
    assert [ledger.write(named(account)), ledger.write(named(account, asked=OTHER))] == [
        Outcome.BILLED,
        Outcome.REUSED,
    ]
    assert tokens(tables, account) == 5


def test_whether_a_name_is_other_works_can_be_known_beforehand(ledger: Ledger, account: str) -> None:
    assert not ledger.is_reused(named(account))
    ledger.write(named(account))
    other, late = (named(account, asked=OTHER, after=after) for after in (HOUR, 2 * DAY))
    assert [ledger.is_reused(each) for each in (named(account), other, late)] == [False, True, False]
    ledger.settle(other)  # it was answered all the same, and billed
    assert not ledger.is_reused(other)


def test_a_name_is_its_accounts_and_its_doors(ledger: Ledger, tables: Tables, account: str) -> None:
    of_a_message = named(account)
    assert of_a_message.work.identity is not None
    message = replace(of_a_message.work, identity=replace(of_a_message.work.identity, kind="message"))
    for each in (named(account), named(f"{account}x"), replace(of_a_message, work=message)):
        assert ledger.write(each) is Outcome.BILLED


def test_a_name_is_forgotten_after_its_time_though_its_entry_is_still_there(
    ledger: Ledger, tables: Tables, account: str
) -> None:
    late = timedelta(hours=48) - timedelta(seconds=1), timedelta(hours=48)
    outcomes = [ledger.write(named(account, after=after)) for after in (timedelta(), *late)]
    assert outcomes == [Outcome.BILLED, Outcome.REPLAYED, Outcome.BILLED]
    [entry] = [each for each in tables.remembered() if each["id"]["S"].startswith(f"{account}#")]
    assert int(entry["ttl"]["N"]) > int(entry["expires"]["N"]) == int((NOON + 4 * DAY).timestamp())


@pytest.mark.usefixtures("patient")
def test_two_hundred_writers_of_one_name_make_one_record(ledger: Ledger, tables: Tables, account: str) -> None:
    with ThreadPoolExecutor(200) as threads:
        outcomes = list(threads.map(ledger.write, [named(account) for _ in range(200)]))
    assert (outcomes.count(Outcome.BILLED), outcomes.count(Outcome.REPLAYED)) == (1, 199)
    assert tokens(tables, account) == 5


def test_a_conflict_with_another_writer_is_waited_for(tables: Tables, account: str) -> None:
    """More often than a failure would be repeated: it says that DynamoDB is there."""
    client = faults.cancelled(5, "TransactionConflict", "None")
    assert Ledger(lambda: client, tables.usage, tables.entries).write(named(account)) is Outcome.BILLED
    assert tokens(tables, account) == 5


@pytest.mark.parametrize("times", [1, 2])
def test_a_transaction_whose_answers_are_lost_is_its_own_and_no_repetition(
    tables: Tables, account: str, times: int
) -> None:
    client = faults.client("TransactWriteItems", times, code="InternalServerError", status=500, done=True, attempts=1)
    assert Ledger(lambda: client, tables.usage, tables.entries).write(named(account)) is Outcome.BILLED
    assert tokens(tables, account) == 5


def test_a_name_without_a_table_to_remember_it_is_refused_before_any_work(tables: Tables) -> None:
    assert not Ledger(store.dynamodb, tables.usage).knows_identities


# An SDK's own attempts


def test_a_retry_is_paid_by_the_attempt_before_it(ledger: Ledger, tables: Tables, account: str) -> None:
    assert ledger.write(now(attempt(account, 0))) is Outcome.BILLED
    assert ledger.write(now(attempt(account, 1))) is Outcome.REPLAYED
    assert ledger.write(now(attempt(account, 2))) is Outcome.REPLAYED
    assert tokens(tables, account) == 5


def test_a_record_excuses_each_count_once(ledger: Ledger, tables: Tables, account: str) -> None:
    for count, outcome in ((0, "BILLED"), (1, "REPLAYED"), (1, "BILLED"), (1, "BILLED"), (2, "REPLAYED")):
        assert ledger.write(now(attempt(account, count))) is Outcome[outcome]


def test_a_first_attempt_is_its_own_work(ledger: Ledger, account: str) -> None:
    """Two calls with the same body are two calls."""
    assert [ledger.write(now(attempt(account, 0))) for _ in range(2)] == [Outcome.BILLED] * 2


@pytest.mark.parametrize(
    "other",
    [
        lambda account: attempt(f"{account}x", 1),
        lambda account: attempt(account, 1, hash=BODY[:16] + "0" * 48),
        lambda account: attempt(account, 1, hash=OTHER),
        lambda account: attempt(account, 0),
        lambda account: attempt(account, 1, after_s=721),
        lambda account: attempt(account, 1, after_s=-1),
    ],
    ids=["account", "body of the same key", "body", "same count", "out of the window", "came before"],
)
def test_another_callers_request_is_no_retry(ledger: Ledger, account: str, other: Callable[[str], Record]) -> None:
    ledger.settle(attempt(account, 0))
    assert ledger.settle(other(account)) is Outcome.BILLED


@pytest.mark.parametrize("after_s", [0.5, 60, 599])
@pytest.mark.parametrize("midnight", [False, True])
def test_a_retry_is_found_within_the_window_also_across_midnight(
    ledger: Ledger, account: str, after_s: float, *, midnight: bool
) -> None:
    start = NOON.replace(hour=23, minute=59, second=59) if midnight else NOON
    first, second = (attempt(account, count) for count in (0, 1))
    ledger.settle(replace(first, work=replace(first.work, time=start)))
    retried = replace(second, work=replace(second.work, time=start + timedelta(seconds=after_s)))
    assert ledger.settle(retried) is Outcome.REPLAYED


def test_a_slow_original_is_paid_by_the_retry_that_ended_before_it(
    ledger: Ledger, tables: Tables, account: str
) -> None:
    original, retry = now(attempt(account, 0), ago_s=3), now(attempt(account, 1), ago_s=1)
    assert [ledger.write(retry), ledger.write(original)] == [Outcome.BILLED, Outcome.REPLAYED]
    assert tokens(tables, account) == 5


@pytest.mark.parametrize(("pair", "billed"), [("call", 10), ("name", 5)])
def test_of_two_attempts_that_end_within_a_round_trip_only_a_name_makes_one_record(
    ledger: Ledger, tables: Tables, account: str, pair: str, billed: int
) -> None:
    """The first is written after the second has looked, and before it is written."""
    first, second = (now(attempt(account, n)) if pair == "call" else now(named(account)) for n in range(2))
    client, between = boto3.client("dynamodb"), iter([first])

    def write_between(**_: Any) -> None:
        for each in between:
            ledger.write(each)

    for operation in ("PutItem", "TransactWriteItems"):
        client.meta.events.register(f"before-send.dynamodb.{operation}", write_between)
    Ledger(lambda: client, tables.usage, tables.entries).write(second)
    assert tokens(tables, account) == billed


@pytest.mark.parametrize(("ago_s", "patience_s", "queries"), [(1, 600, 0), (3, 600, 1), (1, 1.5, 1), (3, None, 0)])
def test_a_first_attempt_looks_only_if_its_client_may_have_lost_patience(
    tables: Tables, account: str, ago_s: float, patience_s: float | None, queries: int
) -> None:
    client, calls = counted()
    Ledger(lambda: client, tables.usage).write(now(attempt(account, 0, patience_s=patience_s), ago_s=ago_s))
    assert min(calls.count("Query"), 1) == queries


def test_the_ordinary_way_is_one_call(tables: Tables, account: str) -> None:
    client, calls = counted()
    for each in (now(attempt(account, 0)), named(account)):
        Ledger(lambda: client, tables.usage, tables.entries).write(each)
    assert calls == ["PutItem", "TransactWriteItems"]


def now(made: Record, ago_s: float = 0.0) -> Record:
    """The record of work that came in just now, or so long ago."""
    return replace(made, work=replace(made.work, time=datetime.now(UTC) - timedelta(seconds=ago_s)))


def counted() -> tuple[Any, list[str]]:
    """A client, and the operations it sends."""
    client = boto3.client("dynamodb")
    calls: list[str] = []
    client.meta.events.register(
        "before-send.dynamodb",
        lambda request, **_: calls.append(request.headers["X-Amz-Target"].decode().split(".")[1]),
    )
    return client, calls


@pytest.mark.parametrize("paid", [False, True], ids=["it is a record", "it is excused"])
def test_an_attempt_that_is_written_again_takes_no_excuse_from_another(
    ledger: Ledger, account: str, *, paid: bool
) -> None:
    if paid:
        ledger.settle(attempt(account, 0, -2, patience_s=None))
    retry = attempt(account, 1)
    ledger.settle(retry)
    ledger.settle(attempt(account, 0, -1, patience_s=None))  # of another call with the same body
    ledger.settle(retry)
    assert ledger.settle(attempt(account, 1)) is Outcome.REPLAYED


def test_an_excuse_whose_answer_is_lost_is_its_own(ledger: Ledger, tables: Tables, account: str) -> None:
    ledger.write(now(attempt(account, 0)))
    client = faults.client("PutItem", 1, code="InternalServerError", status=500, done=True, attempts=1)
    assert Ledger(lambda: client, tables.usage).write(now(attempt(account, 1))) is Outcome.REPLAYED
    assert tokens(tables, account) == 5
