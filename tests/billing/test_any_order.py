"""What waited in the ledger queue is written in any order, any number of times, and as much is billed."""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError

from handler import store
from handler.billing.ledger import Ledger, Record
from tests.billing.attempts import DAY, HOUR, OTHER, attempt, named, numbers, tokens
from tests.stack.ministack import Tables

Call = Sequence[tuple[int, float]]  # its attempts: count, and when it came in seconds


@pytest.fixture
def account() -> str:
    """An account without records."""
    return f"acct_order_{next(numbers)}"


@pytest.fixture
def ledger(tables: Tables) -> Ledger:
    return Ledger(store.dynamodb, tables.usage, tables.entries)


# Through DynamoDB


def same_call(account: str) -> list[Record]:
    """A first attempt that nobody waited for, and two retries."""
    return [attempt(account, 0), attempt(account, 1, 0.6), attempt(account, 2, 61)]


def same_name(account: str) -> list[Record]:
    return [named(account), named(account, after=HOUR), named(account, after=47 * HOUR)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("work", [same_call, same_name])
def test_attempts_at_one_call_are_one_record_in_any_order_and_any_number_of_times(
    ledger: Ledger,
    tables: Tables,
    account: str,
    work: Callable[[str], list[Record]],
    order: Iterable[int],
) -> None:
    records = [work(account)[n] for n in order]
    for each in [*records, *reversed(records), *records]:
        ledger.settle(each)
    assert tokens(tables, account) == 5


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    "second",
    [
        lambda account: named(account, asked=OTHER, after=HOUR),
        lambda account: named(account, after=3 * DAY),
    ],
    ids=["something else", "after the name was forgotten"],
)
def test_what_has_been_answered_already_is_billed_though_its_name_is_taken(
    ledger: Ledger, tables: Tables, account: str, second: Callable[[str], Record], order: tuple[int, int]
) -> None:
    """The ledger queue's: at the time of the answer, nobody could tell."""
    records = [named(account), second(account)]
    for each in [records[n] for n in order] * 2:
        ledger.settle(each)
    assert tokens(tables, account) == 10


# Every order that there is, in a table of this process's own


class Table:
    """What the ledger asks of DynamoDB, and no more: a put that is conditional, and a query by a key's beginning."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}

    def put_item(self, *, Item: dict[str, Any], ConditionExpression: str, **_: Any) -> None:  # noqa: N803
        assert ConditionExpression == "attribute_not_exists(pk)"
        if old := self.items.get(key := (Item["pk"]["S"], Item["sk"]["S"])):
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}, "Item": old}, "PutItem")  # type: ignore[typeddict-unknown-key]
        self.items[key] = Item

    def query(self, *, ExpressionAttributeValues: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803
        pk, prefix = (ExpressionAttributeValues[name]["S"] for name in (":pk", ":prefix"))
        return {"Items": [self.items[key] for key in sorted(self.items) if key[0] == pk and key[1].startswith(prefix)]}


def billed(attempts: Iterable[tuple[int, float]], times: int = 1, window_s: int = 0) -> int:
    """How many of these attempts with one body, written in this order, are billed. Without a window, those that came in
    one minute are near enough."""
    table, records = Table(), [attempt("acct", count, came) for count, came in attempts]
    client: Any = table
    ledger = Ledger(lambda: client, "Usage", window_s=window_s)
    for each in [*records, *reversed(records)] * times:
        ledger.settle(each)
    assert len(table.items) == len(records), "each is there once, billed or not"
    return sum(int(item["requests"]["N"]) for item in table.items.values())


CALLS: dict[str, list[Call]] = {
    "one": [[(0, 0), (1, 0.6), (2, 2), (3, 5), (4, 9)]],
    "one that begins in the middle": [[(1, 0), (2, 2), (4, 9)]],
    "one after another": [[(0, 0), (1, 1)], [(0, 2), (1, 3)]],
    "one within another": [[(0, 0), (1, 3)], [(0, 1), (1, 2)]],
    "overlapping": [[(0, 0), (1, 2)], [(0, 1), (1, 3)]],
    "three": [[(0, 0), (1, 2)], [(0, 1), (1, 3)], [(0, 1.5)]],
}
chance = random.Random(5)
for number in range(24):
    calls: list[Call] = []
    for _ in range(chance.choice((2, 2, 3))):
        came, attempts = chance.uniform(0, 3), list[tuple[int, float]]()
        for count in range(chance.choice((1, 2, 2, 3))):
            attempts.append((count, came))
            came += chance.uniform(0.4, 2)
        calls.append(attempts)
    if sum(map(len, calls)) <= 5:
        CALLS[f"by chance, {number}"] = calls


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_in_every_order_each_call_is_billed_and_of_the_retries_half_at_most(calls: list[Call]) -> None:
    """A retry is billed only where another one has been excused by a record of its call (retries.py)."""
    attempts = [each for call in calls for each in call]
    results = {billed(order) for order in itertools.permutations(attempts)}
    assert min(results) == len(calls)
    assert max(results) <= len(calls) + (len(attempts) - len(calls)) // 2
    assert billed(sorted(attempts, key=lambda each: each[1])) == len(calls)
    assert len(calls) > 1 or results == {1}


def test_calls_within_one_window_may_reach_that_half() -> None:
    attempts = [each for call in CALLS["one after another"] for each in call]
    assert {billed(order, times=3) for order in itertools.permutations(attempts)} == {2, 3}


@pytest.mark.parametrize("window_s", [1, 30, 60, 90, 600])
@pytest.mark.parametrize("came_s", [0, 15, 29.9])
def test_of_two_attempts_as_many_are_billed_whichever_is_written_first(window_s: int, came_s: float) -> None:
    for apart_s in (0, 0.4, window_s - 0.1, window_s, window_s + 0.1, window_s + 29, window_s + 59, window_s + 61):
        first, second = (0, came_s), (1, came_s + apart_s)
        results = {billed(order, window_s=window_s) for order in ([first, second], [second, first])}
        assert len(results) == 1, apart_s
        assert results == {1} or apart_s > window_s


def test_what_is_decided_before_the_rest_is_known_cannot_be_undone() -> None:
    """Why no rule has one result for these, in all orders: a first attempt excuses a retry of each count, but that
    number two came before number one, so that, as far as they tell, they are of two calls."""
    first, two, one = (0, 0.0), (2, 3.0), (1, 5.0)
    assert billed([first, one, two]) == billed([first, two, one]) == 1
    assert billed([two, one]) == billed([one, two]) == billed([two, one, first]) == 2


@pytest.mark.parametrize(("order", "calls"), [((0, 1, 2, 3), 2), ((3, 0, 1, 2), 3)])
def test_a_table_of_dynamodbs_is_no_different(
    ledger: Ledger, tables: Tables, account: str, order: Sequence[int], calls: int
) -> None:
    attempts = [each for call in CALLS["one after another"] for each in call]
    ordered = [attempts[n] for n in order]
    for count, came in ordered:
        ledger.settle(attempt(account, count, came))
    assert tokens(tables, account) == 5 * calls == 5 * billed(ordered)
