"""The ledger's records: what was done for whom, as an item of the Usage table and as JSON where that cannot be had."""

import json
import math
import string
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from handler.billing.accounts import ACCOUNT, ALL_ACCOUNTS
from handler.billing.work import Attempt, Identity, Work

Item = dict[str, Any]

_HASH = 16  # digits of the work's hash in a key
_HEX = frozenset("0123456789abcdef")
_NAME = frozenset(string.ascii_letters + string.digits + "-._:/@+ ")  # no "#", which separates the parts of a key
_MOST = 10**15


@dataclass(frozen=True)
class Record:
    """What was done for whom. `price` is USD per million tokens at that time."""

    work: Work
    account: str
    key_id: str
    model: str
    tokens: int
    requests: int
    price: Decimal

    def key(self) -> Item:
        """Partition `account#day#h`, where h is the hash's first digit: sixteen partitions a day. Sort key
        `HH:MM#hash#SS.ffffff#id`, so that a minute's work of one body lies together."""
        time = self.work.time.astimezone(UTC)
        partition, prefix = minute(self.account, self.work.hash, time)
        return {"pk": {"S": partition}, "sk": {"S": f"{prefix}{time:%S.%f}#{self.work.id}"}}

    def item(self) -> Item:
        """One write unit at its longest. An attempt's count, and the whole hash of its body, are what a later attempt
        looks for."""
        item = self.key() | self._sums(self.tokens, self.requests)
        if self.work.attempt is not None:
            item |= {"attempt": {"N": str(self.work.attempt.count)}, "body": {"S": self.work.hash}}
        return item

    def excuse(self, record: Item, count: int) -> Item:
        """The item that says of an older record that this work, attempt number `count` at the same call, is paid by it.
        It bills nothing, and there can be one of each count."""
        key = {"pk": record["pk"], "sk": {"S": f"{record['sk']['S']}#r{count}"}}
        return key | self._sums(0, 0) | {"work": {"S": self.work.id}}

    def _sums(self, tokens: int, requests: int) -> Item:
        return {
            "key_id": {"S": self.key_id},
            "model": {"S": self.model},
            "door": {"S": self.work.door},
            "tokens": {"N": str(tokens)},
            "requests": {"N": str(requests)},
            "usd_per_mtok": {"N": str(self.price)},
        }


def minute(account: str, work_hash: str, time: datetime) -> tuple[str, str]:
    """Where the records of a hash and a minute (of a UTC time) lie: their partition, and how their sort keys begin."""
    return f"{account}#{time:%Y-%m-%d}#{work_hash[0]}", f"{time:%H:%M}#{work_hash[:_HASH]}#"


def time_of(item: Item) -> datetime:
    """When the work of a record came in, or a shard was begun, as its key says."""
    day = item["pk"]["S"].split("#")[1]
    clock, _, seconds, *_ = item["sk"]["S"].split("#")
    return datetime.fromisoformat(f"{day}T{clock}:{seconds}+00:00")


def dumps(record: Record) -> str:
    """The record with all that belongs to it in one line of JSON, whole wherever it is written from later."""
    return json.dumps(asdict(record), default=_text, separators=(",", ":"))


def loads(text: str) -> Record:
    """What `dumps` made. Raises ValueError for anything else."""
    try:
        return from_fields(json.loads(text))
    except (RecursionError, ValueError) as error:
        raise ValueError("this is no record of the ledger") from error


def from_fields(fields: Any) -> Record:
    """A record of the decoded JSON, every part of it what it can be. Raises ValueError, whatever else it is given."""
    try:
        work = dict(fields["work"])
        identity, attempt = work["identity"], work["attempt"]
        work |= {
            "time": datetime.fromisoformat(work["time"]),
            "identity": None if identity is None else Identity(**identity),
            "attempt": None if attempt is None else Attempt(**attempt),
        }
        record = Record(**(fields | {"work": Work(**work), "price": Decimal(fields["price"])}))
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ValueError("this is no record of the ledger") from error
    if not (isinstance(fields["price"], str) and _is_whole(record) and _is_work(record.work)):
        raise ValueError("this is no record of the ledger")
    return record


def _is_whole(record: Record) -> bool:
    price = record.price
    return (
        isinstance(record.account, str)
        and record.account != ALL_ACCOUNTS
        and ACCOUNT.fullmatch(record.account) is not None
        and _is_name(record.key_id)
        and _is_name(record.model)
        and _is_count(record.tokens)
        and _is_count(record.requests)
        and price.is_finite()
        and 0 <= price < _MOST
        and _digits(price) <= 38  # as many as DynamoDB holds
    )


def _is_work(work: Work) -> bool:
    identity, attempt, time = work.identity, work.attempt, work.time
    return (
        _is_name(work.id)
        and _is_digest(work.hash, _HASH)
        and _is_name(work.door)
        and time.tzinfo is not None
        and 2000 < time.year < 2200  # what is reckoned with it stays a time
        and (identity is None or attempt is None)
        and (identity is None or (_is_name(identity.kind) and _is_digest(identity.id) and _is_digest(identity.asked)))
        and (identity is None or _is_count(identity.lifetime))
        and (attempt is None or _is_count(attempt.count))
        and (attempt is None or attempt.patience_s is None or _is_seconds(attempt.patience_s))
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and _NAME.issuperset(value)


def _is_digest(value: object, least: int = 64) -> bool:
    return isinstance(value, str) and least <= len(value) <= 64 and _HEX.issuperset(value)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_seconds(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]


def _digits(value: Decimal) -> int:
    _, digits, exponent = value.as_tuple()
    return max(len(digits), -int(exponent))


def _text(value: datetime | Decimal) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
