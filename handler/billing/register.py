"""The register: who has usage, and how far each account's rollups are known to be what the ledger says."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handler import store
from handler.billing.buckets import WIDTHS

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_PARTITION, _HOUR = "accounts", WIDTHS["1h"]


@dataclass(frozen=True)
class Entry:
    """An account. `until`: its hours that have ended by then have been made anew of the ledger; None where none have.
    `late`: begins of hours that have got records since, of which the stream may tell late or never. All in Unix
    seconds. `turn`: how often there were any."""

    account: str
    until: int | None = None
    late: frozenset[int] = frozenset()
    turn: int = 0


class Register:
    """The partition `accounts` of the Rollups table. Everything here raises StoreUnavailableError."""

    def __init__(self, client: Callable[[], "DynamoDBClient"], table: str) -> None:
        self._client, self._table = client, table
        self._known: set[str] = set()

    def entries(self) -> Iterator[Entry]:
        """All, ascending by account."""
        pages = self._client().get_paginator("query")
        with store.answering(self._table):
            for page in pages.paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": _PARTITION}},
                ConsistentRead=True,
            ):
                yield from map(_entry, page["Items"])

    def add(self, account: str) -> None:
        """Nothing changes where it is known. A process asks once an account."""
        if account in self._known:
            return
        client = self._client()
        with store.answering(self._table), suppress(client.exceptions.ConditionalCheckFailedException):
            client.put_item(TableName=self._table, Item=_key(account), ConditionExpression="attribute_not_exists(pk)")
        self._known.add(account)

    def late(self, account: str, at: float) -> None:
        """A record of `at` (Unix seconds) is in the ledger, and its hour is to be made anew. Any number of times."""
        with store.answering(self._table):
            self._client().update_item(
                TableName=self._table,
                Key=_key(account),
                UpdateExpression="ADD late :hour, turn :one",
                ExpressionAttributeValues={":hour": {"NS": [str(int(at) // _HOUR * _HOUR)]}, ":one": {"N": "1"}},
            )

    def renewed(self, entry: Entry, until: int, *, late: bool) -> bool:
        """The account is right until then, and `late` says whether its late hours are, too. False where it has had
        others since the entry was read: then nothing is changed, because these may be the same hours."""
        client = self._client()
        values: dict[str, Any] = {":until": {"N": str(until)}, ":turn": {"N": str(entry.turn)}}
        unturned = "" if entry.turn else "attribute_not_exists(turn) OR "
        with store.answering(self._table):
            try:
                client.update_item(
                    TableName=self._table,
                    Key=_key(entry.account),
                    UpdateExpression="SET #until = :until" + (" REMOVE late" if late else ""),
                    ConditionExpression=f"{unturned}turn = :turn",
                    ExpressionAttributeNames={"#until": "until"},
                    ExpressionAttributeValues=values,
                )
            except client.exceptions.ConditionalCheckFailedException:
                return False
        return True


def _key(account: str) -> dict[str, Any]:
    return {"pk": {"S": _PARTITION}, "sk": {"S": account}}


def _entry(item: dict[str, Any]) -> Entry:
    until = item.get("until")
    return Entry(
        item["sk"]["S"],
        int(until["N"]) if until else None,
        frozenset(map(int, item.get("late", {"NS": []})["NS"])),
        int(item.get("turn", {"N": "0"})["N"]),
    )
