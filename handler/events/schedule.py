"""The door of the hourly event: what has closed is summed once more, and then worked on."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from handler.billing.recount import begin
from handler.billing.renewal import Renewal, Renewed

log = logging.getLogger(__name__)

_HOUR = 3600
_SPARE_S = 15.0  # of the function's time, for what has been begun when the deadline comes
_SHARE = 2 / 3  # of the rest, for the renewal: what it does not reach is first next time, and jobs must come, too

Job = Callable[[int, float, Renewed], object]
"""Work on closed hours: called with a moment (Unix seconds) by which they have ended, an hour ago or more, with one of
time.monotonic(), by which to end: what is left then comes with the next hour, and with whose rollups of those hours are
right. It must not matter whether it is done twice, at once, or for several hours."""


class Schedule:
    """All closed hours of each account are made to be what the ledger says; then come the jobs."""

    def __init__(self, renewal: Renewal, jobs: Sequence[Job] = ()) -> None:
        self._renewal, self._jobs = renewal, jobs

    def __call__(self, event: Mapping[str, Any], context: Any) -> None:
        """Raises what went wrong, after all else is done: AWS sends the event again, which begins with what is left."""
        now, left = time.monotonic(), _left(context)
        closed = begin("1h", int(datetime.fromisoformat(event["time"]).timestamp()))
        renewed = self._renewal(closed, now + left * _SHARE)
        errors = _each(self._jobs, lambda job: job(closed - _HOUR, now + left, renewed))
        if errors := [*renewed.errors, *errors]:
            raise ExceptionGroup("closed hours", errors)
        log.info("closed hours: %d jobs done", len(self._jobs))


def _each(things: Sequence[Any], call: Callable[[Any], object]) -> list[Exception]:
    errors = []
    for thing in things:
        try:
            call(thing)
        except Exception as error:
            errors.append(error)
    return errors


def _left(context: Any) -> float:
    left = math.inf if context is None else context.get_remaining_time_in_millis() / 1000
    return float(left) - _SPARE_S
