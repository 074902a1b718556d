"""Quotas of keys whose batches take hours, or more than one attempt: what is counted is what is recorded."""

import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from handler import store
from handler.billing.corrections import Corrections
from handler.billing.keytext import digest
from handler.billing.ledger import Ledger
from handler.billing.records import time_of
from handler.billing.recount import Recount
from handler.contract.limits import Limits
from tests.batches.works import KilledError, Works, line
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


def month(works: Works, tables: Tables) -> list[int]:
    """What the counters of the account's key have, of every month."""
    [item] = [each for each in tables.counters() if each["account"]["S"] == works.account]
    return [int(item[name]["N"]) for name in item if name.startswith("tokens@") and len(name) == len("tokens@2026-11")]


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
    assert month(works, tables) == [works.billed()[0]]
    works.until_quiet()
    works.whole(batch, map(str, range(LINES)))
    for record in works.records():
        assert time_of(record).timestamp() >= now - 1, "it is of the hour in which it was counted"
        assert Decimal(record["usd_per_mtok"]["N"]) == Decimal("0.005")
    correct(now + 3 * HOUR)
    assert month(works, tables) == [4 * LINES]


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
    assert month(works, tables) == [works.billed()[0]]


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
