"""A month of the ledger in S3, as JSON lines: an object for each account's day, and a manifest once all are there."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

import orjson

from handler.billing.buckets import Sums
from handler.billing.months import Item, Month, by_day, records, summed
from handler.contract.pages import plain

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client

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
    may be run anew; with `resume`, days that are there already are left as they are."""

    def __init__(
        self, dynamodb: "DynamoDBClient", table: str, s3: "S3Client", place: Place, month: Month, *, resume: bool
    ) -> None:
        self._dynamodb, self._table, self._s3 = dynamodb, table, s3
        self._place, self._month, self._resume = place, month, resume

    def account(self, name: str) -> Iterator[Part]:
        """Each day's object, in order; days without records have none. Raises botocore's errors."""
        for part in by_day(self._month.days, lambda day: self._day(name, day)):
            if part.records:
                yield part

    def close(self, parts: list[Part], account: str | None) -> Part:
        """Write the manifest, of all accounts or of one, which says that the export is whole; what it comes to."""
        folder = f"{account}/" if account else ""
        key = f"{self._place.prefix}{self._month}/{folder}manifest.json"
        whole = Part(key, sum(part.records for part in parts), sum((part.used for part in parts), Sums()))
        objects = [{"key": part.key} | part.told() for part in parts]
        manifest = {"month": str(self._month), "objects": objects, "total": whole.told()}
        body = json.dumps(manifest, indent=2).encode()
        self._s3.put_object(Bucket=self._place.bucket, Key=key, Body=body, ContentType="application/json")
        return whole

    def _day(self, account: str, day: datetime) -> Part:
        key = f"{self._place.prefix}{self._month}/{account}/{day:%Y-%m-%d}.jsonl"
        if self._resume and (there := self._there(key)):
            return there
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            items = records(self._dynamodb, self._table, account, day)
            bucket = summed(day, _written(items, file))
            part = Part(key, bucket.n, bucket.total)
            if bucket.n:
                file.seek(0)
                told = {name: str(value) for name, value in part.told().items()}
                head = {"Metadata": told, "ContentType": "application/jsonl"}
                self._s3.upload_fileobj(file, self._place.bucket, key, ExtraArgs=head)  # in parts, if it is large
        return part

    def _there(self, key: str) -> Part | None:
        from botocore.exceptions import ClientError

        try:
            told = self._s3.head_object(Bucket=self._place.bucket, Key=key)["Metadata"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
        return Part(key, int(told["records"]), Sums(int(told["tokens"]), int(told["requests"]), Decimal(told["usd"])))


def _written(items: Iterator[Item], file: IO[bytes]) -> Iterator[Item]:
    """The same records, each written as a line on its way: all its attributes, numbers with the table's own digits."""
    for item in items:
        file.write(orjson.dumps({name: _plain(*item[name].items()) for name in sorted(item)}) + b"\n")
        yield item


def _plain(pair: tuple[str, Any]) -> Any:
    kind, value = pair
    return orjson.Fragment(value) if kind == "N" else value
