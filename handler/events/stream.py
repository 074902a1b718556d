"""The door of the ledger's stream: what was written says which minutes to sum anew, and nothing else."""

import logging
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

from handler import logs
from handler.billing import minutes
from handler.billing.recount import Recount, begin

log = logging.getLogger(__name__)

METRIC = "IrregularWrites"
_WIDER = {"1m": "1h", "1h": "1d"}
_NAMED = 50  # keys in a line: a log event holds 1 MB, and a thousand more say nothing new

Dirty = dict[tuple[str, int], str]  # account and begin of a bucket → sequence number of the first record that says so


class Stream:
    """The stream of the Usage table, whose view need hold no more than keys. `function`: this one's name, by which its
    metric is told from others'."""

    def __init__(self, recount: Recount, threads: Executor, function: str) -> None:
        self._recount, self._threads, self._function = recount, threads, function

    def __call__(self, event: Mapping[str, Any], _context: object) -> dict[str, list[dict[str, str]]]:
        """Sum anew what records have come into, each minute, hour and day once. The answer names the first record whose
        sums could not be set: AWS sends it and all behind it again, which changes nothing where they could."""
        dirty, irregular = _sorted(event["Records"])
        if irregular:
            self._alarm(irregular)
        failed: set[str] = set()
        width: str | None = "1m"
        while width is not None:
            failed |= self._set(width, dirty)
            if (wider := _WIDER.get(width)) is not None:
                dirty = _widened(dirty, wider)
            width = wider
        return {"batchItemFailures": [{"itemIdentifier": min(failed, key=int)}] if failed else []}

    def _set(self, width: str, dirty: Dirty) -> set[str]:
        """The records of those that failed. One that fails keeps no other from being set: if it never succeeds, AWS
        drops with it all that it was sent with."""

        def attempt(place: tuple[str, int]) -> bool:
            account, start = place
            try:
                self._recount.bucket(account, width, start)
            except Exception:
                log.exception("rollup %s of %s at %d could not be set", width, account, start)
                return False
            return True

        return {dirty[place] for place, done in zip(dirty, self._threads.map(attempt, dirty), strict=True) if not done}

    def _alarm(self, irregular: list[dict[str, Any]]) -> None:
        line = logs.metric(METRIC, len(irregular), self._function, writes=irregular[:_NAMED])
        sys.stdout.write(f"{line}\n")  # in one piece, and not through a logger: see `metric`
        sys.stdout.flush()


def _sorted(records: Iterable[Mapping[str, Any]]) -> tuple[Dirty, list[dict[str, Any]]]:
    """What is dirty; and what cannot have been the service, which only ever adds records: changes, deletions, and items
    that are no records, which no repetition would make any."""
    dirty: Dirty = {}
    irregular: list[dict[str, Any]] = []
    for record in records:
        change, key = record["dynamodb"], record["dynamodb"]["Keys"]
        try:
            place = minutes.of(key) if record["eventName"] == "INSERT" else None
        except ValueError:
            place = None
        if place is None:
            irregular.append({"event": record["eventName"], "key": key})
        else:
            _mark(dirty, place, change["SequenceNumber"])
    return dirty, irregular


def _widened(dirty: Dirty, width: str) -> Dirty:
    wide: Dirty = {}
    for (account, start), number in dirty.items():
        _mark(wide, (account, begin(width, start)), number)
    return wide


def _mark(dirty: Dirty, place: tuple[str, int], number: str) -> None:
    dirty[place] = min(number, dirty.get(place, number), key=int)
