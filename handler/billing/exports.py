"""A month of the ledger in S3, as JSON lines: an object for each account's day, and a manifest while all are there."""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from threading import Event
from typing import TYPE_CHECKING, Any

import orjson

from handler import store
from handler.billing.buckets import Sums, cost
from handler.billing.minutes import PARTITIONS
from handler.billing.months import SETTLED_S, Month
from handler.contract.pages import plain

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client

Item = dict[str, Any]

_AT_ONCE = 8  # days
_LINES = "application/jsonl"
_IN_MEMORY = 8 << 20  # bytes of a day; a longer one lies in a temporary file until it is put


@dataclass(frozen=True)
class Part:
    """An object of an export: how many records it has, and what they come to."""

    key: str
    records: int
    used: Sums

    def told(self) -> dict[str, Any]:
        used = self.used
        return {
            "records": self.records,
            "tokens": used.tokens,
            "requests": used.requests,
            "usd": plain(used.cost),
        }


@dataclass(frozen=True)
class Place:
    """`s3://bucket/prefix/`."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises ValueError. A prefix is a folder, with or without its slash."""
        scheme, _, rest = text.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not bucket:
            raise ValueError(f"{text!r} is no place in S3: expected s3://bucket/prefix/")
        return cls(bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else "")


class Export:
    """Writes days of the ledger to a place. A day's object is the same each time it is written, so an export that ended
    may be run anew; with `resume`, days that are there already are left as they are, if they were over by then.

    A manifest goes before any object that it tells of is written anew: one that is there is of what lies there.
    """

    def __init__(
        self, dynamodb: "DynamoDBClient", table: str, s3: "S3Client", place: Place, month: Month, *, resume: bool
    ) -> None:
        self._dynamodb, self._table, self._s3 = dynamodb, table, s3
        self._place, self._month, self._resume = place, month, resume

    def account(self, name: str) -> Iterator[Part]:
        """Each day's object, in order; days without records have none. Raises StoreUnavailableError; ValueError for a
        record that cannot be read."""
        for whose in (None, name):
            with store.answering(self._place.bucket):
                self._s3.delete_object(Bucket=self._place.bucket, Key=self._manifest(whose))
        ended = Event()
        with ThreadPoolExecutor(_AT_ONCE, "export") as pool:
            try:
                for part in pool.map(lambda day: self._day(name, day, ended), self._month.days):
                    if part.records:
                        yield part
            finally:
                ended.set()

    def close(self, parts: list[Part], account: str | None) -> Part:
        """Write the manifest, of all accounts or of one, which says that the export is whole; what it comes to."""
        whole = self.sum(parts, account)
        objects = [{"key": part.key} | part.told() for part in parts]
        manifest = {"month": str(self._month), "objects": objects, "total": whole.told()}
        body = json.dumps(manifest, indent=2).encode()
        with store.answering(self._place.bucket):
            self._s3.put_object(Bucket=self._place.bucket, Key=whole.key, Body=body, ContentType="application/json")
        return whole

    def sum(self, parts: list[Part], account: str | None) -> Part:
        """What the parts come to, under the manifest's key."""
        used = sum((part.used for part in parts), Sums())
        return Part(self._manifest(account), sum(part.records for part in parts), used)

    def _manifest(self, account: str | None) -> str:
        folder = f"{account}/" if account else ""
        return f"{self._place.prefix}{self._month}/{folder}manifest.json"

    def _day(self, account: str, day: datetime, ended: Event) -> Part:
        """`ended`: whoever wanted it is gone, by an error or by Ctrl-C, and waits for the threads to end."""
        key = f"{self._place.prefix}{self._month}/{account}/{day:%Y-%m-%d}.jsonl"
        if self._resume and (there := self._there(key, day)):
            return there
        n, used = 0, Sums()
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            for item in records(self._dynamodb, self._table, account, day):
                if ended.is_set():
                    raise CancelledError
                file.write(_line(item))
                n, used = n + 1, used + _sums(item)
            part = Part(key, n, used)
            if n:
                file.seek(0)
                head = {"Metadata": {name: str(value) for name, value in part.told().items()}, "ContentType": _LINES}
                with store.answering(self._place.bucket):
                    self._s3.upload_fileobj(file, self._place.bucket, key, ExtraArgs=head)  # in parts, if it is large
        return part

    def _there(self, key: str, day: datetime) -> Part | None:
        """An object that says what it has, and was written once its day was over; else it is to be written."""
        from botocore.exceptions import ClientError

        try:
            head = self._s3.head_object(Bucket=self._place.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise store.StoreUnavailableError(store.reason(error, self._place.bucket)) from error
        told, over = head["Metadata"], day + timedelta(days=1, seconds=SETTLED_S)
        if head["LastModified"] < over or not told.keys() >= Part(key, 0, Sums()).told().keys():
            return None
        return Part(key, int(told["records"]), Sums(int(told["tokens"]), int(told["requests"]), Decimal(told["usd"])))


def records(client: "DynamoDBClient", table: str, account: str, day: datetime) -> Iterator[Item]:
    """An account's records of a day as the Usage table holds them, partition by partition, each in order of its sort
    keys: the same every time, because records are never changed. Raises StoreUnavailableError."""
    pages = client.get_paginator("query")
    with store.answering(table):
        for digit in PARTITIONS:
            for page in pages.paginate(
                TableName=table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": f"{account}#{day:%Y-%m-%d}#{digit}"}},
                ConsistentRead=True,
            ):
                yield from page["Items"]


def _line(item: Item) -> bytes:
    """All of a record's attributes by name, numbers with the table's own digits."""
    return orjson.dumps({name: _plain(*item[name].items()) for name in sorted(item)}) + b"\n"


def _plain(pair: tuple[str, Any]) -> Any:
    kind, value = pair
    return orjson.Fragment(value) if kind == "N" else value


def _sums(item: Item) -> Sums:
    try:
        tokens = int(item["tokens"]["N"])
        return Sums(tokens, int(item["requests"]["N"]), cost(tokens, Decimal(item["usd_per_mtok"]["N"])))
    except (ArithmeticError, KeyError, ValueError) as error:
        raise ValueError(f"the record {item['pk']['S']} {item['sk']['S']} cannot be read: {error!r}") from error
