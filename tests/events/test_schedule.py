"""The hourly event: closed hours are summed again from the ledger, whatever the stream has done, and then worked on."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handler import store
from handler.billing.recount import Recount
from handler.events.schedule import Schedule
from tests.stack import faults
from tests.stack.books import NOON, Books
from tests.stack.ministack import Tables

HOUSE = Path(__file__).resolve().parents[2]


def one(*accounts: str) -> Callable[[], list[str]]:
    """In place of all accounts that have rollups, which other tests' are."""
    return lambda: list(accounts)


@pytest.fixture
def books(tables: Tables) -> Books:
    """In tables that no hour has been summed in yet."""
    store.dynamodb().delete_item(TableName=tables.rollups, Key={"pk": {"S": "schedule"}, "sk": {"S": "renewed"}})
    return Books(tables)


def event(time: datetime) -> dict[str, Any]:
    """The sample event, at a time of ours."""
    sample: dict[str, Any] = json.loads((HOUSE / "events/schedule.json").read_text())
    return sample | {"time": f"{time:%Y-%m-%dT%H:%M:%SZ}"}


def test_what_the_stream_has_dropped_is_in_the_sums_after_the_hour(books: Books) -> None:
    books.write_some(40, minutes=120)
    heard = books.records[:5]
    books.stream(books.event(*heard), None)
    Schedule(books.recount, one(books.account))(event(NOON + timedelta(hours=2, minutes=5)), None)
    assert books.agree()


def test_hours_closed_longer_ago_and_the_hour_at_hand_are_left_alone(books: Books) -> None:
    times = [NOON + timedelta(minutes=minute) for minute in (-1, 0, 119, 120)]
    books.write(*map(books.record, times))
    Schedule(books.recount, one(books.account))(event(NOON + timedelta(hours=2, minutes=5)), None)
    assert books.held("1m") == books.right("1m")[1:3]


def test_hours_since_the_last_time_are_summed_however_long_ago_that_was(books: Books) -> None:
    """The stream forgets after a day; a function that was away for three has only the ledger to know from."""
    schedule = Schedule(books.recount, one(books.account))
    schedule(event(NOON), None)
    books.write(*(books.record(NOON + timedelta(hours=hour, minutes=-20)) for hour in range(70)))
    schedule(event(NOON + timedelta(hours=70)), None)
    assert books.agree()


def test_an_hour_that_is_not_reached_is_left_to_the_next_event_and_jobs_with_it(books: Books) -> None:
    class Context:
        left_ms = 180_000

        def get_remaining_time_in_millis(self) -> int:
            return self.left_ms

    done: list[tuple[int, float]] = []
    schedule = Schedule(books.recount, one(books.account), [lambda *words: done.append(words)])
    schedule(event(NOON), Context())
    [(_, deadline)] = done
    assert 150 < deadline - time.monotonic() < 170, "what is begun then can end in time"
    books.write(*(books.record(NOON + timedelta(hours=hour, minutes=-20)) for hour in range(5)))
    short = Context()
    short.left_ms = 1000
    schedule(event(NOON + timedelta(hours=5)), short)
    assert (books.held("1m"), len(done)) == ([], 1)
    schedule(event(NOON + timedelta(hours=5)), Context())
    assert books.agree()
    assert len(done) == 2


def test_hours_of_which_a_store_gave_nothing_are_asked_for_again(books: Books, tables: Tables) -> None:
    other, schedules = Books(tables), []
    times = [NOON + timedelta(hours=hour) for hour in (-1, 0, 1)]
    for each in (books, other):
        each.write(*map(each.record, times))
    client = faults.client("Query", 999, code="InternalServerError", status=500, done=False, attempts=1)
    away = Recount(books.seen_by(lambda: client).minutes, books.rollups)
    schedules = [Schedule(each, one(books.account, other.account)) for each in (books.recount, away)]
    schedules[0](event(times[0]), None)
    for hour in (1, 4):
        with pytest.raises(ExceptionGroup):
            schedules[1](event(times[0] + timedelta(hours=hour)), None)
    schedules[0](event(times[0] + timedelta(hours=5)), None)
    assert books.agree()
    assert other.agree()


def test_a_record_that_cannot_be_read_holds_up_others_no_longer_than_it_is_among_the_last_two_hours(
    books: Books, tables: Tables
) -> None:
    other = Books(tables)
    broken = other.record().key()
    store.dynamodb().put_item(TableName=tables.usage, Item=broken)
    books.write()
    schedule = Schedule(books.recount, one(other.account, books.account))
    try:
        for hour in (1, 2):
            with pytest.raises(ExceptionGroup) as raised:
                schedule(event(NOON + timedelta(hours=hour)), None)
            assert raised.group_contains(ValueError)
            assert books.agree()
        schedule(event(NOON + timedelta(hours=3)), None)
    finally:
        store.dynamodb().delete_item(TableName=tables.usage, Key=broken)  # which other tests could not read


def test_accounts_are_those_that_have_rollups(books: Books) -> None:
    books.write()
    books.stream(books.event(), None)
    books.write(books.record())
    Schedule(books.recount, books.rollups.accounts)(event(NOON + timedelta(hours=1)), None)
    assert books.agree()


def test_jobs_come_once_sums_are_right_and_are_told_what_has_been_closed_for_an_hour(books: Books) -> None:
    books.write()
    seen: list[tuple[int, bool]] = []
    schedule = Schedule(books.recount, one(books.account), [lambda until, _: seen.append((until, books.agree()))] * 2)
    schedule(event(datetime(2026, 11, 23, 14, 5, tzinfo=UTC)), None)
    assert seen == [(int(datetime(2026, 11, 23, 13, tzinfo=UTC).timestamp()), True)] * 2


def test_what_fails_keeps_no_other_account_from_its_sums_but_jobs_from_relying_on_them(
    books: Books, tables: Tables
) -> None:
    other = Books(tables)
    for each in (books, other):
        each.write()
    client = faults.client("Query", 1, code="InternalServerError", status=500, done=False, attempts=1)
    recount = Recount(books.seen_by(lambda: client).minutes, books.rollups)
    jobs: list[int] = []
    schedule = Schedule(recount, one(books.account, other.account), [lambda until, _: jobs.append(until)])
    with pytest.raises(ExceptionGroup) as raised:
        schedule(event(NOON + timedelta(hours=1)), None)
    assert raised.group_contains(store.StoreUnavailableError)
    assert other.agree()
    assert jobs == []
    schedule(event(NOON + timedelta(hours=1)), None)
    assert books.agree()
    assert len(jobs) == 1


def test_a_job_that_fails_is_told_after_the_others_are_done(books: Books) -> None:
    def fail(*_: float) -> None:
        raise ValueError("no")

    done: list[int] = []
    with pytest.raises(ExceptionGroup) as raised:
        Schedule(books.recount, one(), [fail, lambda until, _: done.append(until)])(event(NOON), None)
    assert raised.group_contains(ValueError)
    assert len(done) == 1
