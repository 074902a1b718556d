"""The hourly event: closed hours are summed again from the ledger, whatever the stream has done, and then worked on."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from handler import store
from handler.billing.recount import Recount
from handler.billing.register import Entry
from handler.billing.renewal import Renewal, Renewed
from handler.events.schedule import Schedule
from tests.stack import faults
from tests.stack.books import NOON, Books
from tests.stack.ministack import Tables

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture
def books(tables: Tables) -> Books:
    """Of an account whose hours have been summed until noon."""
    return known(Books(tables))


def known(books: Books) -> Books:
    books.renewed(NOON - timedelta(seconds=5))
    return books


class Context:
    """Of a call with so many seconds left."""

    def __init__(self, seconds: float = 180) -> None:
        self._ms = int(seconds * 1000)

    def get_remaining_time_in_millis(self) -> int:
        return self._ms


def event(time: datetime) -> dict[str, Any]:
    """The sample event, at a time of ours."""
    sample: dict[str, Any] = json.loads((HOUSE / "events/schedule.json").read_text())
    return sample | {"time": f"{time:%Y-%m-%dT%H:%M:%SZ}"}


def test_what_the_stream_has_dropped_is_in_the_sums_after_the_hour(books: Books) -> None:
    books.write_some(40, minutes=120)
    heard = books.records[:5]
    books.stream(books.event(*heard), None)
    Schedule(books.renewal())(event(NOON + timedelta(hours=2, minutes=5)), None)
    assert books.agree()


def test_hours_closed_longer_ago_and_the_hour_at_hand_are_left_alone(books: Books) -> None:
    times = [NOON + timedelta(minutes=minute) for minute in (-61, 0, 119, 120)]
    books.write(*map(books.record, times))
    Schedule(books.renewal())(event(NOON + timedelta(hours=2, minutes=5)), None)
    assert books.held("1m") == books.right("1m")[1:3]


def test_hours_since_the_last_time_are_summed_however_long_ago_that_was(books: Books) -> None:
    """The stream forgets after a day; a function that was away for three has only the ledger to know from."""
    schedule = Schedule(books.renewal())
    schedule(event(NOON), None)
    books.write(*(books.record(NOON + timedelta(hours=hour, minutes=-20)) for hour in range(70)))
    schedule(event(NOON + timedelta(hours=70)), None)
    assert books.agree()


def test_an_account_that_is_not_reached_is_first_next_time_and_jobs_are_told(books: Books, tables: Tables) -> None:
    other = known(Books(tables))
    seen: list[tuple[float, set[str], set[str]]] = []

    def job(_: int, deadline: float, renewed: Renewed) -> None:
        seen.append((deadline - time.monotonic(), {*renewed.whole}, {*renewed.behind}))

    schedule = Schedule(books.renewal(other), [job])
    for each in (books, other):
        each.write(*(each.record(NOON + timedelta(hours=hour, minutes=20)) for hour in range(5)))
    schedule(event(NOON + timedelta(hours=5)), Context(15))
    assert (books.held("1m"), other.held("1m")) == ([], [])
    assert seen.pop()[1:] == (set(), {books.account, other.account})
    schedule(event(NOON + timedelta(hours=5)), Context())
    [(left, whole, behind)] = seen
    assert 150 < left < 170, "what is begun then can end in time"
    assert (whole, behind) == ({books.account, other.account}, set())
    assert books.agree()
    assert other.agree()


def test_the_deadline_is_looked_at_between_accounts_and_within_one_and_each_goes_on_where_it_was_left(
    tables: Tables,
) -> None:
    """Eight accounts of three days, 32 calls that take a tenth of a second each, in events of three tenths."""
    all_books = [known(Books(tables)) for _ in range(8)]
    first = all_books[0]
    done: list[tuple[str, int, int]] = []

    class Slow(Recount):
        def hours(self, account: str, start: int, end: int) -> None:
            time.sleep(0.1)
            done.append((account, start, end))

    renewal = Renewal(Slow(first.minutes, first.rollups), lambda: [each.entry() for each in all_books])
    closed = int(NOON.timestamp()) // 3600 * 3600 + 3 * 86400
    begun, runs = time.monotonic(), 0
    while True:
        runs += 1
        renewed = renewal(closed, time.monotonic() + 0.3)
        assert time.monotonic() - begun < 2 * runs
        if not renewed.behind:
            break
        assert len(done) >= runs, "four where the machine has nothing else to do"
    assert runs > 2
    days = [(start, end) for account, start, end in done if account == first.account]
    assert sorted({end for _, end in days})[-1] == closed
    assert [day for day in days if days.count(day) > 1] == []
    assert renewal(closed, time.monotonic() - 1).behind == frozenset(), "an event that comes again has nothing to do"


def test_hours_that_fail_are_summed_again_until_they_are_right_and_jobs_know_whose_they_are(
    books: Books, tables: Tables
) -> None:
    """A store that gives nothing for three hours, of one account; longer than any window."""
    other = known(Books(tables))
    seen: list[tuple[list[str], list[str]]] = []

    def job(_: int, __: float, renewed: Renewed) -> None:
        seen.append((sorted(renewed.whole), sorted(renewed.behind)))

    def fail(request: Any, **_: Any) -> None:
        if refuse and books.account.encode() + b"#" in request.body:
            raise ConnectionError

    refuse, client = [True], boto3.client("dynamodb", config=Config(retries={"total_max_attempts": 1}))
    client.meta.events.register("before-send.dynamodb.Query", fail)
    schedule = Schedule(books.seen_by(lambda: client).renewal(other), [job])
    for hour in range(4):
        for each in (books, other):
            each.write(each.record(NOON + timedelta(hours=hour)))
        now = event(NOON + timedelta(hours=hour + 1))
        for _ in range(2):  # AWS sends it again
            with pytest.raises(ExceptionGroup) as raised:
                schedule(now, None)
            assert raised.group_contains(ConnectionError)
            assert seen.pop() == ([other.account], [books.account])
        assert other.agree()
    refuse.clear()
    schedule(event(NOON + timedelta(hours=5)), None)
    assert books.agree()
    assert seen == [(sorted([books.account, other.account]), [])]


def test_a_record_that_cannot_be_read_holds_up_no_other_and_not_its_own_accounts_later_days(
    books: Books, tables: Tables
) -> None:
    other = known(Books(tables))
    broken = other.record(NOON + timedelta(hours=1)).key()
    store.dynamodb().put_item(TableName=tables.usage, Item=broken)
    books.write()
    other.write(other.record(NOON + timedelta(hours=15)))
    schedule = Schedule(books.renewal(other))
    try:
        for hour in (20, 40):
            with pytest.raises(ExceptionGroup) as raised:
                schedule(event(NOON + timedelta(hours=hour)), None)
            assert raised.group_contains(ValueError)
            assert books.agree()
            assert other.agree()
    finally:
        store.dynamodb().delete_item(TableName=tables.usage, Key=broken)  # which other tests could not read
    schedule(event(NOON + timedelta(hours=41)), None)


def test_an_account_that_the_hours_moved_past_is_summed_once_it_is_known(books: Books, tables: Tables) -> None:
    """Its first records were lost by the stream while others were summed; then one is heard."""
    new = Books(tables)
    schedule = Schedule(Renewal(books.recount, lambda: [*_ours(books, new)]))
    new.write(*(new.record(NOON + timedelta(hours=hour)) for hour in (-250, 1)))
    schedule(event(NOON + timedelta(hours=50)), None)
    assert new.held("1d") == [], "nobody knows of it"
    heard = new.record(NOON + timedelta(hours=51))
    new.write(heard)
    new.stream(new.event(heard), None)
    schedule(event(NOON + timedelta(hours=52)), None)
    assert new.agree()


def _ours(*books: Books) -> Iterator[Entry]:
    """Those of these accounts that the register has."""
    yield from (each for each in books[0].rollups.register.entries() if each.account in {of.account for of in books})


def test_jobs_come_once_sums_are_right_and_are_told_what_has_been_closed_for_an_hour(books: Books) -> None:
    books.write()
    seen: list[tuple[int, bool]] = []
    schedule = Schedule(books.renewal(), [lambda until, *_: seen.append((until, books.agree()))] * 2)
    schedule(event(datetime(2026, 11, 23, 14, 5, tzinfo=UTC)), None)
    assert seen == [(int(datetime(2026, 11, 23, 13, tzinfo=UTC).timestamp()), True)] * 2


def test_a_job_that_fails_is_told_after_the_others_are_done(books: Books) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no")

    done: list[int] = []
    with pytest.raises(ExceptionGroup) as raised:
        Schedule(Renewal(books.recount, list), [fail, lambda until, *_: done.append(until)])(event(NOON), None)
    assert raised.group_contains(ValueError)
    assert len(done) == 1


# Late records


def test_a_late_record_of_which_the_stream_tells_nothing_is_summed_in_its_own_hour(books: Books) -> None:
    at = NOON - timedelta(days=9)
    late = books.record(at)
    books.write(late)
    for _ in range(2):
        books.rollups.register.late(books.account, at.timestamp())
    Schedule(books.renewal())(event(NOON + timedelta(hours=1)), None)
    assert books.agree()
    assert books.entry().late == frozenset()


def test_a_record_that_is_late_while_its_hour_is_summed_has_it_summed_again(books: Books) -> None:
    at = NOON - timedelta(days=9)
    register, seen = books.rollups.register, list[Renewed]()

    class Overtaken(Recount):
        def hours(self, account: str, start: int, end: int) -> None:
            super().hours(account, start, end)
            if len(books.records) < 2:
                books.write(books.record(at))
                register.late(account, at.timestamp())

    books.write(books.record(at))
    register.late(books.account, at.timestamp())
    renewal = Renewal(Overtaken(books.minutes, books.rollups), lambda: [books.entry()])
    for hour in (1, 1):
        Schedule(renewal, [lambda *words: seen.append(words[2])])(event(NOON + timedelta(hours=hour)), None)
    assert [each.whole for each in seen] == [frozenset(), {books.account}]
    assert books.agree()


@pytest.mark.parametrize("done", [False, True])
def test_a_place_that_could_not_be_kept_is_an_error_and_comes_again(books: Books, done: bool) -> None:
    books.write()
    client = faults.client("UpdateItem", 2, code="InternalServerError", status=500, done=done)
    schedule = Schedule(books.seen_by(lambda: client).renewal())
    with pytest.raises(ExceptionGroup):
        schedule(event(NOON + timedelta(hours=1)), None)
    schedule(event(NOON + timedelta(hours=1)), None)
    assert books.agree()
