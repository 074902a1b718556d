"""A month of the ledger: its days, and an account's records of a day, in the table's order."""

import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from handler.billing.buckets import Bucket, Group, Sums, cost, line_item

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")
Item = dict[str, Any]

_MONTH = re.compile(r"([12]\d{3})-(0[1-9]|1[0-2])", re.ASCII)
_PARTITIONS = "0123456789abcdef"  # of an account's day: the first digit of a work's hash
_AT_ONCE = 8  # days that are read at the same time


@dataclass(frozen=True)
class Month:
    """A month of UTC's."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> "Month":
        """`2026-11`. Raises ValueError."""
        if not (found := _MONTH.fullmatch(text)):
            raise ValueError(f"{text!r} is no month: expected one such as 2026-11")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def days(self) -> list[datetime]:
        """The first moment of each."""
        first = datetime(self.year, self.month, 1, tzinfo=UTC)
        return [first + timedelta(days=day) for day in range(monthrange(self.year, self.month)[1])]

    @property
    def start(self) -> int:
        return int(self.days[0].timestamp())

    @property
    def end(self) -> int:
        """The first second after it."""
        return int((self.days[-1] + timedelta(days=1)).timestamp())


def records(client: "DynamoDBClient", table: str, account: str, day: datetime) -> Iterator[Item]:
    """An account's records of a day as the Usage table holds them, partition by partition, each in order of its sort
    keys: the same every time, because records are never changed. Raises botocore's errors."""
    pages = client.get_paginator("query")
    for digit in _PARTITIONS:
        for page in pages.paginate(
            TableName=table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"{account}#{day:%Y-%m-%d}#{digit}"}},
            ConsistentRead=True,
        ):
            yield from page["Items"]


def by_day(days: Iterable[datetime], read: Callable[[datetime], T]) -> Iterator[T]:
    """What is read of each day, in order; several are read at once."""
    with ThreadPoolExecutor(_AT_ONCE, "ledger") as pool:
        yield from pool.map(read, days)


def summed(day: datetime, items: Iterable[Item]) -> Bucket:
    """What the records of a day come to. They are read one by one: a day of any size takes no more memory."""
    n, groups = 0, dict[Group, Sums]()
    for item in items:
        n += 1
        group = Group(item["key_id"]["S"], item["model"]["S"], line_item(item["model"]["S"], item["door"]["S"]))
        tokens, price = int(item["tokens"]["N"]), Decimal(item["usd_per_mtok"]["N"])
        used = Sums(tokens, int(item["requests"]["N"]), cost(tokens, price))
        groups[group] = groups.get(group, Sums()) + used
    return Bucket(int(day.timestamp()), n, groups)
