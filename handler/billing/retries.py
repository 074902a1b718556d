"""An SDK's own repetitions, which carry no key: what they are known by, and the record that has paid for them already.

A client that got no answer sends the request again with a higher `x-stainless-retry-count`. Whichever of its attempts
is recorded first is billed; each of the others, when it comes to be recorded, looks for that record and is excused by
it, once a count. Only attempts that can have been repeated look: a first one that was quick costs nothing.

One call's attempts are one record whatever order they are written in. How many those of several calls with one body in
one window are may depend on it, under any rule that never changes a record: a retry 2, and a retry 1 that came after
it, written with nothing else there, are two for good; but a first attempt that came before both, and is written first,
excuses both. Each record too many stands against an attempt that another call's has excused: of n attempts at k calls,
all within the window and their first ones among them, k to k + (n - k) / 2 are billed.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handler.billing.budget import Budget
from handler.billing.puts import Puts
from handler.billing.records import Item, Record, minute, time_of

_PATIENCE_S = 2.0  # a client is never taken to be more patient than this: a broken connection is repeated at once
_MINUTE = timedelta(minutes=1)
_AT_ONCE = 16  # queries; a retry within the usual window of ten minutes makes eleven


@dataclass(frozen=True)
class Found:
    """`itself`: the record is there already. `excused`: so is its excuse. `older`: records that may excuse it, the best
    first."""

    itself: bool
    excused: bool
    older: list[Item]


def looks(record: Record, until: datetime) -> bool:
    """Whether another attempt at the record's call may have been recorded by that time."""
    attempt = record.work.attempt
    return attempt is not None and (attempt.count > 0 or _slow(record, until))


def find(puts: Puts, record: Record, window: timedelta, until: datetime, budget: Budget) -> Found:
    """What the ledger has of the record's call: attempts before it, if it is not the first, and after it, if it took so
    long that there may be some. Raises StoreUnavailableError."""
    work, attempt = record.work, record.work.attempt
    assert attempt is not None  # noqa: S101  (no other looks)
    came = work.time.astimezone(UTC)
    start = came - window if attempt.count else came
    end = min(until, came + window) if _slow(record, until) else came
    items = _items(puts, record, list(_minutes(start, end)), budget)
    own = record.key()["sk"]
    earlier, later = [], []
    for item in items:
        if "attempt" not in item or item["body"]["S"] != work.hash:
            continue
        count, time = int(item["attempt"]["N"]), time_of(item)
        if count < attempt.count and time <= came:
            earlier.append(item)
        elif count > attempt.count and time >= came:
            later.append(item)
    return Found(
        itself=any(item["sk"] == own for item in items),
        excused=any(item.get("work") == {"S": work.id} for item in items),
        older=[*reversed(earlier), *later],
    )


def _slow(record: Record, until: datetime) -> bool:
    """Whether a client may have given up on it: it looks like half of the client's patience to us at most."""
    attempt = record.work.attempt
    if attempt is None or attempt.patience_s is None:
        return False
    return (until - record.work.time).total_seconds() > min(_PATIENCE_S, attempt.patience_s / 2)


def _minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    each = start.replace(second=0, microsecond=0)
    while each <= end:
        yield each
        each += _MINUTE


def _items(puts: Puts, record: Record, minutes: list[datetime], budget: Budget) -> list[Item]:
    """All items of the record's body in these minutes, ascending."""
    places = [minute(record.account, record.work.hash, each) for each in minutes]
    if len(places) == 1:
        return _query(puts, places[0], budget)
    with ThreadPoolExecutor(min(len(places), _AT_ONCE), "retries") as threads:
        return [item for found in threads.map(lambda place: _query(puts, place, budget), places) for item in found]


def _query(puts: Puts, place: tuple[str, str], budget: Budget) -> list[Item]:
    """All items of one body and minute, ascending."""
    client, (partition, prefix) = puts.client(), place
    items: list[Item] = []
    more: Item = {}
    while True:
        page = budget.call(
            lambda more=more: client.query(  # type: ignore[misc]
                TableName=puts.usage,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
                ExpressionAttributeValues={":pk": {"S": partition}, ":prefix": {"S": prefix}},
                ConsistentRead=True,
                **more,
            ),
            puts.usage,
        )
        items += page["Items"]
        if "LastEvaluatedKey" not in page:
            return items
        more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
