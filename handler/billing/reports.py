"""Usage and costs, from the rollups to what is answered.

`python -m handler.billing.reports` makes invoices, and exports the ledger (invoicetool.py).
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from handler.billing.accounts import ALL_ACCOUNTS
from handler.billing.buckets import WIDTHS, Bucket, Group, Sums
from handler.billing.keys import Caller
from handler.billing.rollups import Rollups
from handler.contract import errors, pages
from handler.contract.pages import Label
from handler.contract.usage import Query

# Of a page, whatever the door: none is over 450 bytes in a function URL's answer, which holds 6 MB.
MOST_RESULTS = 10_000
_AT_ONCE = 8  # accounts that are read at the same time, for a key that sees all of them
_DAY = WIDTHS["1d"]


class Reports:
    """What callers may see of the rollups: an account its own, account `*` all. `clock` in Unix seconds.

    Each width of buckets is read from the rollups of that width: one query of an account's for a page, two across the
    end of their partition. All calls raise StoreUnavailableError.
    """

    def __init__(self, rollups: Rollups, clock: Callable[[], float] = time.time) -> None:
        self._rollups, self._clock = rollups, clock

    def page(self, query: Query, account: str) -> bytes:
        """The body of a page. One with many results ends before its limit, and the next goes on; raises 400 where a
        single bucket has too many."""
        start, stop = query.start, query.buckets.stop if query.buckets else query.start
        found: dict[int, dict[Label, Sums]] = {each: {} for each in query.buckets}
        results = 0

        def read(name: str) -> list[Bucket]:
            return list(self._rollups.read(name, query.width, start, min(stop, int(self._clock()) + query.seconds)))

        accounts = [name for name in self._accounts(account) if query.admits(project_ids=name)]
        for name, buckets in _each(accounts, read):
            for bucket in buckets:
                sums = found.get(bucket.start)
                if sums is None:  # given up since it was read
                    continue
                results -= len(sums)
                for group, used in bucket.groups.items():
                    if used != Sums() and _admitted(query, group):
                        label = _label(query, name, group)
                        sums[label] = sums.get(label, Sums()) + used
                results += len(sums)
            while results > MOST_RESULTS:
                stop -= query.seconds
                if stop == start:
                    raise errors.REPORT_TOO_LARGE.error(param="group_by", most=MOST_RESULTS, start=start)
                results -= len(found.pop(stop))
        return pages.page(query, found)

    def own(self, caller: Caller, days: int) -> bytes:
        """The body of a key's own usage, an admin key's is its account's: so many days, today the last of them."""
        tomorrow = (int(self._clock()) // _DAY + 1) * _DAY
        models, daily = defaultdict[str, Sums](Sums), defaultdict[str, Sums](Sums)

        def read(name: str) -> list[Bucket]:
            return list(self._rollups.read(name, "1d", tomorrow - days * _DAY, tomorrow))

        for _, buckets in _each(self._accounts(caller.account), read):
            for bucket in buckets:
                date = f"{datetime.fromtimestamp(bucket.start, UTC):%Y-%m-%d}"
                for group, used in bucket.groups.items():
                    if used != Sums() and (caller.role == "admin" or group.key_id == caller.key_id):
                        models[group.model] += used
                        daily[date] += used
        return pages.own(days, models, daily, sum(daily.values(), Sums()))

    def _accounts(self, account: str) -> list[str]:
        return self._rollups.accounts() if account == ALL_ACCOUNTS else [account]


def _each(accounts: Sequence[str], read: Callable[[str], list[Bucket]]) -> Iterator[tuple[str, list[Bucket]]]:
    """Each account with what is read of it, a few of them at once and no more than these in memory."""
    with ThreadPoolExecutor(_AT_ONCE, "rollups") as pool:
        for first in range(0, len(accounts), _AT_ONCE):
            some = accounts[first : first + _AT_ONCE]
            yield from zip(some, pool.map(read, some), strict=True)


def _admitted(query: Query, group: Group) -> bool:
    return query.admits(api_key_ids=group.key_id, models=group.model, line_items=group.line_item)


def _label(query: Query, account: str, group: Group) -> Label:
    by = query.group_by
    return Label(
        account if "project_id" in by else None,
        group.key_id if "api_key_id" in by else None,
        group.model if "model" in by else None,
        group.line_item if "line_item" in by else None,
    )


if __name__ == "__main__":
    from handler.billing import invoicetool

    sys.exit(invoicetool.main())
