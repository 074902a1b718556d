"""An account's minutes, read from the ledger itself: the sums of the records that there are."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler import store
from handler.billing.buckets import Bucket, Group, Sums, cost, line_item

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

PARTITIONS = "0123456789abcdef"  # of an account's day, by the first digit of the work's hash
_READ = ("sk", "key_id", "model", "door", "tokens", "requests", "usd_per_mtok")
_AFTER = "~"  # in the order of sort keys, whose minute "#" ends

_Priced = tuple[str, str, str, str, str]  # minute, key id, model, door, USD per million tokens
_Cells = dict[_Priced, list[int]]  # records, tokens, requests


def of(key: Mapping[str, Any]) -> tuple[str, int]:
    """The account and the minute (Unix seconds) that a record with this key belongs to. Raises ValueError for what is
    no record's key."""
    try:
        account, day, _ = key["pk"]["S"].split("#")
        moment = datetime.strptime(f"{day} {key['sk']['S'].split('#')[0]}", "%Y-%m-%d %H:%M")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("this is no key of a record") from error
    return account, int(moment.replace(tzinfo=UTC).timestamp())


class Minutes:
    """The Usage table. `threads` read the sixteen partitions of a day side by side."""

    def __init__(self, client: Callable[[], "DynamoDBClient"], table: str, threads: Executor) -> None:
        self._client, self._table, self._threads = client, table, threads

    def read(self, account: str, start: int, end: int) -> Iterator[Bucket]:
        """The minutes that have records and begin at `start` or later and before `end` (Unix seconds, of whole
        minutes), ascending. Raises StoreUnavailableError, or ValueError for a record that cannot be read.

        `n` counts every record; one that bills nothing, because it only excuses a retry, is in no group.
        """
        for midnight in range(start // 86400 * 86400, end, 86400):
            first, last = max(start, midnight), min(end, midnight + 86400) - 60
            low, high = f"{_utc(first):%H:%M}", f"{_utc(last):%H:%M}{_AFTER}"
            day = [f"{account}#{_utc(midnight):%Y-%m-%d}#{digit}" for digit in PARTITIONS]
            cells: _Cells = {}
            for part in self._threads.map(lambda pk: self._partition(pk, low, high), day):  # noqa: B023  (ends here)
                for priced, sums in part.items():
                    _add(cells, priced, *sums)
            yield from _buckets(midnight, cells)

    def _partition(self, pk: str, low: str, high: str) -> _Cells:
        cells: _Cells = {}
        pages = self._client().get_paginator("query")
        names = {f"#{name}": name for name in _READ}
        with store.answering(self._table):
            for page in pages.paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND #sk BETWEEN :low AND :high",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={":pk": {"S": pk}, ":low": {"S": low}, ":high": {"S": high}},
                ProjectionExpression=", ".join(names),
                ConsistentRead=True,  # who has heard of a record must find it
            ):
                for item in page["Items"]:
                    _read(cells, pk, item)
        return cells


def _read(cells: _Cells, pk: str, item: Mapping[str, Any]) -> None:
    try:
        minute, key_id, model = item["sk"]["S"][:5], item["key_id"]["S"], item["model"]["S"]
        priced = minute, key_id, model, item["door"]["S"], item["usd_per_mtok"]["N"]
        _add(cells, priced, 1, int(item["tokens"]["N"]), int(item["requests"]["N"]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"the record {pk} {item['sk'].get('S')} cannot be read: {error!r}") from error


def _add(cells: _Cells, priced: _Priced, n: int, tokens: int, requests: int) -> None:
    cell = cells.setdefault(priced, [0, 0, 0])
    cell[0] += n
    cell[1] += tokens
    cell[2] += requests


def _buckets(midnight: int, cells: _Cells) -> Iterator[Bucket]:
    minutes: dict[str, tuple[int, dict[Group, Sums]]] = {}
    for (minute, key_id, model, door, price), (records, tokens, requests) in sorted(cells.items()):
        n, groups = minutes.get(minute, (0, {}))
        if tokens or requests:
            group = Group(key_id, model, line_item(model, door))
            groups[group] = groups.get(group, Sums()) + Sums(tokens, requests, cost(tokens, Decimal(price)))
        minutes[minute] = n + records, groups
    for minute, (n, groups) in minutes.items():
        yield Bucket(midnight + int(minute[:2]) * 3600 + int(minute[3:]) * 60, n, groups)


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
