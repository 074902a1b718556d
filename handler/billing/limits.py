"""What keys with limits have used: counters in DynamoDB, shared by all instances, none for keys without limits.

In a key's item each minute and each month has fields of its own, named after it. So the turn of a minute needs no
reset, and of instances whose clocks differ across it each counts in its own minute: neither is exceeded or begun anew.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from handler.contract import limits as wire
from handler.contract.limits import Limits, Used
from handler.store import StoreUnavailableError, reason

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

Item = dict[str, Any]

# How long fields outlive their time. AWS takes no signature of a clock that is over five minutes off, so no two clocks
# are further apart, and no instance removes what another still counts in.
_APART_S = 600


@dataclass(frozen=True)
class _Count:
    """A field of the item, what a request adds to it, and what it may come to."""

    field: str
    amount: int
    limit: int | None


class Counters:
    """The Limits table; `clock` in Unix seconds. Without a table's name, keys that have limits are refused."""

    def __init__(
        self, client: Callable[[], "DynamoDBClient"], table: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._client, self._table, self._clock = client, table, clock

    def take(self, key_id: str, limits: Limits, tokens: int, model: str) -> dict[str, str]:
        """Count a request in the minute and month that it is now, if all of its limits have room; the answer's headers.

        Raises a 429 and has counted nothing, or StoreUnavailableError. What was counted stays: where an answer of
        DynamoDB's is lost, botocore's second attempt counts again, so that a counter may be ahead and is never behind.
        """
        if not limits:
            return {}
        if not self._table:
            raise StoreUnavailableError(f"LIMITS_TABLE is not set, and {key_id} has limits")
        from botocore.exceptions import BotoCoreError, ClientError

        client, now = self._client(), self._clock()
        counts = _counts(limits, tokens, now)
        key = {"id": {"S": f"key#{key_id}"}}
        try:
            item = client.update_item(TableName=self._table, Key=key, **_update(counts))["Attributes"]
        except client.exceptions.ConditionalCheckFailedException as error:
            old = cast(Item, error.response).get("Item", {})
            raise wire.refusal(limits, _used(old, counts), tokens, model, now) from None
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


def _counts(limits: Limits, tokens: int, now: float) -> tuple[_Count, _Count, _Count]:
    """In the order of Used. Those without a limit count too: one that is set later finds what the month has had."""
    minute = _minute(now)
    return (
        _Count(f"requests@{minute}", 1, limits.requests_per_minute),
        _Count(f"tokens@{minute}", tokens, limits.tokens_per_minute),
        _Count(f"tokens@{minute[:7]}", tokens, limits.tokens_per_month),
    )


def _update(counts: Iterable[_Count]) -> dict[str, Any]:
    """UpdateItem's arguments: all the counts under all their limits, or none."""
    names, values, adds, conditions = {}, {}, [], []
    for number, count in enumerate(counts):
        field, amount, room = f"#{number}", f":amount{number}", f":room{number}"
        names[field] = count.field
        values[amount] = {"N": str(count.amount)}
        adds.append(f"{field} {amount}")
        if count.limit is not None:
            values[room] = {"N": str(count.limit - count.amount)}
            # What is over the limit alone does not fit where nothing has been counted either.
            fits_first = f"attribute_not_exists({field}) OR " if count.amount <= count.limit else ""
            conditions.append(f"({fits_first}{field} <= {room})")
    return {
        "UpdateExpression": f"ADD {', '.join(adds)}",
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _used(item: Item, counts: Iterable[_Count]) -> Used:
    return Used(*(int(item[count.field]["N"]) if count.field in item else 0 for count in counts))


def _past(item: Item, now: float) -> list[str]:
    """Fields of minutes and months that every clock calls past. Times written so compare as text, as far as both go."""
    oldest = _minute(now - _APART_S)
    times = {field: field.partition("@")[2] for field in item if "@" in field}
    return [field for field, when in times.items() if when < oldest[: len(when)]]


def _minute(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M}"
