"""What a caller is told about its limits, word for word."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from handler.contract import limits
from handler.contract.limits import NO_LIMITS, Demand, Limits, Used

NOW = datetime(2026, 11, 24, 23, 34, 57, 250_000, UTC).timestamp()  # 2.75 s before the minute ends
ALL = Limits(requests_per_minute=3, tokens_per_minute=100, tokens_per_month=1000)
NOTHING = Decimal(0)


def demand(tokens: int, usd: str = "0", at: float = NOW) -> Demand:
    return Demand("bge-m3", tokens, Decimal(usd), at)


@pytest.mark.parametrize(
    ("ms", "written"),
    [
        (1, "1ms"),
        (547, "547ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (172_800, "2m52.8s"),
        (360_000, "6m0s"),
    ],
)
def test_a_duration_is_written_as_openai_writes_it(ms: int, written: str) -> None:
    assert limits.duration(ms) == written


def test_there_are_limits_as_soon_as_there_is_one() -> None:
    assert not NO_LIMITS
    assert all((Limits(requests_per_minute=1), Limits(tokens_per_minute=1), Limits(tokens_per_month=1)))
    assert Limits(usd_per_month=Decimal(1))


def test_headers_tell_of_the_limits_of_a_minute_that_the_key_has() -> None:
    requests = {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "2.75s",
    }
    tokens = {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "95",
        "x-ratelimit-reset-tokens": "2.75s",
    }
    used = Used(requests=1, tokens=5, month_tokens=5, month_usd=NOTHING)
    assert limits.headers(ALL, used, NOW) == requests | tokens
    assert limits.headers(Limits(requests_per_minute=3), used, NOW) == requests
    assert limits.headers(Limits(tokens_per_minute=100), used, NOW) == tokens
    assert limits.headers(Limits(tokens_per_month=1000), used, NOW) == {}


def test_what_remains_is_never_below_nothing() -> None:
    told = limits.headers(Limits(tokens_per_minute=100), Used(1, 500, 500, NOTHING), NOW)
    assert told["x-ratelimit-remaining-tokens"] == "0"


def test_a_month_that_is_used_up_is_final_and_says_until_when() -> None:
    error = limits.refusal(ALL, Used(requests=3, tokens=100, month_tokens=1000, month_usd=NOTHING), demand(5), NOW)
    assert (error.status, error.problem.type, error.problem.code) == (429, "insufficient_quota", "insufficient_quota")
    assert error.message == (
        "You exceeded your current quota, please check your plan and billing details. "
        "1000 tokens per month are used up until 2026-12-01T00:00:00Z."
    )
    assert error.headers["x-should-retry"] == "false"
    assert not {"retry-after", "retry-after-ms"} & set(error.headers)
    assert error.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_month_that_is_used_up_in_money_says_so_in_plain_digits() -> None:
    limit = Limits(usd_per_month=Decimal("0.00000001"))
    error = limits.refusal(limit, Used(0, 0, 0, Decimal("0.00000001")), demand(1, "0.000000000002"), NOW)
    assert error.message.endswith("0.00000001 USD per month are used up until 2026-12-01T00:00:00Z.")
    assert error.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("limit", "used", "asked", "said"),
    [
        (
            Limits(tokens_per_month=1000),
            0,
            demand(1001),
            "Requested 1001 tokens; the limit is 1000 per month, of which 0",
        ),
        (
            Limits(tokens_per_month=1000),
            998,
            demand(5),
            "Requested 5 tokens; the limit is 1000 per month, of which 998",
        ),
        (
            Limits(usd_per_month=Decimal("0.00000001")),
            Decimal("0.000000009999"),
            demand(1, "0.000000000002"),
            "Requested 0.000000000002 USD; the limit is 0.00000001 per month, of which 0.000000009999",
        ),
    ],
    ids=["alone over the month", "over what is left", "over the money that is left"],
)
def test_what_a_month_has_no_room_for_is_final_and_says_how_much_room_there_is(
    limit: Limits, used: Any, asked: Demand, said: str
) -> None:
    error = limits.refusal(limit, Used(0, 0, int(used), Decimal(used)), asked, NOW)
    assert (error.status, error.problem.type, error.problem.code) == (429, "insufficient_quota", "insufficient_quota")
    assert error.message == (
        "You exceeded your current quota, please check your plan and billing details. "
        f"{said} are used until 2026-12-01T00:00:00Z."
    )
    assert error.headers == {"x-should-retry": "false"}


def test_of_two_limits_the_one_of_which_less_remains_is_told_unit_by_unit() -> None:
    one = limits.headers(Limits(requests_per_minute=3, tokens_per_minute=100), Used(1, 90, 0, NOTHING), NOW)
    other = limits.headers(Limits(requests_per_minute=2, tokens_per_minute=1000), Used(1, 90, 0, NOTHING), NOW)
    told = limits.tighter(one, other | {"retry-after": "3"})
    assert {name: value for name, value in told.items() if "reset" not in name} == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "10",
        "retry-after": "3",
    }
    assert limits.tighter({}, other) == limits.tighter(other, {}) == limits.tighter(other, other) == other


def test_the_month_after_december_is_january() -> None:
    now = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    error = limits.refusal(Limits(tokens_per_month=1), Used(0, 0, 1, NOTHING), demand(1, at=now), now)
    assert error.message.endswith("until 2027-01-01T00:00:00Z.")


def test_a_month_is_that_in_which_the_request_came_also_where_it_is_counted_after_its_end() -> None:
    came = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    error = limits.refusal(Limits(tokens_per_month=1), Used(0, 0, 1, NOTHING), demand(1, at=came), came + 2)
    assert error.message.endswith("until 2026-12-01T00:00:00Z.")


def test_tokens_of_a_minute_that_are_used_up_say_how_long_to_wait() -> None:
    error = limits.refusal(ALL, Used(requests=1, tokens=98, month_tokens=98, month_usd=NOTHING), demand(5), NOW)
    assert (error.status, error.problem.type, error.problem.code) == (429, "tokens", "rate_limit_exceeded")
    assert error.message == (
        "Rate limit reached for bge-m3 on tokens per min (TPM): Limit 100, Used 98, Requested 5. "
        "Please try again in 2.75s."
    )
    assert (error.headers["retry-after"], error.headers["retry-after-ms"]) == ("3", "2750")
    assert "x-should-retry" not in error.headers
    assert error.headers["x-ratelimit-remaining-tokens"] == "2"


def test_requests_of_a_minute_that_are_used_up_say_how_long_to_wait() -> None:
    error = limits.refusal(ALL, Used(requests=3, tokens=100, month_tokens=98, month_usd=NOTHING), demand(5), NOW)
    assert (error.status, error.problem.type, error.problem.code) == (429, "requests", "rate_limit_exceeded")
    assert error.message == (
        "Rate limit reached for bge-m3 on requests per min (RPM): Limit 3, Used 3, Requested 1. "
        "Please try again in 2.75s."
    )
    assert error.headers["retry-after-ms"] == "2750"


def test_a_request_that_no_minute_could_take_is_too_large_and_not_to_be_repeated() -> None:
    error = limits.refusal(ALL, Used(requests=3, tokens=0, month_tokens=0, month_usd=NOTHING), demand(101), NOW)
    assert (error.status, error.problem.type, error.problem.code) == (429, "tokens", "rate_limit_exceeded")
    assert error.message.startswith("Request too large for bge-m3 on tokens per min (TPM): Limit 100, Requested 101.")
    assert error.headers["x-should-retry"] == "false"
    assert not {"retry-after", "retry-after-ms"} & set(error.headers)


@pytest.mark.parametrize(
    ("second", "wait_s", "wait_ms"),
    [(0, "60", "60000"), (0.001, "60", "59999"), (59, "1", "1000"), (59.9995, "1", "1")],
)
def test_a_wait_is_1_to_60_whole_seconds_and_exact_in_ms(second: float, wait_s: str, wait_ms: str) -> None:
    now = datetime(2026, 11, 24, 23, 34, tzinfo=UTC).timestamp() + second
    error = limits.refusal(Limits(requests_per_minute=1), Used(1, 1, 1, NOTHING), demand(1), now)
    assert (error.headers["retry-after"], error.headers["retry-after-ms"]) == (wait_s, wait_ms)
