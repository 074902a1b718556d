"""Quotas of keys whose batches take hours, or more than one attempt: what is counted is what is recorded."""

import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from handler import store
from handler.batches.careful import Careful
from handler.batches.results import Results
from handler.billing.corrections import Corrections
from handler.billing.keytext import digest
from handler.billing.ledger import Ledger
from handler.billing.records import time_of
from handler.billing.recount import Recount
from handler.bulk import Answered, Bulk, _Work
from handler.contract.limits import Limits
from tests.batches.works import KilledError, Works, line, survive
from tests.stack.ministack import Tables

HOUR = 3600
LINES = 40  # of four tokens each, in seven shards


@pytest.fixture
def limited(works: Works, account: str, tables: Tables) -> Callable[[int], None]:
    """Give the account's batches a key with so many tokens a month."""

    def limit(tokens: int) -> None:
        works.key_hash = digest(tables.create_key(account, "inference", Limits(tokens_per_month=tokens)))

    return limit


@pytest.fixture
def correct(works: Works, tables: Tables) -> Callable[[float], None]:
    """The hourly event at a time, after the ledger's stream has told all."""

    def run(now: float) -> None:
        recount = Recount.open(replace(works.config, rollups_table=tables.rollups))
        corrections = Corrections(store.dynamodb, tables.limits, recount, "emblet-Ledger", lambda: now)
        corrections(int(now) // HOUR * HOUR - HOUR)

    return run


def counted(works: Works, tables: Tables) -> int:
    """What the counters of the account's key have, of all months."""
    [item] = [each for each in tables.counters() if each["account"]["S"] == works.account]
    months = [name for name in item if name.startswith("tokens@") and len(name) == len("tokens@2026-11")]
    return sum(int(item[name]["N"]) for name in months)


def execute_one(works: Works) -> None:
    [message, *_] = works.shards.messages()
    assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    works.shards.delete(message)


def test_the_hourly_correction_counts_a_batch_under_way_once(
    works: Works, tables: Tables, limited: Callable[[int], None], correct: Callable[[float], None]
) -> None:
    """It was made in an hour that is closed, and some of its shards are done in one that is open."""
    limited(4 * LINES)
    now = time.time()
    works.clock = lambda: now - 5 * HOUR
    batch = works.submit(line(str(n)) for n in range(LINES))
    works.plans.deliver(works.planner)
    works.clock = time.time
    while works.billed()[0] < 80:
        execute_one(works)
    correct(now)
    assert counted(works, tables) == works.billed()[0]
    works.until_quiet()
    works.whole(batch, map(str, range(LINES)))
    for record in works.records():
        assert time_of(record).timestamp() >= now - 1, "it is of the hour in which it was counted"
        assert Decimal(record["usd_per_mtok"]["N"]) == Decimal("0.005")
    correct(now + 3 * HOUR)
    assert counted(works, tables) == 4 * LINES


def test_a_shard_that_begins_before_an_hours_turn_is_counted_in_the_hour_of_its_record(
    works: Works, tables: Tables, limited: Callable[[int], None], correct: Callable[[float], None]
) -> None:
    """That hour is summed while the next, in which it was counted, is open."""
    limited(4 * LINES)
    now = time.time()
    works.clock = lambda: now // HOUR * HOUR - 1
    works.submit(line(str(n)) for n in range(LINES))
    works.plans.deliver(works.planner)
    execute_one(works)
    correct(now // HOUR * HOUR + HOUR)
    assert counted(works, tables) == works.billed()[0]


def test_a_shard_that_is_recorded_again_hours_later_has_the_same_record(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = works.submit([line("1")])
    works.plans.deliver(works.planner)
    write = Ledger.write

    def dying(*args: object) -> None:
        write(*args)  # type: ignore[arg-type]
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write", dying)
        with pytest.raises(KilledError):
            works.deliver()
    works.clock = lambda: time.time() + 5 * HOUR
    works.until_quiet()
    works.whole(batch, ["1"])
    assert len(works.records()) == 1


# More than one attempt


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str, int], None]:
    """End the function before each of the first so many calls of a method."""

    def die(kind: type, name: str, times: int) -> None:
        real, left = getattr(kind, name), iter(range(times))

        def call(*args: Any, **named: Any) -> Any:
            if next(left, None) is not None:
                raise KilledError
            return real(*args, **named)

        monkeypatch.setattr(kind, name, call)

    return die


@pytest.mark.parametrize("instant", [(Bulk, "_encode"), (Results, "put")], ids=["embedding", "putting"])
@pytest.mark.parametrize("lines", [1, 25, LINES])
def test_a_shard_that_is_killed_and_repeated_takes_its_quota_once(
    works: Works,
    tables: Tables,
    limited: Callable[[int], None],
    dying: Callable[[type, str, int], None],
    instant: tuple[type, str],
    lines: int,
) -> None:
    """Of a quota that has room for so many lines exactly, in some shard for a part of them."""
    limited(4 * lines)
    works.submit(line(str(n)) for n in range(LINES))
    dying(*instant, 10)
    survive(works)
    assert works.billed() == (4 * lines, lines)
    assert counted(works, tables) == 4 * lines


@pytest.mark.parametrize("ends", [KilledError, RuntimeError], ids=["ending its function", "failing"])
def test_a_shard_that_goes_line_by_line_takes_nothing_for_what_has_been_counted(
    works: Works,
    tables: Tables,
    limited: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    ends: type[BaseException],
) -> None:
    """One of its lines ends the function, or fails, each time after all before it have been counted."""
    limited(4 * 6)
    encode = Bulk._encode

    def poisoned(self: Bulk, found: Any, deadline: float | None) -> list[Answered]:
        if any(isinstance(each, _Work) and each.prompts.tokens == 2 for each in found):
            raise ends
        return encode(self, found, deadline)

    leave = Careful.__exit__
    monkeypatch.setattr(Bulk, "_encode", poisoned)
    monkeypatch.setattr(Careful, "__exit__", lambda *args: None if args[1] is KilledError else leave(*args))
    batch = works.submit(line(str(n), "brown fox" if n == 3 else "the quick brown fox") for n in range(6))
    survive(works)
    done = works.ended(batch)
    assert {*done.output} == {"0", "1", "2", "4", "5"}
    assert {name: each["response"]["status_code"] for name, each in done.errors.items()} == {"3": 500}
    assert counted(works, tables) == 4 * 5 + 2


def test_an_attempt_when_the_hour_of_the_one_before_may_be_closed_counts_anew(
    works: Works, tables: Tables, limited: Callable[[int], None], correct: Callable[[float], None], dying: Any
) -> None:
    """What the one before has counted and not recorded is taken off the month."""
    limited(4 * 5)
    now = time.time()
    works.clock = lambda: now - 3 * HOUR
    batch = works.submit(line(str(n)) for n in range(5))
    dying(Results, "put", 1)
    works.plans.deliver(works.planner)
    with pytest.raises(KilledError):
        works.deliver()
    assert counted(works, tables) == 4 * 5
    works.clock = time.time
    correct(now)
    assert counted(works, tables) == 0
    works.until_quiet()
    works.whole(batch, map(str, range(5)))
    assert counted(works, tables) == 4 * 5


@pytest.mark.parametrize("room", [5, 25])
@pytest.mark.usefixtures("failing_once")
def test_a_line_that_is_tried_twice_is_counted_once(
    works: Works, tables: Tables, limited: Callable[[int], None], room: int
) -> None:
    limited(4 * room)
    batch = works.submit(line(str(n)) for n in range(5))
    [message] = works.received(3)
    assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    works.until_quiet()
    works.whole(batch, map(str, range(5)))
    assert counted(works, tables) == 4 * 5
