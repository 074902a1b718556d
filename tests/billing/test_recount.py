"""Rollups made of the ledger: two at work on one hour, and what differs from the ledger, listed and mended."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from handler import store
from handler.billing.buckets import Bucket
from handler.billing.recount import Recount
from handler.billing.rollups import Rollups
from tests.stack.books import MIDNIGHT, NOON, Books
from tests.stack.ministack import Tables

MINUTE = int(NOON.timestamp()) // 60 * 60


class Interrupted(Rollups):
    """A table whose user is held up before it sets a width, while another works."""

    def __init__(self, table: str, width: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(store.dynamodb, table)
        self._width, self._meanwhile = width, meanwhile

    def set(self, account: str, width: str, bucket: Bucket) -> bool:
        if width == self._width:
            self._width = ""
            self._meanwhile()
        return super().set(account, width, bucket)


@pytest.fixture
def books(tables: Tables) -> Books:
    return Books(tables)


def sum_up(books: Books, recount: Recount) -> None:
    for width, start in (("1m", MINUTE), ("1h", MINUTE), ("1d", MIDNIGHT)):
        recount.bucket(books.account, width, start)


@pytest.mark.parametrize("width", ["1m", "1h", "1d"])
def test_what_was_read_before_another_record_came_does_not_stick(books: Books, tables: Tables, width: str) -> None:
    books.write()

    def meanwhile() -> None:
        later = books.record(NOON + timedelta(minutes=0 if width == "1m" else 1))
        books.write(later)
        assert books.stream(books.event(later), None) == {"batchItemFailures": []}

    late = Interrupted(tables.rollups, width, meanwhile)
    sum_up(books, Recount(books.minutes, late))
    assert late._width == ""
    assert books.agree()


def test_hours_are_summed_with_all_that_they_are_part_of(books: Books) -> None:
    books.write_some(60, minutes=170)
    books.recount.hours(books.account, MINUTE, MINUTE + 3 * 3600)
    assert books.agree()


def test_a_stretch_without_records_leaves_no_rows(books: Books) -> None:
    books.recount.hours(books.account, MINUTE, MINUTE + 7200)
    sum_up(books, books.recount)
    assert [books.held(width) for width in ("1m", "1h", "1d")] == [[], [], []]


def test_a_day_whose_rollups_are_right_has_no_differences(books: Books) -> None:
    books.write_some(30)
    books.stream(books.event(), None)
    assert books.check() == books.check(mend=True) == []


def test_a_day_without_rollups_is_listed_and_made_anew(books: Books) -> None:
    books.write_some(30, minutes=100)
    missing = [(width, bucket.start, "missing", False) for width in ("1m", "1h", "1d") for bucket in books.right(width)]
    assert books.check() == missing
    assert books.held("1m") == [], "a check sets nothing"
    assert books.check(mend=True) == [(*each[:3], True) for each in missing]
    assert books.agree()
    assert books.check() == []


def test_what_is_behind_is_mended_and_nothing_else_is_touched(books: Books) -> None:
    books.write_some(20)
    books.stream(books.event(), None)
    late = books.record(NOON + timedelta(hours=1))
    books.write(late)
    hour = MINUTE + 3600
    expected = [("1m", hour, "behind", True), ("1h", hour, "behind", True), ("1d", MIDNIGHT, "behind", True)]
    found = books.check(mend=True)
    assert [(width, start, what.replace("missing", "behind"), mended) for width, start, what, mended in found] == (
        expected
    )
    assert books.agree()


@pytest.mark.parametrize(
    ("change", "what"), [({"n": 9}, "ahead"), ({"groups": {}}, "wrong"), ({"start": MINUTE + 60}, "ahead")]
)
def test_a_rollup_that_cannot_be_is_told_and_left(books: Books, change: dict[str, Any], what: str) -> None:
    books.write()
    [right] = books.right("1m")
    stranger = replace(right, **change)
    books.rollups.set(books.account, "1m", stranger)
    found = [each for each in books.check(mend=True) if each[0] == "1m" and each[1] == stranger.start]
    assert found == [("1m", stranger.start, what, False)]
    assert stranger in books.held("1m")


def test_a_record_written_during_a_check_does_not_put_rollups_ahead(books: Books, tables: Tables) -> None:
    books.write()

    class Read(Rollups):
        def read(self, account: str, width: str, start: int, end: int) -> Any:
            yield from super().read(account, width, start, end)
            if width == "1d":
                record = books.record()
                books.write(record)
                books.stream(books.event(record), None)

    books.stream(books.event(), None)
    found = list(Recount(books.minutes, Read(store.dynamodb, tables.rollups)).day(books.account, MIDNIGHT, mend=False))
    assert [(each.width, each.what) for each in found] == [("1m", "behind"), ("1h", "behind"), ("1d", "behind")]
