"""Counters that many callers use at once, and DynamoDB's own failures."""

import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from handler import store
from handler.billing.limits import Counters
from handler.contract.limits import Limits
from tests.billing.conftest import NOON, Clock, count, counted, item, take
from tests.stack import faults
from tests.stack.ministack import MiniStack, Tables

HOUSE = Path(__file__).resolve().parents[2]


# Many callers

CALLER = """
import json, random, sys
from decimal import Decimal
from concurrent.futures import ThreadPoolExecutor
from handler.billing.keys import Caller
from handler.billing.limits import Counters
from handler.contract.errors import ApiError
from handler.contract.limits import Demand, Limits
from tests.stack import patience

table, key_id, now, limits, seed = sys.argv[1:]
client = patience.client(25)
counters = Counters(lambda: client, table, lambda: float(now))
limits, chance = Limits(**json.loads(limits)), random.Random(int(seed))

def call(tokens):
    try:
        counters.take(Caller("acct_a", key_id, "inference", limits), Demand("bge-m3", tokens, Decimal(0), float(now)))
    except ApiError as error:
        return [error.problem.type, tokens]
    return ["passed", tokens]

with ThreadPoolExecutor(25) as threads:
    print(json.dumps(list(threads.map(call, [chance.randint(1, 9) for _ in range(75)]))))
"""


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"requests_per_minute": 101}, "requests"),
        ({"tokens_per_minute": 501}, "tokens"),
        ({"tokens_per_month": 501}, "insufficient_quota"),
    ],
)
def test_of_a_hundred_callers_in_four_processes_never_more_than_the_limit_passes(
    tables: Tables, ministack: MiniStack, key_id: str, limits: dict[str, int], refused: str
) -> None:
    words = [tables.limits, key_id, str(NOON), json.dumps(limits)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, *words, str(seed)], cwd=HOUSE, env=ministack.env, stdout=subprocess.PIPE
        )
        for seed in range(4)
    ]
    outcomes = [outcome for each in processes for outcome in json.loads(each.communicate(timeout=120)[0])]
    passed = [tokens for verdict, tokens in outcomes if verdict == "passed"]
    [limit] = limits.values()

    assert len(outcomes) == 300
    assert {verdict for verdict, _ in outcomes} == {"passed", refused}
    used = len(passed) if refused == "requests" else sum(passed)
    smallest_refused = 1 if refused == "requests" else min(tokens for verdict, tokens in outcomes if verdict == refused)
    assert limit - smallest_refused < used <= limit
    assert counted(tables, key_id) == {
        "requests@2026-11-24T12:00": len(passed),
        "tokens@2026-11-24T12:00": sum(passed),
        "tokens@2026-11": sum(passed),
    }


@pytest.mark.usefixtures("patient")
def test_many_callers_across_a_minutes_turn_have_the_limit_in_each_minute(tables: Tables, key_id: str) -> None:
    """200 calls of 50 threads, of which every second one has a clock that is 40 ms late. Each look at a clock takes a
    millisecond."""
    looks, zero = itertools.count(), NOON + 29.8  # the turn comes 200 ms from now
    clocks = [lambda late=late: zero + next(looks) / 1000 - late for late in (0.0, 0.04)]
    instances = [Counters(store.dynamodb, tables.limits, clock) for clock in clocks]
    limits = Limits(requests_per_minute=30)

    def call(number: int) -> bool:
        return take(instances[number % 2], key_id, limits, 1) is None

    with ThreadPoolExecutor(50) as threads:
        passed = sum(threads.map(call, range(200)))
    assert counted(tables, key_id) == {
        "requests@2026-11-24T12:00": 30,
        "tokens@2026-11-24T12:00": 30,
        "requests@2026-11-24T12:01": 30,
        "tokens@2026-11-24T12:01": 30,
        "tokens@2026-11": 60,
    }
    assert passed == 60


# Faults


def test_a_throttled_update_is_tried_again_and_counts_once(tables: Tables, clock: Clock, key_id: str) -> None:
    client = faults.client("UpdateItem", 1, code="ThrottlingException", status=400, done=False)
    count(Counters(lambda: client, tables.limits, clock), key_id, Limits(tokens_per_minute=10), 4)
    assert counted(tables, key_id)["tokens@2026-11-24T12:00"] == 4


def test_an_update_that_stays_throttled_is_a_store_out_of_reach(tables: Tables, clock: Clock, key_id: str) -> None:
    client = faults.client("UpdateItem", 2, code="ThrottlingException", status=400, done=False)
    with pytest.raises(store.StoreUnavailableError, match="ThrottlingException on tests-Limits"):
        count(Counters(lambda: client, tables.limits, clock), key_id, Limits(tokens_per_minute=10), 4)
    assert item(tables, key_id) == {}


def test_an_update_whose_answer_is_lost_leaves_the_counter_ahead_and_never_behind(
    tables: Tables, clock: Clock, key_id: str
) -> None:
    def lossy(times: int) -> Counters:
        client = faults.client("UpdateItem", times, code="InternalServerError", status=500, done=True)
        return Counters(lambda: client, tables.limits, clock)

    limits = Limits(tokens_per_minute=13)
    count(lossy(1), key_id, limits, 4)
    assert counted(tables, key_id)["tokens@2026-11-24T12:00"] == 8, "passed once, counted twice"
    assert take(lossy(1), key_id, limits, 4) == "tokens"
    assert counted(tables, key_id)["tokens@2026-11-24T12:00"] == 12, "refused by what its own first attempt took"
    with pytest.raises(store.StoreUnavailableError, match="InternalServerError on tests-Limits"):
        count(lossy(2), key_id, limits, 1)
    assert counted(tables, key_id)["tokens@2026-11-24T12:00"] == 13


def test_where_past_minutes_cannot_be_removed_the_request_passes_and_the_next_one_removes_them(
    counters: Counters, tables: Tables, clock: Clock, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(requests_per_minute=2)
    count(counters, key_id, limits, 1)
    clock.now += 3600
    client, update = store.dynamodb(), store.dynamodb().update_item

    def throttled(**words: Any) -> Any:
        if words["UpdateExpression"].startswith("REMOVE"):
            raise client.exceptions.ProvisionedThroughputExceededException(
                {"Error": {"Code": "Throttled"}}, "UpdateItem"
            )
        return update(**words)

    with monkeypatch.context() as patched:
        patched.setattr(client, "update_item", throttled)
        count(counters, key_id, limits, 1)
    assert "requests@2026-11-24T12:00" in counted(tables, key_id)
    count(counters, key_id, limits, 1)
    assert "requests@2026-11-24T12:00" not in counted(tables, key_id)


def test_a_table_that_is_not_there_is_a_store_out_of_reach(ministack: MiniStack) -> None:
    with pytest.raises(store.StoreUnavailableError, match="on no-such-table"):
        count(Counters(store.dynamodb, "no-such-table"), "key_1", Limits(requests_per_minute=1), 1)


def test_without_a_tables_name_a_key_with_limits_is_not_served() -> None:
    with pytest.raises(store.StoreUnavailableError, match="LIMITS_TABLE is not set, and key#key_1 has limits"):
        count(Counters(store.dynamodb, ""), "key_1", Limits(requests_per_minute=1), 1)
