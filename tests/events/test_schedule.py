"""The hourly event: closed hours are summed again from the ledger, whatever the stream has done, and then worked on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handler import store
from handler.events.schedule import Schedule
from tests.stack import faults
from tests.stack.books import NOON, Books
from tests.stack.ministack import Tables

HOUSE = Path(__file__).resolve().parents[2]


class One:
    """The rollups' accounts, as if there were this one: other tests have their own."""

    def __init__(self, *accounts: str) -> None:
        self._accounts = accounts

    def accounts(self) -> list[str]:
        return list(self._accounts)


@pytest.fixture
def books(tables: Tables) -> Books:
    return Books(tables)


def event(time: datetime) -> dict[str, Any]:
    """The sample event, at a time of ours."""
    sample: dict[str, Any] = json.loads((HOUSE / "events/schedule.json").read_text())
    return sample | {"time": f"{time:%Y-%m-%dT%H:%M:%SZ}"}


def test_what_the_stream_has_dropped_is_in_the_sums_after_the_hour(books: Books) -> None:
    books.write_some(40, minutes=120)
    heard = books.records[:5]
    books.stream(books.event(*heard), None)
    Schedule(books.recount, One(books.account))(event(NOON + timedelta(hours=2, minutes=5)), None)  # type: ignore[arg-type]
    assert books.agree()


def test_hours_closed_longer_ago_and_the_hour_at_hand_are_left_alone(books: Books) -> None:
    times = [NOON + timedelta(minutes=minute) for minute in (-1, 0, 119, 120)]
    books.write(*map(books.record, times))
    Schedule(books.recount, One(books.account))(event(NOON + timedelta(hours=2, minutes=5)), None)  # type: ignore[arg-type]
    assert books.held("1m") == books.right("1m")[1:3]


def test_accounts_are_those_that_have_rollups(books: Books) -> None:
    books.write()
    books.stream(books.event(), None)
    books.write(books.record())
    Schedule(books.recount, books.rollups)(event(NOON + timedelta(hours=1)), None)
    assert books.agree()


def test_jobs_come_once_sums_are_right_and_are_told_what_has_been_closed_for_an_hour(books: Books) -> None:
    books.write()
    seen: list[tuple[int, bool]] = []
    schedule = Schedule(books.recount, One(books.account), [lambda until: seen.append((until, books.agree()))] * 2)  # type: ignore[arg-type]
    schedule(event(datetime(2026, 11, 23, 14, 5, tzinfo=UTC)), None)
    assert seen == [(int(datetime(2026, 11, 23, 13, tzinfo=UTC).timestamp()), True)] * 2


def test_what_fails_keeps_no_other_account_from_its_sums_but_jobs_from_relying_on_them(
    books: Books, tables: Tables
) -> None:
    other = Books(tables)
    for each in (books, other):
        each.write()
    client = faults.client("Query", 1, code="InternalServerError", status=500, done=False, attempts=1)
    jobs: list[int] = []
    schedule = Schedule(books.seen_by(lambda: client).recount, One(books.account, other.account), [jobs.append])  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup) as raised:
        schedule(event(NOON + timedelta(hours=1)), None)
    assert raised.group_contains(store.StoreUnavailableError)
    assert other.agree()
    assert jobs == []
    schedule(event(NOON + timedelta(hours=1)), None)
    assert books.agree()
    assert len(jobs) == 1


def test_a_job_that_fails_is_told_after_the_others_are_done(books: Books) -> None:
    def fail(_: int) -> None:
        raise ValueError("no")

    done: list[int] = []
    with pytest.raises(ExceptionGroup) as raised:
        Schedule(books.recount, One(), [fail, done.append])(event(NOON), None)  # type: ignore[arg-type]
    assert raised.group_contains(ValueError)
    assert len(done) == 1
