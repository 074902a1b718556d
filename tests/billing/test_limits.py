"""The counters of a key with limits, as one caller sees them; MiniStack executes DynamoDB's conditions exactly."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from handler import store
from handler.billing.limits import Counters
from handler.contract.errors import ApiError
from handler.contract.limits import NO_LIMITS, Limits
from tests.billing.conftest import NOON, Clock, count, counted, item, take
from tests.stack.ministack import Tables


def test_a_key_without_limits_touches_no_table() -> None:
    def no_table() -> Any:
        raise AssertionError("the table was asked")

    assert count(Counters(no_table, "none"), "key_free", NO_LIMITS, 300_000) == {}


def test_each_request_is_counted_in_its_minute_and_month(counters: Counters, tables: Tables, key_id: str) -> None:
    limits = Limits(requests_per_minute=10, tokens_per_minute=100, tokens_per_month=1000)
    count(counters, key_id, limits, 5)
    told = count(counters, key_id, limits, 7)
    assert counted(tables, key_id) == {
        "requests@2026-11-24T12:00": 2,
        "tokens@2026-11-24T12:00": 12,
        "tokens@2026-11": 12,
    }
    assert (told["x-ratelimit-remaining-requests"], told["x-ratelimit-remaining-tokens"]) == ("8", "88")
    assert told["x-ratelimit-reset-requests"] == "30s"


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        (Limits(requests_per_minute=3), "requests"),
        (Limits(tokens_per_minute=15), "tokens"),
        (Limits(tokens_per_month=15), "insufficient_quota"),
        (Limits(requests_per_minute=3, tokens_per_minute=15), "requests"),
        (Limits(requests_per_minute=3, tokens_per_minute=15, tokens_per_month=15), "insufficient_quota"),
    ],
)
def test_a_limit_is_used_to_the_last_token_and_no_further(
    counters: Counters, tables: Tables, key_id: str, limits: Limits, refused: str
) -> None:
    assert [take(counters, key_id, limits, 5) for _ in range(3)] == [None] * 3
    before = item(tables, key_id)
    assert take(counters, key_id, limits, 5) == refused
    assert item(tables, key_id) == before, "a refused request has counted nothing"


def test_a_smaller_request_may_pass_where_a_larger_one_did_not(counters: Counters, key_id: str) -> None:
    limits = Limits(tokens_per_minute=10)
    assert take(counters, key_id, limits, 8) is None
    assert take(counters, key_id, limits, 3) == "tokens"
    assert take(counters, key_id, limits, 2) is None
    assert take(counters, key_id, limits, 0) is None, "an empty text costs no token"


@pytest.mark.parametrize("first", [False, True], ids=["of a key that has used some", "as the first ever"])
def test_a_request_that_alone_exceeds_a_minute_is_told_so(counters: Counters, key_id: str, first: bool) -> None:
    limits = Limits(tokens_per_minute=10, tokens_per_month=1000)
    if not first:
        count(counters, key_id, limits, 1)
    with pytest.raises(ApiError, match="429 rate_limit_exceeded") as refused:
        count(counters, key_id, limits, 11)
    assert refused.value.message.startswith("Request too large for bge-m3")
    assert refused.value.headers["x-should-retry"] == "false"


def test_a_request_that_alone_exceeds_a_month_never_passes(counters: Counters, tables: Tables, key_id: str) -> None:
    assert take(counters, key_id, Limits(tokens_per_month=10), 11) == "insufficient_quota"
    assert item(tables, key_id) == {}


def test_a_limit_that_is_set_later_finds_what_the_month_has_had(counters: Counters, key_id: str) -> None:
    count(counters, key_id, Limits(requests_per_minute=10), 90)
    lowered = Limits(tokens_per_minute=50, tokens_per_month=100)
    assert take(counters, key_id, lowered, 11) == "insufficient_quota"
    with pytest.raises(ApiError) as refused:
        count(counters, key_id, lowered, 1)
    assert refused.value.headers["x-ratelimit-remaining-tokens"] == "0"


# Time


def test_a_new_minute_forgives_and_a_month_does_not(counters: Counters, clock: Clock, key_id: str) -> None:
    limits = Limits(requests_per_minute=1, tokens_per_month=12)
    assert take(counters, key_id, limits, 5) is None
    clock.now += 29.999
    assert take(counters, key_id, limits, 5) == "requests"
    clock.now += 0.001
    assert take(counters, key_id, limits, 5) is None
    clock.now += 60
    assert take(counters, key_id, limits, 5) == "insufficient_quota"


def test_a_new_month_forgives(counters: Counters, clock: Clock, key_id: str) -> None:
    limits = Limits(tokens_per_month=5)
    clock.now = datetime(2026, 11, 30, 23, 59, 59, 999_000, UTC).timestamp()
    assert take(counters, key_id, limits, 5) is None
    assert take(counters, key_id, limits, 1) == "insufficient_quota"
    clock.now += 0.001
    assert take(counters, key_id, limits, 5) is None
    assert take(counters, key_id, limits, 1) == "insufficient_quota"


def test_waiting_as_long_as_told_is_enough(counters: Counters, clock: Clock, key_id: str) -> None:
    limits = Limits(requests_per_minute=1)
    chance = random.Random(4)
    for _ in range(20):
        clock.now += chance.uniform(60, 120)
        count(counters, key_id, limits, 1)
        with pytest.raises(ApiError) as refused:
            count(counters, key_id, limits, 1)
        clock.now += int(refused.value.headers["retry-after-ms"]) / 1000
        count(counters, key_id, limits, 1)


def test_clocks_that_differ_across_a_minutes_edge_let_no_more_than_the_limit_pass_in_either_minute(
    tables: Tables, key_id: str
) -> None:
    ahead, behind = Clock(NOON + 30.5), Clock(NOON + 29.5)
    instances = [Counters(store.dynamodb, tables.limits, clock) for clock in (ahead, behind)]
    limits = Limits(requests_per_minute=5)
    refused = [take(instances[number % 2], key_id, limits) for number in range(40)]
    assert refused == [None] * 10 + ["requests"] * 30
    assert counted(tables, key_id) == {
        "requests@2026-11-24T12:00": 5,
        "tokens@2026-11-24T12:00": 5,
        "requests@2026-11-24T12:01": 5,
        "tokens@2026-11-24T12:01": 5,
        "tokens@2026-11": 10,
    }


def test_past_minutes_and_months_are_removed_and_what_a_late_clock_counts_in_is_not(
    counters: Counters, tables: Tables, clock: Clock, key_id: str
) -> None:
    limits = Limits(requests_per_minute=1)
    clock.now = datetime(2026, 11, 30, 23, 30, tzinfo=UTC).timestamp()
    for minute in range(60):
        count(counters, key_id, limits, 300_000)
        late = f"{datetime.fromtimestamp(clock.now - 600, UTC):%Y-%m-%dT%H:%M}"
        assert f"requests@{late}" in counted(tables, key_id) or minute < 10
        size = sum(len(name) + len(next(iter(value.values()))) for name, value in item(tables, key_id).items())
        assert size < 1024, "one write unit"
        clock.now += 60
    assert counted(tables, key_id, "tokens").keys() >= {"tokens@2026-12", "tokens@2026-11"}, (
        "kept until their hours are corrected"
    )
