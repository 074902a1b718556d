"""The hourly renewal: each account's closed hours are made of the ledger once more, whatever the stream has told.

An account is taken up where it was left, which is an hour before it was last right. So one that fails, or is not
reached, keeps its hours until they are right, and holds back no other.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from handler.billing import fields
from handler.billing.buckets import WIDTHS
from handler.billing.months import Month
from handler.billing.recount import Recount
from handler.billing.register import Entry

log = logging.getLogger(__name__)

_HOUR, _DAY = WIDTHS["1h"], WIDTHS["1d"]
_AT_ONCE = 4  # accounts, of sixteen queries each at a time: more CPU than the function has

Stretch = tuple[int, int]


@dataclass(frozen=True)
class Renewed:
    """Accounts whose rollups are what the ledger says of all closed hours: `whole`; those of which that is not known:
    `behind`, for a reason among `errors`, or because there was no time. Others are in no rollup."""

    whole: frozenset[str] = frozenset()
    behind: frozenset[str] = frozenset()
    errors: Sequence[Exception] = field(default_factory=tuple)


class Renewal:
    """`entries`: those to be renewed; the register's, unless told."""

    def __init__(self, recount: Recount, entries: Callable[[], Iterable[Entry]] | None = None) -> None:
        self._recount, self._register = recount, recount.rollups.register
        self._entries = entries or self._register.entries
        self._threads = ThreadPoolExecutor(_AT_ONCE, "accounts")

    def __call__(self, closed: int, deadline: float) -> Renewed:
        """All hours that have ended by `closed` (Unix seconds), until `deadline`, of time.monotonic(). Those that have
        waited longest are first. Raises StoreUnavailableError where the register cannot be read."""
        entries = sorted(self._entries(), key=lambda each: each.until or 0)
        outcomes = [*self._threads.map(lambda each: self._account(each, closed, deadline), entries)]
        whole = {entry.account for entry, outcome in zip(entries, outcomes, strict=True) if outcome is True}
        errors = [each for outcome in outcomes if isinstance(outcome, list) for each in outcome]
        behind = {entry.account for entry in entries} - whole
        log.info("renewal: %d accounts are what the ledger says, %d are left", len(whole), len(behind))
        return Renewed(frozenset(whole), frozenset(behind), errors)

    def _account(self, entry: Entry, closed: int, deadline: float) -> bool | list[Exception]:
        """Whether it is whole now; or what went wrong."""
        if not entry.late and entry.until is not None and entry.until >= closed:
            return True  # an event that came before has done it
        if time.monotonic() >= deadline:
            return False
        begin = _first(closed) if entry.until is None else entry.until - _HOUR
        late = [(hour, hour + _HOUR) for hour in sorted(entry.late)]
        errors: list[Exception] = []
        late_missed = [*self._missed(entry.account, late, deadline, errors)]
        missed = [*self._missed(entry.account, _days(begin, closed), deadline, errors)]
        until = missed[0][0] + _HOUR if missed else max(closed, entry.until or 0)
        try:
            kept = self._register.renewed(entry, until, late=not late_missed)
        except Exception as error:
            return [*errors, error]
        return errors or (kept and not late_missed and not missed)

    def _missed(
        self, account: str, stretches: Iterable[Stretch], deadline: float, errors: list[Exception]
    ) -> Iterator[Stretch]:
        """Those that could not be made anew, or not in time."""
        for stretch in stretches:
            if time.monotonic() >= deadline:
                yield stretch
                continue
            try:
                self._recount.hours(account, *stretch)
            except Exception as error:
                log.warning("renewal: %s from %d to %d: %s", account, *stretch, error)
                errors.append(error)
                yield stretch


def _first(closed: int) -> int:
    """Where an account begins that has just become known: with the month in which it may have got limits. An event
    that is over a day late corrects no month (corrections.py)."""
    return Month.parse(fields.month(closed - _DAY)).start


def _days(start: int, end: int) -> Iterator[Stretch]:
    """Of whole hours, parts that are in one day each: as much as is in memory at once."""
    while start < end:
        stop = min((start // _DAY + 1) * _DAY, end)
        yield start, stop
        start = stop
