"""The Jobs table's rows: files and batches of an account, in the order in which they were made.

    pk                  sk
    file#ACCOUNT        file-…          a file
    batch#ACCOUNT       batch_…         a batch
    named#ACCOUNT       SHA-256         the Idempotency-Key, or the event, that has made a batch
    open                EXPIRES#ACCOUNT#batch_…    each batch that has not ended
    shards#batch_…      00000007        a shard that is done
    taken#batch_…       00000007        what of a month's quota it has taken (takings.py)
    careful#batch_…     00000007        the line that a shard is at, if it goes line by line (careful.py)
    careful#SQS's id    message         a message that is tried alone, likewise

Ids begin with their time, so that a page of an account's newest is one query.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from handler import store
from handler.contract.batches import Batch

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

Row = dict[str, Any]

_LONGEST = 1024  # bytes of a sort key (DynamoDB, "Quotas"); it refuses to look for what has more, or none
_ATTEMPTS, _PAUSE_S = 8, 0.05  # at a transaction that meets another on the same row
_KEPT_S = 90 * 86400  # rows of a batch, since it was made
_TIME, _REST = 12, 20  # hex digits of an id: milliseconds, and what tells those of one from another


def new_id(prefix: str, now: float | None = None, rest: str = "") -> str:
    """`prefix` and 32 hex digits; of one made later they are greater. `rest`: the last 20 of them, else random."""
    millis = int((time.time() if now is None else now) * 1000)
    return f"{prefix}{millis:0{_TIME}x}{rest or secrets.token_hex(_REST // 2)}"


def number(row: Mapping[str, Any], name: str) -> int | None:
    """A row's number, None where it has none."""
    return int(row[name]["N"]) if name in row else None


def text(row: Mapping[str, Any], name: str) -> str | None:
    return str(row[name]["S"]) if name in row else None


def of_batches(account: str) -> str:
    """The partition of an account's batches."""
    return f"batch#{account}"


def row_key(pk: str, sk: str) -> Row:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def batch_key(account: str, batch_id: str) -> Row:
    return row_key(of_batches(account), batch_id)


def kept(batch: Batch) -> Row:
    """Until when what is known of a batch is kept."""
    return {"N": str(batch.created_at + _KEPT_S)}


def put_new(row: Row) -> Row:
    """Of a transaction: the put of a row where there is none."""
    return {"Put": {"Item": row, "ConditionExpression": "attribute_not_exists(pk)"}}


class Rows:
    """The Jobs table. Every call raises StoreUnavailableError where DynamoDB cannot be reached."""

    def __init__(self, client: Callable[[], "DynamoDBClient"], table: str) -> None:
        self.client, self.table = client, table

    def get(self, pk: str, sk: str) -> Row | None:
        """One row as it is now."""
        if not 0 < len(sk.encode()) <= _LONGEST:
            return None
        with store.answering(self.table):
            return self.client().get_item(TableName=self.table, Key=row_key(pk, sk), ConsistentRead=True).get("Item")

    def pages(self, pk: str, after: str | None = None, *, ascending: bool = True, size: int = 1000) -> Iterator[Row]:
        """The rows of a partition behind `after`, read some at a time."""
        behind = (after or "").encode()[:_LONGEST].decode(errors="ignore")
        start: Row | None = row_key(pk, behind) if behind else None
        while True:
            more: Any = {"ExclusiveStartKey": start} if start else {}
            with store.answering(self.table):
                found = self.client().query(
                    TableName=self.table,
                    KeyConditionExpression="pk = :pk",
                    ExpressionAttributeValues={":pk": {"S": pk}},
                    ScanIndexForward=ascending,
                    ConsistentRead=True,
                    Limit=size,
                    **more,
                )
            yield from found["Items"]
            start = found.get("LastEvaluatedKey")
            if not start:
                return

    def put(self, row: Row) -> None:
        with store.answering(self.table):
            self.client().put_item(TableName=self.table, Item=row)

    def delete(self, pk: str, sk: str) -> Row | None:
        """Remove a row; what it was."""
        with store.answering(self.table):
            answer = self.client().delete_item(TableName=self.table, Key=row_key(pk, sk), ReturnValues="ALL_OLD")
            return answer.get("Attributes")

    def update(self, change: Any) -> Row | None:
        """Change a row, or make it, by the fields of an UpdateItem; what it asks to be returned, None where its
        condition does not hold."""
        client = self.client()
        with store.answering(self.table), suppress(client.exceptions.ConditionalCheckFailedException):
            return client.update_item(TableName=self.table, **change).get("Attributes", {})
        return None

    def transact(self, parts: list[Any]) -> bool:
        """All of it, or none: False where a condition does not hold. botocore gives it a token, by which a second
        attempt after a lost answer is the first."""
        for part in parts:
            for each in part.values():
                each.setdefault("TableName", self.table)
        client = self.client()
        for attempt in range(_ATTEMPTS):
            with store.answering(self.table):
                try:
                    client.transact_write_items(TransactItems=parts)
                except client.exceptions.TransactionCanceledException as error:
                    codes = {each.get("Code") for each in error.response["CancellationReasons"]}
                    if "ConditionalCheckFailed" in codes:
                        return False
                    if "TransactionConflict" not in codes or attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return True
            time.sleep(random.uniform(0, _PAUSE_S * 2**attempt))  # noqa: S311
        return False
