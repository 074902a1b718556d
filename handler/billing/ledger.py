"""The ledger: one record per piece of work, written before its answer leaves, never changed and never deleted."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler.store import StoreUnavailableError, reason

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True)
class Work:
    """The identity of a piece of work. `hash`: 16 hex of SHA-256 of an HTTP request's body; `time`: when it came in."""

    id: str
    hash: str
    time: datetime
    door: str


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

    def key(self) -> dict[str, Any]:
        """Partition `account#day#h`, where h is the hash's first digit: sixteen partitions a day. Sort key
        `HH:MM#hash#SS.ffffff#id`, so that a minute's work of one body lies together."""
        time = self.work.time.astimezone(UTC)
        return {
            "pk": {"S": f"{self.account}#{time:%Y-%m-%d}#{self.work.hash[0]}"},
            "sk": {"S": f"{time:%H:%M}#{self.work.hash}#{time:%S.%f}#{self.work.id}"},
        }

    def item(self) -> dict[str, Any]:
        return self.key() | {
            "key_id": {"S": self.key_id},
            "model": {"S": self.model},
            "door": {"S": self.work.door},
            "tokens": {"N": str(self.tokens)},
            "requests": {"N": str(self.requests)},
            "usd_per_mtok": {"N": str(self.price)},
        }


class Ledger:
    """The Usage table."""

    def __init__(self, client: Callable[[], "DynamoDBClient"], table: str) -> None:
        self._client, self._table = client, table

    def write(self, record: Record) -> bool:
        """Put the record where none is yet; False if it was there (a repeated write, or a lost answer's own retry).

        Raises StoreUnavailableError if DynamoDB does not hold it: then the answer must not leave.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._client()
        try:
            client.put_item(TableName=self._table, Item=record.item(), ConditionExpression="attribute_not_exists(pk)")
        except client.exceptions.ConditionalCheckFailedException:
            return False
        except (BotoCoreError, ClientError) as error:
            # The write may have been done and its answer lost; what is recorded is answered.
            if not self._holds(record):
                raise StoreUnavailableError(reason(error, self._table)) from error
        return True

    def _holds(self, record: Record) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client().get_item(TableName=self._table, Key=record.key(), ConsistentRead=True)
        except (BotoCoreError, ClientError):
            return False
        return "Item" in answer
