"""The hourly correction: each month of the Limits table is set to what the ledger has of it, and what is on its way.

    month := sums of its hours that are closed + what its fields of hours that are not closed hold

A field of an hour holds what was counted in it and may not be in the ledger's sums yet; an hour is closed once it has
been over for an hour. So whatever put a month ahead is taken off, be it refused, failed, or counted twice, and whatever
it lacks is added, such as what was used before there was a limit.

One update subtracts the difference, found from a reading of the item, and drops the fields of closed hours. What is
counted after the reading is in the month and in a field that is not closed, and stays. The update's condition is that
nobody has summed the month since that reading: twice, two at once, or an answer that is lost change nothing.

No month is ever behind, because a record is in the sums of its own hour before that in which it was counted is closed.
A record that comes to the ledger later than that is counted once more, in an hour that is not closed (`Counters.late`);
that of a shard, whose function has ended between its result and its record, is lacking until it is there. A shard's
hours are one and the same (`Counters.take`). A message's own may be closed long before that in which it is counted:
it is in the month twice until the other is, too.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from handler import logs
from handler.billing import fields
from handler.billing.buckets import EXACT, WIDTHS, Sums
from handler.billing.months import Month
from handler.billing.recount import Recount
from handler.billing.renewal import Renewed
from handler.store import StoreUnavailableError, answering

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

METRIC = "UncorrectedLimits"
_PARTS = 16  # of the table, read one after the other, from another one on every hour: none is always the last
_HOUR, _DAY = WIDTHS["1h"], WIDTHS["1d"]
_REMEMBERED = 50_000  # sums of a key in a month


class Corrections:
    """The Limits table. `function`: this one's name, by which its metric is told from others'; `clock` in Unix seconds.

    The rollups of closed hours have to be whole (renewal.py); of an account that is not known yet, they are made here.
    `waiting`: how many records are on their way to the ledger; one of a closed hour would be missing in the sums.
    """

    def __init__(
        self,
        client: Callable[[], "DynamoDBClient"],
        table: str,
        recount: Recount,
        function: str,
        clock: Callable[[], float] = time.time,
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        self._client, self._table, self._recount = client, table, recount
        self._function, self._clock, self._waiting = function, clock, waiting

    def __call__(self, until: int, deadline: float = math.inf, renewed: Renewed = Renewed()) -> int:  # noqa: B008
        """Correct each month that needs it; how many there were. Hours that have ended by `until` (Unix seconds) are
        closed. What is not reached by `deadline`, of time.monotonic(), or not taken by DynamoDB, is left to the next
        run: a line that is a metric says how many items those are, about. So is what belongs to an account that is
        behind, and everything while records wait.

        Raises StoreUnavailableError where the table cannot be read, or what waits is not known.
        """
        if until < self._clock() - _DAY:  # hours that were not closed then may have been forgotten by now (fields.py)
            log.warning("correction: the event is over a day late, everything is left to the next one")
            return 0
        if waiting := self._waiting():
            log.warning("correction: %d records wait to be written, everything is left to the next run", waiting)
            self._tell(waiting)
            return 0
        read, done, left, sums = 0, 0, 0, _Sums(self._recount, until, renewed)
        for number, item in self._items(until // _HOUR):
            if time.monotonic() >= deadline:
                left += max(1, read * (_PARTS - 1 - number) // (number + 1))
                break
            read += 1
            try:
                done += sum(self._correct(item, month, sums) for month in _months(item))
            except (StoreUnavailableError, ValueError) as error:
                left += 1
                log.warning("correction: %s is left to the next run: %s", item["id"]["S"], error)
        log.info("correction: %d items read, %d months corrected, %d items left", read, done, left)
        if left:
            self._tell(left)
        return done

    def _tell(self, left: int) -> None:
        sys.stdout.write(f"{logs.metric(METRIC, left, self._function)}\n")
        sys.stdout.flush()

    def _items(self, first: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """All items, each with how many parts of the table have been read before its own."""
        pages = self._client().get_paginator("scan")
        for number in range(_PARTS):
            part = (first + number) % _PARTS
            with answering(self._table):
                for page in pages.paginate(
                    TableName=self._table, ConsistentRead=True, Segment=part, TotalSegments=_PARTS
                ):
                    for item in page["Items"]:
                        yield number, item

    def _correct(self, item: Mapping[str, Any], month: str, sums: "_Sums") -> bool:
        """Whether this call has done it."""
        closed, on_its_way = list[str](), {"tokens": Decimal(0), "usd": Decimal(0)}
        for name, end in fields.hours(item, month):
            if end <= sums.until:
                closed.append(name)
            else:
                on_its_way[name.partition("@")[0]] += Decimal(item[name]["N"])
        mark, seen = f"summed@{month}", item.get(f"summed@{month}")
        if seen and (int(seen["N"]) >= sums.until or not (closed or month == fields.month(sums.until - 1))):
            return False
        recorded = sums.of(item["id"]["S"], item["account"]["S"], month)
        differs = False
        names = {"#tokens": f"tokens@{month}", "#usd": f"usd@{month}", "#summed": mark}
        values = {":until": {"N": str(sums.until)}, ":none": {"N": "0"}}
        for unit, sum_ in (("tokens", Decimal(recorded.tokens)), ("usd", recorded.cost)):
            counted = Decimal(item.get(f"{unit}@{month}", values[":none"])["N"])
            ahead = EXACT.subtract(counted, EXACT.add(sum_, on_its_way[unit]))
            values[f":{unit}"] = {"N": f"{ahead:f}"}
            differs = differs or bool(ahead)
        if seen and not closed and not differs:
            return False  # nor would the next reading be any other
        drop = {f"#{number}": name for number, name in enumerate(closed)}
        since = "#summed = :seen" if seen else "attribute_not_exists(#summed)"
        client = self._client()
        with answering(self._table), suppress(client.exceptions.ConditionalCheckFailedException):
            client.update_item(
                TableName=self._table,
                Key={"id": item["id"]},
                UpdateExpression=(
                    "SET #tokens = #tokens - :tokens, #usd = if_not_exists(#usd, :none) - :usd, #summed = :until"
                    + (f" REMOVE {', '.join(drop)}" if drop else "")
                ),
                # Forgotten meanwhile is not made anew.
                ConditionExpression=f"{since} AND attribute_exists(#tokens)",
                ExpressionAttributeNames=names | drop,
                ExpressionAttributeValues=values | ({":seen": seen} if seen else {}),
            )
            return True
        return False  # by another, or by an attempt of this one whose answer was lost


def _months(item: Mapping[str, Any]) -> list[str]:
    whens = (name.removeprefix("tokens@") for name in item if name.startswith("tokens@"))
    return [when for when in whens if len(when) == fields.MONTH]


class _Sums:
    """What the ledger has of a month's closed hours, by key and account; each account's month is read once."""

    def __init__(self, recount: Recount, until: int, renewed: Renewed) -> None:
        self._recount, self.until, self._renewed = recount, until, renewed
        self._months: dict[tuple[str, str], dict[str, Sums]] = {}
        self._held = 0

    def of(self, owner: str, account: str, month: str) -> Sums:
        """`owner`: an item's id, `key#…` or `account#…`. Raises StoreUnavailableError, or ValueError for a record that
        cannot be read, or of an account that is behind."""
        if account in self._renewed.behind:
            raise ValueError(f"the rollups of {account} are behind the ledger")
        sums = self._months.get((account, month))
        if sums is None:
            if self._held >= _REMEMBERED:
                self._months.clear()
                self._held = 0
            sums = self._months[account, month] = self._read(account, Month.parse(month))
            self._held += len(sums)
        return sums.get(owner, Sums())

    def _read(self, account: str, month: Month) -> dict[str, Sums]:
        start, end = month.start, min(month.end, self.until)
        if account not in self._renewed.whole and start < end:
            # The stream has told of no record of it yet, or lost it; from the next hour on it is renewed with others.
            self._recount.hours(account, start, end)
            self._recount.rollups.register.add(account)
        midnight, rollups = max(start, end // _DAY * _DAY), self._recount.rollups
        sums: dict[str, Sums] = {}
        for bucket in chain(rollups.read(account, "1d", start, midnight), rollups.read(account, "1h", midnight, end)):
            for group, used in bucket.groups.items():
                for owner in (f"key#{group.key_id}", f"account#{account}"):
                    sums[owner] = sums.get(owner, Sums()) + used
        return sums
