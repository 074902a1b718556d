"""What keys and accounts with limits have used: counters in DynamoDB, shared by all instances, none for the others.

Each key and account has an item; fields.py says what is in it.
"""

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from handler.billing import fields
from handler.billing.buckets import cost
from handler.billing.keys import Caller
from handler.billing.records import Record
from handler.contract import errors
from handler.contract import limits as wire
from handler.contract.errors import ApiError
from handler.contract.limits import NO_LIMITS, Demand, Limits, Used
from handler.store import StoreUnavailableError, answering, reason

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

Item = dict[str, Any]


@dataclass(frozen=True)
class _Count:
    """A field of the item, what a request adds to it, and what it may come to."""

    field: str
    amount: Decimal | int
    limit: Decimal | int | None = None


class Counters:
    """The Limits table; `clock` in Unix seconds. Without a table's name, callers that have limits are refused."""

    def __init__(
        self, client: Callable[[], "DynamoDBClient"], table: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._client, self._table, self._clock = client, table, clock

    def take(self, caller: Caller, demand: Demand) -> dict[str, str]:
        """Count a request in the minute that it is now and the month of its record, if all limits of its key have room,
        and then those of its account; the answer's headers, which tell of the tighter of two limits.

        Raises a 429, or StoreUnavailableError; what an account's limit refuses has counted on its key, nothing else
        that is refused has counted. What was counted stays: where an answer of DynamoDB's is lost, botocore's second
        attempt counts again, so that a counter may be ahead and is never behind.
        """
        told: dict[str, str] = {}
        if caller.limits:
            try:
                told = self._count(f"key#{caller.key_id}", caller.account, caller.limits, demand)
            except ApiError as error:
                raise self._quota(caller, demand, error) or error from None
        if caller.account_limits:
            try:
                of_account = self._count(_of(caller.account), caller.account, caller.account_limits, demand)
                told = wire.tighter(told, of_account)
            except ApiError as error:
                error.headers = wire.tighter(told, error.headers)
                raise
        return told

    def late(self, record: Record) -> None:
        """Count a record that has come to the ledger after its hour may have been summed without it: on its key and
        account, where they have its month, until that is summed again. Once too often puts them ahead for as long.

        Raises StoreUnavailableError: then it may have been counted or not.
        """
        at, now = record.work.time.timestamp(), self._clock()
        if not self._table or not fields.closed(at, now):
            return
        demand = Demand(record.model, record.tokens, cost(record.tokens, record.price), at)
        names, values, adds = _adds(_in_month(NO_LIMITS, demand, now))
        client = self._client()
        for owner in (f"key#{record.key_id}", _of(record.account)):
            with answering(self._table), suppress(client.exceptions.ConditionalCheckFailedException):
                client.update_item(
                    TableName=self._table,
                    Key={"id": {"S": owner}},
                    UpdateExpression=f"ADD {adds}",
                    ConditionExpression="attribute_exists(#0)",
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values,
                )

    def _quota(self, caller: Caller, demand: Demand, refused: ApiError) -> ApiError | None:
        """The 429 of an account whose month is used up: it goes before the key's own, `refused`, where that is of a
        minute. Where the table cannot be read, the key's holds anyway."""
        if refused.problem is errors.QUOTA or not caller.account_limits:
            return None
        now, limits = self._clock(), caller.account_limits
        try:
            with answering(self._table):
                item = self._client().get_item(
                    TableName=self._table, Key={"id": {"S": _of(caller.account)}}, ConsistentRead=True
                )
        except StoreUnavailableError as error:
            log.warning("a key's limit is told, its account's quota is not known: %s", error)
            return None
        used = _used(item.get("Item", {}), _counts(limits, demand, now))
        if final := wire.quota(limits, used, demand):
            final.headers |= wire.tighter(refused.headers, wire.headers(limits, used, now))
        return final

    def _count(self, owner: str, account: str, limits: Limits, demand: Demand) -> dict[str, str]:
        if not self._table:
            raise StoreUnavailableError(f"LIMITS_TABLE is not set, and {owner} has limits")
        from botocore.exceptions import BotoCoreError, ClientError

        client, now = self._client(), self._clock()
        counts = _counts(limits, demand, now)
        key = {"id": {"S": owner}}
        try:
            item = client.update_item(TableName=self._table, Key=key, **_update(counts, account))["Attributes"]
        except client.exceptions.ConditionalCheckFailedException as error:
            old = cast(Item, error.response).get("Item", {})
            raise wire.refusal(limits, _used(old, counts), demand, now) from None
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailableError(reason(error, self._table)) from error
        if past := fields.past(item, now):
            self._forget(key, past)
        return wire.headers(limits, _used(item, counts), now)

    def _forget(self, key: Item, past: list[str]) -> None:
        """Remove fields whose time is over: once a minute, because each minute's first request finds some."""
        from botocore.exceptions import BotoCoreError, ClientError

        names = {f"#{number}": field for number, field in enumerate(past)}
        try:
            self._client().update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression=f"REMOVE {', '.join(names)}",
                ExpressionAttributeNames=names,
            )
        except (BotoCoreError, ClientError) as error:
            log.warning("past minutes stay until the next request: %s", reason(error, self._table))


def _of(account: str) -> str:
    """The item of an account."""
    return f"account#{account}"


def _counts(limits: Limits, demand: Demand, now: float) -> list[_Count]:
    """Those of Used in its order, then the hour's. Those without a limit count too: one that is set later finds what
    the month has had. What no minute limits is a shard's, whose record's hour is that in which it began to be counted:
    there it stays, though the hour turns, and is dropped as the ledger's sums get it."""
    if not demand.by_minute:
        return _in_month(limits, demand, demand.at)
    minute = fields.minute(now)
    return [
        _Count(f"requests@{minute}", 1, limits.requests_per_minute),
        _Count(f"tokens@{minute}", demand.tokens, limits.tokens_per_minute),
        *_in_month(limits, demand, now),
    ]


def _in_month(limits: Limits, demand: Demand, now: float) -> list[_Count]:
    month, hour = fields.month(demand.at), fields.hour(demand.at, now)
    return [
        _Count(f"tokens@{month}", demand.tokens, limits.tokens_per_month),
        _Count(f"usd@{month}", demand.usd, limits.usd_per_month),
        _Count(f"tokens@{hour}", demand.tokens),
        _Count(f"usd@{hour}", demand.usd),
    ]


def _adds(counts: Iterable[_Count]) -> tuple[dict[str, str], dict[str, Any], str]:
    """Of an update, names `#0`, `#1`, …, values, and what follows ADD."""
    names, values, adds = {}, {}, []
    for number, count in enumerate(counts):
        names[f"#{number}"] = count.field
        values[f":amount{number}"] = {"N": f"{Decimal(count.amount):f}"}
        adds.append(f"#{number} :amount{number}")
    return names, values, ", ".join(adds)


def _update(counts: list[_Count], account: str) -> dict[str, Any]:
    """UpdateItem's arguments: all the counts under all their limits, or none. The account is whose rollups correct
    them."""
    names, values, adds = _adds(counts)
    conditions = []
    for number, count in enumerate(counts):
        if count.limit is not None:
            field, room = f"#{number}", f":room{number}"
            values[room] = {"N": f"{Decimal(count.limit) - count.amount:f}"}
            # What is over the limit alone does not fit where nothing has been counted either.
            fits_first = f"attribute_not_exists({field}) OR " if count.amount <= count.limit else ""
            conditions.append(f"({fits_first}{field} <= {room})")
    return {
        "UpdateExpression": f"SET #account = :account ADD {adds}",
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": names | {"#account": "account"},
        "ExpressionAttributeValues": values | {":account": {"S": account}},
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _used(item: Item, counts: list[_Count]) -> Used:
    found = [Decimal(item.get(count.field, {"N": "0"})["N"]) for count in counts]
    *minute, month, usd, _, _ = found
    requests, tokens = minute or (0, 0)
    return Used(int(requests), int(tokens), int(month), usd)
