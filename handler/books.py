"""The books as callers may see them: usage and costs. Opened when they are first asked for, because no embedding needs
them."""

from collections.abc import Callable

from handler import store
from handler.billing.keys import Caller
from handler.billing.reports import Reports
from handler.billing.rollups import Rollups
from handler.contract.usage import Query
from handler.reach import within_reach


class Books:
    """The Rollups table. Without its name, every call is a 503."""

    def __init__(self, table: str) -> None:
        self._table, self._reports = table, Reports(Rollups(store.dynamodb, table))

    def page(self, query: Query, caller: Caller) -> bytes:
        """A page of usage or costs of the caller's account. Raises 503, or 400 for a bucket too large to be told."""
        return self._told(lambda: self._reports.page(query, caller.account))

    def own(self, caller: Caller, days: int) -> bytes:
        """What the caller's own key has used, or an admin's account. Raises 503."""
        return self._told(lambda: self._reports.own(caller, days))

    def _told(self, call: Callable[[], bytes]) -> bytes:
        with within_reach("Rollups table"):
            if not self._table:
                raise store.StoreUnavailableError("ROLLUPS_TABLE is not set")
            return call()
