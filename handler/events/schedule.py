"""The door of the hourly event: what has closed is summed once more, and then worked on."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from handler.billing.recount import Recount, begin
from handler.billing.rollups import Rollups

log = logging.getLogger(__name__)

_HOUR = 3600

Job = Callable[[int], object]
"""Work on closed hours: called with a moment (Unix seconds) by which they have ended, an hour ago or more. The rollups
of those hours are right. It must not matter whether it is done twice, or for several hours at once."""


class Schedule:
    """The last two closed hours of every account that has rollups are made anew of the ledger, should the stream ever
    have dropped something; then come the jobs."""

    def __init__(self, recount: Recount, rollups: Rollups, jobs: Sequence[Job] = ()) -> None:
        self._recount, self._rollups, self._jobs = recount, rollups, jobs

    def __call__(self, event: Mapping[str, Any], _context: object) -> None:
        """Raises what went wrong, after all else is done: AWS sends the event again. Where sums could not be made, no
        job is begun, because it would rely on them."""
        closed = begin("1h", int(datetime.fromisoformat(event["time"]).timestamp()))
        accounts = self._rollups.accounts()
        self._each(accounts, lambda account: self._recount.hours(account, closed - 2 * _HOUR, closed))
        self._each(self._jobs, lambda job: job(closed - _HOUR))
        log.info("the last two hours of %d accounts summed again, %d jobs done", len(accounts), len(self._jobs))

    @staticmethod
    def _each(things: Sequence[Any], call: Callable[[Any], object]) -> None:
        errors = []
        for thing in things:
            try:
                call(thing)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("closed hours", errors)
