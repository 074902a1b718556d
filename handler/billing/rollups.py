"""Rollups: an account's usage per minute, hour and day, each a row that is set whole and never gets older.

`python -m handler.billing.rollups` compares them with the ledger, or makes them anew of it (rolluptool.py).
"""

import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler import store
from handler.billing.buckets import WIDTHS, Bucket, Group, Sums
from handler.billing.register import Register

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

# What a width's partitions are named after, and the rows in them: at most 1,440, 744 and 366 of these.
_NAMES = {"1m": ("%Y-%m-%d", "%H:%M"), "1h": ("%Y-%m", "%dT%H"), "1d": ("%Y", "%m-%d")}
_TEXT_BYTES = 300_000  # of an item's 400 KB: some 6,000 keys
_BEFORE, _AFTER = "0", "9"  # in the order of rows, which begin with two digits of no number above 59


class Rollups:
    """The Rollups table: partition `account#width#period`, and the register's."""

    def __init__(self, client: Callable[[], "DynamoDBClient"], table: str) -> None:
        self._client, self._table = client, table
        self.register = Register(client, table)

    def read(self, account: str, width: str, start: int, end: int) -> Iterator[Bucket]:
        """The buckets there are of a width (`1m`, `1h`, `1d`) that begin at `start` or later and before `end` (Unix
        seconds), ascending, as they are now. It takes a query for every day, month or year of them. Raises
        StoreUnavailableError."""
        seconds = WIDTHS[width]
        first, last = -(-start // seconds) * seconds, (end - 1) // seconds * seconds
        periods = [*dict.fromkeys(_key(width, day)[0] for day in range(first // 86400 * 86400, last + 1, 86400))]
        for period in periods if first <= last else []:
            low = _key(width, first)[1] if period == periods[0] else _BEFORE
            high = _key(width, last)[1] if period == periods[-1] else _AFTER
            for item in self._query(f"{account}#{width}#{period}", low, high):
                yield _bucket(width, period, item)

    def accounts(self) -> list[str]:
        """Every account that has any, ascending. Raises StoreUnavailableError."""
        return [entry.account for entry in self.register.entries()]

    def set(self, account: str, width: str, bucket: Bucket) -> bool:
        """Make this the row of its time, unless there is one of as many records: False then. A row never gets older,
        in whatever order, and however often, it is set. Raises StoreUnavailableError.

        The account is listed first, so that no rollup is of one that `accounts` does not know.
        """
        period, name = _key(width, bucket.start)
        item = {
            "pk": {"S": f"{account}#{width}#{period}"},
            "sk": {"S": name},
            "n": {"N": str(bucket.n)},
            "groups": _stored(bucket.groups),
        }
        client = self._client()
        self.register.add(account)
        with store.answering(self._table):
            try:
                client.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(pk) OR n < :n",
                    ExpressionAttributeValues={":n": item["n"]},
                )
            except client.exceptions.ConditionalCheckFailedException:
                return False  # also where the answer to a put was lost, and botocore repeated it
        return True

    def _query(self, partition: str, low: str, high: str) -> Iterator[dict[str, Any]]:
        pages = self._client().get_paginator("query")
        with store.answering(self._table):
            for page in pages.paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
                ExpressionAttributeValues={":pk": {"S": partition}, ":low": {"S": low}, ":high": {"S": high}},
                ConsistentRead=True,  # an hour that is made of minutes must not miss one that has just been set
            ):
                yield from page["Items"]


def _key(width: str, start: int) -> tuple[str, str]:
    """The period of a bucket's partition, and its row there."""
    period, name = _NAMES[width]
    moment = datetime.fromtimestamp(start, UTC)
    return f"{moment:{period}}", f"{moment:{name}}"


def _text(groups: Mapping[Group, Sums]) -> str:
    """JSON, model → line item → key → [tokens, requests, exact USD]: an item holds 400 KB, and of what there may be
    thousands, keys, this repeats no name but their own."""
    tree: dict[str, dict[str, dict[str, tuple[int, int, str]]]] = {}
    for group, sums in groups.items():
        line = tree.setdefault(group.model, {}).setdefault(group.line_item, {})
        line[group.key_id] = sums.tokens, sums.requests, f"{sums.cost:f}"
    return json.dumps(tree, separators=(",", ":"), sort_keys=True)


def _stored(groups: Mapping[Group, Sums]) -> "AttributeValueTypeDef":
    """As text, which people can read, or packed where that would not fit an item."""
    text = _text(groups)
    return {"S": text} if len(text) < _TEXT_BYTES else {"B": zlib.compress(text.encode())}


def _held(groups: Mapping[str, Any]) -> Any:
    return json.loads(groups["S"] if "S" in groups else zlib.decompress(groups["B"]))


def _bucket(width: str, period: str, item: dict[str, Any]) -> Bucket:
    moment = datetime.strptime(f"{period} {item['sk']['S']}", " ".join(_NAMES[width])).replace(tzinfo=UTC)
    groups = {
        Group(key_id, model, line_item): Sums(tokens, requests, Decimal(cost))
        for model, lines in _held(item["groups"]).items()
        for line_item, keys in lines.items()
        for key_id, (tokens, requests, cost) in keys.items()
    }
    return Bucket(int(moment.timestamp()), int(item["n"]["N"]), groups)


if __name__ == "__main__":
    from handler.billing import rolluptool

    sys.exit(rolluptool.main())
