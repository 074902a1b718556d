"""The fields of an item of the Limits table, each named after a time of its own.

So the turn of a minute needs no reset, and of instances whose clocks differ across it each counts in its own minute:
neither is exceeded or begun anew.

    requests@2026-11-24T12:00   tokens@2026-11-24T12:00      under the limits of a minute
    tokens@2026-11              usd@2026-11                  under the limits of a month
    tokens@2026-11-24T12        usd@2026-11-24T12            what the month has of what was counted in this hour
    tokens@2026-11/2026-12-01T00                             the same, counted after the month was over
    summed@2026-11                                           until when, in Unix seconds, corrections.py has summed it

A month is that of the usage record, which is billed in it; an hour is that in which it was counted, or of a shard of a
batch that of its record, in which its execution began. What came in at
23:59:59 on the last of November and is counted a second later is in November, as its record is, and in an hour of
December: it stays counted until that hour is closed, and by then the record is in the ledger's sums of November.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from handler.billing.buckets import WIDTHS

MINUTE, HOUR, MONTH = (len(text) for text in ("2026-11-24T12:00", "2026-11-24T12", "2026-11"))
APART_S = 600  # AWS takes no signature of a clock that is over five minutes off: no two are further apart
CLOSED_S = 3600  # since an hour's end: longer than a call lasts, and than the sums of its last records take

# How long fields outlive their time: minutes until no clock is in them. Hours are the correction's to remove. Where it
# has been away for two days, they go before the item grows: it asks for none but those that are not closed yet.
# Months as long as a record of theirs may wait in a queue and then in its dead-letter queue; so there are two at most.
_KEPT_S = {MINUTE: APART_S, HOUR: 2 * 86400, MONTH: 28 * 86400}


def minute(now: float) -> str:
    """The minute of a moment (Unix seconds), as fields are named after it."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M}"


def month(at: float) -> str:
    return minute(at)[:MONTH]


def hour(at: float, now: float) -> str:
    """The hour of `now`, of the month of `at`."""
    of, counted = month(at), minute(now)[:HOUR]
    return counted if counted.startswith(of) else f"{of}/{counted}"


def closed(at: float, now: float) -> bool:
    """Whether the hour of `at` is closed at `now`, by whosever clock."""
    width = WIDTHS["1h"]
    return now >= (at // width + 1) * width + CLOSED_S - APART_S


def hours(names: Iterable[str], of: str) -> Iterator[tuple[str, int]]:
    """Those of these fields that are hours of a month, and when each has ended, in Unix seconds."""
    for name in names:
        _, _, when = name.partition("@")
        if when.startswith(of) and len(when) > MONTH and len(when) != MINUTE:
            yield name, int(datetime.fromisoformat(f"{when[-HOUR:]}:00:00+00:00").timestamp()) + WIDTHS["1h"]


def past(names: Iterable[str], now: float) -> list[str]:
    """Those of these fields whose time every clock calls past. Times written so compare as text."""
    times = {name: name.partition("@")[2].rpartition("/")[2] for name in names if "@" in name}
    return [name for name, when in times.items() if when < minute(now - _KEPT_S[len(when)])[: len(when)]]
