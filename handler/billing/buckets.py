"""What was used in a stretch of time: sums of usage records, by key, model and line item. Plain values, no tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow

MTOK = Decimal(1_000_000)
# Money is never rounded: a sum that needed more digits than these would be an error, and none comes near them.
EXACT = Context(prec=64, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
WIDTHS = {"1m": 60, "1h": 3600, "1d": 86400}  # seconds of a bucket, which starts at a multiple of them (UTC)


@dataclass(frozen=True, order=True)
class Group:
    """What usage is told apart by, within an account."""

    key_id: str
    model: str
    line_item: str


@dataclass(frozen=True)
class Sums:
    """Tokens and requests are integers, `cost` is exact USD."""

    tokens: int = 0
    requests: int = 0
    cost: Decimal = Decimal(0)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.tokens + other.tokens, self.requests + other.requests, EXACT.add(self.cost, other.cost))


@dataclass(frozen=True)
class Bucket:
    """An account's usage from `start` (Unix seconds) on, for as long as its width. `n`: how many records it sums; they
    are never changed or deleted, so that a larger number is a newer bucket."""

    start: int
    n: int
    groups: Mapping[Group, Sums]

    @property
    def total(self) -> Sums:
        return sum(self.groups.values(), Sums())


def line_item(model: str, door: str) -> str:
    """As OpenAI's costs name them; a batch's tokens have a price of their own."""
    return f"{model}, batch input_tokens" if door == "batch" else f"{model}, input_tokens"


def cost(tokens: int, usd_per_mtok: Decimal) -> Decimal:
    """Exact USD of so many tokens."""
    return EXACT.divide(EXACT.multiply(tokens, usd_per_mtok), MTOK)


def merged(start: int, buckets: Iterable[Bucket]) -> Bucket:
    """One bucket of several shorter ones."""
    n, groups = 0, dict[Group, Sums]()
    for bucket in buckets:
        n += bucket.n
        for group, sums in bucket.groups.items():
            groups[group] = groups.get(group, Sums()) + sums
    return Bucket(start, n, groups)
