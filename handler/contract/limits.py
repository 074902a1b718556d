"""Limits on the wire: what answers tell of them, and the 429 where one is reached. Minutes and months are UTC's."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from handler.contract import errors
from handler.contract.errors import ApiError


@dataclass(frozen=True)
class Limits:
    """What a key, or all of an account's together, may use; None where there is no such limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_month: int | None = None
    usd_per_month: Decimal | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self != NO_LIMITS

    @property
    def monthly(self) -> "Limits":
        """Those of a month alone."""
        return replace(self, requests_per_minute=None, tokens_per_minute=None)


NO_LIMITS = Limits()
_PARTS = ("limit", "remaining", "reset")


@dataclass(frozen=True)
class Demand:
    """What a request of a model takes: tokens, and what they cost in exact USD. `at`: the time of its usage record, in
    Unix seconds. `by_minute`: whether it counts in the minute that it is, too."""

    model: str
    tokens: int
    usd: Decimal
    at: float
    by_minute: bool = True


@dataclass(frozen=True)
class Used:
    """What has been counted: requests and tokens in a minute, tokens and USD in its month."""

    requests: int
    tokens: int
    month_tokens: int
    month_usd: Decimal


def headers(limits: Limits, used: Used, now: float) -> dict[str, str]:
    """`x-ratelimit-*` for each limit of a minute. `now`: Unix seconds; `reset` is when its minute ends."""
    told, reset = {}, duration(_left_ms(now))
    requests = ("requests", limits.requests_per_minute, used.requests)
    tokens = ("tokens", limits.tokens_per_minute, used.tokens)
    for unit, limit, taken in (requests, tokens):
        if limit is not None:
            told[f"x-ratelimit-limit-{unit}"] = str(limit)
            told[f"x-ratelimit-remaining-{unit}"] = str(max(0, limit - taken))  # a limit may have been lowered since
            told[f"x-ratelimit-reset-{unit}"] = reset
    return told


def tighter(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """The other's headers, but for requests and for tokens those of the one of which no more remain: what a client may
    still send is bounded by it."""
    told = dict(other)
    for unit in ("requests", "tokens"):
        remaining = f"x-ratelimit-remaining-{unit}"
        if remaining in one and (remaining not in other or int(one[remaining]) <= int(other[remaining])):
            told |= {name: one[name] for name in (f"x-ratelimit-{part}-{unit}" for part in _PARTS)}
    return told


def refusal(limits: Limits, used: Used, demand: Demand, now: float) -> ApiError:
    """The 429 for one more request beyond what is used. Quota goes before rate; then comes what waiting cannot cure."""
    tokens, model = demand.tokens, demand.model
    told, left = headers(limits, used, now), _left_ms(now)
    if error := quota(limits, used, demand):
        error.headers |= told
        return error
    wait = told | {"retry-after": str(math.ceil(left / 1000)), "retry-after-ms": str(left)}
    minute, requests = limits.tokens_per_minute, limits.requests_per_minute
    if minute is not None and tokens > minute:
        return errors.TOO_MANY_TOKENS_FOR_A_MINUTE.error(headers=told, model=model, limit=minute, requested=tokens)
    if requests is not None and used.requests >= requests:
        return errors.REQUESTS_PER_MINUTE.error(
            headers=wait, model=model, limit=requests, used=used.requests, requested=1, duration=duration(left)
        )
    return errors.TOKENS_PER_MINUTE.error(
        headers=wait, model=model, limit=minute, used=used.tokens, requested=tokens, duration=duration(left)
    )


def quota(limits: Limits, used: Used, demand: Demand) -> ApiError | None:
    """The 429 for a month that has no room for one more request, if it has none: that of the request's record."""
    of_tokens = ("tokens", limits.tokens_per_month, used.month_tokens, demand.tokens)
    of_money = ("USD", limits.usd_per_month, used.month_usd, demand.usd)
    for unit, month, taken, asked in (of_tokens, of_money):
        if month is not None and taken + asked > month:
            problem = errors.QUOTA if taken >= month else errors.BEYOND_QUOTA
            limit, had, until = _plain(month), _plain(taken), _next_month(demand.at)
            return problem.error(limit=limit, used=had, requested=_plain(asked), unit=unit, until=until)
    return None


def duration(ms: int) -> str:
    """As OpenAI writes it: `547ms`, `1s`, `2m52.8s`, `6m0s`."""
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes}m{ms / 1000:g}s" if minutes else f"{ms / 1000:g}s"


def _plain(number: Decimal | int) -> str:
    """All of its digits, and no exponent."""
    return f"{Decimal(number):f}"


def _left_ms(now: float) -> int:
    """Until the minute ends, 1 to 60,000; rounded up, so that whoever waits as long comes in the next one."""
    return 60_000 - int(now * 1000) % 60_000


def _next_month(at: float) -> str:
    """When the next month begins, in RFC 3339."""
    date = datetime.fromtimestamp(at, UTC)
    return f"{date.year + date.month // 12:04}-{date.month % 12 + 1:02}-01T00:00:00Z"
