"""Whom an API key stands for: the Keys table, looked up with a short memory.

`python -m handler.billing.keys` is the operator's tool (keytool.py).
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handler import store
from handler.billing.accounts import PREFIX, Accounts, limits_of
from handler.billing.keytext import digest as digest
from handler.billing.keytext import make as make
from handler.billing.keytext import well_formed as well_formed
from handler.contract.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

ROLES = ("inference", "admin")

FOUND_S, _MISSING_S, _STALE_S = 60, 5, 600
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Caller:
    """Who a request is billed to, and what it may use: its key, and all keys of its account together."""

    account: str
    key_id: str
    role: str
    limits: Limits = NO_LIMITS
    account_limits: Limits = NO_LIMITS


_NEVER: tuple[float, Caller | None, float] = (float("-inf"), None, 0)


class Keys:
    """The callers that keys stand for. A key found is remembered for 60 s, the longest that a revocation takes; one not
    found for 5.

    Where the table cannot be reached, keys seen in the last 10 minutes are served all the same.
    """

    def __init__(
        self, client: Callable[[], "DynamoDBClient"], table: str, clock: Callable[[], float] = time.time
    ) -> None:
        # By the wall clock, because the clocks of a frozen process stand still.
        self._client, self._table, self._clock = client, table, clock
        self._accounts = Accounts(client, table)
        self._seen: dict[str, tuple[float, Caller | None, float]] = {}
        self._named: tuple[float, dict[str, Caller]] = float("-inf"), {}
        self._unknown: dict[str, float] = {}  # ids of no key → when they were looked for
        self._lock = threading.Lock()

    def remembered(self, clear: str) -> Caller | None:
        """The caller of a key found in the last 60 s; None says nothing of any other key. Never waits."""
        (seen, caller, until), now = self._seen.get(digest(clear), _NEVER), self._clock()
        return caller if now - seen < FOUND_S and now < until else None

    def find(self, clear: str) -> Caller | None:
        """The caller a key stands for; None if it is unknown, revoked or expired. Raises StoreUnavailableError."""
        if not well_formed(clear):
            return None
        hashed, now = digest(clear), self._clock()
        seen, caller, until = self._seen.get(hashed, _NEVER)
        if caller and now >= until:
            return None
        if now - seen < (FOUND_S if caller else _MISSING_S):
            return caller
        try:
            found, until = self._read(hashed)
        except store.StoreUnavailableError:
            if caller and now - seen < _STALE_S:
                return caller
            raise
        if now >= until:
            found = None
        with self._lock:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[hashed] = now, found, until
        return found

    def behind(self, hashed: str) -> Caller | None:
        """The caller of a key by its SHA-256, whether it has ended or not. Raises StoreUnavailableError."""
        seen, caller, _ = self._seen.get(hashed, _NEVER)
        if caller is None or self._clock() - seen >= FOUND_S:
            caller, _ = self._read(hashed)
        return caller

    def named(self, key_id: str) -> Caller | None:
        """The caller of a key that has not ended, by its id. All keys are read for it, and remembered for 60 s; an id
        that is none's, for 5. Raises StoreUnavailableError."""
        now = self._clock()
        if now - self._unknown.get(key_id, float("-inf")) < _MISSING_S:
            return None
        if now - self._named[0] >= FOUND_S or key_id not in self._named[1]:
            with store.answering(self._table):
                limits = dict(self._accounts.list())
                callers = {
                    item["key_id"]["S"]: caller_of(item, limits.get(item["account"]["S"], NO_LIMITS))
                    for item in items(self._client(), self._table)
                    if now < _until(item)
                }
            self._named = now, callers
            if key_id not in callers:
                if len(self._unknown) >= _REMEMBERED:
                    self._unknown.clear()
                self._unknown[key_id] = now
        return self._named[1].get(key_id)

    def of_account(self, account: str) -> Caller:
        """All of an account, without a key. Raises StoreUnavailableError."""
        with store.answering(self._table):
            return Caller(account, "none", "inference", NO_LIMITS, self._accounts.limits(account))

    def warm(self) -> None:
        """Make the client and its connection before the first request has to; a table out of reach is only logged."""
        try:
            self._read(digest(""))
        except store.StoreUnavailableError as error:
            log.warning("Keys table out of reach: %s", error)

    def _read(self, hashed: str) -> tuple[Caller | None, float]:
        """The caller, and until when it is one."""
        with store.answering(self._table):
            item = self._client().get_item(TableName=self._table, Key={"hash": {"S": hashed}}).get("Item")
            if item is None:
                return None, float("inf")
            embeds = item["role"]["S"] == "inference"
            return caller_of(item, self._accounts.limits(item["account"]["S"]) if embeds else NO_LIMITS), _until(item)


def items(client: "DynamoDBClient", table: str) -> Iterator[Mapping[str, Any]]:
    """Every key's item, in the table's order. Raises botocore's errors."""
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        yield from (item for item in page["Items"] if not item["hash"]["S"].startswith(PREFIX))


def caller_of(item: Mapping[str, Any], account_limits: Limits = NO_LIMITS) -> Caller:
    account, key_id, role = (item[part]["S"] for part in ("account", "key_id", "role"))
    return Caller(account, key_id, role, limits_of(item), account_limits)


def _until(item: Mapping[str, Any]) -> float:
    """When a key ends, in Unix seconds."""
    return 0.0 if "revoked" in item else float(item["expires"]["N"]) if "expires" in item else float("inf")


if __name__ == "__main__":
    from handler.billing import keytool

    sys.exit(keytool.main())
