"""The hourly correction: what counters of a month are ahead of the ledger by, taken off once an hour is closed.

A counter has counted what was then refused, failed, or counted twice. Once an hour has been over for an hour, nothing
counts in it any more and its records are summed: one update subtracts what its fields have beyond its rollup from the
month, and removes them, on the condition that they still are what they were. So running twice, or two at once, changes
nothing; what is counted meanwhile is in another hour's fields and is not touched.

Whoever calls this has made sure that rollups of closed hours are whole: set anew from the ledger, and no record waiting
in the ledger queue. A rollup that lacks a record would put the month behind by it. An hour that is not corrected in two
days stays as it was counted (limits.py), and is ahead at most.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from handler.billing.buckets import WIDTHS, Bucket, Sums
from handler.store import StoreUnavailableError, reason

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

_HOUR = "1h"
_REMEMBERED = 200  # accounts' hours, of some thousand keys each at most
_CLOSED_S = 3600  # since its end: longer than a call lasts, and than the rollups of its last minute take


class Buckets(Protocol):
    """Rollups, as far as they are needed here."""

    def read(self, account: str, width: str, start: int, end: int) -> Iterator[Bucket]: ...


def correct(
    client: Callable[[], "DynamoDBClient"], table: str, rollups: Buckets, now: float, deadline: float = math.inf
) -> int:
    """Correct all closed hours in the Limits table; how many there were. `now`: Unix seconds; `deadline`, of
    time.monotonic(): what is not reached by then is left to the next hour, and so is what DynamoDB does not take.

    Raises StoreUnavailableError where the table or the rollups cannot be read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    read, done, failed = 0, 0, 0
    totals = _Totals(rollups)
    try:
        for page in client().get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            for item in page["Items"]:
                read += 1
                for hour in _closed(item, now):
                    if time.monotonic() >= deadline:
                        log.warning("correction: out of time after %d items; %d hours corrected", read, done)
                        return done
                    try:
                        done += _correct(client(), table, item, hour, totals)
                    except (BotoCoreError, ClientError) as error:
                        failed += 1
                        log.warning("correction: an hour is left to the next run: %s", reason(error, table))
            log.info("correction: %d items read, %d hours corrected, %d failed", read, done, failed)
    except (BotoCoreError, ClientError) as error:
        raise StoreUnavailableError(reason(error, table)) from error
    return done


def _closed(item: Mapping[str, Any], now: float) -> list[str]:
    """The hours that an item has fields of and that are over for an hour, ascending, as 2026-11-24T12."""
    hours = {field.removeprefix("tokens@") for field in item if field.startswith("tokens@")}
    closed = (hour for hour in hours if len(hour) == len("2026-11-24T12"))
    return sorted(hour for hour in closed if _start(hour) + WIDTHS[_HOUR] + _CLOSED_S <= now)


def _correct(client: "DynamoDBClient", table: str, item: Mapping[str, Any], hour: str, totals: "_Totals") -> bool:
    """Whether this call has done it."""
    recorded = totals.of(item["id"]["S"], item["account"]["S"], _start(hour))
    names, values, sets, removes, conditions = dict[str, str](), dict[str, Any](), [], [], []
    for number, (unit, sum_) in enumerate((("tokens", Decimal(recorded.tokens)), ("usd", recorded.cost))):
        field, month, counted, ahead = f"#hour{number}", f"#month{number}", f":counted{number}", f":ahead{number}"
        names[field] = f"{unit}@{hour}"
        values[counted] = item[names[field]]
        conditions.append(f"{field} = {counted}")
        removes.append(field)
        if (name := f"{unit}@{hour[: len('2026-11')]}") in item:  # a month is kept as long as its hours, and then gone
            names[month] = name
            values[ahead] = {"N": f"{Decimal(values[counted]['N']) - sum_:f}"}
            sets.append(f"{month} = {month} - {ahead}")
    try:
        client.update_item(
            TableName=table,
            Key={"id": item["id"]},
            UpdateExpression=f"{'SET ' if sets else ''}{', '.join(sets)} REMOVE {', '.join(removes)}",
            ConditionExpression=" AND ".join(conditions),
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
        )
    except client.exceptions.ConditionalCheckFailedException:
        return False  # done before, or by another; or by an attempt of this one whose answer was lost
    return True


class _Totals:
    """What the ledger has of an hour, by key and account; each account's hour is read once."""

    def __init__(self, rollups: Buckets) -> None:
        self._rollups = rollups
        self._hour: dict[tuple[str, int], dict[str, Sums]] = {}

    def of(self, owner: str, account: str, start: int) -> Sums:
        """`owner`: an item's id, `key#…` or `account#…`."""
        sums = self._hour.get((account, start))
        if sums is None:
            if len(self._hour) >= _REMEMBERED:
                self._hour.clear()
            sums = self._hour[account, start] = self._read(account, start)
        return sums.get(owner, Sums())

    def _read(self, account: str, start: int) -> dict[str, Sums]:
        sums: dict[str, Sums] = {}
        for bucket in self._rollups.read(account, _HOUR, start, start + WIDTHS[_HOUR]):
            for group, used in bucket.groups.items():
                for owner in (f"key#{group.key_id}", f"account#{account}"):
                    sums[owner] = sums.get(owner, Sums()) + used
        return sums


def _start(hour: str) -> int:
    return int(datetime.fromisoformat(f"{hour}:00:00+00:00").timestamp())
