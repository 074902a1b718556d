"""Rollups made of the ledger, and held against it.

Whatever is set here sums some of the records of its time, and only what sums all of them has the highest number of
records. Who hears of a record reads after it was written, and sets each width before the next is read. So after a day's
last record somebody sums them all, at every width, and what others read before that, and set later, does not stick:
consumers need no order and no lock, and may repeat each other.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from handler import store
from handler.billing.buckets import WIDTHS, Bucket, merged
from handler.billing.minutes import Minutes
from handler.billing.rollups import Rollups
from handler.settings import Settings, required

_NARROWER = {"1h": "1m", "1d": "1h"}
_DAY = WIDTHS["1d"]


def begin(width: str, moment: int) -> int:
    """When the bucket began that a moment falls into; both in Unix seconds."""
    return moment // WIDTHS[width] * WIDTHS[width]


@dataclass(frozen=True)
class Difference:
    """A rollup that is not what the ledger says. `mended`: it has been set, or another has set a newer one."""

    account: str
    width: str
    start: int
    held: Bucket | None
    right: Bucket | None
    mended: bool

    @property
    def what(self) -> str:
        """`missing` and `behind` mend themselves or can be mended. `ahead` of the ledger, and `wrong` about as many
        records as it has, cannot come about while records are never changed or deleted."""
        if self.held is None:
            return "missing"
        if self.right is None or self.held.n > self.right.n:
            return "ahead"
        return "behind" if self.held.n < self.right.n else "wrong"


class Recount:
    """Raises StoreUnavailableError, or ValueError for a record that cannot be read; then what was set is right."""

    def __init__(self, minutes: Minutes, rollups: Rollups) -> None:
        self._minutes, self.rollups = minutes, rollups

    @classmethod
    def open(cls, config: Settings) -> Self:
        """Of the tables that the settings name. Raises SettingError."""
        required(config, "usage_table", "rollups_table")
        minutes = Minutes(store.dynamodb, config.usage_table, ThreadPoolExecutor(32, "partitions"))
        return cls(minutes, Rollups(store.dynamodb, config.rollups_table))

    def bucket(self, account: str, width: str, start: int) -> None:
        """Make one bucket anew: a minute of the ledger, any other of the buckets of the next smaller width."""
        end = start + WIDTHS[width]
        if width == "1m":
            new = list(self._minutes.read(account, start, end))
        else:
            new = [merged(start, self.rollups.read(account, _NARROWER[width], start, end))]
        for bucket in new:
            if bucket.n:
                self.rollups.set(account, width, bucket)

    def hours(self, account: str, start: int, end: int) -> None:
        """Make everything anew that these whole hours are part of. Minutes that are right already, which most are, are
        not written again."""
        minutes = list(self._minutes.read(account, start, end))
        if not minutes:
            return
        held = {bucket.start: bucket.n for bucket in self.rollups.read(account, "1m", start, end)}
        for minute in minutes:
            if held.get(minute.start, 0) < minute.n:
                self.rollups.set(account, "1m", minute)
        for width in _NARROWER:
            for begun in sorted({begin(width, minute.start) for minute in minutes}):
                self.bucket(account, width, begun)

    def day(self, account: str, midnight: int, *, mend: bool) -> Iterator[Difference]:
        """Every rollup of a day that is not what the ledger says, minutes first. Nothing is set unless it is to be
        mended. The ledger is read after the rollups: what is written meanwhile does not put them ahead."""
        held = {
            (width, bucket.start): bucket
            for width in WIDTHS
            for bucket in self.rollups.read(account, width, midnight, midnight + _DAY)
        }
        parts: dict[tuple[str, int], list[Bucket]] = {}
        for minute in self._minutes.read(account, midnight, midnight + _DAY):
            for width in WIDTHS:
                parts.setdefault((width, begin(width, minute.start)), []).append(minute)
        right = {place: merged(place[1], minutes) for place, minutes in parts.items()}
        for place in sorted(held | right, key=lambda place: (WIDTHS[place[0]], place[1])):
            has, should = held.get(place), right.get(place)
            if has == should:
                continue
            mended = mend and should is not None and (has is None or has.n < should.n)
            if mended and should is not None:
                self.rollups.set(account, place[0], should)
            yield Difference(account, *place, has, should, mended)
