"""What keys and accounts with limits have used: counters in DynamoDB, shared by all instances, none for the others.

In the item of a key or an account each minute, hour and month has fields of its own, named after it. So the turn of a
minute needs no reset, and of instances whose clocks differ across it each counts in its own minute: neither is exceeded
or begun anew.

    requests@2026-11-24T12:00   tokens@2026-11-24T12:00      under the limits of a minute
    tokens@2026-11              usd@2026-11                  under the limits of a month
    tokens@2026-11-24T12        usd@2026-11-24T12            what the month has of this hour, for corrections.py
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from handler.billing.keys import Caller
from handler.contract import limits as wire
from handler.contract.errors import ApiError
from handler.contract.limits import Demand, Limits, Used
from handler.store import StoreUnavailableError, reason

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

Item = dict[str, Any]

# How long fields outlive their time. AWS takes no signature of a clock that is over five minutes off, so no two clocks
# are further apart, and no instance removes what another still counts in. Hours are the correction's to remove: where
# it has been away for two days they go without it, before the item grows, and the month stays ahead by what they had.
_APART_S = 600
_UNCORRECTED_S = 2 * 86400
_KEPT_S = {len("2026-11-24T12:00"): _APART_S, len("2026-11-24T12"): _UNCORRECTED_S, len("2026-11"): _UNCORRECTED_S}

# A request whose record is of a time longer past, as a batch's may be, is in no hour's field: that hour may have been
# corrected already, with this record or without it. The month counts it and keeps it.
_LATE_S = 300


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
        """Count a request in the minute and month that it is now, if all limits of its key have room, and then those of
        its account; the answer's headers, which tell of the tighter of two limits.

        Raises a 429, or StoreUnavailableError; what an account's limit refuses has counted on its key, nothing else
        that is refused has counted. What was counted stays: where an answer of DynamoDB's is lost, botocore's second
        attempt counts again, so that a counter may be ahead and is never behind.
        """
        told: dict[str, str] = {}
        for owner, limits in (
            (f"key#{caller.key_id}", caller.limits),
            (f"account#{caller.account}", caller.account_limits),
        ):
            if limits:
                try:
                    told = wire.tighter(told, self._count(owner, caller.account, limits, demand))
                except ApiError as error:
                    error.headers = wire.tighter(told, error.headers)
                    raise
        return told

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
        if past := _past(item, now):
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


def _counts(limits: Limits, demand: Demand, now: float) -> list[_Count]:
    """Those of Used in its order, then the hour's. Those without a limit count too: one that is set later finds what
    the month has had. Hour and month are those of the record: what the correction compares them with is sums of them.
    """
    minute, tokens, usd = _text(now), demand.tokens, demand.usd
    prompt = abs(now - demand.at) <= _LATE_S
    hour = _text(demand.at if prompt else now)[: len("2026-11-24T12")]
    month = hour[: len("2026-11")]
    return [
        _Count(f"requests@{minute}", 1, limits.requests_per_minute),
        _Count(f"tokens@{minute}", tokens, limits.tokens_per_minute),
        _Count(f"tokens@{month}", tokens, limits.tokens_per_month),
        _Count(f"usd@{month}", usd, limits.usd_per_month),
        *([_Count(f"tokens@{hour}", tokens), _Count(f"usd@{hour}", usd)] if prompt else []),
    ]


def _update(counts: Iterable[_Count], account: str) -> dict[str, Any]:
    """UpdateItem's arguments: all the counts under all their limits, or none. The account is whose rollups correct
    them."""
    names, values = {"#account": "account"}, {":account": {"S": account}}
    adds, conditions = [], []
    for number, count in enumerate(counts):
        field, amount, room = f"#{number}", f":amount{number}", f":room{number}"
        names[field] = count.field
        values[amount] = {"N": f"{Decimal(count.amount):f}"}
        adds.append(f"{field} {amount}")
        if count.limit is not None:
            values[room] = {"N": f"{Decimal(count.limit) - count.amount:f}"}
            # What is over the limit alone does not fit where nothing has been counted either.
            fits_first = f"attribute_not_exists({field}) OR " if count.amount <= count.limit else ""
            conditions.append(f"({fits_first}{field} <= {room})")
    return {
        "UpdateExpression": f"SET #account = :account ADD {', '.join(adds)}",
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _used(item: Item, counts: Iterable[_Count]) -> Used:
    requests, tokens, month, usd, *_ = (Decimal(item.get(count.field, {"N": "0"})["N"]) for count in counts)
    return Used(int(requests), int(tokens), int(month), usd)


def _past(item: Item, now: float) -> list[str]:
    """Fields of times that every clock calls past. Times written so compare as text."""
    times = {field: field.partition("@")[2] for field in item if "@" in field}
    return [field for field, when in times.items() if when < _text(now - _KEPT_S[len(when)])[: len(when)]]


def _text(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M}"
