"""What a shard's executions have taken of a month's quota, so that of two the second does not take it anew.

It is kept, where the payer has a quota, in a row of the shard: a moment, of which what they take is counted and their
result recorded, and which lines have been counted. A line is counted once; those of a group once more where a function
ends after they were counted and before that is noted.

Where an execution may last until the hour of that moment is closed, it begins a row of its own: what was counted in the
hour and not recorded by then is taken off the month (billing/corrections.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from handler.batches.rows import Row, Rows, kept, row_key
from handler.billing import fields
from handler.contract.batches import Batch
from handler.payers import Payer

_LASTS_S = 900  # an execution, at most: the Timeout of template.yaml's functions for shards


class Takings:
    """Those of a shard. `payer`: who pays, as of the time of its record. Everything here raises StoreUnavailableError.
    `now`: Unix seconds."""

    def __init__(self, rows: Rows, batch: Batch, shard: int, payer: Payer, now: float) -> None:
        self._rows, self._key = rows, (f"taken#{batch.id}", f"{shard:08}")
        self._at, self._counted = {"N": repr(now)}, set[int]()
        if payer.caller.limits.monthly or payer.caller.account_limits.monthly:
            self._begin(now, row_key(*self._key) | {"at": self._at, "ttl": kept(batch)})
        self.payer = replace(payer, time=datetime.fromtimestamp(float(self._at["N"]), UTC))

    def of(self, lines: Sequence[int]) -> "Lines":
        """Of lines by their place in the shard, ascending."""
        return Lines(self, lines)

    def has(self, line: int) -> bool:
        return line in self._counted

    def note(self, first: int, last: int) -> None:
        """All lines from one to another have been counted, or never will be. Where another execution has begun another
        row, it does not count on it."""
        self._counted.update(range(first, last + 1))
        self._rows.update(
            {
                "Key": row_key(*self._key),
                "UpdateExpression": "ADD #lines :lines",
                "ConditionExpression": "#at = :at",
                "ExpressionAttributeNames": {"#lines": "lines", "#at": "at"},
                "ExpressionAttributeValues": {":lines": {"SS": [f"{first}-{last}"]}, ":at": self._at},
            }
        )

    def _begin(self, now: float, new: Row) -> None:
        row = self._rows.get(*self._key)
        if row is None or fields.closed(float(row["at"]["N"]), now + _LASTS_S):
            self._rows.put(new)
            return
        self._at = row["at"]
        for each in row.get("lines", {"SS": []})["SS"]:
            first, last = map(int, each.split("-"))
            self._counted.update(range(first, last + 1))


class Lines:
    """Which of some lines have been counted: a set of their places among them (`bulk.Counted`)."""

    def __init__(self, takings: Takings, lines: Sequence[int]) -> None:
        self._takings, self._lines = takings, lines

    def __contains__(self, place: int) -> bool:
        return self._takings.has(self._lines[place])

    def update(self, places: Sequence[int]) -> None:
        self._takings.note(self._lines[places[0]], self._lines[places[-1]])
