"""The door of the hourly event: what has closed is summed once more, and then worked on."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from handler.billing.recount import Recount, begin
from handler.store import StoreUnavailableError

log = logging.getLogger(__name__)

_HOUR = 3600
_SPARE_S = 15.0  # of the function's time, for what has been begun when the deadline comes

Job = Callable[[int, float], object]
"""Work on closed hours: called with a moment (Unix seconds) by which they have ended, an hour ago or more, and with one
of time.monotonic(), by which to end: what is left then comes with the next hour. The rollups of those hours are right.
It must not matter whether it is done twice, at once, or for several hours."""


class Schedule:
    """The last two closed hours of each of `accounts` (who has rollups) are made anew of the ledger, should the stream
    ever have dropped something, and before them all since the last time; then come the jobs."""

    def __init__(self, recount: Recount, accounts: Callable[[], list[str]], jobs: Sequence[Job] = ()) -> None:
        self._recount, self._accounts, self._jobs = recount, accounts, jobs

    def __call__(self, event: Mapping[str, Any], context: Any) -> None:
        """Raises what went wrong, after all else is done: AWS sends the event again. Where sums could not be made, no
        job is begun, because it would rely on them."""
        deadline = _deadline(context)
        closed = begin("1h", int(datetime.fromisoformat(event["time"]).timestamp()))
        accounts = self._accounts()
        since = self._recount.rollups.renewed()
        start = min(closed - 2 * _HOUR, closed if since is None else since - _HOUR)
        while start < closed:
            if time.monotonic() >= deadline:
                log.warning("hours from %s on are left to the next event, and jobs with them", _text(start))
                return
            end = min(start + 2 * _HOUR, closed)
            self._renew(accounts, start, end)
            start = end
        _raise(_each(self._jobs, lambda job: job(closed - _HOUR, deadline)))
        log.info("hours of %d accounts summed again, %d jobs done", len(accounts), len(self._jobs))

    def _renew(self, accounts: Sequence[str], start: int, end: int) -> None:
        """Two hours in a row of each account. Of a store that took nothing at all, they are asked again by the next
        event; of what it did not take from one account, or cannot be read, only while they are among the last two: it
        must not hold up all others for good."""
        errors = _each(accounts, lambda account: self._recount.hours(account, start, end))
        if sum(isinstance(error, StoreUnavailableError) for error in errors) < max(1, len(accounts)):
            self._recount.rollups.set_renewed(end)
        _raise(errors)


def _each(things: Sequence[Any], call: Callable[[Any], object]) -> list[Exception]:
    errors = []
    for thing in things:
        try:
            call(thing)
        except Exception as error:
            errors.append(error)
    return errors


def _raise(errors: Sequence[Exception]) -> None:
    if errors:
        raise ExceptionGroup("closed hours", errors)


def _deadline(context: Any) -> float:
    left = math.inf if context is None else context.get_remaining_time_in_millis() / 1000
    return time.monotonic() + left - _SPARE_S


def _text(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%HZ}"
