"""The ledger's records: what was done for whom, as an item of the Usage table and as JSON where that cannot be had."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from handler.billing.work import Attempt, Identity, Work

Item = dict[str, Any]

_HASH = 16  # digits of the work's hash in a key


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
    """When the work of a record came in, as its key says."""
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
    except ValueError as error:
        raise ValueError("this is no record of the ledger") from error


def from_fields(fields: Any) -> Record:
    """A record of the decoded JSON. Raises ValueError."""
    try:
        work = dict(fields["work"])
        identity, attempt = work["identity"], work["attempt"]
        work |= {
            "time": datetime.fromisoformat(work["time"]),
            "identity": identity and Identity(**identity),
            "attempt": attempt and Attempt(**attempt),
        }
        return Record(**(fields | {"work": Work(**work), "price": Decimal(fields["price"])}))
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ValueError("this is no record of the ledger") from error


def _text(value: datetime | Decimal) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
