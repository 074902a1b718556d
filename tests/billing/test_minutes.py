"""The ledger, read by the minute."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from handler import store
from handler.billing import minutes
from handler.billing.buckets import Group, Sums
from handler.billing.minutes import Minutes
from tests.stack.books import MIDNIGHT, NOON, Books
from tests.stack.ministack import Tables

MINUTE = int(NOON.timestamp()) // 60 * 60
A = Group("key_a", "bge-m3", "bge-m3, input_tokens")


@pytest.fixture
def books(tables: Tables) -> Books:
    return Books(tables)


def test_a_minute_is_the_sum_of_its_records_in_whatever_partition_they_lie(books: Books) -> None:
    made = books.write_some(200, minutes=1)
    assert {record.work.hash[0] for record in made} == set("0123456789abcdef")
    assert list(books.minutes.read(books.account, MINUTE, MINUTE + 60)) == books.right("1m")


def test_a_stretch_holds_the_minutes_that_begin_in_it_alone_also_across_midnight(books: Books) -> None:
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    for offset in (-120, -61, -60, -1, 0, 59, 60, 119, 120):
        books.write(books.record(midnight + timedelta(seconds=offset)))
    start = int(midnight.timestamp())
    read = [*books.minutes.read(books.account, start - 60, start + 120)]
    assert [(bucket.start - start, bucket.n) for bucket in read] == [(-60, 2), (0, 2), (60, 2)]


def test_a_minute_of_many_pages_is_read_to_its_end(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of DynamoDB's ends at 1 MB, which MiniStack has no limit of; here each ends after one record."""
    made = books.write_some(40, minutes=1)
    client = store.dynamodb()
    paginator = client.get_paginator("query")
    whole = paginator.paginate
    monkeypatch.setattr(client, "get_paginator", lambda _: paginator)
    monkeypatch.setattr(paginator, "paginate", lambda **call: whole(**call, PaginationConfig={"PageSize": 1}))
    [bucket] = books.minutes.read(books.account, MINUTE, MINUTE + 60)
    assert bucket.n == len(made)
    assert bucket.total.tokens == sum(record.tokens for record in made)


def test_prices_of_one_group_are_each_taken_exactly(books: Books) -> None:
    tiny, large = Decimal("0.000000000001"), Decimal("999999999.999999999999")
    books.write(books.record(tokens=1, price=tiny), books.record(tokens=10**15, price=large))
    [bucket] = books.minutes.read(books.account, MINUTE, MINUTE + 60)
    assert bucket.groups == {A: Sums(10**15 + 1, 2, Decimal("999999999999999999.999000000000000001"))}


def test_what_bills_nothing_counts_as_a_record_and_is_in_no_group(books: Books) -> None:
    """Such as one that excuses an SDK's retry; an empty text is a request all the same."""
    books.write(books.record(tokens=0, requests=0, key_id="key_b"), books.record(tokens=0, requests=1))
    [bucket] = books.minutes.read(books.account, MINUTE, MINUTE + 60)
    assert (bucket.n, bucket.groups) == (2, {A: Sums(0, 1)})


def test_no_minute_is_one_without_records(books: Books) -> None:
    assert list(books.minutes.read(books.account, MIDNIGHT, MIDNIGHT + 86400)) == []
    assert list(books.minutes.read(books.account, MIDNIGHT, MIDNIGHT)) == []


def test_an_account_is_not_one_that_begins_like_it(books: Books, tables: Tables) -> None:
    longer = Books(tables)
    longer.account = f"{books.account}-2"
    longer.write()
    assert list(books.minutes.read(books.account, MIDNIGHT, MIDNIGHT + 86400)) == []


def test_a_record_that_cannot_be_read_is_named(books: Books, tables: Tables) -> None:
    record = books.record()
    store.dynamodb().put_item(TableName=tables.usage, Item=record.item() | {"tokens": {"S": "many"}})
    with pytest.raises(ValueError, match=f"the record {books.account}#2026-11-23#. 12:00#.* cannot be read"):
        list(books.minutes.read(books.account, MINUTE, MINUTE + 60))


def test_a_ledger_out_of_reach_says_so(books: Books) -> None:
    away = Minutes(store.dynamodb, "no-such-table", books.minutes._threads)
    with pytest.raises(store.StoreUnavailableError):
        list(away.read(books.account, MINUTE, MINUTE + 60))


def test_a_key_tells_its_account_and_minute(books: Books) -> None:
    key = books.record().key()
    assert minutes.of(key) == minutes.of({**key, "sk": {"S": key["sk"]["S"] + "#r1"}}) == (books.account, MINUTE)


@pytest.mark.parametrize(
    "key",
    [
        {},
        {"pk": {"S": "acct#2026-11-23"}, "sk": {"S": "12:00#x"}},
        {"pk": {"S": "acct#2026-11-31#a"}, "sk": {"S": "12:00#x"}},
        {"pk": {"S": "acct#2026-11-23#a"}, "sk": {"S": "25:00#x"}},
        {"pk": {"S": "acct#2026-11-23#a"}, "sk": {"N": "1"}},
    ],
)
def test_what_is_no_key_of_a_record_is_told(key: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="no key of a record"):
        minutes.of(key)
